//! Exemplars: single observations, with labels of their own (a trace's id), beside the series they were
//! counted in.
//!
//! They are few and short-lived, so they have neither pages nor blocks: the newest are kept in memory, the
//! oldest of all series goes first, and a small journal of their own brings them back after a restart.
//! An exemplar can be read, and is durable, when [`ExemplarLog::append`] returns. As in Prometheus, one that
//! is older than the newest of its series is refused, and one that repeats it is left out.

use crate::codec::varint::{Cursor, push, push_bytes};
use crate::codec::zigzag;
use crate::error::TsdbError;
use pharos_common::journal::{Journal, Recovery};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::StorageIo;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A segment of the journal is closed at this size.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// Most characters of an exemplar's label names and values together, as OpenMetrics has it.
const LABEL_CHARS_MAX: usize = 128;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// What names it, a trace's id for example.
    pub labels: Labels,
    /// When it was made.
    pub timestamp_ms: TimestampMs,
    /// What was observed.
    pub value: f64,
}

/// What became of exemplars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendedExemplars {
    /// Kept, repetitions included.
    pub kept: u64,
    /// Older than the newest of their series.
    pub out_of_order: u64,
    /// Labels longer than OpenMetrics allows.
    pub too_long: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct ExemplarLog {
    kept: Mutex<Kept>,
    written: Mutex<Written>,
}

/// The exemplars in memory.
#[derive(Debug, Default)]
struct Kept {
    max: usize,
    by_series: BTreeMap<Labels, VecDeque<Exemplar>>,
    /// The series of each exemplar, in the order in which they came.
    order: VecDeque<Labels>,
}

/// The exemplars on disk.
#[derive(Debug)]
struct Written {
    journal: Journal,
    /// How many each segment holds, oldest first.
    segments: VecDeque<(u64, usize)>,
    max: usize,
    segment_bytes_max: u64,
}

impl ExemplarLog {
    /// Opens the log in `folder` with at most `max` exemplars.
    pub(crate) fn open(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        max: usize,
    ) -> Result<(ExemplarLog, Recovery), TsdbError> {
        Self::open_with(io, folder, max, SEGMENT_BYTES_MAX)
    }

    fn open_with(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        max: usize,
        segment_bytes_max: u64,
    ) -> Result<(ExemplarLog, Recovery), TsdbError> {
        let mut kept = Kept { max, ..Kept::default() };
        let mut segments: VecDeque<(u64, usize)> = VecDeque::new();
        let (journal, recovery) = Journal::open(io, folder, |position, record| {
            let mut count = 0;
            // A record that checks out but makes no sense is of nobody: what it says before is taken.
            read(record, |series, exemplar| {
                count += 1;
                kept.insert(series, exemplar);
            });
            note(&mut segments, position.segment, count);
            Ok(())
        })?;
        let written = Written { journal, segments, max, segment_bytes_max };
        Ok((ExemplarLog { kept: Mutex::new(kept), written: Mutex::new(written) }, recovery))
    }

    /// Keeps exemplars of series; they are durable when this returns. Blocks the thread.
    ///
    /// # Errors
    /// If the journal cannot take them.
    pub(crate) fn append(&self, exemplars: &[(Labels, Exemplar)]) -> Result<AppendedExemplars, TsdbError> {
        let mut appended = AppendedExemplars::default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<&(Labels, Exemplar)> = Vec::new();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let mut newest: BTreeMap<&Labels, &Exemplar> = BTreeMap::new();
            for entry @ (series, exemplar) in exemplars {
                let before = newest.get(series).copied().or_else(|| kept.by_series.get(series)?.back());
                if length(&exemplar.labels) > LABEL_CHARS_MAX {
                    appended.too_long += 1;
                } else if before.is_some_and(|before| before == exemplar) {
                    appended.kept += 1;
                } else if before.is_some_and(|before| before.timestamp_ms > exemplar.timestamp_ms) {
                    appended.out_of_order += 1;
                } else {
                    appended.kept += 1;
                    newest.insert(series, exemplar);
                    new.push(entry);
                }
            }
        }
        if new.is_empty() {
            return Ok(appended);
        }
        written.write(&new)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, exemplar) in new {
            kept.insert(series.clone(), exemplar.clone());
        }
        Ok(appended)
    }

    /// The exemplars of all series that one of the selectors matches, in the range (both ends included),
    /// sorted by series, oldest first.
    pub(crate) fn select(
        &self,
        selectors: &[Vec<Matcher>],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = |labels: &Labels| {
            selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
        };
        let in_range = |exemplar: &&Exemplar| (start_ms..=end_ms).contains(&exemplar.timestamp_ms);
        kept.by_series
            .iter()
            .filter(|(labels, _)| matches(labels))
            .map(|(labels, of)| (labels.clone(), of.iter().filter(in_range).cloned().collect::<Vec<_>>()))
            .filter(|(_, of)| !of.is_empty())
            .collect()
    }
}

impl Kept {
    fn insert(&mut self, series: Labels, exemplar: Exemplar) {
        self.by_series.entry(series.clone()).or_default().push_back(exemplar);
        self.order.push_back(series);
        while self.order.len() > self.max {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(of) = self.by_series.get_mut(&oldest) {
                of.pop_front();
                if of.is_empty() {
                    self.by_series.remove(&oldest);
                }
            }
        }
    }
}

