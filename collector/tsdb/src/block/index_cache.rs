//! Indexes of blocks in memory, up to a number of bytes: those that were asked for last stay.
//!
//! A reader holds on to the indexes that it works with, so one that goes from here in the meantime is not read
//! again as long as anybody has it, and takes its memory until nobody has it any more.

use super::index::Index;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

/// The indexes of all blocks of an engine.
#[derive(Debug)]
pub(crate) struct IndexCache {
    kept: Mutex<Kept>,
    bytes_max: usize,
    /// Counts the times that an index was asked for: the later, the higher.
    asked: AtomicU64,
    read: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the number of the block.
    by_block: HashMap<u64, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    index: Arc<Index>,
    bytes: usize,
    asked_last: Arc<AtomicU64>,
}

/// A block's place in the cache.
#[derive(Debug)]
pub(crate) struct IndexSlot {
    cache: Arc<IndexCache>,
    block: u64,
    index: RwLock<Weak<Index>>,
    asked_last: Arc<AtomicU64>,
}

/// How the cache does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IndexCacheStats {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) bytes: u64,
}

impl IndexCache {
    /// For at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let (asked, read) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(IndexCache { kept: Mutex::default(), bytes_max, asked, read })
    }

    /// The place of a block, whose number no other has.
    pub(crate) fn slot(self: &Arc<Self>, block: u64) -> IndexSlot {
        let (cache, asked_last) = (Arc::clone(self), Arc::new(AtomicU64::new(0)));
        IndexSlot { cache, block, index: RwLock::default(), asked_last }
    }

    pub(crate) fn stats(&self) -> IndexCacheStats {
        let misses = self.read.load(Ordering::Relaxed);
        let hits = self.asked.load(Ordering::Relaxed).saturating_sub(misses);
        IndexCacheStats { hits, misses, bytes: self.kept().bytes as u64 }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, block: u64) -> Option<Entry> {
        let entry = self.by_block.remove(&block)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// The block whose index nobody has asked for for longest.
    fn oldest(&self) -> Option<u64> {
        let asked_last = |(_, entry): &(&u64, &Entry)| entry.asked_last.load(Ordering::Relaxed);
        self.by_block.iter().min_by_key(asked_last).map(|(block, _)| *block)
    }
}

impl IndexSlot {
    /// The index, if it is in memory.
    pub(crate) fn get(&self) -> Option<Arc<Index>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).upgrade()?;
        self.note_asked();
        Some(index)
    }

    fn note_asked(&self) {
        let asked = self.cache.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.asked_last.store(asked, Ordering::Relaxed);
    }

    /// Keeps an index that was read. Somebody else may have read it at the same time; the two are equal.
    pub(crate) fn keep(&self, index: Index) -> Arc<Index> {
        self.note_asked();
        self.cache.read.fetch_add(1, Ordering::Relaxed);
        let bytes = index.memory_bytes();
        let index = Arc::new(index);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&index);
        if bytes > self.cache.bytes_max {
            return index;
        }
        // Freed only when the lock is free again: an index is many allocations.
        let mut gone = Vec::new();
        let mut kept = self.cache.kept();
        gone.extend(kept.remove(self.block));
        while kept.bytes > self.cache.bytes_max - bytes {
            let Some(oldest) = kept.oldest() else { break };
            gone.extend(kept.remove(oldest));
        }
        let entry = Entry { index: Arc::clone(&index), bytes, asked_last: Arc::clone(&self.asked_last) };
        kept.by_block.insert(self.block, entry);
        kept.bytes += bytes;
        drop(kept);
        index
    }
}

impl Drop for IndexSlot {
    fn drop(&mut self) {
        let gone = self.cache.kept().remove(self.block);
        drop(gone.map(|entry| entry.index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_of(indexes: usize) -> Arc<IndexCache> {
        IndexCache::new(indexes * Index::default().memory_bytes())
    }

    #[test]
    fn what_nobody_asks_for_goes_first() {
        let cache = cache_of(2);
        let slots: Vec<IndexSlot> = (0..3).map(|block| cache.slot(block)).collect();
        slots[..2].iter().for_each(|slot| drop(slot.keep(Index::default())));
        assert!(slots[0].get().is_some());
        slots[2].keep(Index::default());
        let there: Vec<bool> = slots.iter().map(|slot| slot.get().is_some()).collect();
        assert_eq!(there, [true, false, true]);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (3, 3));
        assert_eq!(stats.bytes as usize, 2 * Index::default().memory_bytes());
        drop(slots);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn an_index_that_somebody_holds_is_not_read_again() {
        let cache = cache_of(0);
        let slot = cache.slot(7);
        let held = slot.keep(Index::default());
        assert!(slot.get().is_some_and(|index| Arc::ptr_eq(&index, &held)));
        drop(held);
        assert!(slot.get().is_none());
        assert_eq!(cache.stats().bytes, 0);
    }
}
