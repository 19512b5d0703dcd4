//! Which series a label set of remote write is, told by its raw bytes.
//!
//! A sender tells its series in the same order every time. So the bytes are first compared with those of the series
//! that was learnt behind the one told before: one comparison of memory that lies in order. Only what came out of
//! order is hashed and looked up.

use super::row_plan::Slot;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct KnownSeries {
    /// The bytes of all label sets, in the order in which they were learnt.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Positions in `entries`.
    table: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its bytes lie.
    start: usize,
    length: u32,
    slot: Slot,
}

impl KnownSeries {
    /// The position of a label set, and its slot. `before` is the position of the one told before.
    #[inline]
    pub(super) fn find(&self, raw: &[u8], before: Option<u32>) -> Option<(u32, Slot)> {
        let likely = before.map_or(0, |before| before.wrapping_add(1));
        if self.is(likely, raw) {
            return Some((likely, self.entries.get(likely as usize)?.slot));
        }
        let hash = self.hasher.hash_one(raw);
        let position = *self.table.find(hash, |&position| self.is(position, raw))?;
        Some((position, self.entries.get(position as usize)?.slot))
    }

    #[inline]
    fn is(&self, position: u32, raw: &[u8]) -> bool {
        self.entries.get(position as usize).is_some_and(|entry| self.bytes_of(entry) == raw)
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        self.bytes.get(entry.start..entry.start + entry.length as usize).unwrap_or_default()
    }

    /// Learns a label set; one that is known already gets the new slot.
    pub(super) fn insert(&mut self, raw: &[u8], slot: Slot) {
        if let Some((position, _)) = self.find(raw, None) {
            if let Some(entry) = self.entries.get_mut(position as usize) {
                entry.slot = slot;
            }
            return;
        }
        let hash = self.hasher.hash_one(raw);
        let position = self.entries.len() as u32;
        self.entries.push(Entry { start: self.bytes.len(), length: raw.len() as u32, slot });
        self.bytes.extend_from_slice(raw);
        let KnownSeries { bytes, entries, hasher, .. } = self;
        let rehash = |&position: &u32| {
            let bytes = entries
                .get(position as usize)
                .and_then(|entry| bytes.get(entry.start..entry.start + entry.length as usize));
            hasher.hash_one(bytes.unwrap_or_default())
        };
        self.table.insert_unique(hash, position, rehash);
    }

    /// Label sets known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of them all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_found_in_any_order() {
        let mut known = KnownSeries::default();
        let raw = |number: u32| format!("labels of {number}").into_bytes();
        let slot = |number: u32| Slot { group: number / 7, column: (number % 7) as u16, starts: false };
        for number in 0..500 {
            known.insert(&raw(number), slot(number));
        }
        known.insert(&raw(3), slot(9));
        for (number, before) in [(0, None), (1, Some(0)), (400, Some(1)), (2, Some(499)), (2, Some(u32::MAX))]
        {
            assert_eq!(known.find(&raw(number), before), Some((number, slot(number))));
        }
        assert_eq!(known.find(&raw(3), Some(2)), Some((3, slot(9))));
        assert_eq!(known.find(&raw(500), Some(499)), None);
        assert_eq!((known.len(), known.bytes()), (500, (0..500).map(|number| raw(number).len()).sum()));
    }
}
