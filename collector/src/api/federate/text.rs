//! The text format. It has no native histograms: they are left out, as Prometheus leaves them out.

use super::{Newest, NewestValue, exposed_labels};
use pharos_common::labels::{Labels, Quoted, is_legacy_label_name, is_legacy_metric_name};
use pharos_promql::format_float;
use std::collections::BTreeMap;
use std::fmt::Write;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes series in order of their labels.
pub(super) fn write(newest: &BTreeMap<Labels, Newest>, external: &Labels) -> String {
    let mut out = String::new();
    let mut last_name = "";
    for (labels, Newest { timestamp_ms, value }) in newest {
        let NewestValue::Float(value) = value else { continue };
        let name = labels.metric_name();
        if name != last_name && is_legacy_metric_name(name) {
            let _ = writeln!(out, "# TYPE {name} untyped");
            last_name = name;
        }
        let _ = write!(out, "{}", Exposed { name, labels: &exposed_labels(labels, external) });
        let _ = writeln!(out, " {} {timestamp_ms}", format_float(*value));
    }
    out
}

struct Exposed<'a> {
    name: &'a str,
    labels: &'a Labels,
}

impl std::fmt::Display for Exposed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bare = is_legacy_metric_name(self.name);
        if bare {
            f.write_str(self.name)?;
        }
        f.write_str("{")?;
        if !bare {
            write!(f, "{}", Quoted(self.name))?;
        }
        for (position, (name, value)) in self.labels.iter().enumerate() {
            if position > 0 || !bare {
                f.write_str(",")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write!(f, "{}", Quoted(name))?;
            }
            write!(f, "=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_str("\"")?;
        }
        // Else the scraper would fill in its own.
        if self.labels.get("instance").is_none() {
            let separator = if self.labels.is_empty() && bare { "" } else { "," };
            write!(f, "{separator}instance=\"\"")?;
        }
        f.write_str("}")
    }
}
