//! What udev has found out about a device, from its database under `--path.udev.data`.

use crate::sampler::Paths;
use std::collections::HashMap;

/// Properties of one device; empty when udev does not know it.
#[derive(Debug, Default)]
pub(super) struct Properties(HashMap<String, String>);

impl Properties {
    pub(super) fn of_block_device(paths: &Paths, major: u64, minor: u64) -> Self {
        let file = paths.udev_data.join(format!("b{major}:{minor}"));
        std::fs::read_to_string(file).map_or_else(|_| Properties::default(), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let properties = text.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
        Properties(properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A property, or nothing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The first property of these that is there.
    pub(super) fn first_of(&self, names: &[&str]) -> &str {
        names.iter().map(|name| self.get(name)).find(|value| !value.is_empty()).unwrap_or_default()
    }
}
