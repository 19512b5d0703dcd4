//! The CPU budget: what the agent costs, and whom to slow down when that is too much.
//!
//! Processor time that the process has used flows in, window by window; one change a window flows out, so
//! that its effect is seen before the next. The least useful sampler goes first: the one that costs most
//! for each value that changed. Samplers near an alert go last.

use super::pace::STRETCH_MAX;
use std::time::Duration;

/// Time over which cost is measured before something is decided.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Below this share of the budget samplers get their rates back.
const EASY_SHARE: f64 = 0.7;

/// One sampler, as it was in the last window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidate {
    /// Processor time of its readings, seconds.
    pub(super) cpu_seconds: f64,
    /// Values that differed from the reading before.
    pub(super) changed: u64,
    /// Whether it is near a threshold or a value moves.
    pub(super) urgent: bool,
    /// Whether it reads between grid points.
    pub(super) fast: bool,
    pub(super) stretch: u32,
    pub(super) fast_denied: bool,
}

/// What to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Keep,
    /// No more readings between grid points for this one.
    DenyFast(usize),
    /// Half the rate for this one.
    Slow(usize),
    /// Double the rate of this one again.
    Restore(usize),
    /// Readings between grid points for this one again.
    AllowFast(usize),
}

/// Decides at the end of a window in which the process used `used` of one core.
pub(super) fn decide(used: f64, budget: f64, samplers: &[Candidate]) -> Verdict {
    // What one changed value cost; those that cost nothing measurable are not worth slowing.
    let cost = |candidate: &Candidate| candidate.cpu_seconds / (candidate.changed + 1) as f64;
    let most = |of: &dyn Fn(&Candidate) -> bool| {
        let costly = samplers.iter().enumerate().filter(|(_, candidate)| candidate.cpu_seconds > 0.0);
        let found = costly.filter(|(_, candidate)| of(candidate));
        found.max_by(|(_, left), (_, right)| cost(left).total_cmp(&cost(right))).map(|(at, _)| at)
    };
    let least = |of: &dyn Fn(&Candidate) -> bool| {
        let found = samplers.iter().enumerate().filter(|(_, candidate)| of(candidate));
        found.min_by(|(_, left), (_, right)| cost(left).total_cmp(&cost(right))).map(|(at, _)| at)
    };
    if used > budget {
        let can_slow = |candidate: &Candidate| candidate.stretch < STRETCH_MAX;
        return most(&|candidate| candidate.fast && !candidate.urgent)
            .map(Verdict::DenyFast)
            .or_else(|| most(&|candidate| can_slow(candidate) && !candidate.urgent).map(Verdict::Slow))
            .or_else(|| most(&|candidate| candidate.fast).map(Verdict::DenyFast))
            .or_else(|| most(&can_slow).map(Verdict::Slow))
            .unwrap_or(Verdict::Keep);
    }
    if used < budget * EASY_SHARE {
        // In the opposite order, the most useful first.
        return least(&|candidate| candidate.stretch > 1)
            .map(Verdict::Restore)
            .or_else(|| least(&|candidate| candidate.fast_denied).map(Verdict::AllowFast))
            .unwrap_or(Verdict::Keep);
    }
    Verdict::Keep
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(cpu_seconds: f64, changed: u64) -> Candidate {
        Candidate { cpu_seconds, changed, stretch: 1, ..Candidate::default() }
    }

    #[test]
    fn within_the_budget_nothing_is_slowed() {
        assert_eq!(decide(0.009, 0.01, &[sampler(1.0, 0)]), Verdict::Keep);
        assert_eq!(decide(0.001, 0.01, &[sampler(1.0, 0)]), Verdict::Keep);
    }

    #[test]
    fn nobody_is_slowed_for_a_cost_that_was_not_measured() {
        assert_eq!(decide(0.02, 0.01, &[sampler(0.0, 0), sampler(0.0, 5)]), Verdict::Keep);
        assert_eq!(decide(0.02, 0.01, &[sampler(0.001, 5), sampler(0.0, 0)]), Verdict::Slow(0));
    }

    #[test]
    fn the_least_useful_is_slowed_first_and_gets_its_rate_back_last() {
        let mut samplers = [sampler(0.010, 1_000), sampler(0.010, 10), sampler(0.002, 0)];
        assert_eq!(decide(0.02, 0.01, &samplers), Verdict::Slow(2));
        samplers[2].stretch = STRETCH_MAX;
        assert_eq!(decide(0.02, 0.01, &samplers), Verdict::Slow(1));
        samplers[1].stretch = 2;
        assert_eq!(decide(0.005, 0.01, &samplers), Verdict::Restore(1));
    }

    #[test]
    fn what_an_alert_waits_for_is_slowed_last_of_all() {
        let mut samplers = [sampler(0.010, 0), sampler(0.001, 1_000)];
        samplers[0].urgent = true;
        samplers[0].fast = true;
        assert_eq!(decide(0.02, 0.01, &samplers), Verdict::Slow(1));
        samplers[1].stretch = STRETCH_MAX;
        assert_eq!(decide(0.02, 0.01, &samplers), Verdict::DenyFast(0));
        samplers[0] = Candidate { fast: false, fast_denied: true, ..samplers[0] };
        assert_eq!(decide(0.02, 0.01, &samplers), Verdict::Slow(0));
        samplers[1].stretch = 1;
        samplers[0].stretch = 1;
        assert_eq!(decide(0.001, 0.01, &samplers), Verdict::AllowFast(0));
    }
}
