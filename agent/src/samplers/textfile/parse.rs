//! Reads Prometheus' text format as batch jobs write it: one series a line, types and help in comments.

use pharos_proto::catalogue::Kind;
use std::collections::HashMap;

/// More than this is a mistake of the job, and no collector would take it.
const LABELS_MAX: usize = 64;
/// Bytes of a label's value.
const VALUE_BYTES_MAX: usize = 4_096;

type Labels = Vec<(String, String)>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) value: f64,
    pub(super) kind: Kind,
    /// The metric that the series belongs to: its name, but for the parts of a histogram or a summary.
    pub(super) family: String,
    /// What the file says of the metric, if it does.
    pub(super) help: Option<String>,
}

/// What the file says of a metric.
#[derive(Default)]
struct Family<'a> {
    kind: Option<Kind>,
    help: Option<&'a str>,
    sampled: bool,
}

/// All samples of a file, or the line that is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<Sample>, usize> {
    let mut families: HashMap<&str, Family<'_>> = HashMap::new();
    let mut samples = Vec::new();
    // A last line without an end may be half of what the job is about to write.
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(text.lines().count());
    }
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.trim_start().splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind)) => {
                    let kind = match kind.trim().to_ascii_lowercase().as_str() {
                        "counter" => Kind::Counter,
                        "gauge" => Kind::Gauge,
                        "histogram" => Kind::Histogram,
                        "summary" => Kind::Summary,
                        "untyped" => Kind::Untyped,
                        _ => return Err(number + 1),
                    };
                    // Said twice, or when it is too late, it is a mistake to Prometheus' parser, too.
                    let family = families.entry(name).or_default();
                    if family.kind.replace(kind).is_some() || family.sampled {
                        return Err(number + 1);
                    }
                }
                (Some("HELP"), Some(name), Some(help)) => {
                    let known = families.entry(name).or_default().help.replace(help);
                    if known.is_some() {
                        return Err(number + 1);
                    }
                }
                _ => {}
            }
        } else if !line.is_empty() {
            let (name, labels, value) = sample(line).ok_or(number + 1)?;
            let name_of_family = family_of(name, &families);
            let family = families.entry(name_of_family).or_default();
            family.sampled = true;
            samples.push(Sample {
                name: name.to_owned(),
                labels,
                value,
                kind: family.kind.unwrap_or(Kind::Untyped),
                family: name_of_family.to_owned(),
                help: family.help.map(|help| help.replace("\\n", "\n").replace("\\\\", "\\")),
            });
        }
    }
    Ok(samples)
}

/// The metric that a series belongs to: the one of its own name if there is one already, or the histogram or
/// summary that it is a part of, as Prometheus' parser has it.
fn family_of<'a>(name: &'a str, families: &HashMap<&str, Family<'_>>) -> &'a str {
    if families.contains_key(name) {
        return name;
    }
    let of_kind = |part: &str, kind: Kind| {
        let whole = name.strip_suffix(part)?;
        (families.get(whole)?.kind == Some(kind)).then_some(whole)
    };
    let summary = || ["_count", "_sum"].into_iter().find_map(|part| of_kind(part, Kind::Summary));
    let histogram =
        || ["_count", "_sum", "_bucket"].into_iter().find_map(|part| of_kind(part, Kind::Histogram));
    summary().or_else(histogram).unwrap_or(name)
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
                    other @ ('\\' | '"') => other,
                    _ => return None,
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
        for broken in [
            "# TYPE a counter\n# TYPE a gauge\na 1\n",
            "a 1\n# TYPE a counter\n",
            "# HELP a x\n# HELP a x\na 1\n",
            "x 1\n# TYPE a number\n",
            "a 1\nb 12",
        ] {
            assert_eq!(parse(broken), Err(2), "{broken:?}");
        }
        assert_eq!(parse(""), Ok(Vec::new()));
        for fault in [
            "a",
            "a 1 1700000000000",
            "a{x=1} 1",
            "a{x=\"1\" 1",
            "1a 1",
            "a{x=\"1\"y=\"2\"} 1",
            "a{x=\"1\",x=\"2\"} 1",
            "a{__name__=\"b\"} 1",
            "a{x=\"\\t\"} 1",
        ] {
            assert_eq!(parse(&format!("ok 1\n{fault}\n")), Err(2), "{fault}");
        }
    }

    #[test]
    fn parts_of_histograms_and_summaries_belong_to_the_whole() {
        #[track_caller]
        fn check(text: &str, want: &[(&str, Kind, Option<&str>)]) {
            let samples = parse(text).unwrap();
            let got = samples.iter().map(|one| (one.family.as_str(), one.kind, one.help.as_deref()));
            assert_eq!(got.collect::<Vec<_>>(), want, "{text}");
        }
        let (histogram, summary, untyped) = (Kind::Histogram, Kind::Summary, Kind::Untyped);
        check(
            "# HELP h Sizes\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 3\nh_count 3\n",
            &[("h", histogram, Some("Sizes")); 3],
        );
        check(
            "# TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 3\ns_count 3\ns_bucket 1\n",
            &[("s", summary, None), ("s", summary, None), ("s", summary, None), ("s_bucket", untyped, None)],
        );
        // Without a type there is no whole, and who has a word of his own is no part.
        check("# HELP h Sizes\nh_count 3\n", &[("h_count", untyped, None)]);
        check(
            "# TYPE h histogram\n# TYPE h_count gauge\nh_count 3\nh_sum 1\n",
            &[("h_count", Kind::Gauge, None), ("h", histogram, None)],
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
