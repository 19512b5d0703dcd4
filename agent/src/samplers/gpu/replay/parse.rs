//! The text of a trace: what is played, when, on which GPU. Every error names its line.

use super::super::metric::Metric;
use super::super::reading::{GPUS_MAX, LINKS_MAX};
use std::io;
use std::path::{Path, PathBuf};

/// Lines of a trace: ten hours at 10 Hz of one GPU.
const STEPS_MAX: usize = 1_000_000;
/// Names may leave these out.
const PREFIXES: [&str; 3] = ["", "DCGM_FI_DEV_", "DCGM_FI_PROF_"];

/// Why a trace cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line says something that cannot be played.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// A line that is wrong, before it is known of which file.
#[derive(Debug)]
pub(super) struct LineError {
    line: usize,
    message: String,
}

impl LineError {
    pub(super) fn in_file(self, path: &Path) -> TraceError {
        TraceError::Line { path: path.to_owned(), line: self.line, message: self.message }
    }
}

/// A trace.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) gpus: u32,
    pub(super) links: u32,
    pub(super) model: String,
    pub(super) driver: String,
    /// Length of a lap; a trace without one plays once and then holds its last values.
    pub(super) loop_seconds: Option<f64>,
    /// In order of time.
    pub(super) steps: Vec<Step>,
}

/// Something that happens.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) at_seconds: f64,
    /// On which GPU; `None` is all.
    pub(super) gpu: Option<u32>,
    pub(super) action: Action,
}

/// What happens.
#[derive(Debug)]
pub(super) enum Action {
    Play(Metric, Value),
    Stop(Metric),
    Xid(u32),
    Lost,
    Back,
    Process { pid: u32, memory_mib: f64 },
    EndProcess(u32),
}

/// How a value goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// `97~2`: 97, give or take 2.
    Constant { value: f64, noise: f64 },
    /// `60..80/30s`: from 60 to 80 within 30 seconds.
    Ramp { from: f64, to: f64, seconds: f64 },
    /// `+1000/s`: a counter that grows by 1,000 a second.
    Rate(f64),
}

impl Trace {
    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        let mut trace = Trace {
            gpus: 8,
            links: 0,
            model: "NVIDIA H100 80GB HBM3".to_owned(),
            driver: "550.54.15".to_owned(),
            loop_seconds: None,
            steps: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                trace.take_line(line).map_err(|message| LineError { line: number + 1, message })?;
            }
        }
        trace.steps.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
        Ok(trace)
    }

    fn take_line(&mut self, line: &str) -> Result<(), String> {
        let words = words(line)?;
        let mut words = words.iter().map(String::as_str);
        match words.next() {
            Some("node") => words.try_for_each(|word| self.take_node(word)),
            Some("loop") => {
                let length = seconds(words.next().ok_or("loop needs a time")?)?;
                if length < 1.0 {
                    return Err("a loop lasts a second at least".to_owned());
                }
                self.loop_seconds = Some(length);
                Ok(())
            }
            Some("at") => {
                let at_seconds = seconds(words.next().ok_or("at needs a time")?)?;
                if words.next() != Some("gpu") {
                    return Err("write at TIME gpu NUMBER …".to_owned());
                }
                let gpu = match words.next() {
                    Some("*") => None,
                    Some(word) => {
                        let gpu = number(word)? as u32;
                        if gpu >= self.gpus {
                            return Err(format!("there is no GPU {gpu} among {}", self.gpus));
                        }
                        Some(gpu)
                    }
                    None => return Err("which GPU?".to_owned()),
                };
                self.take_actions(at_seconds, gpu, words)
            }
            Some(other) => Err(format!("{other:?} is none of node, loop, at")),
            None => Ok(()),
        }
    }

    fn take_node(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not KEY=VALUE"))?;
        let within = |max: usize| match number(value)? {
            count if count >= 0.0 && count <= max as f64 => Ok(count as u32),
            _ => Err(format!("{key} may be at most {max}")),
        };
        match key {
            "gpus" => self.gpus = within(GPUS_MAX)?,
            "links" => self.links = within(LINKS_MAX)?,
            "model" => self.model = value.to_owned(),
            "driver" => self.driver = value.to_owned(),
            _ => return Err(format!("a node has no {key:?}; it has gpus, links, model, driver")),
        }
        Ok(())
    }

    fn take_actions<'a>(
        &mut self,
        at_seconds: f64,
        gpu: Option<u32>,
        mut words: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            let mut argument = |what: &str| words.next().ok_or_else(|| format!("{word} needs {what}"));
            let action = match word {
                "lost" => Action::Lost,
                "back" => Action::Back,
                "xid" => Action::Xid(number(argument("a number")?)? as u32),
                "process" => Action::Process {
                    pid: number(argument("a process id")?)? as u32,
                    memory_mib: number(argument("its memory in MiB")?)?,
                },
                "end" => Action::EndProcess(number(argument("a process id")?)? as u32),
                "stop" => Action::Stop(metric(argument("a metric")?)?),
                _ => {
                    let (name, value) = word.split_once('=').ok_or_else(|| {
                        format!("{word:?} is neither METRIC=VALUE nor lost, back, xid, process, end, stop")
                    })?;
                    Action::Play(metric(name)?, self::value(value)?)
                }
            };
            if self.steps.len() >= STEPS_MAX {
                return Err(format!("a trace has at most {STEPS_MAX} steps"));
            }
            self.steps.push(Step { at_seconds, gpu, action });
        }
        if any { Ok(()) } else { Err("nothing happens here".to_owned()) }
    }
}

