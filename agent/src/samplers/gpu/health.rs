//! A GPU's health by part, in DCGM's terms: passed, to be watched, or failed, and why.
//!
//! Pure: values and the time go in, verdicts come out. Only what these values tell is judged; DCGM's other
//! watches (PMU, MCU, SM, InfoROM, power, driver) need its own engine and have no series here.

use super::metric::{GpuValues, Metric};

/// `DCGM_HEALTH_RESULT_PASS`
const PASS: f64 = 0.0;
/// `DCGM_HEALTH_RESULT_WARN`
const WARN: f64 = 10.0;
/// `DCGM_HEALTH_RESULT_FAIL`
const FAIL: f64 = 20.0;
/// DCGM warns at more replays on the bus a minute.
const REPLAYS_PER_MINUTE_MAX: f64 = 8.0;
/// Counters are compared with what they were between one and two of these ago, seconds.
const MARK_SECONDS: f64 = 60.0;

/// Values of the label `health_watch`.
pub(super) const WATCHES: [&str; 4] = ["MEM", "NVLINK", "PCIE", "THERMAL"];

/// What is found of one watch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// The series' value.
    pub(super) result: f64,
    /// Value of the label `health_error_code`.
    pub(super) code: &'static str,
}

impl Verdict {
    /// Nothing is wrong.
    pub(super) const PASSED: Verdict = Verdict { result: PASS, code: "DCGM_FR_OK" };
}

/// Verdicts in the order of [`WATCHES`]; `None` where the GPU does not offer what they are made of.
pub(super) type Verdicts = [Option<Verdict>; WATCHES.len()];

/// Counters as they were.
#[derive(Clone, Copy, Debug)]
struct Mark {
    seconds: f64,
    replays: Option<f64>,
    recoveries: Option<f64>,
    thermal: Option<f64>,
}

/// What is remembered of one GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    older: Option<Mark>,
    newer: Option<Mark>,
}

impl Health {
    /// Judges a reading. `links_down` tells whether an NVLink that was up is down; `None` without links.
    pub(super) fn judge(
        &mut self,
        values: &GpuValues,
        links_down: Option<bool>,
        now_seconds: f64,
    ) -> Verdicts {
        let get = |metric: Metric| values.get(metric as usize);
        let now = Mark {
            seconds: now_seconds,
            replays: get(Metric::PcieReplay),
            recoveries: get(Metric::NvlinkRecovery),
            thermal: get(Metric::ThermalViolation),
        };
        // A clock that was set back, or a long silence, starts anew.
        let steady = |mark: &Mark| (0.0..=3.0 * MARK_SECONDS).contains(&(now_seconds - mark.seconds));
        self.older = self.older.filter(steady);
        self.newer = self.newer.filter(steady);
        if self.newer.is_none_or(|mark| now_seconds - mark.seconds >= MARK_SECONDS) {
            self.older = self.newer.replace(now).or(self.older);
        }
        let then = self.older.or(self.newer).unwrap_or(now);
        let minutes = ((now_seconds - then.seconds) / 60.0).max(1.0);
        // A counter that fell was reset.
        let more = |now: Option<f64>, then: Option<f64>| Some((now? - then.unwrap_or(now?)).max(0.0));
        let first_of = |known: bool, faults: &[(bool, f64, &'static str)]| {
            let fault = faults.iter().find(|(is_there, ..)| *is_there);
            let verdict = fault.map_or(Verdict::PASSED, |&(_, result, code)| Verdict { result, code });
            known.then_some(verdict)
        };
        let set = |metric: Metric| get(metric).is_some_and(|value| value > 0.0);
        let memory = [
            (set(Metric::RemapFailure), FAIL, "DCGM_FR_ROW_REMAP_FAILURE"),
            (set(Metric::EccDbeVolatile), FAIL, "DCGM_FR_VOLATILE_DBE_DETECTED"),
            (set(Metric::RemapPending), WARN, "DCGM_FR_PENDING_ROW_REMAP"),
            (set(Metric::RetiredPending), WARN, "DCGM_FR_PENDING_PAGE_RETIREMENTS"),
        ];
        let memory_known = [Metric::RemapFailure, Metric::EccDbeVolatile, Metric::RetiredPending];
        let recoveries = more(now.recoveries, then.recoveries);
        let links = [
            (links_down == Some(true), FAIL, "DCGM_FR_NVLINK_DOWN"),
            (recoveries.is_some_and(|more| more > 0.0), FAIL, "DCGM_FR_NVLINK_ERROR_CRITICAL"),
        ];
        let replays = more(now.replays, then.replays);
        let replaying = replays.is_some_and(|more| more / minutes > REPLAYS_PER_MINUTE_MAX);
        let thermal = more(now.thermal, then.thermal);
        [
            first_of(memory_known.into_iter().any(|metric| get(metric).is_some()), &memory),
            first_of(links_down.is_some(), &links),
            first_of(replays.is_some(), &[(replaying, WARN, "DCGM_FR_PCI_REPLAY_RATE")]),
            first_of(
                thermal.is_some(),
                &[(thermal.is_some_and(|more| more > 0.0), WARN, "DCGM_FR_CLOCK_THROTTLE_THERMAL")],
            ),
        ]
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

    #[test]
    fn faults_are_named_and_what_is_not_offered_is_not_judged() {
        #[track_caller]
        fn check(pairs: &[(Metric, f64)], watch: usize, want: Option<(f64, &str)>) {
            let verdicts = Health::default().judge(&values(pairs), None, 0.0);
            assert_eq!(verdicts[watch].map(|verdict| (verdict.result, verdict.code)), want);
        }
        check(&[], 0, None);
        check(&[(Metric::EccDbeVolatile, 0.0)], 0, Some((PASS, "DCGM_FR_OK")));
        check(&[(Metric::EccDbeVolatile, 1.0)], 0, Some((FAIL, "DCGM_FR_VOLATILE_DBE_DETECTED")));
        check(
            &[(Metric::RemapFailure, 1.0), (Metric::EccDbeVolatile, 1.0)],
            0,
            Some((FAIL, "DCGM_FR_ROW_REMAP_FAILURE")),
        );
        check(&[(Metric::RetiredPending, 1.0)], 0, Some((WARN, "DCGM_FR_PENDING_PAGE_RETIREMENTS")));
        check(&[(Metric::PcieReplay, 5_000.0)], 2, Some((PASS, "DCGM_FR_OK")));
        let down = Health::default().judge(&GpuValues::ABSENT, Some(true), 0.0);
        assert_eq!(down[1].map(|verdict| verdict.code), Some("DCGM_FR_NVLINK_DOWN"));
    }

    #[test]
    fn counters_count_by_what_they_gained_lately() {
        let mut health = Health::default();
        let mut judge = |second: u32, replays: f64, thermal: f64| {
            let pairs = [(Metric::PcieReplay, replays), (Metric::ThermalViolation, thermal)];
            let verdicts = health.judge(&values(&pairs), None, f64::from(second));
            [2, 3].map(|watch: usize| verdicts[watch].unwrap().result)
        };
        assert_eq!(judge(0, 1_000.0, 7e9), [PASS, PASS], "what was before is not held against it");
        assert_eq!(judge(30, 1_008.0, 7e9), [PASS, PASS]);
        assert_eq!(judge(31, 1_009.0, 8e9), [WARN, WARN]);
        for second in 32..400 {
            judge(second, 1_009.0, 8e9);
        }
        assert_eq!(judge(400, 1_009.0, 8e9), [PASS, PASS], "that was long ago");
        assert_eq!(judge(401, 0.0, 0.0), [PASS, PASS], "the driver was loaded anew");
    }
}
