//! Evaluation times.

use pharos_common::sample::TimestampMs;

/// Evenly spaced times: `start`, `start + step`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start_ms: TimestampMs,
    /// Greater than zero.
    pub(crate) step_ms: i64,
    /// How many times; may be none.
    pub(crate) steps: usize,
}

impl Grid {
    /// One time.
    pub(crate) fn single(time_ms: TimestampMs) -> Self {
        Grid { start_ms: time_ms, step_ms: 1, steps: 1 }
    }

    /// From `start_ms` on, up to and with `end_ms` if a step falls on it.
    pub(crate) fn between(start_ms: TimestampMs, end_ms: TimestampMs, step_ms: i64) -> Self {
        let step_ms = step_ms.max(1);
        let steps = match end_ms.checked_sub(start_ms) {
            Some(length) if length >= 0 => usize::try_from(length / step_ms + 1).unwrap_or(usize::MAX),
            _ => 0,
        };
        Grid { start_ms, step_ms, steps }
    }

    /// The time of a step.
    #[inline]
    pub(crate) fn time(&self, step: usize) -> TimestampMs {
        self.start_ms.saturating_add(self.step_ms.saturating_mul(step as i64))
    }

    /// The last time; the start if there is none.
    pub(crate) fn end_ms(&self) -> TimestampMs {
        self.time(self.steps.saturating_sub(1))
    }
}

/// How a selector's read time follows from the evaluation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    /// `@`, resolved.
    pub(crate) at_ms: Option<TimestampMs>,
    /// `offset`
    pub(crate) offset_ms: i64,
}

impl Shift {
    /// The time that is read when evaluating at `time_ms`.
    #[inline]
    pub(crate) fn apply(&self, time_ms: TimestampMs) -> TimestampMs {
        self.at_ms.unwrap_or(time_ms).saturating_sub(self.offset_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_ends_on_or_before_its_end() {
        assert_eq!(Grid::between(0, 10, 3).steps, 4);
        assert_eq!(Grid::between(0, 9, 3).end_ms(), 9);
        assert_eq!(Grid::between(5, 4, 1).steps, 0);
        assert_eq!(Grid::single(7).time(0), 7);
    }
}
