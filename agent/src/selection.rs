//! Which collectors a scrape asks for: `collect[]` and `exclude[]` of `/metrics`, as node_exporter reads them.
//!
//! A query comes in and is checked against what runs; readings go through [`Selection::filter`].

use crate::board::Posted;
use crate::sampler::SAMPLERS;

/// The collectors that a scraper wants to see.
#[derive(Debug, PartialEq)]
pub enum Selection<'a> {
    /// All that run.
    All,
    /// Those that it names.
    Only(Vec<&'a str>),
    /// All but those that it names.
    Without(Vec<&'a str>),
}

impl<'a> Selection<'a> {
    /// Reads a query; other parameters are somebody else's.
    ///
    /// # Errors
    /// What is wrong with it: a name that nothing has, a collector that does not run, or both parameters at once.
    pub fn of(query: &'a [(String, String)], running: &[&str]) -> Result<Self, String> {
        let named = |parameter: &str| -> Result<Vec<&'a str>, String> {
            let values = query.iter().filter(|(name, _)| name == parameter).map(|(_, value)| value.as_str());
            let values: Vec<&str> = values.collect();
            match values.iter().find(|name| !running.contains(name)) {
                None => Ok(values),
                Some(name) if SAMPLERS.iter().any(|kind| kind.name == *name) => {
                    Err(format!("disabled collector: {name}"))
                }
                Some(name) => Err(format!("missing collector: {name}")),
            }
        };
        let (only, without) = (named("collect[]")?, named("exclude[]")?);
        match (only.is_empty(), without.is_empty()) {
            (true, true) => Ok(Selection::All),
            (false, true) => Ok(Selection::Only(only)),
            (true, false) => Ok(Selection::Without(without)),
            (false, false) => Err("give collect[] or exclude[], not both".to_owned()),
        }
    }

    fn wants(&self, name: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Only(names) => names.contains(&name),
            Selection::Without(names) => !names.contains(&name),
        }
    }

    /// The readings that are wanted, of readings with the place of their sampler in [`SAMPLERS`]. What stands in no
    /// such place tells how samplers fared, one column or more for each.
    pub fn filter(&self, readings: Vec<(usize, Posted)>) -> Vec<Posted> {
        let wanted = readings.into_iter().filter_map(|(slot, mut posted)| match SAMPLERS.get(slot) {
            Some(kind) => self.wants(kind.name).then_some(posted),
            None => {
                for (at, column) in posted.definition.message.columns.iter().enumerate() {
                    let collector = column.labels.iter().find(|label| label.name == "collector");
                    if collector.is_some_and(|label| !self.wants(&label.value)) {
                        posted.present.remove(at);
                    }
                }
                Some(posted)
            }
        });
        wanted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_chosen_left_out_or_refused() {
        let running = ["cpu", "loadavg", "meminfo"];
        let query = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let none = query(&[("x", "y")]);
        assert_eq!(Selection::of(&none, &running), Ok(Selection::All));
        let two = query(&[("collect[]", "cpu"), ("collect[]", "meminfo")]);
        let only = Selection::of(&two, &running).unwrap();
        assert!(only.wants("cpu") && only.wants("meminfo") && !only.wants("loadavg"));
        let one = query(&[("exclude[]", "cpu")]);
        let without = Selection::of(&one, &running).unwrap();
        assert!(!without.wants("cpu") && without.wants("meminfo"));
        for (pairs, want) in [
            (&[("collect[]", "cpux")][..], "missing collector: cpux"),
            (&[("exclude[]", "arp")], "disabled collector: arp"),
            (&[("collect[]", "cpu"), ("exclude[]", "meminfo")], "give collect[] or exclude[], not both"),
        ] {
            assert_eq!(Selection::of(&query(pairs), &running), Err(want.to_owned()));
        }
    }
}
