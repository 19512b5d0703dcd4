//! `os`: which distribution runs, from `os-release`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Paths, Sampler, SamplerOptions};
use std::collections::HashMap;

/// Readings after which the file is looked at again: distributions replace it when they are upgraded.
const READINGS_BETWEEN_LOOKS: u32 = 60;
const LABELS: [(&str, &str); 12] = [
    ("build_id", "BUILD_ID"),
    ("id", "ID"),
    ("id_like", "ID_LIKE"),
    ("image_id", "IMAGE_ID"),
    ("image_version", "IMAGE_VERSION"),
    ("name", "NAME"),
    ("pretty_name", "PRETTY_NAME"),
    ("variant", "VARIANT"),
    ("variant_id", "VARIANT_ID"),
    ("version", "VERSION"),
    ("version_codename", "VERSION_CODENAME"),
    ("version_id", "VERSION_ID"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(OsSampler { paths: options.paths.clone(), countdown: 0, values: Vec::new(), group: None })
}

struct OsSampler {
    paths: Paths,
    countdown: u32,
    values: Vec<f64>,
    group: Option<GroupHandle>,
}

impl Sampler for OsSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.countdown == 0 {
            self.look(groups)?;
            self.countdown = READINGS_BETWEEN_LOOKS;
        }
        self.countdown -= 1;
        if let Some(group) = self.group.and_then(|handle| groups.group(handle)) {
            self.values.iter().enumerate().for_each(|(column, value)| group.put(column, *value));
        }
        Ok(())
    }
}

impl OsSampler {
    fn look(&mut self, groups: &mut GroupSet) -> Result<(), SampleError> {
        let candidates = ["/etc/os-release", "/usr/lib/os-release"].map(|path| self.paths.root(path));
        let text = candidates.iter().find_map(|path| std::fs::read_to_string(path).ok());
        let text = text.ok_or(SampleError::Absent("the host has no os-release file"))?;
        let release = parse(&text);
        let field = |name: &str| release.get(name).cloned().unwrap_or_default();
        let info = LABELS.iter().fold(ColumnSpec::plain("node_os_info"), |column, (label, name)| {
            column.with(*label, field(name))
        });
        let mut columns = vec![info];
        self.values = vec![1.0];
        if let Some(version) = major_minor(&field("VERSION_ID")) {
            columns.push(
                ColumnSpec::plain("node_os_version")
                    .with("id", field("ID"))
                    .with("id_like", field("ID_LIKE"))
                    .with("name", field("NAME")),
            );
            self.values.push(version);
        }
        match self.group {
            Some(handle) => groups.redefine(handle, columns),
            None => self.group = Some(groups.define("os", Vec::new(), columns)),
        }
        Ok(())
    }
}

fn parse(text: &str) -> HashMap<&str, String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), unquote(value.trim())))
        .collect()
}

/// Takes away quotes and the backslashes in them, as a shell would.
fn unquote(value: &str) -> String {
    let inner = [('"', '"'), ('\'', '\'')]
        .iter()
        .find_map(|(open, close)| value.strip_prefix(*open)?.strip_suffix(*close))
        .unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            letter => out.push(letter),
        }
    }
    out
}

/// `22.04.3` is 22.04.
fn major_minor(version: &str) -> Option<f64> {
    let mut parts = version.splitn(3, '.');
    let major = parts.next().filter(|part| !part.is_empty())?;
    match parts.next() {
        Some(minor) => format!("{major}.{minor}").parse().ok(),
        None => major.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes_and_versions_their_patch() {
        let release = parse("# c\nNAME=\"Debian \\\"GNU\\\"\"\nID=debian\nX='a b'\n");
        assert_eq!(release["NAME"], "Debian \"GNU\"");
        assert_eq!(release["ID"], "debian");
        assert_eq!(release["X"], "a b");
        assert_eq!(major_minor("22.04.3"), Some(22.04));
        assert_eq!(major_minor("12"), Some(12.0));
        assert_eq!(major_minor(""), None);
        assert_eq!(major_minor("rolling"), None);
    }
}
