//! Signals that no single counter shows: a collective that is stuck, a GPU that is held and not used, and one
//! that holds up its peers.
//!
//! Pure: values and the time go in. Each signal is a number that rules compare, and absent where what it is
//! made of is.

use super::clock_window::ClockWindow;
use super::metric::{GpuValues, Metric};

/// A GPU this busy by its own account …
const BUSY_PERCENT: f64 = 95.0;
/// … that draws less than this share of its limit …
const LOW_POWER_SHARE: f64 = 0.5;
/// … and moves less than this over its links, bytes a second, waits in a kernel that spins.
const FLAT_LINK_BYTES_PER_SECOND: f64 = 10e6;
/// Tensor cores that do at least this much are at work whatever the power says.
const WORKING_TENSOR_SHARE: f64 = 0.02;
/// At most this busy is idle: housekeeping of the driver shows as 1 %.
const IDLE_PERCENT: f64 = 1.0;
/// Peers that make a comparison meaningful.
const PEERS_MIN: usize = 3;
/// Time after which two thirds of a straggler's score are of what came since.
const SCORE_SECONDS: f64 = 30.0;
/// Gaps longer than this are not time that was watched.
const GAP_SECONDS_MAX: f64 = 5.0;
/// Work below which shares of it mean nothing.
const ACTIVITY_MIN: f64 = 0.05;
/// A score beyond this says no more.
const SCORE_MAX: f64 = 10.0;

/// Clock event reasons: bit of NVML's mask and value of the label `reason`.
pub(super) const CLOCK_REASONS: [(u64, &str); 9] = [
    (0x01, "gpu_idle"),
    (0x02, "application_clocks"),
    (0x04, "sw_power_cap"),
    (0x08, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "hw_power_brake"),
    (0x100, "display_clocks"),
];

/// What is remembered of one GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Derived {
    last_seconds: Option<f64>,
    last_link_kibibytes: Option<f64>,
    /// How long each clock event reason has held.
    pub(super) clock_seconds: [f64; CLOCK_REASONS.len()],
    /// In how many of the last readings each has held.
    pub(super) clock_events: ClockWindow,
    /// How long the GPU has looked stuck; `None` if that cannot be told.
    pub(super) stuck_seconds: Option<f64>,
    /// How long it has been held and idle.
    pub(super) idle_seconds: Option<f64>,
    /// How far it is from its peers; 0 is like them.
    pub(super) straggler: Option<f64>,
}

impl Derived {
    /// Takes a reading in. `allocated` tells whether anybody holds the GPU.
    pub(super) fn update(&mut self, values: &GpuValues, allocated: bool, now_seconds: f64) {
        let elapsed = self.last_seconds.replace(now_seconds).map(|then| now_seconds - then);
        let elapsed = elapsed.filter(|elapsed| (0.0..=GAP_SECONDS_MAX).contains(elapsed));
        let link = values.get(Metric::NvlinkBandwidth as usize);
        let last_link = std::mem::replace(&mut self.last_link_kibibytes, link);
        let step = elapsed.unwrap_or(0.0);
        if let Some(reasons) = values.get(Metric::ClockReasons as usize) {
            self.clock_events.update(reasons as u64, now_seconds);
            for (seconds, (bit, _)) in self.clock_seconds.iter_mut().zip(CLOCK_REASONS) {
                if reasons as u64 & bit != 0 {
                    *seconds += step;
                }
            }
        }
        let link_rate = match (link, last_link) {
            (Some(now), Some(then)) if step > 0.0 && now >= then => Some((now - then) * 1_024.0 / step),
            _ => None,
        };
        let held =
            |seconds: Option<f64>, holds: bool| if holds { seconds.unwrap_or(0.0) + step } else { 0.0 };
        self.stuck_seconds = is_stuck(values, link_rate).map(|stuck| held(self.stuck_seconds, stuck));
        let idle = values.get(Metric::GpuUtil as usize).map(|busy| allocated && busy <= IDLE_PERCENT);
        self.idle_seconds = idle.map(|idle| held(self.idle_seconds, idle));
    }

    /// The GPU does not answer: what was counted holds no more.
    pub(super) fn lose(&mut self) {
        let (clock_seconds, clock_events) = (self.clock_seconds, std::mem::take(&mut self.clock_events));
        *self = Derived { clock_seconds, clock_events, ..Derived::default() };
    }

    /// Moves the straggler's score towards what is seen now.
    pub(super) fn compare(&mut self, deviation: Option<f64>, elapsed_seconds: f64) {
        self.straggler = deviation.map(|now| match self.straggler {
            Some(before) => {
                let share = 1.0 - (-elapsed_seconds.clamp(0.0, GAP_SECONDS_MAX) / SCORE_SECONDS).exp();
                before + (now - before) * share
            }
            None => now,
        });
    }
}

/// Whether a GPU spins: busy, at low power, with flat links.
fn is_stuck(values: &GpuValues, link_rate: Option<f64>) -> Option<bool> {
    let get = |metric: Metric| values.get(metric as usize);
    let limit = get(Metric::PowerLimitEnforced).or(get(Metric::PowerLimit)).filter(|limit| *limit > 0.0)?;
    let (busy, power) = (get(Metric::GpuUtil)?, get(Metric::PowerUsage)?);
    if busy < BUSY_PERCENT || power > LOW_POWER_SHARE * limit {
        return Some(false);
    }
    if get(Metric::TensorActive).is_some_and(|share| share >= WORKING_TENSOR_SHARE) {
        return Some(false);
    }
    // A GPU without NVLink talks over PCIe.
    let pcie = || Some(get(Metric::PcieTransmit)? + get(Metric::PcieReceive)?);
    let rate = match values.get(Metric::NvlinkBandwidth as usize) {
        Some(_) => link_rate,
        None => pcie(),
    };
    rate.map(|rate| rate < FLAT_LINK_BYTES_PER_SECOND)
}

