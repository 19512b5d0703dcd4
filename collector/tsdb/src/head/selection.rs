//! What the head has of a selection, as it was at one moment: series in the order of their labels, whose
//! samples are decoded when they are asked for.

use super::group::GroupSnapshot;
use super::{Found, Head};
use crate::merge::{Piece, Pieces};
use crate::postings::Postings;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::{Sample, TimestampMs};
use roaring::RoaringBitmap;
use std::ops::Range;
use std::sync::Arc;

/// What is wanted of each series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All samples of the range.
    All,
    /// The same, and their start timestamps.
    WithStarts,
    /// The newest one.
    Newest,
}

impl Wanted {
    /// The series of an index that match.
    pub(crate) fn of(self, index: &Postings, matchers: &[Matcher]) -> RoaringBitmap {
        match self {
            Wanted::WithStarts => index.select(matchers),
            Wanted::All | Wanted::Newest => index.select_shown(matchers),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct HeadSelection {
    groups: Vec<Rows>,
    late: Vec<Piece>,
    /// Sorted by labels, then as they were stored.
    places: Vec<(Labels, Place)>,
    /// The places of each series.
    series: Vec<Range<usize>>,
}

/// Rows of a group in the range.
#[derive(Debug)]
struct Rows {
    snapshot: GroupSnapshot,
    timestamps: Arc<[TimestampMs]>,
}

/// Where samples of a series are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Of the rows of a group: the `index`-th wanted column, which is `column` of the group.
    Column {
        rows: u32,
        index: u32,
        column: u16,
    },
    /// The newest of a group's rows, when no more is wanted.
    Newest(Sample),
    Late(u32),
}

impl Head {
    /// Finds the series that match and have samples in the range, without decoding these.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        wanted: Wanted,
    ) -> HeadSelection {
        let Found { groups, labels, late } = self.find(matchers, start_ms, end_ms, wanted);
        let mut selection = HeadSelection::default();
        for (group, mut columns) in groups {
            let state = group.lock();
            if wanted == Wanted::Newest {
                columns.retain(|&(column, series)| {
                    match (state.newest_open(start_ms, end_ms, column), labels.get(&series)) {
                        (Some(sample), Some(labels)) => {
                            selection.places.push((labels.clone(), Place::Newest(sample)));
                            false
                        }
                        _ => true,
                    }
                });
            }
            if columns.is_empty() || !state.overlaps(start_ms, end_ms) {
                continue;
            }
            let numbers: Vec<u16> = columns.iter().map(|(column, _)| *column).collect();
            let snapshot = state.snapshot(start_ms, end_ms, &numbers);
            drop(state);
            let timestamps = snapshot.timestamps();
            if timestamps.is_empty() {
                continue;
            }
            let rows = selection.groups.len() as u32;
            selection.groups.push(Rows { snapshot, timestamps });
            for (index, (column, series)) in columns.into_iter().enumerate() {
                if let Some(labels) = labels.get(&series) {
                    let place = Place::Column { rows, index: index as u32, column };
                    selection.places.push((labels.clone(), place));
                }
            }
        }
        for (labels, piece) in late {
            selection.places.push((labels, Place::Late(selection.late.len() as u32)));
            selection.late.push(piece);
        }
        // Places of one series keep their order.
        selection.places.sort_by(|left, right| left.0.cmp(&right.0));
        let mut start = 0;
        for series in selection.places.chunk_by(|left, right| left.0 == right.0) {
            selection.series.push(start..start + series.len());
            start += series.len();
        }
        selection
    }
}

impl HeadSelection {
    /// Series found. Some may turn out to have no sample.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    fn places(&self, series: usize) -> &[(Labels, Place)] {
        self.series.get(series).and_then(|places| self.places.get(places.clone())).unwrap_or_default()
    }

    /// What names a series.
    pub(crate) fn labels(&self, series: usize) -> Option<&Labels> {
        self.places(series).first().map(|(labels, _)| labels)
    }

    /// About how many samples are decoded for a series.
    pub(crate) fn rows(&self, series: usize) -> usize {
        let rows = |place: &Place| match *place {
            Place::Column { rows, .. } => {
                self.groups.get(rows as usize).map_or(0, |rows| rows.timestamps.len())
            }
            Place::Newest(_) => 1,
            Place::Late(piece) => self.late.get(piece as usize).map_or(0, |piece| piece.values.len()),
        };
        self.places(series).iter().map(|(_, place)| rows(place)).sum()
    }

    /// Appends the samples of a series, in the order in which they were stored.
    pub(crate) fn pieces(&self, series: usize, out: &mut Vec<Piece>) {
        for (_, place) in self.places(series) {
            let piece = match *place {
                Place::Column { rows, index, column } => {
                    let Some(rows) = self.groups.get(rows as usize) else { continue };
                    let (timestamps, values) = rows.snapshot.column(index as usize, column, &rows.timestamps);
                    Piece { timestamps, values }
                }
                Place::Newest(sample) => {
                    Piece { timestamps: [sample.timestamp_ms].into(), values: vec![sample.value] }
                }
                Place::Late(piece) => match self.late.get(piece as usize) {
                    Some(piece) => piece.clone(),
                    None => continue,
                },
            };
            if !piece.timestamps.is_empty() {
                out.push(piece);
            }
        }
    }

    /// The newest sample of a series; the one stored first of several at that time.
    pub(crate) fn newest(&self, series: usize) -> Option<Sample> {
        let mut newest: Option<Sample> = None;
        for (_, place) in self.places(series) {
            let sample = match *place {
                Place::Newest(sample) => Some(sample),
                Place::Column { rows, index, column } => self.groups.get(rows as usize).and_then(|rows| {
                    let (timestamps, values) = rows.snapshot.column(index as usize, column, &rows.timestamps);
                    Some(Sample { timestamp_ms: *timestamps.last()?, value: *values.last()? })
                }),
                Place::Late(piece) => self.late.get(piece as usize).and_then(|piece| {
                    Some(Sample { timestamp_ms: *piece.timestamps.last()?, value: *piece.values.last()? })
                }),
            };
            if sample.is_some_and(|sample| newest.is_none_or(|have| sample.timestamp_ms > have.timestamp_ms))
            {
                newest = sample;
            }
        }
        newest
    }

    /// All samples of all series.
    pub(crate) fn into_pieces<E>(self, mut take: impl FnMut(usize) -> Result<(), E>) -> Result<Pieces, E> {
        let mut all = Pieces::default();
        let mut pieces = Vec::new();
        for series in 0..self.len() {
            take(self.rows(series))?;
            self.pieces(series, &mut pieces);
            if let Some(labels) = self.labels(series) {
                pieces.drain(..).for_each(|piece| all.add(labels, piece));
            }
        }
        Ok(all)
    }
}
