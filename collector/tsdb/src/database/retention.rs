//! What retention does to old blocks: first their samples go and their roll-ups stay, then the rest.

use super::Inner;
use super::housekeeping::Housekeeping;
use crate::block::reader::Block;
use crate::block::writer::BlockWriter;
use crate::block::{BLOCK_SPAN_MS, Provenance};
use crate::error::TsdbError;
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

impl Inner {
    /// Thins or drops the blocks that retention has passed.
    pub(super) fn drop_expired(&self, housekeeping: &mut Housekeeping) -> Result<(), TsdbError> {
        let Some(retention_ms) = self.options.retention_ms else { return Ok(()) };
        let age_ms = |block: &Block| self.clock.now_ms().saturating_sub(block.newest_ms());
        let mut expired = Vec::new();
        for block in self.blocks() {
            let index = block.index()?;
            let has_rollups = index.rollups.iter().any(|level| !level.chunks.is_empty());
            let rollup_retention_ms = self.options.rollup_retention_ms.filter(|_| has_rollups);
            match fate(age_ms(&block), retention_ms, rollup_retention_ms, index.is_thinned()) {
                Fate::Keep => {}
                Fate::Thin => self.thin(housekeeping, &block)?,
                Fate::Drop => expired.push(block),
            }
        }
        if expired.is_empty() {
            return Ok(());
        }
        let is_expired = |block: &Arc<Block>| expired.iter().any(|gone| gone.path() == block.path());
        self.blocks.write().unwrap_or_else(PoisonError::into_inner).retain(|block| !is_expired(block));
        for block in &expired {
            self.io.remove_file(block.path())?;
        }
        Ok(self.io.sync_dir(&self.blocks_folder())?)
    }

    /// Replaces a block by its roll-ups.
    fn thin(&self, housekeeping: &mut Housekeeping, block: &Arc<Block>) -> Result<(), TsdbError> {
        let name = housekeeping.next_name(block.oldest_ms().div_euclid(BLOCK_SPAN_MS) * BLOCK_SPAN_MS);
        let folder = self.blocks_folder();
        let mut writer = BlockWriter::create(Arc::clone(&self.io), &folder, &name)?;
        writer.add_thinned(block)?;
        let provenance =
            Provenance { replaces: vec![block.file_name()], ..block.index()?.provenance.clone() };
        let (file, bytes) = writer.finish(&name, provenance)?;
        self.counters.block_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.publish(&file, std::slice::from_ref(block))?;
        self.io.remove_file(block.path())?;
        self.io.sync_dir(&folder)?;
        tracing::info!(block = name, bytes, was = block.bytes(), "Samples dropped, roll-ups kept");
        Ok(())
    }
}

/// By the age of a block's newest sample; `rollup_retention_ms` is `None` for a block that has none.
fn fate(age_ms: i64, retention_ms: i64, rollup_retention_ms: Option<i64>, is_thinned: bool) -> Fate {
    let keeps_rollups = rollup_retention_ms.is_some_and(|retention_ms| age_ms <= retention_ms);
    match age_ms > retention_ms {
        false => Fate::Keep,
        true if keeps_rollups && is_thinned => Fate::Keep,
        true if keeps_rollups => Fate::Thin,
        true => Fate::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_go_first_and_roll_ups_later() {
        #[track_caller]
        fn check(age: i64, rollups: Option<i64>, is_thinned: bool, want: Fate) {
            assert_eq!(fate(age, 30, rollups, is_thinned), want, "{age} {rollups:?}");
        }
        check(30, Some(400), false, Fate::Keep);
        check(31, Some(400), false, Fate::Thin);
        check(31, Some(400), true, Fate::Keep);
        check(401, Some(400), true, Fate::Drop);
        check(31, Some(0), false, Fate::Drop);
        check(31, None, false, Fate::Drop);
    }
}
