//! What retention does to old blocks: first their samples go and their roll-ups stay, then the rest.

use super::Inner;
use super::housekeeping::Housekeeping;
use crate::block::reader::Block;
use crate::block::writer::RolledUp;
use crate::compact;
use crate::error::TsdbError;
use crate::hidden;
use crate::starts;
use pharos_common::sample::TimestampMs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// What becomes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    /// Samples go.
    Thin,
    Drop,
}

/// What a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// Roll-ups alone.
    Thinned,
    /// No roll-ups.
    Samples,
}

impl State {
    fn of(block: &Block) -> Result<State, TsdbError> {
        let facts = block.facts()?;
        Ok(match facts.is_thinned {
            _ if !facts.has_rollups => State::Samples,
            true => State::Thinned,
            false => State::Whole,
        })
    }
}

impl Inner {
    /// Thins or drops the blocks that retention has passed, by time and by size.
    pub(super) fn drop_expired(&self, housekeeping: &mut Housekeeping) -> Result<(), TsdbError> {
        let mut expired: Vec<Arc<Block>> = Vec::new();
        if let Some(retention_ms) = self.options.retention_ms {
            let fates = |blocks: &[Arc<Block>]| -> Result<Vec<Fate>, TsdbError> {
                blocks.iter().map(|block| self.fate_of(block, retention_ms)).collect()
            };
            let mut blocks = self.blocks();
            let mut due = fates(&blocks)?;
            if due.contains(&Fate::Thin) {
                // What came late is joined with the rest while there are samples: of buckets that samples of
                // another block lie between nothing could be told afterwards.
                if self.head.late_len() > 0 {
                    self.cut(housekeeping, self.head.cut_before_ms())?;
                }
                while self.merge_next(housekeeping, || true)? {}
                blocks = self.blocks();
                due = fates(&blocks)?;
            }
            for (block, fate) in blocks.iter().zip(due) {
                match fate {
                    Fate::Keep => {}
                    Fate::Thin => self.thin(block)?,
                    Fate::Drop => expired.push(Arc::clone(block)),
                }
            }
        }
        let blocks = self.blocks();
        if let Some(bytes_max) = self.options.retention_bytes {
            let others = self.commits.journal_bytes.load(Ordering::Relaxed)
                + self.counters.checkpoint_bytes.load(Ordering::Relaxed);
            let sizes: Vec<(TimestampMs, u64)> =
                blocks.iter().map(|block| (block.newest_ms(), block.bytes())).collect();
            let over = compact::over_size(&sizes, bytes_max.saturating_sub(others));
            expired.extend(over.into_iter().map(|position| Arc::clone(&blocks[position])));
        }
        if expired.is_empty() {
            return Ok(());
        }
        self.list_blocks(housekeeping, &expired);
        let stays = |block: &Arc<Block>| expired.iter().all(|gone| gone.path() != block.path());
        self.blocks.write().unwrap_or_else(PoisonError::into_inner).retain(stays);
        for block in &expired {
            match self.io.remove_file(block.path()) {
                Ok(()) => {}
                // Expired by both.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.io.sync_dir(&self.blocks_folder())?)
    }

    fn fate_of(&self, block: &Block, retention_ms: i64) -> Result<Fate, TsdbError> {
        let age_ms = self.clock.now_ms().saturating_sub(block.newest_ms());
        let rollup_retention_ms = self.options.rollup_retention_ms;
        let mut state = State::of(block)?;
        let is_past = age_ms > retention_ms && rollup_retention_ms.is_some();
        if is_past && state == State::Samples && !block.facts()?.is_thinned && lacks_rollups(block)? {
            // They are made before its samples go.
            state = State::Whole;
        }
        Ok(fate(age_ms, retention_ms, rollup_retention_ms, state))
    }

    /// Notes up to when samples were dropped. Never less than before: what a query began with stays true.
    pub(super) fn note_thinned(&self, blocks: &[Arc<Block>]) {
        let is_thinned = |block: &&Arc<Block>| block.facts().is_ok_and(|facts| facts.is_thinned);
        if let Some(until_ms) = blocks.iter().filter(is_thinned).map(|block| block.newest_ms()).max() {
            self.samples_since_ms.fetch_max(until_ms.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Replaces a block by its roll-ups, under its name.
    fn thin(&self, block: &Arc<Block>) -> Result<(), TsdbError> {
        let name = block.file_name();
        // Roll-ups of all series first, and without what was deleted.
        let block = match block.has_deleted_samples()? || lacks_rollups(block)? {
            true => &self.rewrite(block)?,
            false => block,
        };
        let mut writer = self.block_writer(&name, RolledUp::All)?;
        // What they speak of goes.
        writer.add_thinned(block, |labels| !starts::is_column(labels))?;
        let provenance = block.facts()?.provenance.clone();
        // First, so that nobody takes what is left for all there was.
        self.samples_since_ms.fetch_max(block.newest_ms().saturating_add(1), Ordering::Relaxed);
        let renewed = self.renew(writer, &name, provenance)?;
        tracing::info!(
            block = name,
            bytes = renewed.bytes(),
            was = block.bytes(),
            "Samples dropped, roll-ups kept"
        );
        Ok(())
    }
}

/// Whether a block has samples of series that it has no roll-ups of: of an older version, or never merged.
fn lacks_rollups(block: &Block) -> Result<bool, TsdbError> {
    let index = block.index()?;
    let mut has_some = vec![false; index.series.len()];
    let chunks = index.rollups.first().map_or(0, |level| level.chunks.len());
    for chunk in 0..chunks {
        let records = block.records(&index, 0, chunk)?;
        for series in records.series() {
            if let Some(has_some) = has_some.get_mut(series as usize) {
                *has_some = records.record(series).is_some_and(|record| !record.is_empty());
            }
        }
    }
    let mut series = index.series.iter().zip(has_some);
    Ok(series.any(|(series, has_some)| !has_some && !hidden::is_hidden(&series.labels)))
}

/// By the age of a block's newest sample.
fn fate(age_ms: i64, retention_ms: i64, rollup_retention_ms: Option<i64>, state: State) -> Fate {
    if age_ms <= retention_ms {
        return Fate::Keep;
    }
    let keeps_rollups = rollup_retention_ms.is_some_and(|retention_ms| age_ms <= retention_ms);
    match state {
        State::Whole if keeps_rollups => Fate::Thin,
        State::Thinned if keeps_rollups => Fate::Keep,
        _ => Fate::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_go_first_and_roll_ups_later() {
        #[track_caller]
        fn check(age: i64, rollups: Option<i64>, state: State, want: Fate) {
            assert_eq!(fate(age, 30, rollups, state), want, "{age} {rollups:?} {state:?}");
        }
        check(30, Some(400), State::Whole, Fate::Keep);
        check(31, Some(400), State::Whole, Fate::Thin);
        check(31, Some(400), State::Thinned, Fate::Keep);
        check(31, Some(400), State::Samples, Fate::Drop);
        check(401, Some(400), State::Thinned, Fate::Drop);
        check(31, None, State::Whole, Fate::Drop);
    }
}
