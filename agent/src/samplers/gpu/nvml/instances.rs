//! MIG instances of a GPU: which there are, and how each is.

use super::super::metric::{InstanceMetric, InstanceValues};
use super::super::reading::{INSTANCES_MAX, InstanceDescription};
use super::calls::{Calls, Meaning, meaning};
use super::profile::Profile;
use super::raw;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

const MEBIBYTE: f64 = 1_048_576.0;

/// A MIG instance and its handle.
pub(super) struct Instance<'nvml> {
    device: Device<'nvml>,
    profile: Profile<'nvml>,
    pub(super) description: InstanceDescription,
}

/// The MIG instances of a GPU now; none if MIG is off.
pub(super) fn list<'nvml>(
    nvml: &'nvml Nvml,
    device: &Device<'nvml>,
) -> Result<Vec<Instance<'nvml>>, NvmlError> {
    let mut instances = Vec::new();
    for index in 0..device.mig_device_count()?.min(INSTANCES_MAX as u32) {
        let outcome = device.mig_device_by_index(index).and_then(|device| describe(nvml, device));
        match outcome {
            Ok(instance) => instances.push(instance),
            // The numbers have holes where instances were destroyed.
            Err(error) if matches!(meaning(&error), Meaning::NothingNow | Meaning::NotOffered) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(instances)
}

fn describe<'nvml>(nvml: &'nvml Nvml, device: Device<'nvml>) -> Result<Instance<'nvml>, NvmlError> {
    let (gpu_instance, compute_instance) = raw::instance_numbers(nvml, &device)?;
    let name = device.name().unwrap_or_default();
    // "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    let profile = match name.rsplit_once("MIG ") {
        Some((_, profile)) => profile.to_owned(),
        None => device.attributes().map_or_else(
            |_| String::new(),
            |attributes| {
                let gigabytes = (attributes.memory_size_mb as f64 / 1_024.0).ceil();
                format!("{}g.{gigabytes}gb", attributes.gpu_instance_slice_count)
            },
        ),
    };
    let description = InstanceDescription { uuid: device.uuid()?, gpu_instance, compute_instance, profile };
    Ok(Instance { device, profile: Profile::default(), description })
}

impl<'nvml> Instance<'nvml> {
    /// How it is now. An error means that the instances have changed.
    pub(super) fn read(
        &mut self,
        nvml: &'nvml Nvml,
        gpu: &Device<'nvml>,
        gpm: Option<u8>,
        calls: &mut Calls,
    ) -> Result<InstanceValues, NvmlError> {
        let mut values = InstanceValues::ABSENT;
        let memory = self.device.memory_info()?;
        let mebibytes = |bytes: u64| Some((bytes as f64 / MEBIBYTE).round());
        values.put(InstanceMetric::FbUsed as usize, mebibytes(memory.used));
        values.put(InstanceMetric::FbFree as usize, mebibytes(memory.free));
        values.put(InstanceMetric::FbReserved as usize, mebibytes(memory.reserved));
        values.put(InstanceMetric::FbTotal as usize, mebibytes(memory.total));
        if let Some(call) = gpm {
            let number = self.description.gpu_instance;
            calls.ask(call, || self.profile.read(nvml, || gpu.gpm_mig_sample(number)))?;
            for (metric, value) in self.profile.of_instance() {
                values.put(metric as usize, Some(value));
            }
        }
        Ok(values)
    }
}
