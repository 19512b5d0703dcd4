//! `ipvs`: connections and traffic of the kernel's load balancer, from `/proc/net/ip_vs*`.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet, Label};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

const TOTALS: [&str; 5] = [
    "node_ipvs_connections_total",
    "node_ipvs_incoming_packets_total",
    "node_ipvs_outgoing_packets_total",
    "node_ipvs_incoming_bytes_total",
    "node_ipvs_outgoing_bytes_total",
];
const BACKEND: [&str; 3] = [
    "node_ipvs_backend_weight",
    "node_ipvs_backend_connections_active",
    "node_ipvs_backend_connections_inactive",
];
/// Labels of a backend; `--collector.ipvs.backend-labels` chooses among them.
pub const LABELS: [&str; 6] =
    ["local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name: &str| KernelFile::list(options.paths.proc(name));
    Box::new(IpvsSampler {
        statistics: file("net/ip_vs_stats"),
        services: file("net/ip_vs"),
        labels: options.ipvs_labels.clone(),
        totals: None,
        table: Table::default(),
    })
}

struct IpvsSampler {
    statistics: KernelFile,
    services: KernelFile,
    labels: Vec<String>,
    totals: Option<GroupHandle>,
    table: Table,
}

impl Sampler for IpvsSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let Some(text) = self.statistics.read_if_present(buffer)? else {
            return Err(SampleError::Absent("no IP virtual server"));
        };
        // Two lines of headings, then the sums in hexadecimal.
        let sums = scan::lines(text).nth(2).unwrap_or_default();
        let sums: Vec<f64> = Fields::of(sums).map_while(scan::hexadecimal).map(|sum| sum as f64).collect();
        if sums.len() != TOTALS.len() {
            return Err(self.statistics.malformed("the third line has no five sums"));
        }
        let handle = *self
            .totals
            .get_or_insert_with(|| groups.define("ipvs", Vec::new(), TOTALS.map(ColumnSpec::plain).into()));
        if let Some(group) = groups.group(handle) {
            sums.iter().enumerate().for_each(|(column, sum)| group.put(column, *sum));
        }
        let text = self.services.read_if_present(buffer)?.unwrap_or_default();
        let backends = backends(text, &self.labels);
        let backends = backends.ok_or_else(|| self.services.malformed("a backend's line lacks fields"))?;
        self.table.publish(groups, backends);
        Ok(())
    }
}

/// The backends with the wanted labels; those that these do not tell apart are added up.
fn backends(text: &[u8], wanted: &[String]) -> Option<Vec<Object>> {
    let mut sums: BTreeMap<Vec<String>, [f64; BACKEND.len()]> = BTreeMap::new();
    let mut service = [const { String::new() }; 4];
    // Three lines of headings.
    for line in scan::lines(text).skip(3) {
        let mut fields = Fields::of(line);
        let Some(first) = fields.next() else { continue };
        if first != b"->" {
            let proto = String::from_utf8_lossy(first).into_owned();
            let local = fields.next()?;
            service = if first == b"FWM" {
                [String::new(), "0".to_owned(), proto, String::from_utf8_lossy(local).into_owned()]
            } else {
                let (address, port) = endpoint(local)?;
                [address, port, proto, String::new()]
            };
            continue;
        }
        let (remote_address, remote_port) = endpoint(fields.next()?)?;
        let [address, port, proto, mark] = &service;
        let values = [address, port, &remote_address, &remote_port, proto, mark];
        let key = wanted.iter().map(|name| {
            let at = LABELS.iter().position(|label| label == name);
            at.and_then(|at| values.get(at)).map_or_else(String::new, |value| (*value).clone())
        });
        let sum = sums.entry(key.collect()).or_default();
        // How packets are forwarded stands in between.
        let numbers = fields.skip(1).map(scan::number);
        for (sum, number) in sum.iter_mut().zip(numbers.chain([None; 3])) {
            *sum += number?;
        }
    }
    let object = |(key, sums): (Vec<String>, [f64; BACKEND.len()])| {
        let labels: Vec<Label> =
            wanted.iter().map(|name| name.clone().into()).zip(key.iter().cloned()).collect();
        let mut object = Object::new(format!("ipvs/{}", key.join("/")), labels);
        BACKEND.iter().zip(sums).for_each(|(metric, sum)| object.put_plain(metric, Some(sum)));
        object
    };
    Some(sums.into_iter().map(object).collect())
}

/// `C0A80016:0CEA` or `[FD00:…:0001]:0CEA`: address and port.
fn endpoint(text: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[').and_then(|address| address.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok()?.to_string(),
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).to_string(),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_in_hexadecimal() {
        assert_eq!(endpoint(b"C0A80016:0CEA"), Some(("192.168.0.22".to_owned(), "3306".to_owned())));
        let six = endpoint(b"[FD00:0000:0000:0000:0000:0000:0000:0001]:0050");
        assert_eq!(six, Some(("fd00::1".to_owned(), "80".to_owned())));
        for odd in [&b""[..], b"C0A80016", b"X:1", b"C0A80016:12345"] {
            assert_eq!(endpoint(odd), None);
        }
    }

    #[test]
    fn backends_that_the_labels_do_not_tell_apart_are_added_up() {
        let text = b"a\nb\nc\nTCP  C0A80016:0CEA wlc\n  -> C0A85216:0CEA  Tunnel 100 248 2\n  -> C0A85318:0CEA Tunnel 100 2 1\n";
        assert_eq!(backends(text, &["local_port".to_owned()]).map(|found| found.len()), Some(1));
        assert_eq!(backends(text, &["remote_address".to_owned()]).map(|found| found.len()), Some(2));
        assert!(backends(b"a\nb\nc\nTCP C0A80016:0CEA wlc\n  -> C0A85216:0CEA Tunnel 100\n", &[]).is_none());
    }
}