/// How far each GPU of one job is from the others: the sum of the shares by which its clock lies below the
/// peers' median and its work lies off their median. `None` without enough peers.
pub(super) fn deviations(peers: &[&GpuValues], out: &mut Vec<Option<f64>>) {
    out.clear();
    let activity = |values: &GpuValues| {
        let get = |metric: Metric| values.get(metric as usize);
        get(Metric::TensorActive).or(get(Metric::SmActive)).or(get(Metric::GpuUtil).map(|busy| busy / 100.0))
    };
    let clock = |values: &GpuValues| values.get(Metric::SmClock as usize);
    let (clocks, works) = (median(peers, clock), median(peers, activity));
    out.extend(peers.iter().map(|values| {
        if peers.len() < PEERS_MIN {
            return None;
        }
        let slow = match (clock(values), clocks) {
            (Some(clock), Some(median)) if median > 0.0 => Some(((median - clock) / median).max(0.0)),
            _ => None,
        };
        let off = match (activity(values), works) {
            (Some(work), Some(median)) => Some((work - median).abs() / median.max(ACTIVITY_MIN)),
            _ => None,
        };
        match (slow, off) {
            (None, None) => None,
            (slow, off) => Some((slow.unwrap_or(0.0) + off.unwrap_or(0.0)).min(SCORE_MAX)),
        }
    }));
}

fn median(peers: &[&GpuValues], value: impl Fn(&GpuValues) -> Option<f64>) -> Option<f64> {
    // On the stack: a node's GPUs are few, and this runs in every tick.
    let mut known = [0.0; super::reading::GPUS_MAX];
    let mut count = 0;
    for found in peers.iter().filter_map(|values| value(values)).take(known.len()) {
        known[count] = found;
        count += 1;
    }
    let known = &mut known[..count];
    known.sort_unstable_by(f64::total_cmp);
    match count {
        0 => None,
        _ if count % 2 == 1 => known.get(count / 2).copied(),
        _ => Some((known[count / 2 - 1] + known[count / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(Metric, f64)]) -> GpuValues {
        let mut values = GpuValues::ABSENT;
        pairs.iter().for_each(|(metric, value)| values.put(*metric as usize, Some(*value)));
        values
    }

    fn spinning(link: f64) -> GpuValues {
        use Metric::*;
        let state = [(GpuUtil, 100.0), (PowerUsage, 120.0), (PowerLimitEnforced, 700.0), (TensorActive, 0.0)];
        let mut values = values(&state);
        values.put(NvlinkBandwidth as usize, Some(link));
        values
    }

    #[test]
    fn a_stuck_collective_is_busy_at_low_power_with_flat_links_and_is_timed() {
        let mut gpu = Derived::default();
        for second in 0..10 {
            gpu.update(&spinning(5e9), true, f64::from(second));
        }
        assert_eq!(gpu.stuck_seconds, Some(9.0));
        // Traffic, power or tensor work each clear it.
        gpu.update(&spinning(5e9 + 1e6), true, 10.0);
        assert_eq!(gpu.stuck_seconds, Some(0.0));
        let mut working = spinning(5e9 + 1e6);
        working.put(Metric::PowerUsage as usize, Some(600.0));
        gpu.update(&working, true, 11.0);
        assert_eq!(gpu.stuck_seconds, Some(0.0));
        gpu.update(&values(&[(Metric::GpuUtil, 100.0)]), true, 12.0);
        assert_eq!(gpu.stuck_seconds, None, "without power nothing can be said");
    }

    #[test]
    fn silent_idle_needs_somebody_who_holds_the_gpu() {
        let idle = values(&[(Metric::GpuUtil, 0.0)]);
        let mut gpu = Derived::default();
        for second in 0..5 {
            gpu.update(&idle, true, f64::from(second));
        }
        assert_eq!(gpu.idle_seconds, Some(4.0));
        gpu.update(&idle, false, 5.0);
        assert_eq!(gpu.idle_seconds, Some(0.0));
    }

    #[test]
    fn clock_events_add_up_and_gaps_do_not_count() {
        let capped = values(&[(Metric::ClockReasons, f64::from(0x04 | 0x40))]);
        let mut gpu = Derived::default();
        gpu.update(&capped, true, 0.0);
        gpu.update(&capped, true, 1.0);
        gpu.update(&capped, true, 100.0);
        gpu.lose();
        gpu.update(&capped, true, 101.0);
        gpu.update(&capped, true, 102.0);
        assert_eq!((gpu.clock_seconds[2], gpu.clock_seconds[6], gpu.clock_seconds[0]), (2.0, 2.0, 0.0));
    }

    #[test]
    fn the_slow_one_of_eight_stands_out_and_two_are_no_crowd() {
        let peer = |clock: f64| values(&[(Metric::SmClock, clock), (Metric::TensorActive, 0.5)]);
        let (like, slow) = (peer(1_980.0), peer(990.0));
        let mut out = Vec::new();
        deviations(&[&like, &like, &like, &like, &like, &like, &like, &slow], &mut out);
        assert_eq!(out[0], Some(0.0));
        assert!((out[7].unwrap() - 0.5).abs() < 1e-9);
        deviations(&[&like, &slow], &mut out);
        assert_eq!(out, [None, None]);
        let mut score = Derived::default();
        score.compare(Some(0.0), 1.0);
        for _ in 0..120 {
            score.compare(Some(0.5), 1.0);
        }
        assert!(score.straggler.unwrap() > 0.45);
    }
}
