//! Tables: what a file lists object by object, for samplers that are switched on by hand.
//!
//! A sampler makes a list of objects with their series anew at every reading, which is simple and allocates;
//! here the list becomes groups that keep their place, grow, shrink and end. Samplers that run on every
//! node every second do not use this.

use crate::group::{COLUMNS_MAX, ColumnSpec, GROUPS_MAX, GroupHandle, GroupSet, Label};
use std::collections::BTreeMap;

/// One object and its series.
#[derive(Debug)]
pub(super) struct Object {
    key: String,
    labels: Vec<Label>,
    rows: Vec<(ColumnSpec, f64)>,
}

impl Object {
    /// An object; `key` is unique within the agent, and holds everything that the labels do.
    pub(super) fn new(key: impl Into<String>, labels: Vec<Label>) -> Self {
        Object { key: key.into(), labels, rows: Vec::new() }
    }

    pub(super) fn put(&mut self, column: ColumnSpec, value: f64) {
        self.rows.push((column, value));
    }

    pub(super) fn put_plain(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.put(ColumnSpec::plain(name), value);
        }
    }
}

/// The groups of the objects seen last.
#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeMap<String, Known>,
    generation: u64,
    overflowing: bool,
}

#[derive(Debug)]
struct Known {
    handle: GroupHandle,
    seen: u64,
}

impl Table {
    /// Publishes what a reading found; objects that it did not find have gone.
    pub(super) fn publish(&mut self, groups: &mut GroupSet, objects: Vec<Object>) {
        self.generation += 1;
        let mut left_out = 0;
        for object in objects {
            for (part, rows) in object.rows.chunks(COLUMNS_MAX).enumerate() {
                let key = if part == 0 { object.key.clone() } else { format!("{}#{part}", object.key) };
                if self.known.len() >= GROUPS_MAX && !self.known.contains_key(&key) {
                    left_out += 1;
                    continue;
                }
                let columns = || rows.iter().map(|(column, _)| column.clone()).collect::<Vec<_>>();
                let known = self.known.entry(key).or_insert_with_key(|key| Known {
                    handle: groups.define(key.as_str(), object.labels.clone(), columns()),
                    seen: 0,
                });
                known.seen = self.generation;
                let same = groups.group(known.handle).is_some_and(|group| {
                    let columns = group.columns().iter().map(Some).chain(std::iter::once(None));
                    columns
                        .zip(rows.iter().map(|(column, _)| Some(column)).chain(std::iter::once(None)))
                        .all(|(old, new)| old == new)
                });
                if !same {
                    groups.redefine(known.handle, columns());
                }
                if let Some(group) = groups.group(known.handle) {
                    rows.iter().enumerate().for_each(|(at, (_, value))| group.put(at, *value));
                }
            }
        }
        let generation = self.generation;
        self.known.retain(|_, known| {
            if known.seen != generation {
                groups.end(known.handle);
            }
            known.seen == generation
        });
        if left_out > 0 && !self.overflowing {
            tracing::warn!(
                left_out,
                limit = GROUPS_MAX,
                "Too many objects of one sampler, the rest is left out"
            );
        }
        self.overflowing = left_out > 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, names: &[&str]) -> Object {
        let mut object = Object::new(key, Vec::new());
        names.iter().for_each(|name| object.put(ColumnSpec::plain((*name).to_owned()), 1.0));
        object
    }

    fn shown(groups: &GroupSet) -> Vec<String> {
        let series = groups.iter().flat_map(|group| {
            let columns = group.columns().iter().enumerate().filter(|(at, _)| group.present().contains(*at));
            columns.map(|(_, column)| format!("{}/{}", group.key(), column.name)).collect::<Vec<_>>()
        });
        series.collect()
    }

    #[test]
    fn objects_and_series_come_and_go() {
        let (mut table, mut groups) = (Table::default(), GroupSet::default());
        let mut read = |objects: Vec<Object>| {
            groups.begin();
            table.publish(&mut groups, objects);
            let shown = shown(&groups);
            let gone: usize = groups.iter().map(|group| group.gone().len()).sum();
            groups.published();
            (shown, gone)
        };
        assert_eq!(read(vec![object("a", &["x", "y"]), object("b", &["x"])]).0, ["a/x", "a/y", "b/x"]);
        assert_eq!(read(vec![object("a", &["x"])]), (vec!["a/x".to_owned()], 2));
        assert_eq!(read(vec![object("b", &["x"]), object("a", &["x", "z"])]).0, ["a/x", "a/z", "b/x"]);
        let names: Vec<String> = (0..300).map(|at| format!("n{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(read(vec![object("a", &names)]).0.len(), 300);
    }
}
