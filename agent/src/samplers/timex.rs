//! `timex`: how well the clock keeps time, from the kernel's clock discipline.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use crate::system_calls::clock_discipline;

/// Bit of the status that says offsets are in nanoseconds instead of microseconds.
const STATUS_NANOSECONDS: i32 = 0x2000;
/// The kernel gives frequencies in parts per million with 16 bits of fraction.
const FREQUENCY_UNIT: f64 = 1e6 * 65_536.0;
/// Larger offsets come from an overflow in the kernel (2^32 ns on virtual machines), not from the clock.
const OFFSET_OVERFLOW_SECONDS: f64 = 4.0;

const NAMES: [&str; 18] = [
    "node_timex_sync_status",
    "node_timex_offset_seconds",
    "node_timex_offset_overflow_total",
    "node_timex_frequency_adjustment_ratio",
    "node_timex_maxerror_seconds",
    "node_timex_estimated_error_seconds",
    "node_timex_status",
    "node_timex_loop_time_constant",
    "node_timex_tick_seconds",
    "node_timex_pps_frequency_hertz",
    "node_timex_pps_jitter_seconds",
    "node_timex_pps_shift_seconds",
    "node_timex_pps_stability_hertz",
    "node_timex_pps_jitter_total",
    "node_timex_pps_calibration_total",
    "node_timex_pps_error_total",
    "node_timex_pps_stability_exceeded_total",
    "node_timex_tai_offset_seconds",
];

/// Makes the sampler.
pub fn build(_: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(TimexSampler { group: None, overflows: 0.0 })
}

struct TimexSampler {
    group: Option<GroupHandle>,
    overflows: f64,
}

impl Sampler for TimexSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let discipline =
            clock_discipline().map_err(|source| SampleError::Call { call: "adjtimex", source })?;
        let timex = discipline.timex;
        let per_second = if timex.status & STATUS_NANOSECONDS != 0 { 1e9 } else { 1e6 };
        let offset = timex.offset as f64 / per_second;
        if offset.abs() > OFFSET_OVERFLOW_SECONDS {
            self.overflows += 1.0;
        }
        let values: [f64; NAMES.len()] = [
            f64::from(u8::from(discipline.synchronised)),
            offset,
            self.overflows,
            1.0 + timex.freq as f64 / FREQUENCY_UNIT,
            timex.maxerror as f64 / 1e6,
            timex.esterror as f64 / 1e6,
            f64::from(timex.status),
            timex.constant as f64,
            timex.tick as f64 / 1e6,
            timex.ppsfreq as f64 / FREQUENCY_UNIT,
            timex.jitter as f64 / per_second,
            f64::from(timex.shift),
            timex.stabil as f64 / FREQUENCY_UNIT,
            timex.jitcnt as f64,
            timex.calcnt as f64,
            timex.errcnt as f64,
            timex.stbcnt as f64,
            f64::from(timex.tai),
        ];
        let handle = *self.group.get_or_insert_with(|| {
            groups.define("timex", Vec::new(), NAMES.iter().map(|name| ColumnSpec::plain(*name)).collect())
        });
        if let Some(group) = groups.group(handle) {
            values.iter().enumerate().for_each(|(column, value)| group.put(column, *value));
        }
        Ok(())
    }
}
