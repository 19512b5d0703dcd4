//! `processes`: how many processes and threads there are, by state. Off by default, as in node_exporter: it
//! reads a file for each thread of the machine.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Paths, Sampler, SamplerOptions};
use crate::scan;
use std::collections::BTreeMap;
use std::path::Path;

/// Threads looked at in one reading; a machine with more than this has other sorrows.
const THREADS_MAX: usize = 1 << 20;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(ProcessSampler { paths: options.paths.clone(), table: Table::default() })
}

struct ProcessSampler {
    paths: Paths,
    table: Table,
}

/// Counts by the kernel's letter for a state.
type States = BTreeMap<char, u32>;

impl Sampler for ProcessSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let folder = &self.paths.procfs;
        let fault = |source| SampleError::Read { path: folder.clone(), source };
        let (mut states, mut thread_states) = (States::new(), States::new());
        let mut pids = 0u32;
        let mut threads = 0usize;
        for entry in std::fs::read_dir(folder).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if !is_number(&entry.file_name().to_string_lossy()) || threads >= THREADS_MAX {
                continue;
            }
            // Processes end while they are looked at.
            let Some(state) = state(&entry.path(), buffer) else { continue };
            pids += 1;
            *states.entry(state).or_default() += 1;
            let Ok(tasks) = std::fs::read_dir(entry.path().join("task")) else { continue };
            for task in tasks.flatten() {
                threads += 1;
                if let Some(state) = self::state(&task.path(), buffer) {
                    *thread_states.entry(state).or_default() += 1;
                }
            }
        }
        let number = |name: &str, buffer: &mut ReadBuffer| -> Result<Option<f64>, SampleError> {
            let mut file = KernelFile::whole(self.paths.proc(name));
            Ok(file.read_if_present(buffer)?.and_then(|text| scan::number(scan::trimmed(text))))
        };
        let mut object = Object::new("processes", Vec::new());
        object.put_plain("node_processes_pids", Some(f64::from(pids)));
        object.put_plain("node_processes_threads", Some(threads as f64));
        object.put_plain("node_processes_max_threads", number("sys/kernel/threads-max", buffer)?);
        object.put_plain("node_processes_max_processes", number("sys/kernel/pid_max", buffer)?);
        for (state, count) in states {
            let column = ColumnSpec::plain("node_processes_state").with("state", state.to_string());
            object.put(column, f64::from(count));
        }
        for (state, count) in thread_states {
            let column =
                ColumnSpec::plain("node_processes_threads_state").with("thread_state", state.to_string());
            object.put(column, f64::from(count));
        }
        self.table.publish(groups, vec![object]);
        Ok(())
    }
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The letter behind the command's name, which is in brackets and may hold anything.
fn state(folder: &Path, buffer: &mut ReadBuffer) -> Option<char> {
    let mut file = KernelFile::whole(folder.join("stat"));
    let text = file.read(buffer).ok()?;
    let bracket = text.iter().rposition(|&byte| byte == b')')?;
    text.get(bracket + 2).map(|&letter| char::from(letter)).filter(char::is_ascii_alphabetic)
}
