//! The route tree: which receivers hear of an alert, how alerts are grouped, and at what pace.

use crate::config::{Fault, RouteFile, all_matchers};
use crate::matchers::Matchers;
use crate::notify::Receiver;
use crate::time_interval::TimeInterval;
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A route's place in its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteId(pub(crate) usize);

/// Which labels make a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupBy {
    /// `'...'`: every label, so every alert is its own group.
    All,
    /// These.
    Labels(BTreeSet<String>),
}

impl GroupBy {
    /// The labels of the group that an alert belongs to.
    pub(crate) fn group_labels(&self, labels: &Labels) -> Labels {
        match self {
            GroupBy::All => labels.clone(),
            GroupBy::Labels(names) => labels.filtered(|name| names.contains(name)),
        }
    }
}

/// A route's pace. `None` means that the configuration says nothing, neither here nor above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timers {
    pub(crate) group_wait_ms: Option<i64>,
    pub(crate) group_interval_ms: Option<i64>,
    pub(crate) repeat_interval_ms: Option<i64>,
}

/// Alertmanager's `group_interval` where none is written.
const GROUP_INTERVAL_MS: i64 = 5 * 60_000;
/// Alertmanager's `repeat_interval` where none is written.
const REPEAT_INTERVAL_MS: i64 = 4 * 3_600_000;

impl Timers {
    /// How often an unchanged group is looked at.
    pub(crate) fn interval_ms(&self) -> i64 {
        self.group_interval_ms.unwrap_or(GROUP_INTERVAL_MS)
    }

    /// After how long an unchanged group is told again.
    pub(crate) fn repeat_ms(&self) -> i64 {
        self.repeat_interval_ms.unwrap_or(REPEAT_INTERVAL_MS)
    }
}

/// One route with everything it inherits.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its path of matchers: the first half of its groups' keys, as in Alertmanager.
    pub(crate) key: String,
    pub(crate) receiver: String,
    pub(crate) group_by: GroupBy,
    pub(crate) timers: Timers,
    pub(crate) mute_intervals: Vec<String>,
    pub(crate) active_intervals: Vec<String>,
    matchers: Matchers,
    continues: bool,
    children: Vec<RouteId>,
}

/// All routes; the root comes first.
#[derive(Debug, Default)]
pub(crate) struct RouteTree {
    routes: Vec<Route>,
}

impl RouteTree {
    pub(crate) fn get(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.0)
    }

    /// The routes that hear of an alert: the deepest that match, and what follows them where they say
    /// `continue`.
    pub(crate) fn matching(&self, labels: &Labels) -> Vec<RouteId> {
        let mut found = Vec::new();
        self.descend(RouteId(0), labels, &mut found);
        found
    }

    /// Whether the route matches; if so, it or its children are added.
    fn descend(&self, id: RouteId, labels: &Labels, found: &mut Vec<RouteId>) -> bool {
        let Some(route) = self.get(id) else { return false };
        if !route.matchers.matches(labels) {
            return false;
        }
        let before = found.len();
        for &child in &route.children {
            let matched = self.descend(child, labels, found);
            if matched && !self.get(child).is_some_and(|child| child.continues) {
                break;
            }
        }
        if found.len() == before {
            found.push(id);
        }
        true
    }
}

/// Builds and checks a tree.
pub(crate) struct RouteTreeBuilder<'a> {
    pub(crate) receivers: &'a BTreeMap<String, Arc<Receiver>>,
    pub(crate) intervals: &'a BTreeMap<String, Vec<TimeInterval>>,
}

