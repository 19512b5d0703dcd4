//! Groups: the fixed columns of values that samplers fill.
//!
//! A sampler owns a [`GroupSet`]: it defines a [`Group`] once for each object (a cpu, an interface, a
//! disk) or fixed set of the host, and then only stores numbers at column positions. What changes shape
//! (a device that comes or goes, a label that gets another value) is noted here, so that the series that
//! ended get a stale marker exactly once.

use pharos_proto::catalogue::Kind;
use std::borrow::Cow;

/// Columns of one group, as the ingest protocol limits them.
pub const COLUMNS_MAX: usize = 256;
/// Groups of one sampler: a node with more interfaces or mounts than this is misused as a load test.
pub const GROUPS_MAX: usize = 4_096;

/// A label of a series: names are ours, values come from the machine.
pub type Label = (Cow<'static, str>, String);

/// What distinguishes one series of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The metric's name.
    pub name: Cow<'static, str>,
    /// Labels beside the group's.
    pub labels: Vec<Label>,
    /// What it is, for metrics that the catalogue does not know.
    pub description: Option<Box<Description>>,
}

/// What a metric is that others made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What kind of numbers it has.
    pub kind: Kind,
    /// What it tells.
    pub help: String,
}

impl ColumnSpec {
    /// A series with the group's labels only.
    pub fn plain(name: impl Into<Cow<'static, str>>) -> Self {
        ColumnSpec { name: name.into(), labels: Vec::new(), description: None }
    }

    /// A series with one more label.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }
}

/// A set of column positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence([u64; COLUMNS_MAX / 64]);

impl Presence {
    /// No columns.
    pub const EMPTY: Presence = Presence([0; COLUMNS_MAX / 64]);

    /// Adds a column.
    #[inline]
    pub fn insert(&mut self, column: usize) {
        if let Some(word) = self.0.get_mut(column / 64) {
            *word |= 1 << (column % 64);
        }
    }

    /// Takes a column out.
    pub fn remove(&mut self, column: usize) {
        if let Some(word) = self.0.get_mut(column / 64) {
            *word &= !(1 << (column % 64));
        }
    }

    /// Whether a column is in the set.
    #[inline]
    pub fn contains(&self, column: usize) -> bool {
        self.0.get(column / 64).is_some_and(|word| word >> (column % 64) & 1 == 1)
    }