impl Written {
    fn write(&mut self, exemplars: &[&(Labels, Exemplar)]) -> Result<(), TsdbError> {
        if self.journal.current_segment_bytes() > self.segment_bytes_max {
            self.journal.rotate()?;
            self.drop_superfluous()?;
        }
        self.journal.append(&encode(exemplars))?;
        self.journal.sync()?;
        note(&mut self.segments, self.journal.current_segment(), exemplars.len());
        Ok(())
    }

    /// Removes segments that memory would not hold any more.
    fn drop_superfluous(&mut self) -> Result<(), TsdbError> {
        let mut held: usize = self.segments.iter().map(|(_, count)| count).sum();
        while let Some(&(_, count)) = self.segments.front()
            && held - count >= self.max
        {
            held -= count;
            self.segments.pop_front();
        }
        let oldest = self.segments.front().map_or(self.journal.current_segment(), |(number, _)| *number);
        Ok(self.journal.remove_before(oldest)?)
    }
}

fn note(segments: &mut VecDeque<(u64, usize)>, segment: u64, count: usize) {
    match segments.back_mut() {
        Some((last, held)) if *last == segment => *held += count,
        _ => segments.push_back((segment, count)),
    }
}

fn length(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum()
}

/// A record: for each exemplar the labels of its series, its own, each with its length, its time as a zigzag
/// varint, and the bits of its value.
fn encode(exemplars: &[&(Labels, Exemplar)]) -> Vec<u8> {
    let mut record = Vec::new();
    push(&mut record, exemplars.len() as u64);
    for (series, exemplar) in exemplars {
        push_bytes(&mut record, series.as_bytes());
        push_bytes(&mut record, exemplar.labels.as_bytes());
        push(&mut record, zigzag(exemplar.timestamp_ms));
        record.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    }
    record
}

fn read(record: &[u8], mut visit: impl FnMut(Labels, Exemplar)) -> Option<()> {
    let mut cursor = Cursor::new(record);
    for _ in 0..cursor.varint()? {
        let series = Labels::from_bytes(cursor.bytes()?)?;
        let labels = Labels::from_bytes(cursor.bytes()?)?;
        let timestamp_ms = cursor.signed()?;
        let value = f64::from_bits(cursor.u64()?);
        visit(series, Exemplar { labels, timestamp_ms, value });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::matcher::MatchOp;
    use pharos_common::storage_io::MemoryIo;

    fn series(node: &str) -> Labels {
        Labels::from_pairs([("__name__", "latency"), ("node", node)])
    }

    fn exemplar(timestamp_ms: TimestampMs) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("trace_id", "abc")]), timestamp_ms, value: 0.5 }
    }

    fn open(io: &MemoryIo, max: usize) -> ExemplarLog {
        ExemplarLog::open_with(Arc::new(io.clone()), Path::new("/exemplars"), max, 400).unwrap().0
    }

    fn times(log: &ExemplarLog, node: &str) -> Vec<TimestampMs> {
        let matchers = vec![Matcher::new("node", MatchOp::Equal, node).unwrap()];
        let found = log.select(&[matchers], 0, 1_000);
        found.iter().flat_map(|(_, of)| of.iter().map(|exemplar| exemplar.timestamp_ms)).collect()
    }

    #[test]
    fn they_survive_a_power_cut_once_appended() {
        let io = MemoryIo::new();
        open(&io, 10).append(&[(series("a"), exemplar(1)), (series("b"), exemplar(2))]).unwrap();
        let log = open(&io.after_power_cut(), 10);
        assert_eq!((times(&log, "a"), times(&log, "b")), (vec![1], vec![2]));
    }

    #[test]
    fn older_ones_of_a_series_are_refused_and_repetitions_are_kept_once() {
        let log = open(&MemoryIo::new(), 10);
        let mut long = exemplar(9);
        long.labels = Labels::from_pairs([("trace_id", "x".repeat(121))]);
        let appended = log
            .append(&[
                (series("a"), exemplar(5)),
                (series("a"), exemplar(5)),
                (series("a"), exemplar(4)),
                (series("a"), long),
            ])
            .unwrap();
        assert_eq!(appended, AppendedExemplars { kept: 2, out_of_order: 1, too_long: 1 });
        assert_eq!(times(&log, "a"), [5]);
    }

    #[test]
    fn the_oldest_of_all_series_goes_first_and_so_does_its_segment() {
        let io = MemoryIo::new();
        let log = open(&io, 3);
        for number in 0..100 {
            log.append(&[(series(&format!("node-{number}")), exemplar(0))]).unwrap();
        }
        for at in 2..5 {
            log.append(&[(series("a"), exemplar(at))]).unwrap();
        }
        assert_eq!(times(&log, "a"), [2, 3, 4]);
        let segments = io.paths().into_iter().filter(|path| path.starts_with("/exemplars")).count();
        assert!(segments <= 3, "{segments} segments");
        assert_eq!(times(&open(&io, 3), "a"), [2, 3, 4]);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm() {
        let whole = encode(&[&(series("a"), exemplar(1))]);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length], |_, _| ()), None);
        }
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&huge, |_, _| ()), None);
    }
}