impl RouteTreeBuilder<'_> {
    pub(crate) fn build(&self, root: &RouteFile) -> Result<RouteTree, Fault> {
        let fault = |key: &str, message: &str| Err(Fault::new(format!("route.{key}"), message));
        if root.receiver.is_none() {
            return fault("receiver", "root route must specify a default receiver");
        }
        if !root.matchers.is_empty() || !root.equals.is_empty() || !root.match_re.is_empty() {
            return fault("matchers", "root route must not have any matchers");
        }
        if root.continues {
            return fault("continue", "cannot have continue in root route");
        }
        if !root.mute_time_intervals.is_empty() {
            return fault("mute_time_intervals", "root route must not have any mute time intervals");
        }
        if !root.active_time_intervals.is_empty() {
            return fault("active_time_intervals", "root route must not have any active time intervals");
        }
        let mut tree = RouteTree::default();
        self.add(&mut tree, root, "route", None)?;
        Ok(tree)
    }

    fn add(
        &self,
        tree: &mut RouteTree,
        written: &RouteFile,
        key: &str,
        parent: Option<RouteId>,
    ) -> Result<RouteId, Fault> {
        let matchers = all_matchers(&written.matchers, &written.equals, &written.match_re, key)?;
        let parent = parent.and_then(|id| tree.get(id)).cloned();
        let receiver = written.receiver.clone().filter(|name| !name.is_empty());
        if let Some(name) = receiver.as_ref().filter(|name| !self.receivers.contains_key(*name)) {
            let message = format!("undefined receiver {name:?} used in route");
            return Err(Fault::new(format!("{key}.receiver"), message));
        }
        self.check_intervals(&written.mute_time_intervals, &format!("{key}.mute_time_intervals"))?;
        self.check_intervals(&written.active_time_intervals, &format!("{key}.active_time_intervals"))?;
        let inherited = parent.as_ref().map(|parent| parent.timers).unwrap_or_default();
        let path = match &parent {
            Some(parent) => format!("{}/{matchers}", parent.key),
            None => matchers.to_string(),
        };
        let group_by = match (group_by(written, key)?, &parent) {
            (Some(group_by), _) => group_by,
            (None, Some(parent)) => parent.group_by.clone(),
            (None, None) => GroupBy::Labels(BTreeSet::new()),
        };
        let route = Route {
            key: path,
            receiver: receiver.or(parent.map(|parent| parent.receiver)).unwrap_or_default(),
            group_by,
            timers: Timers {
                group_wait_ms: timer(written.group_wait, true, key, "group_wait")?
                    .or(inherited.group_wait_ms),
                group_interval_ms: timer(written.group_interval, false, key, "group_interval")?
                    .or(inherited.group_interval_ms),
                repeat_interval_ms: timer(written.repeat_interval, false, key, "repeat_interval")?
                    .or(inherited.repeat_interval_ms),
            },
            mute_intervals: written.mute_time_intervals.clone(),
            active_intervals: written.active_time_intervals.clone(),
            matchers,
            continues: written.continues,
            children: Vec::new(),
        };
        let id = RouteId(tree.routes.len());
        tree.routes.push(route);
        let mut children = Vec::new();
        for (index, child) in written.routes.iter().enumerate() {
            children.push(self.add(tree, child, &format!("{key}.routes[{index}]"), Some(id))?);
        }
        if let Some(route) = tree.routes.get_mut(id.0) {
            route.children = children;
        }
        Ok(id)
    }

    fn check_intervals(&self, names: &[String], key: &str) -> Result<(), Fault> {
        match names.iter().find(|name| !self.intervals.contains_key(*name)) {
            Some(name) => Err(Fault::new(key, format!("undefined time interval {name:?} used in route"))),
            None => Ok(()),
        }
    }
}

fn timer(
    written: Option<PrometheusDuration>,
    zero_allowed: bool,
    key: &str,
    name: &str,
) -> Result<Option<i64>, Fault> {
    match written {
        Some(duration) if duration.as_millis() == 0 && !zero_allowed => {
            Err(Fault::new(format!("{key}.{name}"), format!("{name} cannot be zero")))
        }
        written => Ok(written.map(PrometheusDuration::as_millis_i64)),
    }
}

