//! `qdisc`: the queueing discipline of each interface, asked over route netlink. Off by default, as in
//! node_exporter.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Filter, Sampler, SamplerOptions};
use rustix::fd::OwnedFd;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::path::PathBuf;

/// One answer of the kernel comes in pages of at most this.
const PAGE_BYTES: usize = 32 << 10;
/// Pages of one answer.
const PAGES_MAX: usize = 1_024;
const HEADER_BYTES: usize = 16;
/// `struct tcmsg`
const MESSAGE_BYTES: usize = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const FLAGS: u16 = 0x301;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(QdiscSampler {
        folder: options.paths.sys("class/net"),
        filter: options.qdiscs.clone(),
        socket: None,
        page: vec![0; PAGE_BYTES],
        table: Table::default(),
    })
}

struct QdiscSampler {
    folder: PathBuf,
    filter: Filter,
    socket: Option<OwnedFd>,
    page: Vec<u8>,
    table: Table,
}

/// What the kernel says of one root discipline.
#[derive(Clone, Debug, Default, PartialEq)]
struct Qdisc {
    interface: u32,
    kind: String,
    bytes: u64,
    packets: u32,
    length: u32,
    backlog: u32,
    drops: u32,
    requeues: u32,
    overlimits: u32,
}

impl Sampler for QdiscSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let answer = self.ask();
        if answer.is_err() {
            // Half an answer may still wait in the socket.
            self.socket = None;
        }
        let qdiscs = answer.map_err(|error| SampleError::Call { call: "netlink", source: error.into() })?;
        let names = self.interfaces();
        let objects = qdiscs.into_iter().filter_map(|qdisc| {
            let device = names.get(&qdisc.interface)?;
            self.filter.keeps(device).then(|| qdisc.object(device))
        });
        let objects = objects.collect();
        self.table.publish(groups, objects);
        Ok(())
    }
}

impl QdiscSampler {
    fn ask(&mut self) -> rustix::io::Result<Vec<Qdisc>> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                // Route netlink is protocol 0.
                None,
            )?),
        };
        rustix::net::sendto(socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut qdiscs = Vec::new();
        for _ in 0..PAGES_MAX {
            let (length, _) = rustix::net::recv(socket, self.page.as_mut_slice(), RecvFlags::empty())?;
            if read_page(self.page.get(..length).unwrap_or_default(), &mut qdiscs)? {
                break;
            }
        }
        Ok(qdiscs)
    }

    /// Names of interfaces by index.
    fn interfaces(&self) -> HashMap<u32, String> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return HashMap::new() };
        let names = entries.flatten().filter_map(|entry| {
            let index = std::fs::read_to_string(entry.path().join("ifindex")).ok()?;
            Some((index.trim().parse().ok()?, entry.file_name().into_string().ok()?))
        });
        names.collect()
    }
}

impl Qdisc {
    fn object(&self, device: &str) -> Object {
        let labels = vec![("device".into(), device.to_owned()), ("kind".into(), self.kind.clone())];
        let mut object = Object::new(format!("qdisc/{device}/{}", self.kind), labels);
        for (name, value) in [
            ("node_qdisc_bytes_total", self.bytes as f64),
            ("node_qdisc_packets_total", f64::from(self.packets)),
            ("node_qdisc_drops_total", f64::from(self.drops)),
            ("node_qdisc_requeues_total", f64::from(self.requeues)),
            ("node_qdisc_overlimits_total", f64::from(self.overlimits)),
            ("node_qdisc_current_queue_length", f64::from(self.length)),
            ("node_qdisc_backlog", f64::from(self.backlog)),
        ] {
            object.put(ColumnSpec::plain(name), value);
        }
        object
    }
}

fn request() -> [u8; HEADER_BYTES + MESSAGE_BYTES] {
    let mut bytes = [0; HEADER_BYTES + MESSAGE_BYTES];
    bytes[..4].copy_from_slice(&((HEADER_BYTES + MESSAGE_BYTES) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    bytes[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    bytes
}

/// Reads the messages of a page; whether the answer ends with it.
fn read_page(mut page: &[u8], qdiscs: &mut Vec<Qdisc>) -> rustix::io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(page, 0), u16_at(page, 4)) {
        let length = length as usize;
        let Some(body) = page.get(HEADER_BYTES..length) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let errno = u32_at(body, 0).map_or(0, |code| (code as i32).wrapping_neg());
                return if errno == 0 { Ok(true) } else { Err(rustix::io::Errno::from_raw_os_error(errno)) };
            }
            RTM_NEWQDISC => qdiscs.extend(read_qdisc(body)),
            _ => {}
        }
        page = page.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn read_qdisc(body: &[u8]) -> Option<Qdisc> {
    let mut qdisc = Qdisc { interface: u32_at(body, 4)?, ..Qdisc::default() };
    // Only disciplines without a parent: the others' packets are counted there, too.
    const ROOT: u32 = 0xffff_ffff;
    if u32_at(body, 12)? != ROOT {
        return None;
    }
    for (kind, value) in attributes(body.get(MESSAGE_BYTES..)?) {
        match kind {
            TCA_KIND => {
                qdisc.kind = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
            }
            TCA_STATS2 => {
                for (kind, value) in attributes(value) {
                    if kind == TCA_STATS_BASIC {
                        qdisc.bytes = u64::from_ne_bytes(value.get(..8)?.try_into().ok()?);
                        qdisc.packets = u32_at(value, 8)?;
                    } else if kind == TCA_STATS_QUEUE {
                        qdisc.length = u32_at(value, 0)?;
                        qdisc.backlog = u32_at(value, 4)?;
                        qdisc.drops = u32_at(value, 8)?;
                        qdisc.requeues = u32_at(value, 12)?;
                        qdisc.overlimits = u32_at(value, 16)?;
                    }
                }
            }
            _ => {}
        }
    }
    Some(qdisc)
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut qdiscs = Vec::new();
            let _ = read_page(&bytes, &mut qdiscs);
            let _ = read_qdisc(&bytes);
        }
    }
}
