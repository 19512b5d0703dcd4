//! `tcpstat`: TCP connections by state, and bytes that wait in their queues. Off by default, as in
//! node_exporter: the kernel lists every connection.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// States by the kernel's number, which starts at 1.
const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name| KernelFile::records(options.paths.proc(name));
    Box::new(TcpSampler { files: [file("net/tcp"), file("net/tcp6")], table: Table::default() })
}

struct TcpSampler {
    files: [KernelFile; 2],
    table: Table,
}

impl Sampler for TcpSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut states = [0u64; STATES.len()];
        let (mut transmit, mut receive) = (0u64, 0u64);
        for file in &mut self.files {
            let text = file.read_if_present(buffer)?.unwrap_or_default().to_owned();
            for line in scan::lines(&text).skip(1) {
                let (state, queues) =
                    entry(line).ok_or_else(|| file.malformed("a connection lacks fields"))?;
                if let Some(count) = states.get_mut(state) {
                    *count += 1;
                }
                transmit = transmit.saturating_add(queues.0);
                receive = receive.saturating_add(queues.1);
            }
        }
        let mut object = Object::new("tcpstat", Vec::new());
        let column = |state: &str| ColumnSpec::plain("node_tcp_connection_states").with("state", state);
        for (state, count) in STATES.iter().zip(states).filter(|(_, count)| *count > 0) {
            object.put(column(state), count as f64);
        }
        object.put(column("tx_queued_bytes"), transmit as f64);
        object.put(column("rx_queued_bytes"), receive as f64);
        self.table.publish(groups, vec![object]);
        Ok(())
    }
}

/// Index of the state, and bytes waiting to go out and to be read.
fn entry(line: &[u8]) -> Option<(usize, (u64, u64))> {
    let mut fields = Fields::of(line).skip(3);
    let state = scan::hexadecimal(fields.next()?)?.checked_sub(1)? as usize;
    let queues = fields.next()?;
    let colon = queues.iter().position(|&byte| byte == b':')?;
    Some((state, (scan::hexadecimal(&queues[..colon])?, scan::hexadecimal(&queues[colon + 1..])?)))
}
