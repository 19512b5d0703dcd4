//! `udp_queues`: bytes that wait in the queues of UDP sockets, from `/proc/net/udp` and `udp6`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name| KernelFile::records(options.paths.proc(name));
    Box::new(UdpQueuesSampler { files: [file("net/udp"), file("net/udp6")], group: None })
}

struct UdpQueuesSampler {
    files: [KernelFile; 2],
    group: Option<GroupHandle>,
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
        for (at, file) in self.files.iter_mut().enumerate() {
            // Absent where the protocol is switched off.
            let Some(text) = file.read_if_present(buffer)? else { continue };
            let (mut transmit, mut receive) = (0.0, 0.0);
            for line in scan::lines(text).skip(1) {
                let queues = Fields::of(line).nth(4);
                let sizes = queues.and_then(|queues| {
                    let colon = queues.iter().position(|&byte| byte == b':')?;
                    Some((scan::hexadecimal(&queues[..colon])?, scan::hexadecimal(&queues[colon + 1..])?))
                });
                let (tx, rx) = sizes.ok_or_else(|| file.malformed("a socket's line has no queues"))?;
                transmit += tx as f64;
                receive += rx as f64;
            }
            group.put(2 * at, transmit);
            group.put(2 * at + 1, receive);
        }
        Ok(())
    }
}
