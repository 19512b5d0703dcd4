//! Who is who on the wire: group numbers, column numbers and full definitions.
//!
//! Groups come from samplers with a key; here each key gets a number that is never used for another object
//! within the stream, and each series a number within its group. The journal keeps both, so they are the
//! same after a restart.

use crate::group::{ColumnSpec, Group, Label};
use pharos_proto::catalogue::{Catalogue, Kind};
use pharos_proto::v1::{self, AlterGroup, DefineGroup, MetricType};
use std::collections::HashMap;
use std::sync::Arc;

/// What the names of series between grid points end in.
const FAST: &str = ":fast";

/// A group as it was at some time; never changes. What does change gets a new version.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Name of the object.
    pub key: String,
    /// Counts the changes of this group.
    pub version: u32,
    /// Column number to give out next.
    pub next_column: u32,
    /// What the collector gets.
    pub message: DefineGroup,
}

impl Definition {
    /// The group's number.
    pub fn group(&self) -> u32 {
        self.message.group
    }
}

/// The definitions that hold for a frame.
#[derive(Clone, Debug, Default)]
pub struct DefinitionSet {
    /// One for each group, in no order that matters.
    pub definitions: Vec<Arc<Definition>>,
}

/// Gives out numbers.
#[derive(Debug)]
pub struct Directory {
    shared: Vec<v1::Label>,
    by_key: HashMap<String, Arc<Definition>>,
    next_group: u32,
}

impl Directory {
    /// A directory of a node's series. `known` are the definitions of earlier runs.
    pub fn new(node: &str, next_group: u32, known: impl IntoIterator<Item = Arc<Definition>>) -> Self {
        let label = |name: &str, value: &str| v1::Label { name: name.to_owned(), value: value.to_owned() };
        let mut directory = Directory {
            shared: vec![label("instance", node), label("job", "node")],
            by_key: HashMap::new(),
            next_group: next_group.max(1),
        };
        for definition in known {
            directory.next_group = directory.next_group.max(definition.group().saturating_add(1));
            directory.by_key.insert(definition.key.clone(), definition);
        }
        directory
    }

    /// Number to give to the next new object.
    pub fn next_group(&self) -> u32 {
        self.next_group
    }

    /// The definition of a group as it is now.
    pub fn define(&mut self, group: &Group) -> Arc<Definition> {
        self.define_as(group, "")
    }

    /// The definition of a group's series between grid points, `<name>:fast`.
    pub fn define_fast(&mut self, group: &Group) -> Arc<Definition> {
        self.define_as(group, FAST)
    }

    fn define_as(&mut self, group: &Group, suffix: &str) -> Arc<Definition> {
        let key = format!("{}{suffix}", group.key());
        let labels = self.group_labels(group.labels());
        let known = self.by_key.get(&key).filter(|known| known.message.labels == labels);
        let mut next_column = known.map_or(0, |known| known.next_column);
        let columns: Vec<v1::Column> = group
            .columns()
            .iter()
            .map(|spec| {
                let labels = own_labels(&spec.labels);
                let same = known.and_then(|known| {
                    let columns = &known.message.columns;
                    columns.iter().find(|column| {
                        column.name.strip_suffix(suffix) == Some(&*spec.name) && column.labels == labels
                    })
                });
                let id = same.map_or_else(
                    || {
                        next_column += 1;
                        next_column - 1
                    },
                    |column| column.id,
                );
                column(id, spec, labels, suffix)
            })
            .collect();
        let number = match known {
            Some(known) if known.message.columns == columns => return Arc::clone(known),
            // Column numbers end at 65,536; an object that changed so often starts over as another.
            Some(known) if next_column < 65_536 => known.group(),
            _ => {
                self.next_group += 1;
                self.next_group - 1
            }
        };
        let definition = Arc::new(Definition {
            key,
            version: known.map_or(1, |known| known.version.wrapping_add(1)),
            next_column,
            message: DefineGroup { group: number, labels, columns },
        });
        self.by_key.insert(definition.key.clone(), Arc::clone(&definition));
        definition
    }

    /// `instance` and `job` come first; no sampler may set them.
    fn group_labels(&self, own: &[Label]) -> Vec<v1::Label> {
        self.shared.iter().cloned().chain(own_labels(own)).collect()
    }
}

/// Labels with an empty value are no labels.
fn own_labels(labels: &[Label]) -> Vec<v1::Label> {
    let labels = labels.iter().filter(|(_, value)| !value.is_empty());
    labels.map(|(name, value)| v1::Label { name: name.clone().into_owned(), value: value.clone() }).collect()
}

