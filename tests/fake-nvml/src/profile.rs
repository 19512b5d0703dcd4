//! GPM: a sample is the time it was taken, for a GPU; what lies between two is always the same.

use crate::calls::split;
use crate::control::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, enter};
use nvml_wrapper_sys::bindings::*;
use std::ffi::c_uint;
use std::time::Instant;

struct Sample {
    gpu: u32,
    taken: Option<Instant>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    device: nvmlDevice_t,
    support: *mut nvmlGpmSupport_t,
) -> u32 {
    let gpu = split(device).0;
    match enter(Some(gpu), "nvmlGpmQueryDeviceSupport") {
        Ok(state) => {
            // SAFETY: NVML's contract: a writable struct.
            unsafe { (*support).isSupportedDevice = state.value(gpu, "gpm", 1.0) as c_uint };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvmlGpmSample_t) -> u32 {
    let new = Box::into_raw(Box::new(Sample { gpu: 0, taken: None }));
    // SAFETY: NVML's contract: a writable handle. `nvmlGpmSampleFree` takes the box back.
    unsafe { *sample = new.cast() };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> u32 {
    // SAFETY: NVML's contract: the handle came from `nvmlGpmSampleAlloc` and is freed once.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(device: nvmlDevice_t, sample: nvmlGpmSample_t) -> u32 {
    let gpu = split(device).0;
    if let Err(code) = enter(Some(gpu), "nvmlGpmSampleGet") {
        return code;
    }
    // SAFETY: NVML's contract: the handle came from `nvmlGpmSampleAlloc` and nobody else uses it now.
    unsafe { *sample.cast::<Sample>() = Sample { gpu, taken: Some(Instant::now()) } };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMigSampleGet(
    device: nvmlDevice_t,
    _instance: c_uint,
    sample: nvmlGpmSample_t,
) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { nvmlGpmSampleGet(device, sample) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> u32 {
    // SAFETY: NVML's contract: a writable struct, and nobody else uses it now.
    let request = unsafe { &mut *request };
    // SAFETY: NVML's contract: both samples came from `nvmlGpmSampleAlloc` and have not been freed.
    let (first, second) = unsafe { (&*request.sample1.cast::<Sample>(), &*request.sample2.cast::<Sample>()) };
    let (Some(then), Some(now)) = (first.taken, second.taken) else { return INVALID_ARGUMENT };
    let state = match enter(Some(second.gpu), "nvmlGpmMetricsGet") {
        Ok(state) => state,
        Err(code) => return code,
    };
    // As the real ones: too close, and there is nothing between them.
    let far_enough = now.duration_since(then).as_millis() >= 100;
    let count = (request.numMetrics as usize).min(request.metrics.len());
    for metric in &mut request.metrics[..count] {
        let default = match metric.metricId {
            1 => 97.0,
            2 => 82.0,
            3 => 31.0,
            5 => 46.0,
            10 => 52.0,
            11 => 0.0,
            12 => 6.0,
            13 => 3.0,
            20 => 2_000.0,
            21 => 1_700.0,
            _ => {
                metric.nvmlReturn = NOT_SUPPORTED;
                continue;
            }
        };
        let value = state.value(second.gpu, &format!("gpm{}", metric.metricId), default);
        metric.nvmlReturn = SUCCESS;
        metric.value = if far_enough { value } else { 0.0 };
    }
    SUCCESS
}
