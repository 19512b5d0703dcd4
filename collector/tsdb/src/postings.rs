//! The inverted index: for each label name and value, the set of series that carry it.
//!
//! Head and blocks use the same structure. Names and values are sorted, so a regular expression with a
//! literal prefix reads only the values that start with it.

use crate::starts::START_LABEL;
use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What a value costs beside its text, bytes: a place in the tree (with the room that trees leave), two
/// allocations, and a bitmap with one container. Measured on ten million values.
const VALUE_BYTES: usize = 330;

/// Label name → value → series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Postings {
    all: RoaringBitmap,
    names: BTreeMap<Box<str>, Values>,
    /// Bytes of all values, and how many there are.
    value_bytes: usize,
    values: usize,
}

pub(crate) type Values = BTreeMap<Box<str>, RoaringBitmap>;

impl Postings {
    /// Adds a series.
    pub(crate) fn insert(&mut self, series: u32, labels: &Labels) {
        self.all.insert(series);
        for (name, value) in labels.iter() {
            let values = match self.names.get_mut(name) {
                Some(values) => values,
                None => self.names.entry(name.into()).or_default(),
            };
            match values.get_mut(value) {
                Some(postings) => postings.insert(series),
                None => {
                    self.value_bytes += value.len();
                    self.values += 1;
                    values.entry(value.into()).or_default().insert(series)
                }
            };
        }
    }

    /// Removes a series that was added with these labels.
    pub(crate) fn remove(&mut self, series: u32, labels: &Labels) {
        self.all.remove(series);
        for (name, value) in labels.iter() {
            let Some(values) = self.names.get_mut(name) else { continue };
            if let Some(postings) = values.get_mut(value) {
                postings.remove(series);
                if postings.is_empty() {
                    values.remove(value);
                    self.value_bytes -= value.len();
                    self.values -= 1;
                }
            }
            if values.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// Puts a stored list in place; for the block reader.
    pub(crate) fn insert_list(&mut self, name: &str, value: &str, postings: RoaringBitmap) {
        self.all |= &postings;
        self.names.entry(name.into()).or_default().insert(value.into(), postings);
    }

    /// Label names with their values, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.names.iter().map(|(name, values)| (&**name, values))
    }

    /// The values of a label, sorted.
    pub(crate) fn values(&self, name: &str) -> Option<&Values> {
        self.names.get(name)
    }

    /// Series with this value of a label, those of `without` aside.
    pub(crate) fn count_without(&self, name: &str, value: &str, without: &RoaringBitmap) -> u64 {
        let postings = self.names.get(name).and_then(|values| values.get(value));
        postings.map_or(0, |postings| postings.len() - postings.intersection_len(without))
    }

    /// Bytes in memory, about, of what was [inserted](Postings::insert): values, and two bytes a series and label.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.value_bytes + self.values * VALUE_BYTES + self.all.len() as usize * self.names.len().min(16) * 2
    }

    /// Bytes in memory, about, of [lists](Postings::insert_list), which are as large as they are.
    pub(crate) fn list_bytes(&self) -> usize {
        /// A place in the tree, and two allocations.
        const LIST_BYTES: usize = 120;
        let lists = self.names.values().flatten();
        let bytes = lists.map(|(value, postings)| LIST_BYTES + value.len() + postings.serialized_size());
        bytes.sum::<usize>() + self.all.serialized_size()
    }

    /// Series that satisfy all matchers.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut selected: Option<RoaringBitmap> = None;
        // Those that a list of candidates answers come first: they cut the set down most cheaply.
        let (quick, slow): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|matcher| matcher.candidates().is_some() && !matcher.matches_empty());
        for matcher in quick.into_iter().chain(slow) {
            if selected.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
            let next = match selected.take() {
                None if !matcher.matches_empty() => self.carrying(matcher),
                base => {
                    let base = base.unwrap_or_else(|| self.all.clone());
                    if matcher.matches_empty() {
                        base - self.violating(matcher)
                    } else {
                        base & self.carrying(matcher)
                    }
                }
            };
            selected = Some(next);
        }
        selected.unwrap_or_else(|| self.all.clone())
    }

    /// The same without the columns of start timestamps, which nobody wants who does not ask for them.
    pub(crate) fn select_shown(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let selected = self.select(matchers);
        match self.names.get(START_LABEL) {
            Some(columns) => columns.values().fold(selected, |left, columns| left - columns),
            None => selected,
        }
    }

    /// Series with a value of the label that satisfies the matcher.
    fn carrying(&self, matcher: &Matcher) -> RoaringBitmap {
        let Some(values) = self.names.get(matcher.name()) else { return RoaringBitmap::new() };
        if let Some(candidates) = matcher.candidates() {
            return union(candidates.into_iter().filter_map(|candidate| values.get(candidate)));
        }
        let prefix = match matcher.op() {
            MatchOp::Regex => matcher.pattern_prefix(),
            _ => "",
        };
        let range = values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        union(
            range
                .take_while(|(value, _)| value.starts_with(prefix))
                .filter(|(value, _)| matcher.matches(value))
                .map(|(_, postings)| postings),
        )
    }

    /// Series with a value of the label that does not satisfy the matcher.
    fn violating(&self, matcher: &Matcher) -> RoaringBitmap {
        let Some(values) = self.names.get(matcher.name()) else { return RoaringBitmap::new() };
        if matcher.op() == MatchOp::NotEqual {
            return values.get(matcher.value()).cloned().unwrap_or_default();
        }
        union(values.iter().filter(|(value, _)| !matcher.matches(value)).map(|(_, postings)| postings))
    }
}

fn union<'a>(lists: impl Iterator<Item = &'a RoaringBitmap>) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    for list in lists {
        all |= list;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher() -> impl Strategy<Value = Matcher> {
        let op =
            prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex]);
        let value = prop::sample::select(vec!["", "x", "y", "x|y", "x.*", "|x", "xy?", ".+", ".*", "z"]);
        (prop::sample::select(vec!["a", "b", "c"]), op, value)
            .prop_map(|(name, op, value)| Matcher::new(name, op, value).unwrap())
    }

    proptest! {
        #[test]
        fn the_index_selects_what_the_matchers_match(
            sets in prop::collection::vec(prop::collection::vec(
                (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["x", "y", "xy", "xx"])), 0..3), 0..12),
            matchers in prop::collection::vec(matcher(), 0..4),
            removed in any::<prop::sample::Index>(),
        ) {
            let sets: Vec<Labels> = sets.into_iter().map(Labels::from_pairs).collect();
            let mut postings = Postings::default();
            for (series, labels) in sets.iter().enumerate() {
                postings.insert(series as u32, labels);
            }
            let gone = (!sets.is_empty()).then(|| removed.index(sets.len()));
            if let Some(gone) = gone {
                postings.remove(gone as u32, &sets[gone]);
            }
            let want: Vec<u32> = (0..sets.len())
                .filter(|&series| Some(series) != gone)
                .filter(|&series| matchers.iter().all(|matcher| matcher.matches_labels(&sets[series])))
                .map(|series| series as u32)
                .collect();
            prop_assert_eq!(postings.select(&matchers).iter().collect::<Vec<_>>(), want);
        }
    }
}
