//! Scripts as lists of commands.

use super::series::{self, SequenceValue};
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;

/// A command and the line it starts on.
pub(crate) struct Numbered {
    pub(crate) line: usize,
    pub(crate) command: Command,
}

pub(crate) enum Command {
    Clear,
    Load { gap_ms: i64, with_nhcb: bool, series: Vec<(Labels, Vec<SequenceValue>)> },
    Eval(Box<Eval>),
}

/// A query and what it must give.
#[derive(Default)]
pub(crate) struct Eval {
    pub(crate) query: String,
    /// `None` for an instant query.
    pub(crate) step_ms: Option<i64>,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) ordered: bool,
    pub(crate) fail: Option<Text>,
    pub(crate) warn: Vec<Text>,
    pub(crate) info: Vec<Text>,
    pub(crate) no_warn: bool,
    pub(crate) no_info: bool,
    pub(crate) string: Option<String>,
    pub(crate) scalar: Option<f64>,
    pub(crate) series: Vec<(Labels, Vec<SequenceValue>)>,
    /// Times of the samples of an instant query for a range vector.
    pub(crate) range_vector: Option<(i64, i64, i64)>,
}

/// What a message must be.
pub(crate) enum Text {
    Any,
    Exactly(String),
    Regex(String),
}

impl Text {
    pub(crate) fn accepts(&self, text: &str) -> bool {
        match self {
            Text::Any => true,
            Text::Exactly(wanted) => text == wanted,
            Text::Regex(pattern) => regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text)),
        }
    }
}

/// Reads a script.
pub(crate) fn parse(script: &str) -> Result<Vec<Numbered>, String> {
    // A comment ends a block, like an empty line.
    let lines: Vec<&str> = script
        .lines()
        .map(|line| {
            let line = line.trim();
            if line.starts_with('#') { "" } else { line }
        })
        .collect();
    let mut commands = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index];
        let number = index + 1;
        index += 1;
        if line.is_empty() {
            continue;
        }
        let mut block = Vec::new();
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if word != "clear" {
            while let Some(&line) = lines.get(index)
                && !line.is_empty()
            {
                block.push(line);
                index += 1;
            }
        }
        let command = match word.as_str() {
            "clear" => Ok(Command::Clear),
            "load" | "load_with_nhcb" => load(line, &block, word == "load_with_nhcb"),
            _ if word.starts_with("eval") => eval(line, &block).map(|eval| Command::Eval(Box::new(eval))),
            _ => Err(format!("unknown command {word}")),
        };
        let command = command.map_err(|error| format!("line {number}: {error}"))?;
        commands.push(Numbered { line: number, command });
    }
    Ok(commands)
}

fn duration(text: &str) -> Result<i64, String> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(sign * (seconds * 1000.0).round() as i64);
    }
    let duration: PrometheusDuration = text.parse().map_err(|error| format!("{error}"))?;
    Ok(sign * duration.as_millis_i64())
}

fn load(line: &str, block: &[&str], with_nhcb: bool) -> Result<Command, String> {
    let gap = line.split_whitespace().nth(1).ok_or("load needs a step")?;
    let series = block.iter().map(|line| series::parse(line)).collect::<Result<_, _>>()?;
    Ok(Command::Load { gap_ms: duration(gap)?, with_nhcb, series })
}

fn eval(line: &str, block: &[&str]) -> Result<Eval, String> {
    let mut words = line.split_whitespace();
    let suffix = words.next().unwrap_or_default().strip_prefix("eval").unwrap_or_default();
    let kind = words.next().ok_or("eval needs instant or range")?;
    let mut eval = match kind {
        "instant" => {
            let rest = after_word(line, "instant").trim_start();
            let (time, query) = match rest.strip_prefix("at ") {
                Some(rest) => {
                    rest.trim_start().split_once(char::is_whitespace).ok_or("eval needs a query")?
                }
                None => ("0", rest),
            };
            let time = duration(time)?;
            Eval { query: query.trim().to_owned(), start_ms: time, end_ms: time, ..Eval::default() }
        }
        "range" => {
            let rest = after_word(line, "range").trim_start();
            let mut words = rest.split_whitespace();
            let mut times = Vec::new();
            for keyword in ["from", "to", "step"] {
                if words.next() != Some(keyword) {
                    return Err(format!("expected {keyword}"));
                }
                times.push(duration(words.next().ok_or("expected a time")?)?);
            }
            let query = after_word(rest, "step").trim_start();
            let (_, query) = query.split_once(char::is_whitespace).ok_or("eval needs a query")?;
            Eval {
                query: query.trim().to_owned(),
                start_ms: times[0],
                end_ms: times[1],
                step_ms: Some(times[2]),
                ..Eval::default()
            }
        }
        other => return Err(format!("unknown kind {other}")),
    };
    match suffix {
        "" => {}
        "_fail" => eval.fail = Some(Text::Any),
        "_warn" => eval.warn.push(Text::Any),
        "_info" => eval.info.push(Text::Any),
        "_ordered" => eval.ordered = true,
        other => return Err(format!("unknown eval{other}")),
    }
    for line in block {
        expectation(line, &mut eval).map_err(|error| format!("{line}: {error}"))?;
    }
    Ok(eval)
}

fn after_word<'l>(line: &'l str, word: &str) -> &'l str {
    line.find(word).map_or("", |index| &line[index + word.len()..])
}

fn expectation(line: &str, eval: &mut Eval) -> Result<(), String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        eval.fail = Some(Text::Exactly(message.trim().to_owned()));
        return Ok(());
    }
    if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        eval.fail = Some(Text::Regex(pattern.trim().to_owned()));
        return Ok(());
    }
    let Some(rest) = line.strip_prefix("expect ") else {
        if let Ok(value) = series::number(line) {
            eval.scalar = Some(value);
            return Ok(());
        }
        eval.series.push(series::parse(line)?);
        return Ok(());
    };
    let rest = rest.trim();
    let (what, detail) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let detail = detail.trim();
    let text = || -> Result<Text, String> {
        if let Some(message) = detail.strip_prefix("msg:") {
            Ok(Text::Exactly(message.trim().to_owned()))
        } else if let Some(pattern) = detail.strip_prefix("regex:") {
            Ok(Text::Regex(pattern.trim().to_owned()))
        } else if detail.is_empty() {
            Ok(Text::Any)
        } else {
            Err(format!("bad detail {detail:?}"))
        }
    };
    match what {
        "fail" => eval.fail = Some(text()?),
        "warn" => eval.warn.push(text()?),
        "info" => eval.info.push(text()?),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        "ordered" => eval.ordered = true,
        "string" => {
            let quoted = detail;
            let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            eval.string = Some(inner.to_owned());
        }
        "range" => {
            let words: Vec<&str> = detail.split_whitespace().collect();
            let ["vector", "from", from, "to", to, "step", step] = words[..] else {
                return Err(format!("bad range vector {detail:?}"));
            };
            eval.range_vector = Some((duration(from)?, duration(to)?, duration(step)?));
        }
        other => return Err(format!("unknown expectation {other}")),
    }
    Ok(())
}
