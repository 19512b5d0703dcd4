//! Decoded pages of blocks, and chunks of their roll-ups, kept up to a number of bytes: what dashboards and rules
//! ask again and again is read, checked and decoded once. Blocks never change, so what is kept is as true as
//! the file.
//!
//! Sections are in two generations. What is asked for goes to (or stays in) the young one; when that has half of
//! the bytes allowed it becomes the old one, and the old one is dropped with all that nobody has asked for
//! since.

use super::reader::{Block, BlockError};
use super::rollups::Records;
use crate::codec::page::Page;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks that readers spread over.
const SHARDS: usize = 16;

/// What a section takes beside its contents: its place in the map and what the allocator adds.
const ENTRY_BYTES: usize = 128;

/// What is kept.
pub(crate) trait Section {
    /// Bytes in memory, about.
    fn bytes(&self) -> usize;
}

impl Section for Page {
    fn bytes(&self) -> usize {
        Page::bytes(self)
    }
}

impl Section for Records {
    fn bytes(&self) -> usize {
        Records::bytes(self)
    }
}

/// All that is kept of blocks.
#[derive(Debug)]
pub(crate) struct BlockCache {
    pub(crate) pages: Arc<SectionCache<Page>>,
    pub(crate) rollups: Arc<SectionCache<Records>>,
    may_read_files: bool,
}

impl BlockCache {
    /// For at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Roll-ups of a day take a hundredth of its samples, but nobody asks for all samples of a day. Those of a
        // month of a thousand series are some 65 MB.
        let of_rollups = bytes_max / 2;
        BlockCache {
            pages: Arc::new(SectionCache::new(bytes_max - of_rollups)),
            rollups: Arc::new(SectionCache::new(of_rollups)),
            may_read_files: true,
        }
    }

    /// The same sections for a reader that may read files, or must not wait for one.
    pub(crate) fn for_reader(&self, may_read_files: bool) -> BlockCache {
        let (pages, rollups) = (Arc::clone(&self.pages), Arc::clone(&self.rollups));
        BlockCache { pages, rollups, may_read_files }
    }

    /// Whether what is not here may be read from its file.
    pub(crate) fn permit_reading(&self) -> Result<(), BlockError> {
        if self.may_read_files { Ok(()) } else { Err(BlockError::NotInMemory) }
    }

    /// The same for a block's index.
    pub(crate) fn permit_index(&self, block: &Block) -> Result<(), BlockError> {
        if block.has_index() { Ok(()) } else { self.permit_reading() }
    }
}

/// Which section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SectionKey {
    /// See [`crate::block::reader::Block::id`].
    pub(crate) block: u64,
    /// Where it, or the column that it is a page of, lies in the file.
    pub(crate) offset: u64,
    /// Position in the column; 0 for roll-ups.
    pub(crate) page: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SectionCache<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
    hasher: foldhash::fast::FixedState,
    /// Bytes of one generation of one shard.
    generation_bytes_max: usize,
}

type Sections<T> = HashMap<SectionKey, Arc<T>, foldhash::fast::FixedState>;

#[derive(Debug)]
struct Shard<T> {
    young: Sections<T>,
    young_bytes: usize,
    old: Sections<T>,
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Shard { young: HashMap::default(), young_bytes: 0, old: HashMap::default() }
    }
}

impl<T: Section> SectionCache<T> {
    /// For at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        SectionCache {
            shards: Default::default(),
            hasher: foldhash::fast::FixedState::default(),
            generation_bytes_max: bytes_max / SHARDS / 2,
        }
    }

    fn shard(&self, key: &SectionKey) -> MutexGuard<'_, Shard<T>> {
        // The bits that the maps use less.
        let number = (self.hasher.hash_one(key) >> 40) as usize % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &SectionKey) -> Option<Arc<T>> {
        let mut shard = self.shard(key);
        if let Some(section) = shard.young.get(key) {
            return Some(Arc::clone(section));
        }
        let section = shard.old.remove(key)?;
        shard.insert(*key, Arc::clone(&section), self.generation_bytes_max);
        Some(section)
    }

    pub(crate) fn insert(&self, key: SectionKey, section: Arc<T>) {
        if section.bytes() + ENTRY_BYTES <= self.generation_bytes_max {
            self.shard(&key).insert(key, section, self.generation_bytes_max);
        }
    }
}

impl<T: Section> Shard<T> {
    fn insert(&mut self, key: SectionKey, section: Arc<T>, bytes_max: usize) {
        let bytes = section.bytes() + ENTRY_BYTES;
        if self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(key, section).is_none() {
            self.young_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(page: u32) -> SectionKey {
        SectionKey { block: 1, offset: 9, page }
    }

    fn page() -> Arc<Page> {
        Arc::new(Page::of_floats(&[0.5; 100]))
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bytes_are_bounded() {
        let bytes_max = 1 << 20;
        let cache = SectionCache::new(bytes_max);
        for number in 0..100_000 {
            cache.insert(key(number), page());
            assert!(cache.get(&key(0)).is_some(), "{number}");
        }
        let held: usize = (0..100_000)
            .filter_map(|number| cache.get(&key(number)))
            .map(|page| page.bytes() + ENTRY_BYTES)
            .sum();
        assert!(held <= bytes_max && held > bytes_max / 4, "{held}");
        assert!(cache.get(&SectionKey { block: 2, ..key(0) }).is_none());
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let cache = SectionCache::new(0);
        cache.insert(key(0), page());
        assert!(cache.get(&key(0)).is_none());
    }
}
