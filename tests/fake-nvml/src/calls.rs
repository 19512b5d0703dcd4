//! NVML's functions. Numbers that the control file does not give are those of an H100 at work; counters grow
//! with the time since the library was started. Keys of `value` are the first argument of `answer` below;
//! fields have the key `fieldN`.

use crate::control::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, SUCCESS, State, enter};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

/// Handles are numbers: GPU 0 is 1, and its MIG instance 0 is 0x1_0001.
const INSTANCE_SHIFT: u32 = 16;
const MIB: u64 = 1 << 20;

/// The handle of a GPU.
pub fn handle(gpu: u32) -> nvmlDevice_t {
    (gpu as usize + 1) as nvmlDevice_t
}

/// The GPU behind a handle, and its MIG instance if it is one's.
pub fn split(device: nvmlDevice_t) -> (u32, Option<usize>) {
    let number = device as usize;
    let gpu = (number & ((1 << INSTANCE_SHIFT) - 1)).wrapping_sub(1) as u32;
    (gpu, (number >> INSTANCE_SHIFT).checked_sub(1))
}

/// Runs a call on a GPU.
fn on(device: nvmlDevice_t, function: &str, call: impl FnOnce(&mut State, u32, Option<usize>) -> u32) -> u32 {
    let (gpu, instance) = split(device);
    match enter(Some(gpu), function) {
        Ok(mut state) if gpu < state.control.gpus => call(&mut state, gpu, instance),
        Ok(_) => INVALID_ARGUMENT,
        Err(code) => code,
    }
}

/// Writes a text with its end.
unsafe fn write_text(text: &str, place: *mut c_char, length: usize) -> u32 {
    if text.len() + 1 > length {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller passes a buffer of `length` bytes, and the text with its end fits.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), place, text.len());
        *place.add(text.len()) = 0;
    }
    SUCCESS
}

/// Functions that answer one number: name, key, default.
macro_rules! answer {
    ($($function:ident($kind:ty, $key:literal, $default:expr);)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(device: nvmlDevice_t, value: *mut $kind) -> u32 {
            on(device, stringify!($function), |state, gpu, _| {
                // SAFETY: NVML's contract: `value` leads to a writable integer of this type.
                unsafe { *value = state.value(gpu, $key, $default) as $kind };
                SUCCESS
            })
        }
    )*};
}

