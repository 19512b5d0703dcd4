//! A selection under way: which series there are and where is known, their samples are read series by series.
//!
//! Each source (a block, the head) has its series in the order of their labels, so sources are merged like
//! sorted lists and nothing is hashed. A selection can be cut into parts that are read side by side.

use super::Inner;
use crate::block::cache::BlockCache;
use crate::block::index::Index;
use crate::block::reader::Block;
use crate::block::samples::{Window, Windows};
use crate::error::ReadError;
use crate::head::selection::{HeadSelection, Wanted};
use crate::hidden;
use crate::histogram::{self, PART_LABEL};
use crate::merge::{JoinedTimestamps, Piece, join};
use crate::select::{ReadBudget, Reads, SelectedSeries};
use crate::starts::{self, Starts};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::{Sample, TimestampMs};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering as AtomicOrdering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Series that were found, sorted by labels.
pub struct Selection {
    sources: Arc<Sources>,
    /// Those that are still to be read.
    series: std::vec::IntoIter<FoundSeries>,
    /// Their start timestamps, if they are wanted.
    starts: Arc<FoundStarts>,
    /// Series that had to be read at once, to be put together.
    read: std::vec::IntoIter<SelectedSeries>,
    scratch: Scratch,
}

/// Where the samples are.
struct Sources {
    inner: Arc<Inner>,
    /// Pages that are kept, as this reader may use them.
    pages: Arc<BlockCache>,
    blocks: Vec<Arc<Block>>,
    /// Of each block.
    indexes: Vec<Arc<Index>>,
    head: HeadSelection,
    start_ms: TimestampMs,
    end_ms: TimestampMs,
    wanted: Wanted,
    /// For each block, what its series have in common; the same for all parts, so that timestamps that are
    /// shared are seen to be.
    windows: Vec<Mutex<Windows>>,
    joined: Mutex<JoinedTimestamps>,
    /// For each block, whether any part has read samples of it.
    was_read: Vec<AtomicBool>,
}

/// Columns of start timestamps, by the series that they speak of.
type FoundStarts = HashMap<Labels, FoundSeries, foldhash::fast::RandomState>;

/// A series and where it is: in blocks, earliest stored first, then in the head.
struct FoundSeries {
    first: Place,
    more: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Position in the list of blocks, and number in the block.
    Block { block: u32, series: u32 },
    /// Position in what was found in the head.
    Head(u32),
}

/// What reading keeps from series to series.
#[derive(Default)]
struct Scratch {
    /// From where samples were read.
    reads: Reads,
    pieces: Vec<Piece>,
    /// One timestamp each, which many series share.
    moments: HashMap<TimestampMs, Arc<[TimestampMs]>, foldhash::fast::RandomState>,
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection").field("series_left", &self.len()).finish_non_exhaustive()
    }
}

impl Selection {
    /// Finds the series. The head first, then the blocks, so that nothing slips between them while a cut moves it.
    pub(super) fn find<B: ReadBudget>(
        inner: &Arc<Inner>,
        matchers: &[Matcher],
        (start_ms, end_ms): (TimestampMs, TimestampMs),
        wanted: Wanted,
        budget: &B,
    ) -> Result<Selection, ReadError<B::Refusal>> {
        let Some(matchers) = hidden::from_outside(matchers) else {
            return Ok(Selection::of_read(inner, Vec::new()));
        };
        budget.check().map_err(ReadError::Refused)?;
        let head = inner.head.select(&matchers, start_ms, end_ms, wanted);
        let blocks = inner.blocks_in(start_ms, end_ms, budget.may_read_files());
        let pages = Arc::new(inner.pages.for_reader(budget.may_read_files()));
        let windows = blocks.iter().map(|_| Mutex::new(Windows::new(Some(Arc::clone(&pages))))).collect();
        let (joined, was_read) = (Mutex::default(), blocks.iter().map(|_| AtomicBool::new(false)).collect());
        let mut sources = Sources {
            inner: Arc::clone(inner),
            indexes: Vec::with_capacity(blocks.len()),
            pages,
            blocks,
            head,
            start_ms,
            end_ms,
            wanted,
            windows,
            joined,
            was_read,
        };
        let mut found: Vec<FoundSeries> = Vec::new();
        let mut has_parts = false;
        for block in 0..sources.blocks.len() {
            budget.check().map_err(ReadError::Refused)?;
            let (places, of_parts) = sources.in_block(block, &matchers)?;
            has_parts |= of_parts;
            found = sources.merge(found, places);
        }
        let of_head: Vec<Place> = (0..sources.head.len() as u32).map(Place::Head).collect();
        let is_part =
            |place: &Place| sources.labels(*place).is_some_and(|labels| labels.get(PART_LABEL).is_some());
        has_parts |= of_head.iter().any(is_part);
        found = sources.merge(found, of_head);
        let starts = if wanted == Wanted::WithStarts {
            sources.split_off_starts(&mut found)
        } else {
            Default::default()
        };
        let mut selection = Selection::of(Arc::new(sources), found, Arc::default());
        if !has_parts {
            selection.starts = Arc::new(starts);
            return Ok(selection);
        }
        let mut read = Vec::with_capacity(selection.len());
        while let Some(series) = selection.next_series(budget)? {
            read.push(series);
        }
        let mut whole = histogram::assemble(read, budget).map_err(ReadError::Refused)?;
        for series in &mut whole {
            selection.sources.add_starts(&starts, series, &mut selection.scratch, budget)?;
        }
        Ok(Selection::of_read(inner, whole))
    }

