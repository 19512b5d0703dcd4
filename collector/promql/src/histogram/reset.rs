//! Whether a histogram's counters were reset between two samples.

use super::accumulate::Accumulator;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};

/// Whether `now` must have started again since `before`: it says so, or it holds less somewhere.
pub fn is_reset(now: &FloatHistogram, before: &FloatHistogram) -> bool {
    match now.counter_reset_hint {
        CounterResetHint::Reset => return true,
        CounterResetHint::NotReset => return false,
        CounterResetHint::Unknown | CounterResetHint::Gauge => {}
    }
    if now.count < before.count || now.uses_custom_buckets() != before.uses_custom_buckets() {
        return true;
    }
    let mut current = Accumulator::new(now);
    let mut previous = Accumulator::new(before);
    if now.uses_custom_buckets() {
        if now.custom_values != before.custom_values {
            let shared: Vec<f64> = now
                .custom_values
                .iter()
                .copied()
                .filter(|bound| before.custom_values.contains(bound))
                .collect();
            current.merge_into_bounds(&shared);
            previous.merge_into_bounds(&shared);
        }
        return current.falls_below(&previous);
    }
    // A counter's resolution only falls and its zero bucket only widens while it lives.
    if now.schema > before.schema || now.zero_threshold < before.zero_threshold {
        return true;
    }
    if previous.zero_at_least(now.zero_threshold) != now.zero_threshold {
        return true;
    }
    if now.zero_count < previous.zero_count() {
        return true;
    }
    previous.reduce_to(now.schema);
    current.falls_below(&previous)
}