/// Words parted by blanks; what stands in double quotes is part of one word.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => words.push(String::new()),
            _ => words.iter_mut().next_back().into_iter().for_each(|word| word.push(character)),
        }
    }
    words.retain(|word| !word.is_empty());
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

fn metric(name: &str) -> Result<Metric, String> {
    let found = PREFIXES.iter().find_map(|prefix| Metric::find(&format!("{prefix}{name}")));
    found.ok_or_else(|| format!("{name:?} is no metric of a GPU"))
}

fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number.is_finite() { Ok(number) } else { Err(format!("{text:?} is no finite number")) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => match text.strip_suffix('m') {
            Some(digits) => (digits, 60.0),
            None => (text.strip_suffix('s').unwrap_or(text), 1.0),
        },
    };
    let seconds = number(digits)? * factor;
    if seconds >= 0.0 { Ok(seconds) } else { Err(format!("{text:?} lies before the start")) }
}

fn value(text: &str) -> Result<Value, String> {
    if let Some(rate) = text.strip_prefix('+').and_then(|text| text.strip_suffix("/s")) {
        return Ok(Value::Rate(number(rate)?));
    }
    if let Some((from, rest)) = text.split_once("..") {
        let (to, over) = rest.split_once('/').ok_or("a ramp is FROM..TO/TIME")?;
        let seconds = seconds(over)?;
        if seconds <= 0.0 {
            return Err("a ramp takes some time".to_owned());
        }
        return Ok(Value::Ramp { from: number(from)?, to: number(to)?, seconds });
    }
    let (value, noise) = text.split_once('~').unwrap_or((text, "0"));
    Ok(Value::Constant { value: number(value)?, noise: number(noise)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_reason() {
        #[track_caller]
        fn check(text: &str, line: usize, message: &str) {
            let error = Trace::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{}", error.message);
            assert!(error.message.contains(message), "{}", error.message);
        }
        check("node gpus=8\nfly\n", 2, "none of node, loop, at");
        check("node gpus=9999\n", 1, "at most 64");
        check("node gpus=2\nat 1s gpu 2 lost\n", 2, "no GPU 2");
        check("at 1s gpu 0 NOPE=1\n", 1, "no metric");
        check("at 1s gpu 0 GPU_UTIL=high\n", 1, "no number");
        check("at 1s gpu 0 GPU_UTIL=NaN\n", 1, "finite");
        check("at 1s gpu 0\n", 1, "nothing happens");
        check("at 1s gpu 0 xid\n", 1, "needs a number");
        check("node model=\"H100\n", 1, "quote");
        check("loop 0s\n", 1, "a second at least");
        check("at 1s gpu 0 GPU_TEMP=1..2/0s\n", 1, "takes some time");
    }

    #[test]
    fn values_are_constant_noisy_ramping_or_counting() {
        assert_eq!(value("97~2"), Ok(Value::Constant { value: 97.0, noise: 2.0 }));
        assert_eq!(value("60..80/30s"), Ok(Value::Ramp { from: 60.0, to: 80.0, seconds: 30.0 }));
        assert_eq!(value("+1.5e3/s"), Ok(Value::Rate(1_500.0)));
        assert_eq!((seconds("1500ms"), seconds("2m"), seconds("3")), (Ok(1.5), Ok(120.0), Ok(3.0)));
    }
}
