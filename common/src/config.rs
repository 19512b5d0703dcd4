//! Configuration files: YAML into typed structures, with errors that name file, line, column and key.

use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};

/// Larger files are no configuration.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is wrong with a configuration file, and where.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, counted from 1, if the fault has a place.
    pub position: Option<(u64, u64)>,
    /// The key, as a path (`route.routes[0].receiver`); empty when the file as a whole is wrong.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() && self.key != "." {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A fault found after parsing, by its key.
    pub fn new(file: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        ConfigError { file: file.to_owned(), position: None, key: key.into(), message: message.into() }
    }

    /// Gives a fault found after parsing its place, by looking the key up in the text.
    #[must_use]
    pub fn locate_in(mut self, text: &str) -> Self {
        if self.position.is_none() {
            self.position = position_of_key(text, &self.key);
        }
        self
    }
}

/// Reads a file whole.
///
/// # Errors
/// If it cannot be read, is too large or is not UTF-8.
pub fn read(file: &Path) -> Result<String, ConfigError> {
    let fault = |message: String| ConfigError::new(file, "", message);
    let length = std::fs::metadata(file).map_err(|error| fault(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(fault(format!("{length} bytes are too large for a configuration file")));
    }
    std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))
}

/// Reads and parses a file. An empty file is an empty mapping.
///
/// # Errors
/// If it cannot be read or does not fit `T`.
pub fn load<T: DeserializeOwned>(file: &Path) -> Result<T, ConfigError> {
    parse(file, &read(file)?)
}

/// Parses the text of a file. An empty text is an empty mapping.
///
/// # Errors
/// If the text is no YAML or does not fit `T`.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, ConfigError> {
    let blank = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    });
    let text = if blank { "{}" } else { text };
    let mut track = serde_path_to_error::Track::new();
    let outcome = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    outcome.map_err(|error| {
        let position = error.location().map(|at| (at.line(), at.column()));
        ConfigError {
            file: file.to_owned(),
            position,
            key: Some(track.path().to_string()).filter(|key| key != "?").unwrap_or_default(),
            message: one_line(&error),
        }
    })
}

/// What the parser says, without the excerpt and the place, which stand before it already.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match line.rfind(" at line ") {
        Some(place) => line[..place].to_owned(),
        None => line.to_owned(),
    }
}

/// Finds `a.b[1].c` in block-style YAML text: good enough to point a person at a line.
fn position_of_key(text: &str, key: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().enumerate().peekable();
    let mut found = None;
    for segment in key.split('.') {
        let (name, index) = match segment.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (segment, None),
        };
        let (number, column) = lines.by_ref().find_map(|(number, line)| {
            let bare = line.trim_start().trim_start_matches("- ").trim_start();
            let hit = bare.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
            hit.then(|| (number, line.len() - bare.len()))
        })?;
        found = Some((number as u64 + 1, column as u64 + 1));
        if let Some(index) = index {
            let mut dash_column = None;
            let mut seen = 0;
            while let Some(&(number, line)) = lines.peek() {
                let indent = line.len() - line.trim_start().len();
                if line.trim_start().starts_with("- ") && *dash_column.get_or_insert(indent) == indent {
                    if seen == index {
                        found = Some((number as u64 + 1, indent as u64 + 3));
                        break;
                    }
                    seen += 1;
                }
                lines.next();
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: u32,
        wait: Option<crate::duration::PrometheusDuration>,
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        let error = parse::<Outer>(Path::new("a.yml"), text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }

    #[test]
    fn errors_name_file_line_column_and_key() {
        check("list:\n  - count: 1\n  - count: x\n", "a.yml:3:12: list[1].count: ");
        check("list:\n  - count: 1\n    wait: 5 minutes\n", "a.yml:3:11: list[0].wait: ");
        check("list:\n  - count: 1\n    colour: red\n", "a.yml:3:5: list[0].colour: ");
        check("list: [\n", "a.yml:");
        let text = parse::<Outer>(Path::new("a.yml"), "list:\n  - count: x\n").unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("<input>") && !text.contains(" at line "), "{text}");
    }

    #[test]
    fn an_empty_file_is_an_empty_mapping() {
        assert!(parse::<Outer>(Path::new("a.yml"), "# nothing\n").unwrap().list.is_empty());
    }

    #[test]
    fn a_fault_found_later_is_located_by_its_key() {
        let text = "route:\n  routes:\n    - receiver: a\n    - receiver: b\n";
        let error =
            ConfigError::new(Path::new("a.yml"), "route.routes[1].receiver", "unknown").locate_in(text);
        assert_eq!(error.to_string(), "a.yml:4:7: route.routes[1].receiver: unknown");
    }
}
