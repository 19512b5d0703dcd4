//! NVIDIA's library as a source: everything it tells, GPU by GPU, in one pass.
//!
//! Runs in the reader's child process, for any of these calls may hang in the driver. The library is loaded
//! at run time; what a GPU does not offer is absent.

mod calls;
mod device;
mod instances;
mod peers;
mod profile;
mod raw;

use super::reading::{DriverInfo, EVENTS_MAX, GPUS_MAX, Sink};
use calls::{Meaning, meaning};
use device::Gpu;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::{Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use peers::Peers;
use std::ffi::OsStr;
use std::path::Path;

/// Where drivers install the library; the second name is there only with development files.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Loads and starts the library.
pub(super) fn load(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    match library {
        Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
        None => {
            let [first, second] = LIBRARIES.map(OsStr::new);
            let load = |name| Nvml::builder().lib_path(name).init();
            load(first).or_else(|error| load(second).map_err(|_| error))
        }
    }
}

/// All GPUs of a node through the library.
pub(super) struct NvmlSource<'nvml> {
    nvml: &'nvml Nvml,
    gpus: Vec<Slot<'nvml>>,
    events: Option<EventSet<'nvml>>,
    peers: Peers,
    introduced: bool,
}

struct Slot<'nvml> {
    gpu: Option<Gpu<'nvml>>,
    /// It hung before; somebody else decides when it is asked again.
    skipped: bool,
}

impl<'nvml> NvmlSource<'nvml> {
    /// Lists the GPUs; `skip` names those that are not to be touched.
    pub(super) fn new(nvml: &'nvml Nvml, skip: &[u32]) -> Result<Self, NvmlError> {
        let count = nvml.device_count()?.min(GPUS_MAX as u32);
        let slot = |index| Slot { gpu: None, skipped: skip.contains(&index) };
        Ok(NvmlSource {
            nvml,
            gpus: (0..count).map(slot).collect(),
            events: None,
            peers: Peers::default(),
            introduced: false,
        })
    }

    /// Reads all GPUs. `begins` hears each number before the GPU is touched.
    ///
    /// # Errors
    /// If the driver is gone: nothing can be read until the library is loaded anew.
    pub(super) fn read<S: Sink>(
        &mut self,
        sink: &mut S,
        mut begins: impl FnMut(&mut S, u32),
    ) -> Result<(), NvmlError> {
        let first = !std::mem::replace(&mut self.introduced, true);
        if first {
            sink.driver(self.introduce());
        }
        for at in 0..self.gpus.len() {
            let index = at as u32;
            let Some(slot) = self.gpus.get_mut(at).filter(|slot| !slot.skipped) else { continue };
            begins(sink, index);
            if let Err(error) = read_gpu(self.nvml, slot, index, sink) {
                if meaning(&error) == Meaning::DriverGone {
                    return Err(error);
                }
                slot.gpu = None;
                sink.failed(index, &error.to_string());
            }
        }
        if first {
            self.events = self.listen();
        }
        self.hear(sink);
        let answered = self.gpus.iter().enumerate().map(|(at, slot)| (at as u32, slot.gpu.as_ref()));
        self.peers.read(sink, answered, begins, |sink, index, peers| sink.peers(index, peers))
    }

    fn introduce(&self) -> DriverInfo {
        let cuda = self.nvml.sys_cuda_driver_version();
        let cuda = cuda.map(|version| {
            format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
        });
        DriverInfo {
            driver: self.nvml.sys_driver_version().unwrap_or_default(),
            nvml: self.nvml.sys_nvml_version().unwrap_or_default(),
            cuda: cuda.unwrap_or_default(),
            gpus: self.gpus.len() as u32,
        }
    }

    /// Registers for critical errors of all GPUs that offer it. A refusal costs the whole set, so that GPU is
    /// left out and the rest starts over.
    fn listen(&self) -> Option<EventSet<'nvml>> {
        let mut refused = Vec::new();
        'again: for _ in 0..=self.gpus.len() {
            let mut set = self.nvml.create_event_set().ok()?;
            for (at, gpu) in
                self.gpus.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.gpu.as_ref()?)))
            {
                if refused.contains(&at) {
                    continue;
                }
                match gpu.device().register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                    Ok(registered) => set = registered,
                    Err(_) => {
                        refused.push(at);
                        continue 'again;
                    }
                }
            }
            return Some(set);
        }
        None
    }

    fn hear(&self, sink: &mut impl Sink) {
        let Some(set) = &self.events else { return };
        for _ in 0..EVENTS_MAX {
            // Nothing waits here: what has not happened yet is for the next reading.
            let Ok(event) = set.wait(0) else { return };
            let Some(XidError::Value(xid)) = event.event_data else { continue };
            if let (Ok(index), Ok(xid)) = (event.device.index(), u32::try_from(xid)) {
                sink.event(index, xid);
            }
        }
    }
}

fn read_gpu<'nvml>(
    nvml: &'nvml Nvml,
    slot: &mut Slot<'nvml>,
    index: u32,
    sink: &mut impl Sink,
) -> Result<(), NvmlError> {
    let new = slot.gpu.is_none();
    let gpu = match &mut slot.gpu {
        Some(gpu) => gpu,
        None => slot.gpu.insert(Gpu::open(nvml, index)?),
    };
    if new {
        sink.describe(gpu.description().clone());
    }
    let changed = gpu.read()?;
    if changed {
        sink.describe(gpu.description().clone());
    }
    sink.reading(gpu.latest());
    Ok(())
}
