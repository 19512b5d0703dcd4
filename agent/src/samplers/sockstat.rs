//! `sockstat`: sockets in use by protocol, from `/proc/net/sockstat` and `sockstat6`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{ReadBuffer, SharedFile};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let [v4, v6] = options.sockstat.clone();
    let table = |key, file| Table { key, file, group: None };
    Box::new(SockstatSampler { tables: [table("sockstat", v4), table("sockstat6", v6)] })
}

struct SockstatSampler {
    tables: [Table; 2],
}

struct Table {
    key: &'static str,
    file: SharedFile,
    group: Option<GroupHandle>,
}

impl Sampler for SockstatSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        for Table { key, file, group } in &mut self.tables {
            file.read_if_present(|text, file| {
                // Absent where IPv4 or IPv6 is switched off.
                let Some(text) = text else {
                    if let Some(handle) = group.take() {
                        groups.end(handle);
                    }
                    return Ok(());
                };
                let handle = match *group {
                    Some(handle) => handle,
                    None => {
                        let mut columns = Vec::new();
                        each_value(text, |protocol, state, _| {
                            columns.push(ColumnSpec::plain(metric_name(protocol, state)));
                        })
                        .ok_or_else(|| file.malformed("names and numbers do not alternate"))?;
                        *group.insert(groups.define(*key, Vec::new(), columns))
                    }
                };
                let Some(group) = groups.group(handle) else { return Ok(()) };
                let mut column = 0;
                let count = group.columns().len();
                each_value(text, |_, _, value| {
                    group.put(column, value);
                    column += 1;
                })
                .filter(|()| column == count)
                .ok_or_else(|| file.malformed("the fields are not those of the first reading"))
            })?;
        }
        Ok(())
    }
}

/// How many sockets of a protocol such a text says are in use; `None` if it does not say.
pub(super) fn in_use(text: &[u8], protocol: &[u8]) -> Option<f64> {
    let line = scan::lines(text).find_map(|line| line.strip_prefix(protocol)?.strip_prefix(b":"))?;
    let mut fields = Fields::of(line);
    fields.find(|field| *field == b"inuse")?;
    fields.number()
}

fn metric_name(protocol: &[u8], state: &str) -> String {
    format!("node_sockstat_{}_{state}", String::from_utf8_lossy(protocol))
}

/// Calls `visit` with protocol, state and number of each entry; `None` if the text is odd.
fn each_value(text: &[u8], mut visit: impl FnMut(&[u8], &str, f64)) -> Option<()> {
    let page_bytes = rustix::param::page_size() as f64;
    for line in scan::lines(text) {
        let mut fields = Fields::of(line);
        let protocol = fields.next()?.strip_suffix(b":")?;
        while let Some(state) = fields.next() {
            let state = std::str::from_utf8(state).ok()?;
            let value = fields.number()?;
            visit(protocol, state, value);
            if state == "mem" {
                visit(protocol, "mem_bytes", value * page_bytes);
            }
        }
    }
    Some(())
}