answer! {
    nvmlDeviceGetPowerUsage(c_uint, "power", 640_000.0);
    nvmlDeviceGetPowerManagementLimit(c_uint, "power_limit", 700_000.0);
    nvmlDeviceGetEnforcedPowerLimit(c_uint, "power_limit", 700_000.0);
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong, "clock_reasons", 4.0);
    nvmlDeviceGetPerformanceState(c_uint, "pstate", 0.0);
    nvmlDeviceGetPersistenceMode(c_uint, "persistence", 1.0);
    nvmlDeviceGetCurrPcieLinkGeneration(c_uint, "pcie_gen", 5.0);
    nvmlDeviceGetCurrPcieLinkWidth(c_uint, "pcie_width", 16.0);
    nvmlDeviceGetMaxPcieLinkGeneration(c_uint, "pcie_max_gen", 5.0);
    nvmlDeviceGetMaxPcieLinkWidth(c_uint, "pcie_max_width", 16.0);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> u32 {
    enter(None, "nvmlInit_v2").err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> u32 {
    match enter(None, "nvmlSystemGetDriverVersion") {
        // SAFETY: NVML's contract: a buffer of `length` bytes.
        Ok(state) => unsafe { write_text(&state.control.driver, text, length as usize) },
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(text: *mut c_char, length: c_uint) -> u32 {
    // SAFETY: NVML's contract: a buffer of `length` bytes.
    unsafe { write_text("12.550.54.15", text, length as usize) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    // SAFETY: NVML's contract: a writable integer.
    unsafe { *version = 12_040 };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    match enter(None, "nvmlDeviceGetCount_v2") {
        Ok(state) => {
            // SAFETY: NVML's contract: a writable integer.
            unsafe { *count = state.control.gpus };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> u32 {
    on(handle(index), "nvmlDeviceGetHandleByIndex_v2", |_, gpu, _| {
        // SAFETY: NVML's contract: a writable handle.
        unsafe { *device = handle(gpu) };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) -> u32 {
    // SAFETY: NVML's contract: a writable integer.
    unsafe { *index = split(device).0 };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, text: *mut c_char, length: c_uint) -> u32 {
    on(device, "nvmlDeviceGetUUID", |_, gpu, instance| {
        let uuid = match instance {
            Some(instance) => format!("MIG-00000000-0000-0000-{gpu:04x}-{instance:012x}"),
            None => format!("GPU-00000000-0000-0000-0000-{gpu:012x}"),
        };
        // SAFETY: NVML's contract: a buffer of `length` bytes.
        unsafe { write_text(&uuid, text, length as usize) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, text: *mut c_char, length: c_uint) -> u32 {
    on(device, "nvmlDeviceGetName", |state, gpu, instance| {
        let profile = instance.and_then(|at| of_gpu(&state.control.instances, gpu).nth(at));
        let name = match profile {
            Some(instance) => format!("{} MIG {}", state.control.model, instance.profile),
            None => state.control.model.clone(),
        };
        // SAFETY: NVML's contract: a buffer of `length` bytes.
        unsafe { write_text(&name, text, length as usize) }
    })
}

fn of_gpu<T>(list: &[(Option<u32>, T)], gpu: u32) -> impl Iterator<Item = &T> {
    list.iter().filter(move |(on, _)| on.is_none_or(|on| on == gpu)).map(|(_, one)| one)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(device: nvmlDevice_t, text: *mut c_char, length: c_uint) -> u32 {
    on(device, "nvmlDeviceGetSerial", |_, gpu, _| {
        // SAFETY: NVML's contract: a buffer of `length` bytes.
        unsafe { write_text(&format!("165402300000{gpu}"), text, length as usize) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetVbiosVersion(
    device: nvmlDevice_t,
    text: *mut c_char,
    length: c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetVbiosVersion", |_, _, _| {
        // SAFETY: NVML's contract: a buffer of `length` bytes.
        unsafe { write_text("96.00.74.00.01", text, length as usize) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint) -> u32 {
    on(device, "nvmlDeviceGetMinorNumber", |_, gpu, _| {
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *minor = gpu };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) -> u32 {
    on(device, "nvmlDeviceGetPciInfo_v3", |_, gpu, _| {
        let bus = 0x18 + 0x10 * gpu;
        // SAFETY: NVML's contract: a writable struct; zero is a value of all its integers.
        unsafe {
            *info = std::mem::zeroed();
            (*info).bus = bus;
            let text = &raw mut (*info).busId;
            write_text(&format!("00000000:{bus:02X}:00.0"), text.cast::<c_char>(), 32)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    rates: *mut nvmlUtilization_t,
) -> u32 {
    on(device, "nvmlDeviceGetUtilizationRates", |state, gpu, _| {
        let (busy, memory) =
            (state.value(gpu, "util", 97.0) as u32, state.value(gpu, "mem_util", 61.0) as u32);
        // SAFETY: NVML's contract: a writable struct.
        unsafe { *rates = nvmlUtilization_t { gpu: busy, memory } };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> u32 {
    on(device, "nvmlDeviceGetMemoryInfo_v2", |state, gpu, instance| {
        let total = match instance {
            Some(at) => match of_gpu(&state.control.instances, gpu).nth(at) {
                Some(instance) => instance.memory_mib,
                None => return NOT_FOUND,
            },
            None => state.value(gpu, "fb_total", 81_559.0) as u64,
        };
        let reserved = if instance.is_some() { 0 } else { 648 };
        let used = (state.value(gpu, "fb_used", 70_000.0) as u64).min(total / 2);
        let (total, reserved, used) = (total * MIB, reserved * MIB, used * MIB);
        // SAFETY: NVML's contract: a writable struct.
        unsafe {
            *memory = nvmlMemory_v2_t {
                version: (*memory).version,
                total,
                reserved,
                free: total - used - reserved,
                used,
            };
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetBAR1MemoryInfo(
    device: nvmlDevice_t,
    memory: *mut nvmlBAR1Memory_t,
) -> u32 {
    on(device, "nvmlDeviceGetBAR1MemoryInfo", |_, _, _| {
        let (total, used) = (131_072 * MIB, 72 * MIB);
        // SAFETY: NVML's contract: a writable struct.
        unsafe { *memory = nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used } };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    _sensor: c_uint,
    value: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetTemperature", |state, gpu, _| {
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *value = state.value(gpu, "temperature", 60.0 + f64::from(gpu)) as c_uint };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: nvmlDevice_t,
    threshold: c_uint,
    value: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetTemperatureThreshold", |_, _, _| {
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *value = if threshold == 0 { 92 } else { 89 } };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: nvmlDevice_t,
    clock: c_uint,
    value: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetClockInfo", |state, gpu, _| {
        let (key, default) = match clock {
            2 => ("mem_clock", 2_619.0),
            3 => ("video_clock", 1_545.0),
            _ => ("sm_clock", 1_755.0),
        };
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *value = state.value(gpu, key, default) as c_uint };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: nvmlDevice_t,
    clock: c_uint,
    value: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetMaxClockInfo", |_, _, _| {
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *value = if clock == 2 { 2_619 } else { 1_980 } };
        SUCCESS
    })
}

/// Utilisation of an engine and the time it was taken over.
unsafe fn engine(
    device: nvmlDevice_t,
    function: &str,
    key: &str,
    value: *mut c_uint,
    period: *mut c_uint,
) -> u32 {
    on(device, function, |state, gpu, _| {
        // SAFETY: NVML's contract, passed on by both callers: two writable integers.
        unsafe {
            *value = state.value(gpu, key, 0.0) as c_uint;
            *period = 167_000;
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: nvmlDevice_t,
    value: *mut c_uint,
    period: *mut c_uint,
) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { engine(device, "nvmlDeviceGetEncoderUtilization", "encoder", value, period) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: nvmlDevice_t,
    value: *mut c_uint,
    period: *mut c_uint,
) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { engine(device, "nvmlDeviceGetDecoderUtilization", "decoder", value, period) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    device: nvmlDevice_t,
    other: nvmlDevice_t,
    _capability: nvmlGpuP2PCapsIndex_t,
    status: *mut nvmlGpuP2PStatus_t,
) -> u32 {
    on(device, "nvmlDeviceGetP2PStatus", |state, gpu, _| {
        let peer = split(other).0;
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *status = state.value(gpu, &format!("p2p{peer}"), 0.0) as nvmlGpuP2PStatus_t };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> u32 {
    on(device, "nvmlDeviceGetFieldValues", |state, gpu, _| {
        // SAFETY: NVML's contract: `count` writable and initialised values.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count.max(0) as usize) };
        for value in values {
            let field = value.fieldId;
            if let Some(code) = state.field_fails(gpu, field) {
                value.nvmlReturn = code;
                continue;
            }
            let per_link = value.scopeId != u32::MAX;
            match field_default(field, per_link, state.started.elapsed().as_secs_f64()) {
                Some(default) => {
                    let key = if state.has_values() { format!("field{field}") } else { String::new() };
                    value.nvmlReturn = SUCCESS;
                    value.valueType = 3;
                    value.value.ullVal = state.value(gpu, &key, default) as u64;
                }
                None => value.nvmlReturn = NOT_SUPPORTED,
            }
        }
        SUCCESS
    })
}

/// What an H100 says: totals of NVLink errors are not kept per link number, bytes of PCIe not at all.
fn field_default(field: u32, per_link: bool, seconds: f64) -> Option<f64> {
    Some(match field {
        3..=6 | 29..=31 | 38 | 45 | 52 | 59 | 94 | 142..=145 => 0.0,
        74 => seconds * 1.2e8,
        75..=79 => 0.0,
        82 => 71.0,
        83 => seconds * 640_000.0,
        138 | 139 if per_link => (seconds * 5_800_000.0).floor(),
        138 | 139 => (seconds * 5_800_000.0).floor() * 18.0,
        161..=163 => 0.0,
        165 => 1.0,
        186 => 645_000.0,
        190 => 700_000.0,
        _ => return None,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: nvmlDevice_t,
    link: c_uint,
    active: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetNvLinkState", |state, gpu, _| {
        if link >= state.value(gpu, "links", 18.0) as u32 {
            return INVALID_ARGUMENT;
        }
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *active = 1 };
        SUCCESS
    })
}

/// Processes of a GPU, with NVML's protocol: too small a buffer says how large it must be.
unsafe fn processes(
    device: nvmlDevice_t,
    function: &str,
    mps: bool,
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> u32 {
    on(device, function, |state, gpu, _| {
        let found: Vec<_> = of_gpu(&state.control.processes, gpu).filter(|one| one.mps == mps).collect();
        // SAFETY: NVML's contract, passed on by both callers: `count` is writable and says how many places
        // there are; none are written beyond it.
        unsafe {
            let room = *count as usize;
            *count = found.len() as c_uint;
            if found.is_empty() {
                return SUCCESS;
            }
            if room < found.len() || places.is_null() {
                return INSUFFICIENT_SIZE;
            }
            for (at, process) in found.iter().enumerate() {
                *places.add(at) = nvmlProcessInfo_t {
                    pid: process.pid,
                    usedGpuMemory: process.bytes,
                    gpuInstanceId: u32::MAX,
                    computeInstanceId: u32::MAX,
                };
            }
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { processes(device, "nvmlDeviceGetComputeRunningProcesses_v3", false, count, places) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    places: *mut nvmlProcessInfo_t,
) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { processes(device, "nvmlDeviceGetMPSComputeRunningProcesses_v3", true, count, places) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    places: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    _since: c_ulonglong,
) -> u32 {
    on(device, "nvmlDeviceGetProcessUtilization", |state, gpu, _| {
        let found: Vec<_> = of_gpu(&state.control.processes, gpu).collect();
        if found.is_empty() {
            return NOT_FOUND;
        }
        let time = state.started.elapsed().as_micros() as c_ulonglong;
        // SAFETY: NVML's contract: `count` says how many places there are; none are written beyond it.
        unsafe {
            let room = *count as usize;
            *count = found.len() as c_uint;
            if room < found.len() || places.is_null() {
                return INSUFFICIENT_SIZE;
            }
            for (at, process) in found.iter().enumerate() {
                let (pid, timeStamp, smUtil) = (process.pid, time, 90);
                *places.add(at) = nvmlProcessUtilizationSample_t {
                    pid,
                    timeStamp,
                    smUtil,
                    memUtil: 50,
                    encUtil: 0,
                    decUtil: 0,
                };
            }
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> u32 {
    on(device, "nvmlDeviceGetMigMode", |state, gpu, _| {
        let on = c_uint::from(of_gpu(&state.control.instances, gpu).next().is_some());
        // SAFETY: NVML's contract: two writable integers.
        unsafe {
            *current = on;
            *pending = on;
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint) -> u32 {
    on(device, "nvmlDeviceGetMaxMigDeviceCount", |_, _, _| {
        // SAFETY: NVML's contract: a writable integer.
        unsafe { *count = 7 };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    instance: *mut nvmlDevice_t,
) -> u32 {
    on(device, "nvmlDeviceGetMigDeviceHandleByIndex", |state, gpu, _| {
        if of_gpu(&state.control.instances, gpu).nth(index as usize).is_none() {
            return NOT_FOUND;
        }
        let number = (index as usize + 1) << INSTANCE_SHIFT | (gpu as usize + 1);
        // SAFETY: NVML's contract: a writable handle.
        unsafe { *instance = number as nvmlDevice_t };
        SUCCESS
    })
}

/// Number of a GPU instance or a compute instance.
unsafe fn number(device: nvmlDevice_t, function: &str, compute: bool, value: *mut c_uint) -> u32 {
    on(device, function, |state, gpu, instance| {
        let found = instance.and_then(|at| of_gpu(&state.control.instances, gpu).nth(at));
        let Some(found) = found else { return INVALID_ARGUMENT };
        // SAFETY: NVML's contract, passed on by both callers: a writable integer.
        unsafe { *value = if compute { found.compute_instance } else { found.gpu_instance } };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: nvmlDevice_t, value: *mut c_uint) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { number(device, "nvmlDeviceGetGpuInstanceId", false, value) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: nvmlDevice_t, value: *mut c_uint) -> u32 {
    // SAFETY: the caller keeps the same contract.
    unsafe { number(device, "nvmlDeviceGetComputeInstanceId", true, value) }
}
