//! Reads Prometheus' text format as batch jobs write it: one series a line, types and help in comments.

use pharos_proto::catalogue::Kind;
use std::collections::HashMap;

/// More than this is a mistake of the job, and no collector would take it.
const LABELS_MAX: usize = 64;
/// Bytes of a label's value.
const VALUE_BYTES_MAX: usize = 4_096;

/// What the names of a histogram's and a summary's series end in.
const PARTS: [&str; 3] = ["_bucket", "_count", "_sum"];

type Labels = Vec<(String, String)>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) value: f64,
    pub(super) kind: Kind,
    /// What the file says of the metric, if it does.
    pub(super) help: Option<String>,
}

/// All samples of a file, or the line that is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<Sample>, usize> {
    let mut kinds: HashMap<&str, Kind> = HashMap::new();
    let mut helps: HashMap<&str, &str> = HashMap::new();
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.trim_start().splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => {
                    let kind = match kind.trim() {
                        "counter" => Kind::Counter,
                        "gauge" => Kind::Gauge,
                        _ => Kind::Untyped,
                    };
                    kinds.insert(name, kind);
                }
                (Some("HELP"), Some(name), Some(help)) => {
                    helps.insert(name, help);
                }
                _ => {}
            }
        } else if !line.is_empty() {
            let (name, labels, value) = sample(line).ok_or(number + 1)?;
            // The parts of a histogram or summary share the help of the whole.
            let whole = || PARTS.iter().find_map(|part| helps.get(name.strip_suffix(part)?));
            let help = helps.get(name).or_else(whole);
            samples.push(Sample {
                name: name.to_owned(),
                labels,
                value,
                kind: kinds.get(name).copied().unwrap_or(Kind::Untyped),
                help: help.map(|help| help.replace("\\n", "\n").replace("\\\\", "\\")),
            });
        }
    }
    Ok(samples)
}

/// `name{label="value",…} value`. Timestamps are refused: the time of a sample is when it was read.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = match rest.trim() {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().ok()?,
    };
    Some((name, labels, value))
}

/// The labels behind an opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, tail) = rest.split_once('=')?;
        let name = name.trim();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let mut letters = tail.trim_start().strip_prefix('"')?.chars();
        let mut value = String::new();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => value.push(match letters.next()? {
                    'n' => '\n',
                    other => other,
                }),
                letter => value.push(letter),
            }
        }
        let repeated = labels.iter().any(|(known, _)| known == name);
        if repeated || name.starts_with("__") || value.len() > VALUE_BYTES_MAX || labels.len() >= LABELS_MAX {
            return None;
        }
        labels.push((name.to_owned(), value));
        rest = letters.as_str().trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_read_and_faults_are_named() {
        let text =
            "# HELP a What a is\n# TYPE a counter\na{x=\"1\", y=\"q\\\"\\\\\\n\",} 2.5\n\nb NaN\nc -Inf\n";
        let samples = parse(text).unwrap();
        assert_eq!(
            (samples[0].kind, samples[0].help.as_deref(), samples[0].value),
            (Kind::Counter, Some("What a is"), 2.5)
        );
        assert_eq!(samples[0].labels[1], ("y".to_owned(), "q\"\\\n".to_owned()));
        assert!(samples[1].value.is_nan() && samples[2].value == f64::NEG_INFINITY);
        assert_eq!(samples[1].help, None);
        let parts = parse("# HELP h Sizes\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_count 3\n").unwrap();
        assert!(parts.iter().all(|sample| sample.help.as_deref() == Some("Sizes")));
        for fault in [
            "a",
            "a 1 1700000000000",
            "a{x=1} 1",
            "a{x=\"1\" 1",
            "1a 1",
            "a{x=\"1\"y=\"2\"} 1",
            "a{x=\"1\",x=\"2\"} 1",
            "a{__name__=\"b\"} 1",
        ] {
            assert_eq!(parse(&format!("ok 1\n{fault}\n")), Err(2), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
