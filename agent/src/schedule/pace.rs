//! Pace: how fast one sampler reads right now, and why.
//!
//! Readings, hints from the collector and verdicts of the CPU budget flow in; an interval with its reason
//! flows out. Time is an argument.

use super::rate::Rate;
use super::trend::GroupTrend;
use crate::group::GroupSet;
use pharos_common::sample::TimestampMs;

/// For how long a surprise keeps a sampler fast, milliseconds.
const HOLD_MS: i64 = 10_000;
/// Time in which only one surprise makes a group fast, milliseconds. Fast readings cost ten times as much, and
/// where something always moves they would go on for ever; what matters to a rule is hinted at in any case.
const SURPRISE_EVERY_MS: i64 = 60_000;
/// Longest that one hint counts, milliseconds: a collector that is gone must not keep a node busy.
const HINT_MS_MAX: i64 = 300_000;
/// Hints less urgent than this say only that a series is watched.
const URGENCY_MIN: f32 = 0.5;
/// Readings without any change after which a sampler counts as flat.
const FLAT_READINGS: u32 = 60;
/// Most that the budget slows a sampler.
pub(super) const STRETCH_MAX: u32 = 16;

/// Why a sampler reads at its interval; also the label `reason`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The configuration fixes it.
    #[default]
    Fixed,
    /// Nothing calls for another interval than the grid's.
    Grid,
    /// A value moves.
    Volatile,
    /// The collector says that a series is near a threshold.
    Hint,
    /// Nothing has changed for a while.
    Flat,
    /// The CPU budget slows it.
    Budget,
}

impl Reason {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Fixed => "fixed",
            Reason::Grid => "grid",
            Reason::Volatile => "volatile",
            Reason::Hint => "hint",
            Reason::Flat => "flat",
            Reason::Budget => "budget",
        }
    }
}

/// What to do until something changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Milliseconds from reading to reading.
    pub(super) interval_ms: u32,
    /// Interval at which the series themselves are published.
    pub(super) grid_ms: u32,
    pub(super) reason: Reason,
}

/// What is known of one sampler's need for speed.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    shape: Option<u64>,
    groups: Vec<Urgency>,
    readings_flat: u32,
    /// The budget multiplies the grid by this.
    stretch: u32,
    /// The budget allows no samples between grid points.
    fast_denied: bool,
    /// The flight recorder wants readings at this interval.
    recorder_ms: Option<u32>,
}