    fn of(sources: Arc<Sources>, series: Vec<FoundSeries>, starts: Arc<FoundStarts>) -> Selection {
        let (series, read) = (series.into_iter(), Vec::new().into_iter());
        Selection { sources, series, starts, read, scratch: Scratch::default() }
    }

    fn of_read(inner: &Arc<Inner>, series: Vec<SelectedSeries>) -> Selection {
        let sources = Sources {
            inner: Arc::clone(inner),
            pages: Arc::clone(&inner.pages),
            blocks: Vec::new(),
            indexes: Vec::new(),
            head: HeadSelection::default(),
            start_ms: 0,
            end_ms: -1,
            wanted: Wanted::All,
            windows: Vec::new(),
            joined: Mutex::default(),
            was_read: Vec::new(),
        };
        Selection { read: series.into_iter(), ..Selection::of(Arc::new(sources), Vec::new(), Arc::default()) }
    }

    /// Series that are left, at most: some may turn out to have no sample.
    pub fn len(&self) -> usize {
        self.series.len() + self.read.len()
    }

    /// Whether no series is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many samples are left to be read.
    pub fn samples(&self) -> usize {
        let sources = &self.sources;
        if sources.wanted == Wanted::Newest {
            return self.len();
        }
        // Series of one block mostly have as many rows; the first ones tell.
        const ASKED: usize = 16;
        let some = self.series.as_slice();
        let step = (some.len() / ASKED).max(1);
        let asked = some.iter().step_by(step);
        let rows: usize =
            asked.map(|series| series.places().map(|place| sources.rows(place)).sum::<usize>()).sum();
        rows * step + self.read.as_slice().iter().map(|series| series.values.len()).sum::<usize>()
    }

    /// The same series in parts of `series_max` at most: the first part has the first series, and so on.
    pub fn split(self, series_max: usize) -> Vec<Selection> {
        if self.len() <= series_max || self.read.len() > 0 {
            return vec![self];
        }
        let mut parts = Vec::with_capacity(self.series.len().div_ceil(series_max.max(1)));
        let mut series = self.series;
        while series.len() > 0 {
            let part: Vec<FoundSeries> = series.by_ref().take(series_max.max(1)).collect();
            parts.push(Selection::of(Arc::clone(&self.sources), part, Arc::clone(&self.starts)));
        }
        parts
    }

    /// Reads the next series that has a sample in the range. `None` after the last.
    ///
    /// # Errors
    /// If the budget refuses to go on, a block is damaged or cannot be read.
    pub fn next_series<B: ReadBudget>(
        &mut self,
        budget: &B,
    ) -> Result<Option<SelectedSeries>, ReadError<B::Refusal>> {
        if let Some(series) = self.read.next() {
            return Ok(Some(series));
        }
        for found in self.series.by_ref() {
            budget.check().map_err(ReadError::Refused)?;
            let Some(labels) = self.sources.labels(found.first) else { continue };
            let (timestamps, values) = match self.sources.wanted {
                Wanted::Newest => {
                    let Some(sample) = self.sources.newest(&found, &mut self.scratch.reads)? else {
                        continue;
                    };
                    budget.take(1).map_err(ReadError::Refused)?;
                    (self.scratch.moment(sample.timestamp_ms), vec![sample.value])
                }
                Wanted::All | Wanted::WithStarts => {
                    let pieces = self.sources.pieces(&found, &mut self.scratch, budget)?;
                    let Some(Piece { timestamps, values }) = pieces else { continue };
                    (timestamps, values)
                }
            };
            let (labels, histograms, starts) = (labels.clone(), Vec::new(), Starts::default());
            let mut series = SelectedSeries { labels, timestamps, values, histograms, starts };
            self.sources.add_starts(&self.starts, &mut series, &mut self.scratch, budget)?;
            return Ok(Some(series));
        }
        budget.note_reads(std::mem::take(&mut self.scratch.reads));
        Ok(None)
    }
}

