//! Decoded pages of blocks, kept up to a number of bytes: what dashboards and rules ask again and again is
//! read, checked and decoded once. Blocks never change, so what is kept is as true as the file.
//!
//! Pages are in two generations. What is asked for goes to (or stays in) the young one; when that has half of
//! the bytes allowed it becomes the old one, and the old one is dropped with all that nobody has asked for
//! since.

use crate::codec::page::Page;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks that readers spread over.
const SHARDS: usize = 16;

/// What a page takes beside its values: its place in the map and what the allocator adds.
const ENTRY_BYTES: usize = 128;

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageKey {
    /// See [`crate::block::reader::Block::id`].
    pub(crate) block: u64,
    /// Where its column lies in the file.
    pub(crate) offset: u64,
    /// Position in the column.
    pub(crate) page: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PageCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: foldhash::fast::FixedState,
    /// Bytes of one generation of one shard.
    generation_bytes_max: usize,
}

type Pages = HashMap<PageKey, Arc<Page>, foldhash::fast::FixedState>;

#[derive(Debug, Default)]
struct Shard {
    young: Pages,
    young_bytes: usize,
    old: Pages,
}

impl PageCache {
    /// For at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        PageCache {
            shards: Default::default(),
            hasher: foldhash::fast::FixedState::default(),
            generation_bytes_max: bytes_max / SHARDS / 2,
        }
    }

    fn shard(&self, key: &PageKey) -> MutexGuard<'_, Shard> {
        // The bits that the maps use less.
        let number = (self.hasher.hash_one(key) >> 40) as usize % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &PageKey) -> Option<Arc<Page>> {
        let mut shard = self.shard(key);
        if let Some(page) = shard.young.get(key) {
            return Some(Arc::clone(page));
        }
        let page = shard.old.remove(key)?;
        shard.insert(*key, Arc::clone(&page), self.generation_bytes_max);
        Some(page)
    }

    pub(crate) fn insert(&self, key: PageKey, page: Arc<Page>) {
        if page.bytes() + ENTRY_BYTES <= self.generation_bytes_max {
            self.shard(&key).insert(key, page, self.generation_bytes_max);
        }
    }
}

impl Shard {
    fn insert(&mut self, key: PageKey, page: Arc<Page>, bytes_max: usize) {
        let bytes = page.bytes() + ENTRY_BYTES;
        if self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(key, page).is_none() {
            self.young_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(page: u32) -> PageKey {
        PageKey { block: 1, offset: 9, page }
    }

    fn page() -> Arc<Page> {
        Arc::new(Page::of_floats(&[0.5; 100]))
    }

    #[test]
    fn what_is_asked_for_stays_and_the_bytes_are_bounded() {
        let bytes_max = 1 << 20;
        let cache = PageCache::new(bytes_max);
        for number in 0..100_000 {
            cache.insert(key(number), page());
            assert!(cache.get(&key(0)).is_some(), "{number}");
        }
        let held: usize = (0..100_000)
            .filter_map(|number| cache.get(&key(number)))
            .map(|page| page.bytes() + ENTRY_BYTES)
            .sum();
        assert!(held <= bytes_max && held > bytes_max / 4, "{held}");
        assert!(cache.get(&PageKey { block: 2, ..key(0) }).is_none());
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let cache = PageCache::new(0);
        cache.insert(key(0), page());
        assert!(cache.get(&key(0)).is_none());
    }
}
