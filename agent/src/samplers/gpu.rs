//! `gpu`: NVIDIA GPUs through NVML, under dcgm-exporter's names.
//!
//! The library is loaded at run time. A node without it, or without GPUs, is as good as any other: the
//! sampler then publishes nothing and looks again now and then, for drivers arrive after agents do.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet, Label};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{HostnameLabel, Sampler, SamplerOptions};
use crate::status::{GpuState, GpuStatus};
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

/// Readings between two attempts to load a library that was not there.
const READINGS_BETWEEN_ATTEMPTS: u32 = 60;
/// Where drivers install the library; the second name is there only with development files.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
const MEBIBYTE: f64 = 1_048_576.0;

const NAMES: [&str; 12] = [
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_DEV_MEM_CLOCK",
    "DCGM_FI_DEV_ENC_UTIL",
    "DCGM_FI_DEV_DEC_UTIL",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(GpuSampler {
        library: options.nvml_library.clone(),
        node: options.node.clone(),
        hostname_label: options.hostname_label,
        status: Arc::clone(&options.gpus),
        countdown: 0,
        nvml: None,
        gpus: Vec::new(),
    })
}

struct GpuSampler {
    library: Option<PathBuf>,
    node: String,
    hostname_label: HostnameLabel,
    status: Arc<GpuStatus>,
    countdown: u32,
    nvml: Option<Nvml>,
    gpus: Vec<Option<GroupHandle>>,
}

impl Sampler for GpuSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.nvml.is_none() {
            if self.countdown > 0 {
                self.countdown -= 1;
                return Ok(());
            }
            self.countdown = READINGS_BETWEEN_ATTEMPTS;
            self.load();
        }
        if let Some(nvml) = self.nvml.take() {
            self.sample_all(&nvml, groups);
            self.nvml = Some(nvml);
        }
        Ok(())
    }
}

impl GpuSampler {
    fn sample_all(&mut self, nvml: &Nvml, groups: &mut GroupSet) {
        for index in 0..self.gpus.len() {
            let known = self.gpus[index];
            let outcome = nvml.device_by_index(index as u32).and_then(|device| {
                let handle = match known {
                    Some(handle) => handle,
                    None => {
                        let labels = self.labels(index, &device)?;
                        let columns = NAMES.iter().map(|name| ColumnSpec::plain(*name)).collect();
                        groups.define(format!("gpu/{}", device.uuid()?), labels, columns)
                    }
                };
                self.gpus[index] = Some(handle);
                read(&device, handle, groups)
            });
            // One GPU that fell off the bus must not hide its seven sisters.
            if let Err(error) = outcome
                && let Some(handle) = self.gpus[index].take()
            {
                groups.end(handle);
                tracing::warn!(gpu = index, %error, "A GPU does not answer; its series end");
            }
        }
    }

    fn load(&mut self) {
        let loaded = match &self.library {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
            None => {
                let [first, second] = LIBRARIES.map(OsStr::new);
                let load = |name| Nvml::builder().lib_path(name).init();
                load(first).or_else(|error| load(second).map_err(|_| error))
            }
        };
        let state = match loaded.and_then(|nvml| Ok((nvml.device_count()?, nvml))) {
            Ok((count, nvml)) => {
                let name = |index| nvml.device_by_index(index).and_then(|device| device.name());
                let names = (0..count).map(|index| name(index).unwrap_or_else(|error| error.to_string()));
                let driver = nvml.sys_driver_version().unwrap_or_default();
                let state = GpuState::Loaded { driver, gpus: names.collect() };
                self.gpus = vec![None; count as usize];
                self.nvml = Some(nvml);
                state
            }
            Err(error) => GpuState::NoLibrary { reason: error.to_string() },
        };
        self.status.set(state);
    }

    fn labels(&self, index: usize, device: &Device<'_>) -> Result<Vec<Label>, NvmlError> {
        let minor = device.minor_number().unwrap_or(index as u32);
        let mut labels: Vec<Label> = vec![
            ("gpu".into(), index.to_string()),
            ("UUID".into(), device.uuid()?),
            ("pci_bus_id".into(), device.pci_info()?.bus_id),
            ("device".into(), format!("nvidia{minor}")),
            ("modelName".into(), device.name()?),
        ];
        if matches!(self.hostname_label, HostnameLabel::Old | HostnameLabel::Both) {
            labels.push(("Hostname".into(), self.node.clone()));
        }
        if matches!(self.hostname_label, HostnameLabel::New | HostnameLabel::Both) {
            labels.push(("hostname".into(), self.node.clone()));
        }
        Ok(labels)
    }
}

/// Fills a GPU's columns. What the model does not offer is absent; what it offers but cannot tell now ends
/// the reading, for then the GPU is in trouble.
fn read(device: &Device<'_>, handle: GroupHandle, groups: &mut GroupSet) -> Result<(), NvmlError> {
    let Some(group) = groups.group(handle) else { return Ok(()) };
    if let Some(utilization) = offered(device.utilization_rates())? {
        group.put(0, f64::from(utilization.gpu));
        group.put(1, f64::from(utilization.memory));
    }
    if let Some(memory) = offered(device.memory_info())? {
        group.put(2, (memory.used as f64 / MEBIBYTE).round());
        group.put(3, (memory.free as f64 / MEBIBYTE).round());
        group.put(4, (memory.reserved as f64 / MEBIBYTE).round());
    }
    group.put_some(5, offered(device.temperature(TemperatureSensor::Gpu))?.map(f64::from));
    group.put_some(6, offered(device.power_usage())?.map(|milliwatts| f64::from(milliwatts) / 1_000.0));
    group.put_some(7, offered(device.total_energy_consumption())?.map(|millijoules| millijoules as f64));
    group.put_some(8, offered(device.clock_info(Clock::SM))?.map(f64::from));
    group.put_some(9, offered(device.clock_info(Clock::Memory))?.map(f64::from));
    group.put_some(10, offered(device.encoder_utilization())?.map(|encoder| f64::from(encoder.utilization)));
    group.put_some(11, offered(device.decoder_utilization())?.map(|decoder| f64::from(decoder.utilization)));
    Ok(())
}

fn offered<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::NoPermission) => Ok(None),
        Err(error) => Err(error),
    }
}