impl FoundSeries {
    fn places(&self) -> impl DoubleEndedIterator<Item = Place> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

impl Scratch {
    fn moment(&mut self, timestamp_ms: TimestampMs) -> Arc<[TimestampMs]> {
        /// Of series that were never sampled together there may be many.
        const KNOWN_MAX: usize = 1_024;
        if self.moments.len() >= KNOWN_MAX {
            self.moments.clear();
        }
        Arc::clone(self.moments.entry(timestamp_ms).or_insert_with(|| [timestamp_ms].into()))
    }
}

impl Sources {
    fn labels(&self, place: Place) -> Option<&Labels> {
        match place {
            Place::Block { block, series } => {
                let index = self.indexes.get(block as usize)?;
                index.series.get(series as usize).map(|series| &series.labels)
            }
            Place::Head(series) => self.head.labels(series as usize),
        }
    }

    /// About how many samples of the range are there.
    fn rows(&self, place: Place) -> usize {
        let Place::Block { block, series } = place else {
            let Place::Head(series) = place else { return 0 };
            return self.head.rows(series as usize);
        };
        let rows = || {
            let index = self.indexes.get(block as usize)?;
            let series = index.series.get(series as usize)?;
            let column = index.timestamps.get(series.timestamps as usize)?;
            let (first_ms, last_ms) = (column.first_ms(), column.last_ms);
            let (from_ms, to_ms) = (first_ms.max(self.start_ms), last_ms.min(self.end_ms));
            let share = (to_ms - from_ms + 1).max(0) as f64 / (last_ms - first_ms + 1).max(1) as f64;
            Some((column.rows as f64 * share) as usize)
        };
        rows().unwrap_or(0)
    }

    /// Series of a block that match and may have samples in the range, and whether there are parts of
    /// histograms among them.
    fn in_block<R>(
        &mut self,
        block: usize,
        matchers: &[Matcher],
    ) -> Result<(Vec<Place>, bool), ReadError<R>> {
        let Some(source) = self.blocks.get(block) else { return Ok((Vec::new(), false)) };
        let noted = |error| self.inner.noted(source, error);
        self.pages.permit_index(source)?;
        let index = source.index().map_err(noted)?;
        self.indexes.push(Arc::clone(&index));
        let selected = self.wanted.of(&index.postings, matchers);
        let has_parts = index.postings.values(PART_LABEL).is_some();
        let mut of_parts = false;
        let mut places = Vec::with_capacity(selected.len() as usize);
        for number in &selected {
            let Some(series) = index.series.get(number as usize) else { continue };
            let timestamps = index.timestamps.get(series.timestamps as usize);
            if timestamps.is_some_and(|timestamps| timestamps.overlaps(self.start_ms, self.end_ms)) {
                of_parts |= has_parts && series.labels.get(PART_LABEL).is_some();
                places.push(Place::Block { block: block as u32, series: number });
            }
        }
        Ok((places, of_parts))
    }

    /// Takes the columns of start timestamps out of what was found.
    fn split_off_starts(&self, found: &mut Vec<FoundSeries>) -> FoundStarts {
        let speaks_of = |series: &FoundSeries| self.labels(series.first).and_then(starts::whole);
        let mut starts = FoundStarts::default();
        let mut others = Vec::with_capacity(found.len());
        for series in std::mem::take(found) {
            match speaks_of(&series) {
                Some(labels) => drop(starts.insert(labels, series)),
                None => others.push(series),
            }
        }
        *found = others;
        starts
    }

    /// Reads the start timestamps of a series that was read.
    fn add_starts<B: ReadBudget>(
        &self,
        found: &FoundStarts,
        series: &mut SelectedSeries,
        scratch: &mut Scratch,
        budget: &B,
    ) -> Result<(), ReadError<B::Refusal>> {
        let Some(column) = found.get(&series.labels) else { return Ok(()) };
        if let Some(starts) = self.pieces(column, scratch, budget)? {
            series.add_starts(&starts);
            budget.give_back(starts.values.len());
        }
        Ok(())
    }

