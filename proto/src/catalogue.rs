//! Reads the catalogue of metrics, [`crate::METRICS_CATALOGUE`].
//!
//! The file is TOML of one fixed form (`[[metric]]` tables of strings and lists of strings), so a reader of
//! forty lines does, and every entry borrows from the text that is compiled in.

use std::collections::HashMap;
use std::sync::OnceLock;

/// What kind of numbers a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows, except for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
    /// Quantiles, a sum and a count.
    Summary,
    /// Constant 1; what it says is in its labels.
    Info,
    /// Nobody promises anything.
    Untyped,
}

/// One entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As scraped and queried; `*` stands for parts that come from the kernel.
    pub name: &'static str,
    /// What kind of numbers it has.
    pub kind: Kind,
    /// Base unit, or empty.
    pub unit: &'static str,
    /// Label names beside `instance` and `job`.
    pub labels: Vec<&'static str>,
    /// What it tells; `{}` stands for the parts behind the name's `*`.
    pub help: &'static str,
}

impl Metric {
    /// The help text of a metric of this entry.
    pub fn help_for(&self, name: &str) -> String {
        let parts = match_parts(self.name, name).unwrap_or_default();
        let mut help = self.help.to_owned();
        for part in parts {
            help = help.replacen("{}", part, 1);
        }
        help
    }
}

/// What is wrong with the catalogue's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// All metrics, to be looked up by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    metrics: Vec<Metric>,
    by_name: HashMap<&'static str, usize>,
    patterns: Vec<usize>,
}

impl Catalogue {
    /// The catalogue that is compiled in.
    pub fn get() -> &'static Catalogue {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        // A test reads the file, so it has no errors.
        CATALOGUE.get_or_init(|| Catalogue::parse(crate::METRICS_CATALOGUE).unwrap_or_default())
    }

    /// Reads a catalogue.
    ///
    /// # Errors
    /// Where the text is not of the fixed form.
    pub fn parse(text: &'static str) -> Result<Catalogue, CatalogueError> {
        let mut catalogue = Catalogue::default();
        let mut entry: Option<Metric> = None;
        for (number, line) in text.lines().enumerate() {
            let fault = |message: &str| CatalogueError { line: number + 1, message: message.to_owned() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line == "[[metric]]" {
                catalogue.add(entry.take()).map_err(|message| fault(&message))?;
                entry =
                    Some(Metric { name: "", kind: Kind::Untyped, unit: "", labels: Vec::new(), help: "" });
                continue;
            }
            let metric = entry.as_mut().ok_or_else(|| fault("a key outside of [[metric]]"))?;
            let (key, value) = line.split_once('=').ok_or_else(|| fault("not KEY = VALUE"))?;
            let value = value.trim();
            let text = || string(value).ok_or_else(|| fault("not a plain string"));
            match key.trim() {
                "name" => metric.name = text()?,
                "unit" => metric.unit = text()?,
                "help" => metric.help = text()?,
                "type" => {
                    metric.kind = match text()? {
                        "counter" => Kind::Counter,
                        "gauge" => Kind::Gauge,
                        "histogram" => Kind::Histogram,
                        "summary" => Kind::Summary,
                        "info" => Kind::Info,
                        "untyped" => Kind::Untyped,
                        _ => return Err(fault("no such type")),
                    };
                }
                "labels" => {
                    let list = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                    let list = list.ok_or_else(|| fault("not a list"))?;
                    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
                    let labels: Option<Vec<&'static str>> = items.map(string).collect();
                    metric.labels = labels.ok_or_else(|| fault("not a list of plain strings"))?;
                }
                _ => return Err(fault("no such key")),
            }
        }
        let line = text.lines().count();
        catalogue.add(entry).map_err(|message| CatalogueError { line, message })?;
        Ok(catalogue)
    }

    fn add(&mut self, entry: Option<Metric>) -> Result<(), String> {
        let Some(metric) = entry else { return Ok(()) };
        if metric.name.is_empty() || metric.help.is_empty() {
            return Err(format!("metric {:?} lacks its name or help", metric.name));
        }
        let index = self.metrics.len();
        if metric.name.contains('*') {
            self.patterns.push(index);
        } else if self.by_name.insert(metric.name, index).is_some() {
            return Err(format!("metric {} is listed twice", metric.name));
        }
        self.metrics.push(metric);
        Ok(())
    }

    /// The entry of a metric.
    pub fn find(&self, name: &str) -> Option<&Metric> {
        let index = self.by_name.get(name).copied().or_else(|| {
            // Of several patterns the one that says most counts.
            let matching = self.patterns.iter().copied();
            let matching = matching.filter(|&at| match_parts(self.metrics[at].name, name).is_some());
            matching.max_by_key(|&at| self.metrics[at].name.replace('*', "").len())
        });
        self.metrics.get(index?)
    }

    /// All entries, in file order.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}

/// A string without escapes: `"…"` or `'…'`.
fn string(value: &'static str) -> Option<&'static str> {
    let basic = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let basic = basic.filter(|inner| !inner.contains(['"', '\\']));
    basic.or_else(|| {
        let literal = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        literal.filter(|inner| !inner.contains('\''))
    })
}

/// What the `*` of a pattern stand for in a name. Each takes as little as it can, the last takes the rest.
fn match_parts<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
    let mut pieces = pattern.split('*');
    let mut rest = name.strip_prefix(pieces.next()?)?;
    let mut parts = Vec::new();
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() {
            rest.len().checked_sub(piece.len()).filter(|&end| rest.ends_with(piece) && end > 0)?
        } else {
            rest.find(piece).filter(|&end| end > 0)?
        };
        parts.push(&rest[..end]);
        rest = &rest[end + piece.len()..];
    }
    rest.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_catalogue_is_well_formed_and_sorted() {
        let catalogue = Catalogue::parse(crate::METRICS_CATALOGUE).unwrap();
        assert!(!catalogue.metrics().is_empty());
    }

    #[test]
    fn patterns_fill_in_the_help() {
        let text = "[[metric]]\nname = \"node_netstat_*_*\"\ntype = \"untyped\"\nhelp = 'Statistic {}{}.'\nlabels = [\"a\", \"b\"]\n";
        let catalogue = Catalogue::parse(text).unwrap();
        let metric = catalogue.find("node_netstat_TcpExt_ListenDrops_x").unwrap();
        assert_eq!(metric.help_for("node_netstat_TcpExt_ListenDrops_x"), "Statistic TcpExtListenDrops_x.");
        assert_eq!(metric.labels, ["a", "b"]);
        assert!(catalogue.find("node_netstat_Tcp").is_none());
        assert!(catalogue.find("node_netstat__x").is_none());
    }

    #[test]
    fn errors_name_the_line() {
        let line = |text| Catalogue::parse(text).unwrap_err().line;
        assert_eq!(line("[[metric]]\nname = \"a\nhelp = \"b\"\n"), 2);
        assert_eq!(line("name = \"a\"\n"), 1);
        assert_eq!(line("[[metric]]\nname = \"a\"\n"), 2);
        assert_eq!(line("[[metric]]\nname = \"a\"\nhelp=\"h\"\n[[metric]]\nname = \"a\"\nhelp=\"h\"\n"), 6);
    }
}