fn column(id: u32, spec: &ColumnSpec, labels: Vec<v1::Label>, suffix: &str) -> v1::Column {
    let metric = Catalogue::get().find(&spec.name);
    let described = spec.description.as_deref();
    let kind = match described.map(|described| described.kind).or(metric.map(|metric| metric.kind)) {
        Some(Kind::Counter) => MetricType::Counter,
        Some(Kind::Gauge) => MetricType::Gauge,
        Some(Kind::Histogram) => MetricType::Histogram,
        Some(Kind::Summary) => MetricType::Summary,
        Some(Kind::Info) => MetricType::Info,
        Some(Kind::Untyped) | None => MetricType::Unknown,
    };
    v1::Column {
        id,
        name: format!("{}{suffix}", spec.name),
        labels,
        r#type: kind.into(),
        unit: metric.map_or_else(String::new, |metric| metric.unit.to_owned()),
        help: match described {
            Some(described) => described.help.clone(),
            None => metric.map_or_else(String::new, |metric| metric.help_for(&spec.name)),
        },
    }
}

/// The message that takes the collector from one definition of a group to another: the cheap one if
/// columns were only taken away and added behind the others.
pub fn change_message(old: Option<&Definition>, new: &Definition) -> v1::agent_message::Message {
    use v1::agent_message::Message;
    let define = || Message::DefineGroup(new.message.clone());
    let Some(old) = old.filter(|old| old.message.labels == new.message.labels) else { return define() };
    let kept: Vec<&v1::Column> =
        old.message.columns.iter().filter(|column| new.message.columns.contains(column)).collect();
    let Some((head, added)) = new.message.columns.split_at_checked(kept.len()) else { return define() };
    if !head.iter().eq(kept) {
        return define();
    }
    let still_there = |column: &&v1::Column| !head.contains(column);
    let remove = old.message.columns.iter().filter(still_there).map(|column| column.id).collect();
    Message::AlterGroup(AlterGroup { group: new.group(), remove, add: added.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::GroupSet;
    use v1::agent_message::Message;

    fn define(directory: &mut Directory, key: &str, names: &[&str]) -> Arc<Definition> {
        let mut set = GroupSet::default();
        let columns = names.iter().map(|name| ColumnSpec::plain((*name).to_owned())).collect();
        set.define(key, Vec::new(), columns);
        directory.define(set.iter().next().unwrap())
    }

    #[test]
    fn numbers_stay_with_their_objects_over_changes_and_restarts() {
        let mut directory = Directory::new("n", 0, []);
        let first = define(&mut directory, "a", &["x", "y"]);
        let other = define(&mut directory, "b", &["x"]);
        assert_ne!(first.group(), other.group());
        assert!(Arc::ptr_eq(&first, &define(&mut directory, "a", &["x", "y"])));

        let changed = define(&mut directory, "a", &["y", "z"]);
        let ids: Vec<u32> = changed.message.columns.iter().map(|column| column.id).collect();
        assert_eq!((changed.group(), ids), (first.group(), vec![1, 2]));

        let mut again = Directory::new("n", 0, [changed.clone()]);
        assert!(Arc::ptr_eq(&changed, &define(&mut again, "a", &["y", "z"])));
        assert!(define(&mut again, "c", &["x"]).group() > changed.group());
        // x had the number 0 and does not get it back for sure, but no other series may have it.
        let back = define(&mut again, "a", &["x", "y", "z"]);
        assert!(back.message.columns.iter().filter(|column| column.id == 0).all(|column| column.name == "x"));
    }

    #[test]
    fn small_changes_are_altered_and_others_defined_anew() {
        let mut directory = Directory::new("n", 0, []);
        let before = define(&mut directory, "a", &["x", "y"]);
        let after = define(&mut directory, "a", &["y", "z"]);
        match change_message(Some(&before), &after) {
            Message::AlterGroup(alter) => {
                assert_eq!(alter.remove, [0]);
                assert_eq!(alter.add.iter().map(|column| column.id).collect::<Vec<_>>(), [2]);
            }
            other => panic!("{other:?}"),
        }
        let swapped = define(&mut directory, "a", &["z", "y"]);
        assert!(matches!(change_message(Some(&after), &swapped), Message::DefineGroup(_)));
        assert!(matches!(change_message(None, &after), Message::DefineGroup(_)));
    }
}