fn group_by(written: &RouteFile, key: &str) -> Result<Option<GroupBy>, Fault> {
    let Some(names) = &written.group_by else { return Ok(None) };
    let fault = |message: String| Fault::new(format!("{key}.group_by"), message);
    if names.iter().any(|name| name == "...") {
        if names.len() > 1 {
            return Err(fault("cannot have wildcard group_by (`...`) and other labels at once".to_owned()));
        }
        return Ok(Some(GroupBy::All));
    }
    let mut labels = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(fault("invalid label name \"\" in group_by list".to_owned()));
        }
        if !labels.insert(name.clone()) {
            return Err(fault(format!("duplicated label {name:?} in group_by")));
        }
    }
    Ok(Some(GroupBy::Labels(labels)))
}

/// Why a route tells nobody now, if a time interval says so.
pub(crate) fn muted_by_time(
    route: &Route,
    intervals: &BTreeMap<String, Vec<TimeInterval>>,
    now_ms: TimestampMs,
) -> Vec<String> {
    let contains =
        |name: &String| intervals.get(name).is_some_and(|list| list.iter().any(|one| one.contains(now_ms)));
    let mut muting: Vec<String> =
        route.mute_intervals.iter().filter(|name| contains(name)).cloned().collect();
    if !route.active_intervals.is_empty() && !route.active_intervals.iter().any(contains) {
        muting.extend(route.active_intervals.iter().cloned());
    }
    muting
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(yaml: &str) -> RouteTree {
        let root: RouteFile = pharos_common::config::parse(std::path::Path::new("r.yml"), yaml).unwrap();
        let receivers = ["a", "b", "c", "d"]
            .map(|name| {
                let receiver =
                    Receiver { name: name.to_owned(), labels: BTreeMap::new(), integrations: Vec::new() };
                (name.to_owned(), Arc::new(receiver))
            })
            .into();
        RouteTreeBuilder { receivers: &receivers, intervals: &BTreeMap::new() }.build(&root).unwrap()
    }

    const TREE: &str = "
receiver: a
group_by: [alertname]
group_wait: 5s
routes:
- matchers: [team=gpu]
  receiver: b
  continue: true
  routes:
  - match: {severity: critical}
    receiver: c
    group_by: ['...']
    group_interval: 1m
- match_re: {team: g.*}
  receiver: d
";

    #[test]
    fn the_deepest_matching_routes_win_and_continue_goes_on() {
        let tree = tree(TREE);
        #[track_caller]
        fn check(tree: &RouteTree, labels: &[(&str, &str)], want: &[&str]) {
            let labels = Labels::from_pairs(labels.iter().copied());
            let found: Vec<&str> = tree
                .matching(&labels)
                .into_iter()
                .map(|id| tree.get(id).unwrap().receiver.as_str())
                .collect();
            assert_eq!(found, want);
        }
        check(&tree, &[], &["a"]);
        check(&tree, &[("team", "gpu")], &["b", "d"]);
        check(&tree, &[("team", "gpu"), ("severity", "critical")], &["c", "d"]);
        check(&tree, &[("team", "grid")], &["d"]);
        check(&tree, &[("team", "net")], &["a"]);
    }

    #[test]
    fn routes_inherit_what_they_do_not_write() {
        let tree = tree(TREE);
        let deepest = tree.get(RouteId(2)).unwrap();
        assert_eq!(deepest.key, r#"{}/{team="gpu"}/{severity="critical"}"#);
        assert_eq!(deepest.group_by, GroupBy::All);
        assert_eq!(
            deepest.timers,
            Timers { group_wait_ms: Some(5_000), group_interval_ms: Some(60_000), repeat_interval_ms: None }
        );
    }

    proptest! {
        #[test]
        fn every_alert_has_a_route_and_none_twice(team in "gpu|grid|net|", severity in "critical|warning|") {
            let tree = tree(TREE);
            let labels = Labels::from_pairs([("team", team), ("severity", severity)]);
            let found = tree.matching(&labels);
            prop_assert!(!found.is_empty());
            let unique: BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(unique.len(), found.len());
        }
    }
}
