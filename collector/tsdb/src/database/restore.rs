//! Brings the head back from checkpoints when the engine opens.

use super::checkpoint::Checkpoints;
use super::open::{OpenReport, set_aside};
use crate::checkpoint::chain::{InBlocks, first_needed};
use crate::checkpoint::reader::{Checkpoint, Visitor};
use crate::checkpoint::{file_name, number_of};
use crate::commit::CommitQueue;
use crate::error::TsdbError;
use crate::head::Head;
use crate::head::guard::Guard;
use crate::head::page::Page;
use crate::journal_entry::{Entry, ReadState, read_entries};
use crate::row::{Appended, GroupId, Row};
use pharos_common::journal::Position;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::StorageIo;
use std::collections::HashMap;
use std::path::Path;

/// What the checkpoints gave.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) head: Head,
    pub(super) checkpoints: Checkpoints,
    /// Where the journal goes on.
    pub(super) replay_from: Position,
    /// The record that comes there.
    pub(super) next_record: Option<(u32, u64)>,
    /// The groups that records there speak of without defining them, and their widths.
    pub(super) groups: HashMap<u32, (GroupId, usize)>,
    /// The first so many rows of a group there are in the head already.
    pub(super) skip: HashMap<GroupId, u32>,
}

/// Why a chain cannot be used.
enum Unusable {
    /// This file is damaged.
    Damaged(u64),
    /// Nothing is wrong, but a file that it needs is gone.
    Incomplete,
    Failed(TsdbError),
}

/// Loads the newest chain of checkpoints that is whole. Damaged files are set aside and noted in `report`;
/// files that are of no use are removed.
pub(super) fn restore(
    io: &dyn StorageIo,
    folder: &Path,
    commits: &CommitQueue,
    in_blocks: InBlocks,
    now_ms: TimestampMs,
    report: &mut OpenReport,
) -> Result<Restored, TsdbError> {
    let checkpoints_folder = folder.join("checkpoints");
    io.create_dir_all(&checkpoints_folder)?;
    let mut numbers = Vec::new();
    for name in io.list(&checkpoints_folder)? {
        match number_of(&name) {
            Some(number) => numbers.push(number),
            None if name.ends_with(".tmp") => io.remove_file(&checkpoints_folder.join(name))?,
            None => {}
        }
    }
    numbers.sort_unstable();
    let next_number = numbers.last().map_or(1, |last| last + 1);
    let loader = Loader { io, folder: &checkpoints_folder, commits, in_blocks, now_ms };
    let mut restored = None;
    while let Some(&newest) = numbers.last() {
        match loader.load(newest) {
            Ok(loaded) => {
                restored = Some(loaded);
                break;
            }
            Err(Unusable::Damaged(number)) => {
                let aside = set_aside(io, folder, &checkpoints_folder.join(file_name(number)), report)?;
                tracing::error!(aside = %aside.display(),
                    "A damaged checkpoint was set aside; the journal is replayed instead, which loses nothing");
                numbers.retain(|&have| have != number);
            }
            Err(Unusable::Incomplete) => {
                numbers.pop();
            }
            Err(Unusable::Failed(error)) => return Err(error),
        }
    }
    let (mut restored, samples) = restored.unwrap_or_else(|| (loader.nothing(), 0));
    report.checkpoint_samples = samples;
    let used = &mut restored.checkpoints;
    used.next_number = next_number;
    for name in io.list(&checkpoints_folder)? {
        if number_of(&name).is_some_and(|number| used.links.iter().all(|link| link.number != number)) {
            io.remove_file(&checkpoints_folder.join(name))?;
        }
    }
    Ok(restored)
}

struct Loader<'a> {
    io: &'a dyn StorageIo,
    folder: &'a Path,
    commits: &'a CommitQueue,
    in_blocks: InBlocks,
    now_ms: TimestampMs,
}