#[derive(Debug, Default)]
struct Urgency {
    trend: GroupTrend,
    moves_until_ms: TimestampMs,
    /// When it was surprised last.
    surprised_ms: Option<TimestampMs>,
    hinted_until_ms: TimestampMs,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Pace {
            rate,
            shape: None,
            groups: Vec::new(),
            readings_flat: 0,
            stretch: 1,
            fast_denied: false,
            recorder_ms: None,
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    pub(super) fn set_recorder(&mut self, interval_ms: Option<u32>) {
        self.recorder_ms = interval_ms;
    }

    pub(super) fn stretch(&self) -> u32 {
        self.stretch
    }

    pub(super) fn set_stretch(&mut self, stretch: u32) {
        self.stretch = stretch.clamp(1, STRETCH_MAX);
    }

    pub(super) fn fast_denied(&self) -> bool {
        self.fast_denied
    }

    pub(super) fn deny_fast(&mut self, denied: bool) {
        self.fast_denied = denied;
    }

    /// Takes note of a reading at a grid point that changed `changed` values.
    pub(super) fn observe(&mut self, groups: &GroupSet, changed: u32, now_ms: TimestampMs) {
        self.readings_flat = if changed > 0 { 0 } else { self.readings_flat.saturating_add(1) };
        if self.rate.fastest_ms().is_none() {
            return;
        }
        if self.shape != Some(groups.shape()) {
            // Hints name groups by place, which may have moved; the collector repeats them.
            self.shape = Some(groups.shape());
            self.groups.clear();
            self.groups.extend(
                groups.iter().map(|group| Urgency { trend: GroupTrend::of(group), ..Urgency::default() }),
            );
        }
        for (urgency, group) in self.groups.iter_mut().zip(groups.iter()) {
            // A clock that was set back must not silence it.
            let again =
                urgency.surprised_ms.is_none_or(|last| now_ms < last || now_ms - last >= SURPRISE_EVERY_MS);
            if urgency.trend.observe(group) && again {
                urgency.surprised_ms = Some(now_ms);
                urgency.moves_until_ms = now_ms + HOLD_MS;
            }
        }
    }

    /// Takes a hint about the group at a place of the sampler's list.
    pub(super) fn hint(&mut self, group: usize, urgency: f32, valid_ms: u32, now_ms: TimestampMs) {
        if self.rate.fastest_ms().is_none() {
            return;
        }
        let Some(state) = self.groups.get_mut(group) else { return };
        // Not a number is not urgent.
        let urgent = urgency >= URGENCY_MIN;
        state.hinted_until_ms = if urgent { now_ms + i64::from(valid_ms).min(HINT_MS_MAX) } else { 0 };
    }

    /// Whether the group at a place is to be published between grid points.
    pub(super) fn is_urgent(&self, group: usize, now_ms: TimestampMs) -> bool {
        !self.fast_denied
            && self.rate.fastest_ms().is_some()
            && self
                .groups
                .get(group)
                .is_some_and(|state| state.hinted_until_ms > now_ms || state.moves_until_ms > now_ms)
    }

    /// Whether any group is near a threshold, an alert is pending, or a value moves.
    pub(super) fn urgency(&self, now_ms: TimestampMs) -> Option<Reason> {
        self.rate.fastest_ms()?;
        if self.groups.iter().any(|state| state.hinted_until_ms > now_ms) {
            return Some(Reason::Hint);
        }
        self.groups.iter().any(|state| state.moves_until_ms > now_ms).then_some(Reason::Volatile)
    }

    /// The interval to read at now.
    pub(super) fn decide(&self, now_ms: TimestampMs) -> Decision {
        let grid_ms = self.rate.grid_ms().saturating_mul(self.stretch);
        let mut decision = Decision {
            interval_ms: grid_ms,
            grid_ms,
            reason: match self.rate {
                Rate::Fixed { .. } => Reason::Fixed,
                Rate::Adaptive(_) => Reason::Grid,
            },
        };
        if self.stretch > 1 {
            decision.reason = Reason::Budget;
        } else if let (Some(fastest_ms), Some(reason)) = (self.rate.fastest_ms(), self.urgency(now_ms)) {
            if self.fast_denied {
                decision.reason = Reason::Budget;
            } else {
                decision.interval_ms = fastest_ms;
                decision.reason = reason;
            }
        } else if let Some(slowest_ms) = self.rate.slowest_ms()
            && self.readings_flat >= FLAT_READINGS
        {
            (decision.interval_ms, decision.grid_ms, decision.reason) =
                (slowest_ms, slowest_ms, Reason::Flat);
        }
        if let Some(recorder_ms) = self.recorder_ms
            && !self.fast_denied
        {
            decision.interval_ms = decision.interval_ms.min(recorder_ms);
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::Adaptive;
    use super::*;
    use crate::group::{ColumnSpec, GroupHandle};

    const ADAPTIVE: Rate =
        Rate::Adaptive(Adaptive { fastest_ms: 100, grid_ms: 1_000, slowest_ms: Some(10_000) });

    fn groups() -> (GroupSet, Vec<GroupHandle>) {
        let mut groups = GroupSet::default();
        let handles = ["a", "b"]
            .map(|key| groups.define(key, Vec::new(), vec![ColumnSpec::plain("DCGM_FI_DEV_GPU_TEMP")]));
        (groups, handles.into())
    }

    fn read(
        pace: &mut Pace,
        (groups, handles): &mut (GroupSet, Vec<GroupHandle>),
        values: [f64; 2],
        now: i64,
    ) {
        groups.begin();
        for (handle, value) in handles.iter().zip(values) {
            groups.group(*handle).unwrap().put(0, value);
        }
        pace.observe(groups, 1, now);
    }

    #[test]
    fn a_value_that_jumps_makes_its_group_fast_for_a_while() {
        let (mut pace, mut set) = (Pace::new(ADAPTIVE), groups());
        for second in 0..20 {
            read(&mut pace, &mut set, [40.0, 50.0], second * 1_000);
            assert_eq!(pace.decide(second * 1_000).interval_ms, 1_000);
        }
        read(&mut pace, &mut set, [40.0, 80.0], 20_000);
        let decision = pace.decide(20_000);
        assert_eq!((decision.interval_ms, decision.grid_ms, decision.reason), (100, 1_000, Reason::Volatile));
        assert!(pace.is_urgent(1, 20_100) && !pace.is_urgent(0, 20_100));
        assert_eq!(pace.decide(30_000).reason, Reason::Grid);
        // What moves all the time is not fast all the time.
        read(&mut pace, &mut set, [40.0, 2_000.0], 31_000);
        assert_eq!(pace.decide(31_000).reason, Reason::Grid);
        read(&mut pace, &mut set, [40.0, 200_000.0], 80_000);
        assert_eq!(pace.decide(80_000).reason, Reason::Volatile);
    }

    #[test]
    fn a_hint_makes_a_group_fast_until_it_ends_or_is_taken_back() {
        let (mut pace, mut set) = (Pace::new(ADAPTIVE), groups());
        read(&mut pace, &mut set, [1.0, 1.0], 0);
        pace.hint(0, 1.0, 5_000, 0);
        assert_eq!(pace.decide(4_999).reason, Reason::Hint);
        assert_eq!(pace.decide(5_000).reason, Reason::Grid);
        pace.hint(0, 0.9, u32::MAX, 6_000);
        assert!(pace.is_urgent(0, 6_000) && !pace.is_urgent(0, 6_000 + HINT_MS_MAX));
        pace.hint(0, 0.0, 5_000, 7_000);
        pace.hint(1, f32::NAN, 5_000, 7_000);
        pace.hint(99, 1.0, 5_000, 7_000);
        assert_eq!(pace.decide(7_000).reason, Reason::Grid);
    }

    #[test]
    fn what_is_flat_is_read_less_often_only_where_that_was_asked_for() {
        let (mut pace, set) = (Pace::new(ADAPTIVE), groups());
        let mut grid_only = Pace::new(Rate::fixed(1_000));
        for second in 0..i64::from(FLAT_READINGS) {
            pace.observe(&set.0, 0, second * 1_000);
            grid_only.observe(&set.0, 0, second * 1_000);
        }
        let decision = pace.decide(60_000);
        assert_eq!((decision.interval_ms, decision.grid_ms, decision.reason), (10_000, 10_000, Reason::Flat));
        assert_eq!(grid_only.decide(60_000).interval_ms, 1_000);
        pace.observe(&set.0, 1, 61_000);
        assert_eq!(pace.decide(61_000).reason, Reason::Grid);
    }

    #[test]
    fn the_budget_comes_before_every_wish() {
        let (mut pace, mut set) = (Pace::new(ADAPTIVE), groups());
        read(&mut pace, &mut set, [1.0, 1.0], 0);
        pace.hint(0, 1.0, 60_000, 0);
        pace.deny_fast(true);
        assert_eq!((pace.decide(1).interval_ms, pace.decide(1).reason), (1_000, Reason::Budget));
        pace.deny_fast(false);
        pace.set_stretch(4);
        let decision = pace.decide(1);
        assert_eq!((decision.interval_ms, decision.grid_ms, decision.reason), (4_000, 4_000, Reason::Budget));
    }

    #[test]
    fn the_recorder_reads_fast_without_publishing_more() {
        let mut pace = Pace::new(Rate::fixed(1_000));
        pace.set_recorder(Some(100));
        let decision = pace.decide(0);
        assert_eq!((decision.interval_ms, decision.grid_ms), (100, 1_000));
        assert!(!pace.is_urgent(0, 0));
    }
}
