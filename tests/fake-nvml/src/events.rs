//! Events: each line `xid GPU XID` of the control file is told once, to whoever has registered for the GPU.

use crate::calls::{handle, split};
use crate::control::{SUCCESS, TIMEOUT, enter};
use nvml_wrapper_sys::bindings::*;
use std::ffi::{c_uint, c_ulonglong};

const XID_CRITICAL_ERROR: c_ulonglong = 8;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> u32 {
    match enter(None, "nvmlEventSetCreate") {
        Ok(mut state) => {
            // Lines that were there before are history.
            state.told_xids = state.control.xids.len();
            // SAFETY: NVML's contract: a writable handle; any number does, for there is one set.
            unsafe { *set = 1 as nvmlEventSet_t };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(_set: nvmlEventSet_t) -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    _set: nvmlEventSet_t,
) -> u32 {
    let gpu = split(device).0;
    match enter(Some(gpu), "nvmlDeviceRegisterEvents") {
        Ok(mut state) => {
            state.registered.insert(gpu);
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    _set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    _timeout_ms: c_uint,
) -> u32 {
    let mut state = match enter(None, "nvmlEventSetWait_v2") {
        Ok(state) => state,
        Err(code) => return code,
    };
    while let Some((gpu, xid)) = state.control.xids.get(state.told_xids).copied() {
        state.told_xids += 1;
        if state.registered.contains(&gpu) {
            // SAFETY: NVML's contract: a writable struct.
            unsafe {
                *data = nvmlEventData_t {
                    device: handle(gpu),
                    eventType: XID_CRITICAL_ERROR,
                    eventData: xid,
                    gpuInstanceId: u32::MAX,
                    computeInstanceId: u32::MAX,
                };
            }
            return SUCCESS;
        }
    }
    TIMEOUT
}