    /// How many columns are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no columns.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; COLUMNS_MAX / 64]
    }

    /// Columns of either set.
    #[must_use]
    pub fn union(self, other: Presence) -> Presence {
        Presence(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Columns of this set that are not in the other.
    #[must_use]
    pub fn without(self, other: Presence) -> Presence {
        Presence(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// The first bytes of the set, one bit per column, least significant first.
    pub fn bytes(&self) -> [u8; COLUMNS_MAX / 8] {
        let mut bytes = [0; COLUMNS_MAX / 8];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Series that are read together: one object, or a fixed set of the host.
#[derive(Clone, Debug)]
pub struct Group {
    key: String,
    labels: Vec<Label>,
    columns: Vec<ColumnSpec>,
    /// Columns from here on are no longer filled and end with a stale marker.
    wanted: usize,
    ended: bool,
    values: Vec<f64>,
    present: Presence,
    /// What the latest published reading held: what is missing now has ended.
    published: Presence,
}

impl Group {
    /// Name of the object, unique in the agent and stable over restarts.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Labels that all columns share.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The series, in the order of their values.
    pub fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    /// Stores the value of a column.
    #[inline]
    pub fn put(&mut self, column: usize, value: f64) {
        if let Some(place) = self.values.get_mut(column) {
            *place = value;
            self.present.insert(column);
        }
    }

    /// Stores a value if there is one.
    #[inline]
    pub fn put_some(&mut self, column: usize, value: Option<f64>) {
        if let Some(value) = value {
            self.put(column, value);
        }
    }

    /// Says a column's last value again, for what need not be read every time.
    #[inline]
    pub fn keep(&mut self, column: usize) {
        if column < self.values.len() {
            self.present.insert(column);
        }
    }

    /// The values; those of absent columns mean nothing.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Columns that this reading has.
    pub fn present(&self) -> Presence {
        self.present
    }

    /// Columns that the previous reading had and this one has not.
    pub fn gone(&self) -> Presence {
        self.published.without(self.present)
    }
}

/// Names a group of a [`GroupSet`]; stays valid until the group is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHandle(usize);

/// All groups of one sampler.
#[derive(Debug, Default)]
pub struct GroupSet {
    groups: Vec<Option<Group>>,
    shape: u64,
    /// Something was retired or ended and waits to be dropped once its stale markers are out.
    unsettled: bool,
}

impl GroupSet {
    /// Number that changes whenever groups or columns come or go.
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// The groups that have something to say, ended ones included until their markers are out. One that has no
    /// columns now (a GPU without processes) is not among them: the protocol has no empty groups.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().flatten().filter(|group| !group.columns.is_empty())
    }

    /// Opens a group. `key` names the object; columns beyond [`COLUMNS_MAX`] are left out.
    pub fn define(
        &mut self,
        key: impl Into<String>,
        labels: Vec<Label>,
        mut columns: Vec<ColumnSpec>,
    ) -> GroupHandle {
        let key = key.into();
        self.shape += 1;
        if columns.len() > COLUMNS_MAX {
            tracing::warn!(group = key, columns = columns.len(), "Too many columns, the rest is left out");
            columns.truncate(COLUMNS_MAX);
        }
        // An object that came back before its end was published just goes on.
        let revived = self
            .groups
            .iter()
            .position(|group| group.as_ref().is_some_and(|group| group.key == key && group.ended));
        if let Some(index) = revived
            && let Some(Some(group)) = self.groups.get_mut(index)
        {
            group.ended = false;
            group.labels = labels;
            self.redefine(GroupHandle(index), columns);
            return GroupHandle(index);
        }
        let count = columns.len();
        let group = Group {
            key,
            labels,
            columns,
            wanted: count,
            ended: false,
            values: vec![0.0; count],
            present: Presence::EMPTY,
            published: Presence::EMPTY,
        };
        match self.groups.iter().position(Option::is_none) {
            Some(index) => {
                self.groups[index] = Some(group);
                GroupHandle(index)
            }
            None => {
                self.groups.push(Some(group));
                GroupHandle(self.groups.len() - 1)
            }
        }
    }

    /// The group of that key, for samplers that look it up now and then.
    pub fn handle_of(&self, key: &str) -> Option<GroupHandle> {
        let at = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.key == key && !group.ended);
        self.groups.iter().position(at).map(GroupHandle)
    }

    /// The group behind a handle. A handle of an ended group leads to a group that nobody publishes.
    #[inline]
    pub fn group(&mut self, handle: GroupHandle) -> Option<&mut Group> {
        self.groups.get_mut(handle.0).and_then(Option::as_mut)
    }

    /// Gives a group other columns. Those that are no longer wanted end with a stale marker.
    pub fn redefine(&mut self, handle: GroupHandle, columns: Vec<ColumnSpec>) {
        let Some(group) = self.group(handle) else { return };
        if group.columns[..group.wanted] == columns[..] {
            return;
        }
        let (old_columns, old_published) = (std::mem::take(&mut group.columns), group.published);
        let wanted = columns.len().min(COLUMNS_MAX);
        group.columns = columns;
        group.columns.truncate(COLUMNS_MAX);
        group.wanted = wanted;
        group.present = Presence::EMPTY;
        group.published = Presence::EMPTY;
        for (old, column) in old_columns.into_iter().enumerate() {
            let place = match group.columns.iter().position(|new| *new == column) {
                Some(place) => place,
                None if old_published.contains(old) && group.columns.len() < COLUMNS_MAX => {
                    group.columns.push(column);
                    group.columns.len() - 1
                }
                None => continue,
            };
            if old_published.contains(old) {
                group.published.insert(place);
            }
        }
        group.values.clear();
        group.values.resize(group.columns.len(), 0.0);
        self.shape += 1;
        self.unsettled = true;
    }

    /// Ends a group: its object is gone.
    pub fn end(&mut self, handle: GroupHandle) {
        if let Some(group) = self.group(handle) {
            group.ended = true;
            group.present = Presence::EMPTY;
            self.unsettled = true;
        }
    }

    /// Ends all groups: the sampler is switched off.
    pub fn end_all(&mut self) {
        for index in 0..self.groups.len() {
            self.end(GroupHandle(index));
        }
    }

    /// Starts a reading: forgets the values of the last one, and drops what has ended.
    pub fn begin(&mut self) {
        if self.unsettled {
            self.settle();
        }
        for group in self.groups.iter_mut().flatten() {
            group.present = Presence::EMPTY;
        }
    }

    /// Takes note that the reading was published, stale markers included.
    pub fn published(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.published = group.present;
        }
    }

    fn settle(&mut self) {
        let mut unsettled = false;
        for place in &mut self.groups {
            let Some(group) = place else { continue };
            if group.ended {
                if group.published.is_empty() {
                    *place = None;
                    self.shape += 1;
                } else {
                    unsettled = true;
                }
                continue;
            }
            if group.wanted < group.columns.len() {
                let waiting = (group.wanted..group.columns.len()).any(|at| group.published.contains(at));
                if waiting {
                    unsettled = true;
                } else {
                    group.columns.truncate(group.wanted);
                    group.values.truncate(group.wanted);
                    self.shape += 1;
                }
            }
        }
        self.unsettled = unsettled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<ColumnSpec> {
        names.iter().map(|name| ColumnSpec::plain((*name).to_owned())).collect()
    }

    fn names(set: &GroupSet) -> Vec<Vec<String>> {
        set.iter().map(|g| g.columns().iter().map(|c| c.name.clone().into_owned()).collect()).collect()
    }

    #[test]
    fn a_column_that_ends_is_gone_for_one_reading_and_then_dropped() {
        let mut set = GroupSet::default();
        let handle = set.define("g", Vec::new(), columns(&["a", "b"]));
        set.begin();
        set.group(handle).unwrap().put(0, 1.0);
        set.group(handle).unwrap().put(1, 2.0);
        set.published();

        set.begin();
        set.redefine(handle, columns(&["c", "b"]));
        set.group(handle).unwrap().put(0, 3.0);
        set.group(handle).unwrap().put(1, 4.0);
        assert_eq!(names(&set), [["c", "b", "a"]]);
        let gone = set.group(handle).unwrap().gone();
        assert!(gone.contains(2) && gone.len() == 1);
        set.published();

        let shape = set.shape();
        set.begin();
        assert_eq!(names(&set), [["c", "b"]]);
        assert!(set.shape() > shape);
    }

    #[test]
    fn an_ended_group_stays_until_its_markers_are_published() {
        let mut set = GroupSet::default();
        let handle = set.define("g", Vec::new(), columns(&["a"]));
        set.begin();
        set.group(handle).unwrap().put(0, 1.0);
        set.published();
        set.begin();
        set.end(handle);
        // A failed reading publishes nothing; the marker is still owed.
        set.begin();
        assert_eq!(set.iter().map(|group| group.gone().len()).sum::<usize>(), 1);
        set.published();
        set.begin();
        assert_eq!(set.iter().count(), 0);
    }

    #[test]
    fn an_object_that_comes_back_at_once_goes_on() {
        let mut set = GroupSet::default();
        let handle = set.define("g", Vec::new(), columns(&["a"]));
        set.end(handle);
        assert_eq!(set.define("g", Vec::new(), columns(&["a"])), handle);
        assert_eq!(set.iter().count(), 1);
    }

    #[test]
    fn a_group_without_columns_is_nobodys_business_until_it_has_some() {
        let mut set = GroupSet::default();
        let handle = set.define("a", Vec::new(), Vec::new());
        assert_eq!(set.iter().count(), 0);
        set.redefine(handle, columns(&["x"]));
        assert_eq!(names(&set), [["x"]]);
    }

    #[test]
    fn presence_is_a_set_of_up_to_256_columns() {
        let mut presence = Presence::EMPTY;
        presence.insert(0);
        presence.insert(255);
        presence.insert(256);
        assert_eq!(presence.len(), 2);
        assert!(presence.contains(255) && !presence.contains(256));
        assert_eq!(presence.bytes()[31], 0x80);
        presence.remove(0);
        assert_eq!(presence.len(), 1);
    }
}
