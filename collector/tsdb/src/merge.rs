//! Puts a series together from what head and blocks know of it.
//!
//! Pieces come in the order in which their samples were stored. Where two have a sample at one timestamp
//! the earlier piece wins: the first sample stays, as in Prometheus.

use crate::select::SelectedSeries;
use crate::starts::Starts;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::Span;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Samples of one series from one source, in time order.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) timestamps: Arc<[TimestampMs]>,
    pub(crate) values: Vec<f64>,
}

/// All pieces of all selected series.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    by_labels: HashMap<Labels, Vec<Piece>, foldhash::fast::RandomState>,
}

impl Piece {
    /// The samples in a span, by position.
    pub(crate) fn rows_in(&self, span: Span) -> Range<usize> {
        let from = self.timestamps.partition_point(|&timestamp| timestamp <= span.after_ms);
        from..self.timestamps.partition_point(|&timestamp| timestamp <= span.until_ms).max(from)
    }
}

impl Pieces {
    pub(crate) fn add(&mut self, labels: &Labels, piece: Piece) {
        match self.by_labels.get_mut(labels) {
            Some(pieces) => pieces.push(piece),
            None => {
                self.by_labels.insert(labels.clone(), vec![piece]);
            }
        }
    }

    /// The pieces of each series, in no order of series.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = (Labels, Vec<Piece>)> {
        self.by_labels.into_iter()
    }

    /// Each series whole, sorted by labels.
    pub(crate) fn into_series(self) -> Vec<SelectedSeries> {
        let mut joined = JoinedTimestamps::default();
        let mut all: Vec<SelectedSeries> = self
            .by_labels
            .into_iter()
            .map(|(labels, pieces)| {
                let Piece { timestamps, values } = join(pieces, |pieces| joined.join(pieces));
                SelectedSeries {
                    labels,
                    timestamps,
                    values,
                    histograms: Vec::new(),
                    starts: Starts::default(),
                }
            })
            .collect();
        all.sort_unstable_by(|left, right| left.labels.cmp(&right.labels));
        all
    }
}

/// Joined columns of timestamps that are remembered, ...
const JOINED_KNOWN_MAX: usize = 1_024;

/// ... and timestamps in all of them at which they are forgotten, 8 bytes each and as much for their parts.
const JOINED_ROWS_KNOWN_MAX: usize = 2 << 20;

/// Timestamps that were joined already: series of one group have the same pieces, so they share the
/// result, too. Forgotten when there are many. Keyed by the addresses of the parts, which are kept alive beside it.
#[derive(Debug, Default)]
pub(crate) struct JoinedTimestamps {
    by_parts: HashMap<Box<[usize]>, Joined, foldhash::fast::RandomState>,
    rows: usize,
}

#[derive(Debug)]
struct Joined {
    _parts: Vec<Arc<[TimestampMs]>>,
    whole: Arc<[TimestampMs]>,
}

impl JoinedTimestamps {
    pub(crate) fn join(&mut self, pieces: &[Piece]) -> Arc<[TimestampMs]> {
        if self.by_parts.len() >= JOINED_KNOWN_MAX || self.rows >= JOINED_ROWS_KNOWN_MAX {
            self.rows = 0;
            self.by_parts.clear();
        }
        let key: Box<[usize]> = pieces.iter().map(|piece| piece.timestamps.as_ptr() as usize).collect();
        let entry = self.by_parts.entry(key).or_insert_with(|| {
            let parts: Vec<_> = pieces.iter().map(|piece| Arc::clone(&piece.timestamps)).collect();
            let whole: Arc<[TimestampMs]> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.rows += whole.len();
            Joined { _parts: parts, whole }
        });
        Arc::clone(&entry.whole)
    }
}

/// One piece of all, which are in the order in which they were stored.
pub(crate) fn join_pieces(pieces: Vec<Piece>) -> Piece {
    join(pieces, |pieces| JoinedTimestamps::default().join(pieces))
}

/// One piece of all, which are in the order in which they were stored. `timestamps` joins those of pieces that
/// follow each other.
pub(crate) fn join(mut pieces: Vec<Piece>, timestamps: impl FnOnce(&[Piece]) -> Arc<[TimestampMs]>) -> Piece {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only;
    }
    // The earliest stored wins, so the order must be remembered before sorting by time.
    let disjoint = {
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|&at| pieces[at].timestamps.first().copied());
        order.windows(2).all(|pair| pieces[pair[0]].timestamps.last() < pieces[pair[1]].timestamps.first())
    };
    if disjoint {
        pieces.sort_by_key(|piece| piece.timestamps.first().copied());
        let timestamps = timestamps(&pieces);
        let mut values = Vec::with_capacity(timestamps.len());
        for piece in &pieces {
            values.extend_from_slice(&piece.values);
        }
        return Piece { timestamps, values };
    }
    let mut merged: Option<Piece> = None;
    for piece in pieces {
        merged = Some(match merged {
            None => piece,
            Some(earlier) => merge_two(&earlier, &piece),
        });
    }
    merged.unwrap_or(Piece { timestamps: Arc::from([]), values: Vec::new() })
}

/// Both pieces' samples in time order; `first` wins at equal timestamps.
pub(crate) fn merge_two(first: &Piece, second: &Piece) -> Piece {
    let mut timestamps = Vec::with_capacity(first.timestamps.len() + second.timestamps.len());
    let mut values = Vec::with_capacity(timestamps.capacity());
    let (mut left, mut right) = (0, 0);
    loop {
        let next_left = first.timestamps.get(left);
        let next_right = second.timestamps.get(right);
        let take_left = match (next_left, next_right) {
            (Some(left), Some(right)) => left <= right,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        if take_left {
            if next_left == next_right {
                right += 1;
            }
            timestamps.push(first.timestamps[left]);
            values.push(first.values[left]);
            left += 1;
        } else {
            timestamps.push(second.timestamps[right]);
            values.push(second.values[right]);
            right += 1;
        }
    }
    Piece { timestamps: timestamps.into(), values }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(samples: &[(i64, f64)]) -> Piece {
        Piece {
            timestamps: samples.iter().map(|sample| sample.0).collect(),
            values: samples.iter().map(|sample| sample.1).collect(),
        }
    }

    #[track_caller]
    fn check(pieces: &[&[(i64, f64)]], want: &[(i64, f64)]) {
        let got = join_pieces(pieces.iter().map(|samples| piece(samples)).collect());
        let got: Vec<(i64, f64)> = got.timestamps.iter().copied().zip(got.values).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn pieces_join_in_time_order_and_the_first_stored_sample_stays() {
        check(&[&[(1, 1.0)]], &[(1, 1.0)]);
        check(&[&[(3, 3.0)], &[(1, 1.0), (2, 2.0)]], &[(1, 1.0), (2, 2.0), (3, 3.0)]);
        check(&[&[(1, 1.0), (3, 3.0)], &[(2, 2.0), (3, 9.0)]], &[(1, 1.0), (2, 2.0), (3, 3.0)]);
        check(&[&[(5, 5.0)], &[(5, 6.0)], &[(1, 1.0), (5, 7.0)]], &[(1, 1.0), (5, 5.0)]);
    }
}