    /// Adds the places of a source that stored later; both are sorted by labels.
    fn merge(&self, found: Vec<FoundSeries>, later: Vec<Place>) -> Vec<FoundSeries> {
        let single = |place| FoundSeries { first: place, more: Vec::new() };
        if found.is_empty() {
            return later.into_iter().map(single).collect();
        }
        if later.is_empty() {
            return found;
        }
        let mut merged = Vec::with_capacity(found.len().max(later.len()));
        let mut later = later.into_iter().peekable();
        for mut series in found {
            let labels = self.labels(series.first);
            while let Some(&place) = later.peek() {
                match self.labels(place).cmp(&labels) {
                    Ordering::Less => merged.push(single(place)),
                    Ordering::Equal => series.more.push(place),
                    Ordering::Greater => break,
                }
                later.next();
            }
            merged.push(series);
        }
        merged.extend(later.map(single));
        merged
    }

    /// Counts samples read of a block, and the block itself the first time.
    fn note_block(&self, block: u32, samples: usize, reads: &mut Reads) {
        reads.block_samples += samples;
        let was_read = self.was_read.get(block as usize);
        let is_news = was_read.is_some_and(|was| !was.swap(true, AtomicOrdering::Relaxed));
        reads.blocks += usize::from(is_news);
    }

    /// A block, and where the samples of one of its series in the range are.
    fn window<R>(&self, block: u32, series: u32) -> Result<Option<(&Block, Window)>, ReadError<R>> {
        let at = block as usize;
        let (Some(block), Some(windows)) = (self.blocks.get(at), self.windows.get(at)) else {
            return Ok(None);
        };
        let window = lock(windows).window(block, series, self.start_ms, self.end_ms);
        let window = window.map_err(|error| self.inner.noted(block, error))?;
        Ok(window.map(|window| (block.as_ref(), window)))
    }

    /// All samples of a series in the range; `None` if there are none.
    fn pieces<B: ReadBudget>(
        &self,
        found: &FoundSeries,
        scratch: &mut Scratch,
        budget: &B,
    ) -> Result<Option<Piece>, ReadError<B::Refusal>> {
        scratch.pieces.clear();
        let mut taken = 0;
        for place in found.places() {
            let mut take = |rows| {
                taken += rows;
                budget.take(rows).map_err(ReadError::Refused)
            };
            match place {
                Place::Block { block: at, series } => {
                    let Some((block, window)) = self.window(at, series)? else { continue };
                    take(window.timestamps().len())?;
                    self.note_block(at, window.timestamps().len(), &mut scratch.reads);
                    let piece = block.samples_of(series, &window, Some(&self.pages));
                    let piece = piece.map_err(|error| self.inner.noted(block, error))?;
                    scratch.pieces.extend(piece.filter(|piece| !piece.values.is_empty()));
                }
                Place::Head(series) => {
                    let rows = self.head.rows(series as usize);
                    take(rows)?;
                    scratch.reads.head_samples += rows;
                    self.head.pieces(series as usize, &mut scratch.pieces);
                }
            }
        }
        let piece = match scratch.pieces.len() {
            0 => None,
            1 => scratch.pieces.pop(),
            _ => Some(join(std::mem::take(&mut scratch.pieces), |pieces| lock(&self.joined).join(pieces))),
        };
        // Several may have had the same samples, or a tombstone covers some.
        let held = piece.as_ref().map_or(0, |piece| piece.values.len());
        budget.give_back(taken);
        budget.take(held).map_err(ReadError::Refused)?;
        Ok(piece)
    }

    /// The newest sample of a series; the one stored first of several at that time.
    fn newest<R>(&self, found: &FoundSeries, reads: &mut Reads) -> Result<Option<Sample>, ReadError<R>> {
        let mut newest: Option<Sample> = None;
        for place in found.places().rev() {
            let sample = match place {
                Place::Head(series) => {
                    reads.head_samples += 1;
                    self.head.newest(series as usize)
                }
                Place::Block { block: at, series } => {
                    let newest_ms =
                        self.blocks.get(at as usize).map_or(TimestampMs::MIN, |block| block.newest_ms());
                    if newest.is_some_and(|have| have.timestamp_ms > newest_ms) {
                        continue;
                    }
                    let Some((block, window)) = self.window(at, series)? else { continue };
                    self.note_block(at, 1, reads);
                    let sample = block.newest_of(series, &window, Some(&self.pages));
                    sample.map_err(|error| self.inner.noted(block, error))?
                }
            };
            // From the last stored to the first, which wins.
            if sample.is_some_and(|sample| newest.is_none_or(|have| sample.timestamp_ms >= have.timestamp_ms))
            {
                newest = sample;
            }
        }
        Ok(newest)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Tells of damage, once per block.
    fn noted<R>(&self, block: &Block, error: impl Into<ReadError<R>>) -> ReadError<R> {
        let error = error.into();
        if let ReadError::Damaged { path, what } = &error {
            self.note_damage(block, &format!("{}: {what} is damaged", path.display()));
        }
        error
    }
}
