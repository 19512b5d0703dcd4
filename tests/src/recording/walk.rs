//! A recording told as a longer time: through it forwards, then backwards, then forwards again.
//!
//! Beginning anew each time would make gauges jump, and would give a store whose compression finds what it has
//! seen before a period to find. Walking back and forth keeps every gauge in one piece and every step as large as
//! it was; what was seen comes again in order only two lengths later. Counters never walk back: going backwards
//! they rise by the steps of the recording in reverse order. So does what rises as a counter does but is called
//! a gauge, such as the time.

use super::Recording;
use crate::data::Ticks;
use std::sync::Arc;

/// One node that walks.
#[derive(Debug)]
pub struct Walk {
    recording: Arc<Recording>,
    /// By column: whether it goes on rising.
    rising: Vec<bool>,
    second: usize,
    passes: u32,
    values: Vec<f64>,
}

impl Walk {
    /// At its first second.
    pub fn new(recording: Arc<Recording>) -> Walk {
        let rises = |values: &[f64]| values.is_sorted() && values.first() < values.last();
        let always = |values: &[f64]| values.windows(2).all(|pair| pair[0] < pair[1]);
        let rising = recording
            .columns
            .iter()
            .map(|column| if column.counter { rises(&column.values) } else { always(&column.values) });
        let rising = rising.collect();
        Walk { recording, rising, second: 0, passes: 0, values: Vec::new() }
    }
}

impl Ticks for Walk {
    fn tick(&mut self) -> &[f64] {
        let forwards = self.passes.is_multiple_of(2);
        let at = if forwards { self.second } else { self.recording.seconds - 1 - self.second };
        let passes = f64::from(self.passes);
        self.values.clear();
        self.values.extend(self.recording.columns.iter().zip(&self.rising).map(|(column, rising)| {
            let value = column.values[at];
            let (Some(first), Some(last)) = (column.values.first(), column.values.last()) else {
                return value;
            };
            if !rising || self.passes == 0 {
                return value;
            }
            let gone = if forwards { value - first } else { last - value };
            column.rounded(first + passes * (last - first) + gone)
        }));
        self.second += 1;
        if self.second == self.recording.seconds {
            self.second = 0;
            self.passes += 1;
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recorder;

    fn walk() -> Walk {
        let mut recorder = Recorder::default();
        for (counter, gauge, time) in [(7.1, 3, 1.0625), (7.1, 9, 2.125), (7.4, 5, 3.5), (8.0, 5, 4.75)] {
            recorder.add(&format!(
                "# TYPE node_a_total counter\nnode_a_total {counter}\nnode_b {gauge}\nnode_c_seconds {time}\n"
            ));
        }
        Walk::new(Arc::new(Recording::read(&recorder.finish().unwrap()).unwrap()))
    }

    fn column(at: usize) -> Vec<f64> {
        let mut walk = walk();
        (0..12).map(|_| walk.tick()[at]).collect()
    }

    #[test]
    fn gauges_come_back_the_way_they_went() {
        assert_eq!(column(1), [3.0, 9.0, 5.0, 5.0, 5.0, 5.0, 9.0, 3.0, 3.0, 9.0, 5.0, 5.0]);
    }

    #[test]
    fn counters_rise_by_the_same_steps_with_the_same_decimals_and_never_fall() {
        assert_eq!(column(0), [7.1, 7.1, 7.4, 8.0, 8.0, 8.6, 8.9, 8.9, 8.9, 8.9, 9.2, 9.8]);
    }

    #[test]
    fn what_always_rises_goes_on_rising_whatever_it_is_called() {
        assert!(column(2).is_sorted());
        assert_eq!(column(2)[4..8], [4.75, 6.0, 7.375, 8.4375]);
    }
}