impl Loader<'_> {
    fn nothing(&self) -> Restored {
        Restored {
            head: Head::new(self.in_blocks.before_ms),
            checkpoints: Checkpoints::default(),
            replay_from: Position::default(),
            next_record: None,
            groups: HashMap::new(),
            skip: HashMap::new(),
        }
    }

    fn read(&self, number: u64) -> Result<Checkpoint, Unusable> {
        match self.io.read(&self.folder.join(file_name(number))) {
            Ok(bytes) => Checkpoint::parse(bytes).ok_or(Unusable::Damaged(number)),
            Err(error) if error.is_not_found() => Err(Unusable::Incomplete),
            Err(error) => Err(Unusable::Failed(error.into())),
        }
    }

    /// Loads the chain that ends with this file, and how many samples it had.
    fn load(&self, newest: u64) -> Result<(Restored, u64), Unusable> {
        let last = self.read(newest)?;
        let mut links = last.links.clone();
        links.drain(..first_needed(&links, self.in_blocks));
        let Some(newest_link) = links.last().copied().filter(|link| link.number == newest) else {
            // All of it is in blocks.
            return Ok((self.nothing(), 0));
        };
        let mut restored = self.nothing();
        let mut target = Target::new(&restored.head, self.commits, self.now_ms);
        let mut widths = HashMap::default();
        let mut scope = 0;
        for link in &links {
            if scope != link.scope {
                scope = link.scope;
                widths = HashMap::default();
                target.groups = HashMap::default();
            }
            target.in_blocks_before_ms = self.in_blocks.of(link);
            let read;
            let file = if link.number == newest {
                &last
            } else {
                read = self.read(link.number)?;
                &read
            };
            restored.checkpoints.sizes.insert(link.number, file.bytes_len());
            file.visit(&mut widths, link.number == newest, &mut target)
                .ok_or(Unusable::Damaged(link.number))?;
        }
        let Target { samples, skip, groups, .. } = target;
        restored.skip = skip;
        restored.replay_from = newest_link.replay_from;
        restored.next_record = Some(last.next_record);
        restored.groups =
            groups.into_iter().filter_map(|(group, id)| Some((group, (id, *widths.get(&group)?)))).collect();
        for &(segment, newest_ms) in &last.segments {
            self.commits.note_segment(segment, newest_ms);
        }
        restored.checkpoints.links = links;
        Ok((restored, samples))
    }
}

/// The head, as a chain fills it.
struct Target<'a> {
    head: &'a Head,
    commits: &'a CommitQueue,
    now_ms: TimestampMs,
    /// Rows of this file that are older are in blocks.
    in_blocks_before_ms: TimestampMs,
    groups: HashMap<u32, GroupId, foldhash::fast::RandomState>,
    skip: HashMap<GroupId, u32>,
    samples: u64,
    appended: Appended,
}

impl<'a> Target<'a> {
    fn new(head: &'a Head, commits: &'a CommitQueue, now_ms: TimestampMs) -> Self {
        Target {
            head,
            commits,
            now_ms,
            in_blocks_before_ms: TimestampMs::MIN,
            groups: HashMap::default(),
            skip: HashMap::new(),
            samples: 0,
            appended: Appended::default(),
        }
    }
}

impl Visitor for Target<'_> {
    fn define(&mut self, group: u32, columns: Vec<Labels>) -> Option<()> {
        let id = self.head.define_group(&columns, &Guard::open()).ok()?;
        self.groups.insert(group, id);
        Some(())
    }

    fn page(&mut self, group: u32, page: Page) -> Option<()> {
        let id = *self.groups.get(&group)?;
        let group = self.head.registry().group(id)?;
        let (samples, last_ms) = (page.samples(), page.last_ms);
        group.lock().restore_page(page, self.in_blocks_before_ms)?;
        if last_ms >= self.in_blocks_before_ms {
            self.head.count_restored(samples, last_ms);
            self.samples += samples as u64;
        }
        Some(())
    }

    fn open_row(&mut self, group: u32, timestamp_ms: TimestampMs, values: &[f64]) -> Option<()> {
        let id = *self.groups.get(&group)?;
        let group = self.head.registry().group(id)?;
        let mut state = group.lock();
        if timestamp_ms <= state.newest_ms {
            return None;
        }
        if timestamp_ms >= self.in_blocks_before_ms {
            state.push(timestamp_ms, values);
            let samples = values.iter().filter(|&&value| !crate::row::is_absent(value)).count();
            self.head.count_restored(samples, timestamp_ms);
            self.samples += samples as u64;
        }
        Some(())
    }

    fn group(&mut self, group: u32, newest_ms: TimestampMs, rows_in_era: u32) -> Option<()> {
        let id = *self.groups.get(&group)?;
        let group = self.head.registry().group(id)?;
        let mut state = group.lock();
        state.newest_ms = state.newest_ms.max(newest_ms);
        if rows_in_era > 0 {
            self.skip.insert(id, rows_in_era);
        }
        Some(())
    }

    fn late(&mut self, group: u32, timestamp_ms: TimestampMs, values: &[f64]) -> Option<()> {
        if timestamp_ms < self.in_blocks_before_ms {
            return Some(());
        }
        let id = *self.groups.get(&group)?;
        let group = self.head.registry().group(id)?;
        let before = self.appended.samples;
        let row = Row { group: id, timestamp_ms, values };
        self.head.restore_late(&group, &row, &mut self.appended);
        self.samples += self.appended.samples - before;
        Some(())
    }

    fn state(&mut self, record: &[u8]) -> Option<()> {
        let (commits, now_ms) = (self.commits, self.now_ms);
        let visit = |entry: Entry<'_>| match entry {
            Entry::Mark(mark) => commits.lock().remember_mark(&mark, now_ms),
            Entry::Metadata { metric, metadata } => commits.lock().remember_metadata(metric, metadata),
            Entry::Define { .. } | Entry::Row { .. } => {}
        };
        read_entries(record, &mut ReadState::default(), visit).ok()
    }
}
