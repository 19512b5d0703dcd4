//! The calls of NVML that `nvml-wrapper` lacks: many field values at once with their scope (a link), numbers
//! of MIG instances, and the vGPU licence.
#![expect(
    unsafe_code,
    reason = "the safe wrapper asks no field of a given link and knows no instance numbers"
)]

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, FieldIdScheme, Nvml};
use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlGridLicensableFeatures_t};

/// Means all links, where a field is counted per link.
pub(super) const ALL_LINKS: u32 = u32::MAX;
/// A field that this driver does not know, as the answer to one value of many.
const UNSUPPORTED: [u32; 5] = [2, 3, 4, 13, 25];

/// Fields that are asked for with one call.
pub(super) struct FieldBatch {
    values: Vec<nvmlFieldValue_t>,
    requests: Vec<(u32, u32)>,
    /// Values that the driver failed to give at the last call, although it offers them.
    pub(super) failures: u32,
}

impl FieldBatch {
    /// Fields and their scopes; positions in `requests` are positions of [`FieldBatch::value`].
    pub(super) fn new(requests: Vec<(u32, u32)>) -> Self {
        FieldBatch { values: Vec::with_capacity(requests.len()), requests, failures: 0 }
    }

    /// Asks for all of them.
    pub(super) fn read(&mut self, nvml: &Nvml, device: &Device<'_>) -> Result<(), NvmlError> {
        self.values.clear();
        self.failures = 0;
        if self.requests.is_empty() {
            return Ok(());
        }
        let scheme = nvml.field_id_scheme();
        // SAFETY: the struct is plain integers and a union of numbers, for which zero is a value.
        let zero: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
        self.values.extend(self.requests.iter().map(|&(field, scope)| nvmlFieldValue_t {
            fieldId: translate(scheme, field),
            scopeId: scope,
            ..zero
        }));
        let call = nvml_sym(nvml.lib().nvmlDeviceGetFieldValues.as_ref())?;
        let count = self.values.len() as i32;
        // SAFETY: the symbol has this signature in every NVML; `device` is a live handle of this `nvml`, and
        // the pointer leads to `count` initialised values that the call fills in place.
        let outcome = nvml_try(unsafe { call(device.handle(), count, self.values.as_mut_ptr()) });
        if let Err(error) = outcome {
            self.values.clear();
            return Err(error);
        }
        let failed =
            |value: &&nvmlFieldValue_t| value.nvmlReturn != 0 && !UNSUPPORTED.contains(&value.nvmlReturn);
        self.failures = self.values.iter().filter(failed).count() as u32;
        Ok(())
    }

    /// What the last call gave for a request.
    pub(super) fn value(&self, at: usize) -> Option<f64> {
        let value = self.values.get(at).filter(|value| value.nvmlReturn == 0)?;
        // SAFETY: every field of the union is a number of at most eight bytes, all of which are initialised
        // (zeroed before the call), so reading any of them is defined; the type tells which one is meant.
        unsafe {
            Some(match value.valueType {
                0 => value.value.dVal,
                1 => f64::from(value.value.uiVal),
                2 => value.value.ulVal as f64,
                3 => value.value.ullVal as f64,
                4 => value.value.sllVal as f64,
                _ => return None,
            })
        }
    }
}

/// Driver 580 renumbered a few fields.
fn translate(scheme: FieldIdScheme, field: u32) -> u32 {
    match (scheme, field) {
        (FieldIdScheme::V13Update1, 251..=255) => field + 18,
        (FieldIdScheme::V13Update1, 256..=273) => field - 5,
        _ => field,
    }
}

/// Numbers of the GPU instance and the compute instance of a MIG device.
pub(super) fn instance_numbers(nvml: &Nvml, device: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let gpu_instance = nvml_sym(nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let compute_instance = nvml_sym(nvml.lib().nvmlDeviceGetComputeInstanceId.as_ref())?;
    let (mut gpu, mut compute) = (0, 0);
    // SAFETY: both symbols have this signature in every NVML; the handle is live and of this `nvml`, and the
    // pointers lead to integers on this stack.
    unsafe {
        nvml_try(gpu_instance(device.handle(), &raw mut gpu))?;
        nvml_try(compute_instance(device.handle(), &raw mut compute))?;
    }
    Ok((gpu, compute))
}

/// Whether a vGPU has its licence; `None` where no licence is needed.
pub(super) fn vgpu_licensed(nvml: &Nvml, device: &Device<'_>) -> Result<Option<bool>, NvmlError> {
    let call = nvml_sym(nvml.lib().nvmlDeviceGetGridLicensableFeatures_v4.as_ref())?;
    // SAFETY: the struct is integers and arrays of characters, for which zero is a value.
    let mut features: nvmlGridLicensableFeatures_t = unsafe { std::mem::zeroed() };
    // SAFETY: the symbol has this signature since its version 4; the handle is live and of this `nvml`, and
    // the pointer leads to a struct of the expected layout.
    nvml_try(unsafe { call(device.handle(), &raw mut features) })?;
    let count = (features.licensableFeaturesCount as usize).min(features.gridLicensableFeatures.len());
    let supported = features.isGridLicenseSupported != 0 && count > 0;
    Ok(supported.then(|| features.gridLicensableFeatures[..count].iter().any(|one| one.featureState != 0)))
}
