//! The reader's child process: asks the driver when told to, and says what it hears on standard output.
//!
//! Every program that holds an agent calls [`run_if_asked`] first thing in `main`: the agent starts its own
//! executable again with [`READER_ARGUMENT`]. The child has one thread and no state worth saving, so the
//! agent may leave it where it hangs. It ends by itself when the agent closes its standard input.

use super::nvml::{self, NvmlSource};
use super::wire::{Encoder, READ};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// First argument of the child.
pub const READER_ARGUMENT: &str = "--internal-gpu-reader";
/// Stands for the library where the system finds it.
const DEFAULT_LIBRARY: &str = "-";

/// Arguments of a child.
pub(super) fn arguments(library: Option<&Path>, skip: &[u32], only: Option<u32>) -> Vec<std::ffi::OsString> {
    let skip: Vec<String> = skip.iter().map(u32::to_string).collect();
    vec![
        READER_ARGUMENT.into(),
        library.map_or_else(|| DEFAULT_LIBRARY.into(), |path| path.as_os_str().to_owned()),
        skip.join(",").into(),
        only.map(|index| index.to_string()).unwrap_or_default().into(),
    ]
}

/// Runs the reader if this process was started as one, and says how it ended. Call it before anything else.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != READER_ARGUMENT {
        return None;
    }
    let library = arguments.next().filter(|path| *path != DEFAULT_LIBRARY).map(PathBuf::from);
    let numbers = |list: std::ffi::OsString| -> Vec<u32> {
        list.to_string_lossy().split(',').filter_map(|number| number.parse().ok()).collect()
    };
    let skip = arguments.next().map(numbers).unwrap_or_default();
    let only = arguments.next().map(numbers).unwrap_or_default();
    Some(run(library.as_deref(), &skip, only.first().copied()))
}

fn run(library: Option<&Path>, skip: &[u32], only: Option<u32>) -> ExitCode {
    let mut out = Output { encoder: Encoder::default(), pipe: std::io::stdout() };
    let nvml = match nvml::load(library) {
        Ok(nvml) => nvml,
        Err(error) => return out.end(&error.to_string()),
    };
    let source = match only {
        // All others are left alone.
        Some(only) => {
            let others: Vec<u32> =
                (0..super::reading::GPUS_MAX as u32).filter(|index| *index != only).collect();
            NvmlSource::new(&nvml, &others)
        }
        None => NvmlSource::new(&nvml, skip),
    };
    let mut source = match source {
        Ok(source) => source,
        Err(error) => return out.end(&error.to_string()),
    };
    let mut orders = std::io::stdin().lock();
    let mut order = [0];
    loop {
        match orders.read(&mut order) {
            Ok(1) if order[0] == READ => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // The agent has ended, or wants this child to.
            _ => return ExitCode::SUCCESS,
        }
        let mut broken = false;
        let Output { encoder, pipe } = &mut out;
        let outcome = source.read(encoder, |encoder, index| {
            encoder.begins(index);
            broken |= flush(encoder, pipe).is_err();
        });
        if let Err(error) = outcome {
            return out.end(&error.to_string());
        }
        out.encoder.done(cpu_nanoseconds());
        if broken || flush(&mut out.encoder, &mut out.pipe).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

struct Output {
    encoder: Encoder,
    pipe: std::io::Stdout,
}

impl Output {
    fn end(&mut self, why: &str) -> ExitCode {
        self.encoder.gone(why);
        // If nobody listens any more there is nobody to tell.
        let _ = flush(&mut self.encoder, &mut self.pipe);
        ExitCode::SUCCESS
    }
}

fn flush(encoder: &mut Encoder, pipe: &mut std::io::Stdout) -> std::io::Result<()> {
    let mut pipe = pipe.lock();
    pipe.write_all(&encoder.bytes)?;
    encoder.bytes.clear();
    pipe.flush()
}

fn cpu_nanoseconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (time.tv_sec.max(0) as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.max(0) as u64)
}
