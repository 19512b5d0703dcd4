//! `udp_queues`: bytes that wait in the queues of UDP sockets, from `/proc/net/udp` and `udp6`.
//!
//! To list sockets the kernel searches a table with room for tens of thousands. Where `/proc/net/sockstat`
//! counts none there is nothing to search for, and nothing waits.

use super::sockstat::in_use;
use crate::error::SampleError;
use crate::group::{ColumnSpec, Group, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer, SharedFile};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name| KernelFile::records(options.paths.proc(name));
    let [count_v4, count_v6] = options.sockstat.clone();
    let v4 = Family { count: count_v4, protocol: b"UDP", sockets: file("net/udp"), listed: false };
    let v6 = Family { count: count_v6, protocol: b"UDP6", sockets: file("net/udp6"), listed: false };
    Box::new(UdpQueuesSampler { families: [v4, v6], group: None })
}

struct UdpQueuesSampler {
    families: [Family; 2],
    group: Option<GroupHandle>,
}

/// The sockets of IPv4 or IPv6.
struct Family {
    /// Tells how many there are.
    count: SharedFile,
    protocol: &'static [u8],
    /// Lists them.
    sockets: KernelFile,
    /// Whether that list is there.
    listed: bool,
}

impl Sampler for UdpQueuesSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            let places = [("tx", "v4"), ("rx", "v4"), ("tx", "v6"), ("rx", "v6")];
            let columns = places
                .map(|(queue, ip)| ColumnSpec::plain("node_udp_queues").with("queue", queue).with("ip", ip));
            groups.define("udp_queues", Vec::new(), columns.into())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        for (at, family) in self.families.iter_mut().enumerate() {
            family.sum_up(buffer, group, 2 * at)?;
        }
        Ok(())
    }
}

impl Family {
    /// Puts what waits to be sent, and what was received, into two columns.
    fn sum_up(&mut self, buffer: &mut ReadBuffer, group: &mut Group, at: usize) -> Result<(), SampleError> {
        let protocol = self.protocol;
        let count = self.count.read_if_present(|text, _| Ok(text.and_then(|text| in_use(text, protocol))))?;
        let (mut transmit, mut receive) = (0.0, 0.0);
        if count != Some(0.0) || !self.listed {
            // Absent where the protocol is switched off.
            let text = self.sockets.read_if_present(buffer)?;
            self.listed = text.is_some();
            let Some(text) = text else { return Ok(()) };
            for line in scan::lines(text).skip(1) {
                let (tx, rx) =
                    queues(line).ok_or_else(|| self.sockets.malformed("a socket's line has no queues"))?;
                transmit += tx as f64;
                receive += rx as f64;
            }
        }
        group.put(at, transmit);
        group.put(at + 1, receive);
        Ok(())
    }
}

/// Both queues of a socket's line, `TX:RX`.
fn queues(line: &[u8]) -> Option<(u64, u64)> {
    let queues = Fields::of(line).nth(4)?;
    let colon = queues.iter().position(|&byte| byte == b':')?;
    Some((scan::hexadecimal(&queues[..colon])?, scan::hexadecimal(&queues[colon + 1..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid\n";
    const SOCKET: &str = "  1: 00000000:0044 00000000:0000 07 00000010:0000000A 00:00000000 00000000 0\n";

    /// What waits in the four queues; `Err` if the list cannot be read.
    fn read(sockstat: &str, udp: &str) -> Result<Vec<Option<f64>>, SampleError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("net")).unwrap();
        std::fs::write(folder.path().join("net/sockstat"), sockstat).unwrap();
        std::fs::write(folder.path().join("net/udp"), HEADING).unwrap();
        let file = |name: &str| folder.path().join("net").join(name);
        let family = |protocol, count: &str, sockets: &str| Family {
            count: SharedFile::whole(file(count)),
            protocol,
            sockets: KernelFile::records(file(sockets)),
            listed: false,
        };
        let families = [family(b"UDP".as_slice(), "sockstat", "udp"), family(b"UDP6", "sockstat6", "udp6")];
        let mut sampler = UdpQueuesSampler { families, group: None };
        let mut groups = GroupSet::default();
        sampler.sample(&mut ReadBuffer::default(), &mut groups).unwrap();
        std::fs::write(file("udp"), udp).unwrap();
        groups.begin();
        sampler.sample(&mut ReadBuffer::default(), &mut groups)?;
        let group = groups.iter().next().unwrap();
        Ok((0..4).map(|at| group.present().contains(at).then(|| group.values()[at])).collect())
    }

    #[test]
    fn queues_of_all_sockets_are_added_up_and_none_are_searched_for_where_there_are_none() {
        let list = format!("{HEADING}{SOCKET}{SOCKET}");
        let counted = |udp: u32| format!("sockets: used 9\nUDPLITE: inuse 0\nUDP: inuse {udp} mem 1\n");
        let two = [Some(32.0), Some(20.0), None, None];
        assert_eq!(read(&counted(2), &list).unwrap(), two);
        assert_eq!(
            read(&counted(0), &format!("{HEADING}not read\n")).unwrap(),
            [Some(0.0), Some(0.0), None, None]
        );
        assert!(read(&counted(1), &format!("{HEADING}odd\n")).is_err());
        // A count that says nothing is no reason to say that nothing waits.
        for odd in ["", "UDP: mem 1\n", "UDP: inuse\n", "UDP: inuse none\n"] {
            assert_eq!(read(odd, &list).unwrap(), two, "{odd:?}");
        }
    }
}
