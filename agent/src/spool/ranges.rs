//! Sets of sequence numbers, kept as ranges: an outage of a day is one entry.

use std::collections::BTreeMap;

/// A set of sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// First and last number of each range; neither overlapping nor adjacent.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Ranges {
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    /// The first number that is not below `from`.
    pub(super) fn first_from(&self, from: u64) -> Option<u64> {
        if let Some((_, &last)) = self.ranges.range(..=from).next_back()
            && last >= from
        {
            return Some(from);
        }
        self.ranges.range(from..).next().map(|(first, _)| *first)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    pub(super) fn insert(&mut self, number: u64) {
        self.insert_range(number, number);
    }

    pub(super) fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        // Swallow everything that overlaps or touches.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&start);
            self.count -= end - start + 1;
            first = first.min(start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
        self.count += last - first + 1;
    }

    /// Takes out all numbers from `first` to `last`; returns how many were there.
    pub(super) fn remove_range(&mut self, first: u64, last: u64) -> u64 {
        let before = self.count;
        while let Some((&start, &end)) = self.ranges.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.ranges.remove(&start);
            self.count -= end - start + 1;
            if end > last {
                self.ranges.insert(last + 1, end);
                self.count += end - last;
            }
            if start < first {
                self.ranges.insert(start, first - 1);
                self.count += first - start;
                break;
            }
        }
        before - self.count
    }

    /// Takes out everything up to and including `last`; returns how many were there.
    pub(super) fn remove_up_to(&mut self, last: u64) -> u64 {
        self.remove_range(0, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 1..40),
            probe in 0u64..80,
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (insert, first, length) in steps {
                let last = first + length;
                if insert {
                    ranges.insert_range(first, last);
                    model.extend(first..=last);
                } else {
                    let removed = ranges.remove_range(first, last);
                    let before = model.len();
                    model.retain(|number| !(first..=last).contains(number));
                    prop_assert_eq!(removed as usize, before - model.len());
                }
                prop_assert_eq!(ranges.len() as usize, model.len());
            }
            let flat: Vec<u64> = ranges.iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.first_from(probe), model.range(probe..).next().copied());
            prop_assert_eq!(ranges.first(), model.first().copied());
        }
    }
}
