//! Dashboard and rule queries beside the peers: the same data loaded into each, the same questions by the same
//! client, times and answers compared.
//!
//! Warm: a server that has answered the question once is asked again and again, each time a step earlier, as
//! a dashboard that refreshes; kept answers help only as far as they do there. VictoriaMetrics keeps results
//! of ranges; it is asked with that cache and without (`nocache=1`). Cold: killed after a flush, its files
//! dropped from the page cache, started, asked once. Servers run one after another, never side by side.

use crate::answer::Answer;
use crate::feed::{Load, now_ms};
use crate::http::Http;
use crate::process::usage;
use crate::progress::Progress;
use crate::questions::{QUESTIONS, Question};
use crate::server::{Kind, Server, evict};
use anyhow::{Context, bail};
use pharos_tests::data::Data;
use pharos_tests::telemetry::Part;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A percentile needs some.
const REPEATS_MIN: usize = 5;
/// How long ago the newest sample is, so that nobody holds it back as too fresh.
const AGE_MS: i64 = 120_000;
/// A query may be slower by this ratio or by this many milliseconds.
const SLOWER_RATIO: f64 = 1.1;
const SLOWER_MS: f64 = 0.1;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Few data, for a first look: 10 nodes x 300 s and 2 nodes x 2 h
    #[arg(long)]
    small: bool,
    /// Only the one: short (100 nodes x 600 s) or long (10 nodes x 24 h)
    #[arg(long)]
    only: Option<String>,
    /// Servers
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::VictoriaMetrics, Kind::Prometheus, Kind::Pharos])]
    servers: Vec<Kind>,
    /// Times each question is asked warm
    #[arg(long, default_value_t = 30)]
    repeats: usize,
    /// No more repeats of a question to a server begin after so many seconds; five are asked in any case
    #[arg(long, default_value_t = 10)]
    question_seconds: u64,
    /// Skips the cold questions
    #[arg(long)]
    no_cold: bool,
    /// Keeps the loaded servers' folders, and uses them again
    #[arg(long)]
    keep: bool,
    /// Folder for the servers' data
    #[arg(long, default_value = "/tmp/pharos-bench-query")]
    folder: PathBuf,
}

/// Data to ask about.
struct Set {
    name: &'static str,
    nodes: usize,
    seconds: usize,
    window: &'static str,
    step_seconds: i64,
}

const SETS: [Set; 2] = [
    Set { name: "short", nodes: 100, seconds: 600, window: "1m", step_seconds: 2 },
    Set { name: "long", nodes: 10, seconds: 86_400, window: "5m", step_seconds: 300 },
];
const SMALL_SETS: [Set; 2] = [
    Set { name: "short", nodes: 10, seconds: 300, window: "1m", step_seconds: 1 },
    Set { name: "long", nodes: 2, seconds: 7_200, window: "5m", step_seconds: 30 },
];

/// At an instant, as rules ask, or over a range, as dashboards do.
#[derive(Clone, Copy)]
enum Form {
    Instant,
    Range,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Instant => "instant",
            Form::Range => "range",
        }
    }
}

/// Times of one question to one server, milliseconds.
struct Times {
    p50: f64,
    p99: f64,
    cold: Option<f64>,
    answer: Answer,
}

/// By server, then by question and form.
type Measured = BTreeMap<String, Vec<Times>>;

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    if !arguments.keep {
        let _ = std::fs::remove_dir_all(&arguments.folder);
    }
    let mut results = Map::new();
    for set in if arguments.small { &SMALL_SETS } else { &SETS } {
        if arguments.only.as_deref().is_none_or(|only| only == set.name) {
            // What was measured of one set stands if another fails.
            let result = match run_set(set, arguments) {
                Ok(result) => result,
                Err(error) => json!({"error": format!("{error:#}")}),
            };
            results.insert(set.name.to_owned(), result);
        }
    }
    if !arguments.keep {
        let _ = std::fs::remove_dir_all(&arguments.folder);
    }
    Ok(json!({"bench": "query", "results": results}))
}

fn run_set(set: &Set, arguments: &Arguments) -> anyhow::Result<Value> {
    let folder = arguments.folder.join(set.name);
    std::fs::create_dir_all(&folder)?;
    let load = Load {
        data: Data::Model(Part { histogram: true, only: None }),
        nodes: set.nodes,
        seconds: set.seconds,
        first_ms: first_ms(set, &folder)?,
        batch: 60,
    };
    let (mut measured, mut loads) = (Measured::new(), Map::new());
    for &kind in &arguments.servers {
        measure(kind, &load, set, &folder.join(kind.name()), arguments, &mut measured, &mut loads)
            .context(kind.name())?;
    }
    let mut result = report(set, &load, &measured)?;
    result["loads"] = loads.into();
    Ok(result)
}

/// When the data begin: long enough ago, on a multiple of every step. Kept beside kept data.
fn first_ms(set: &Set, folder: &Path) -> anyhow::Result<i64> {
    let file = folder.join("first_ms");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return Ok(text.parse()?);
    }
    let grid_ms = set.step_seconds * 1_000;
    let first_ms = (now_ms()? - AGE_MS - set.seconds as i64 * 1_000) / grid_ms * grid_ms;
    std::fs::write(file, first_ms.to_string())?;
    Ok(first_ms)
}

fn measure(
    kind: Kind,
    load: &Load,
    set: &Set,
    folder: &Path,
    arguments: &Arguments,
    measured: &mut Measured,
    loads: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let loaded = folder.join("loaded");
    let mut server = Server::start(kind, folder)?;
    if !loaded.exists() {
        eprintln!("{}: loading {} of {} samples", set.name, kind.name(), load.samples());
        std::fs::write(&loaded, load_into(&server, load)?.to_string())?;
    }
    loads.insert(kind.name().to_owned(), serde_json::from_slice(&std::fs::read(&loaded)?)?);
    let caches: &[(&str, &str)] = match kind {
        Kind::VictoriaMetrics => &[("victoria-metrics-nocache", "1"), ("victoria-metrics", "0")],
        _ => &[(kind.name(), "0")],
    };
    for (name, nocache) in caches {
        let ask = Ask { load, set, nocache };
        let progress = Progress::new(format!("{} {name}: questions", set.name), QUESTIONS.len() as u64 * 2);
        let mut times = Vec::new();
        for question in &QUESTIONS {
            for form in [Form::Instant, Form::Range] {
                let warm = ask.warm(&mut server.http(), question, form, arguments);
                times.push(warm.with_context(|| question.name)?);
                progress.add(1);
            }
        }
        // What a server keeps of its answers on disk would not be cold.
        let cold = kind != Kind::Prometheus && (kind != Kind::VictoriaMetrics || *nocache == "1");
        if cold && !arguments.no_cold {
            let progress = Progress::new(format!("{} {name}: cold questions", set.name), times.len() as u64);
            for (number, times) in times.iter_mut().enumerate() {
                let form = [Form::Instant, Form::Range][number % 2];
                server.kill()?;
                evict(folder)?;
                server = Server::start(kind, folder)?;
                times.cold = Some(ask.once(&mut server.http(), &QUESTIONS[number / 2], form, 0)?.0);
                progress.add(1);
            }
        }
        measured.insert((*name).to_owned(), times);
    }
    server.stop()
}

/// Loads everything, and says what that took.
fn load_into(server: &Server, load: &Load) -> anyhow::Result<Value> {
    let (before, begin) = (usage(server.pid())?, Instant::now());
    load.send(None, &server.address)?;
    server.flush()?;
    let after = usage(server.pid())?;
    Ok(
        json!({"seconds": begin.elapsed().as_secs_f64(), "cpu_seconds": after.cpu_seconds - before.cpu_seconds,
        "peak_memory_mib": after.peak_bytes >> 20, "stored_bytes": server.stored_bytes()?}),
    )
}

struct Ask<'a> {
    load: &'a Load,
    set: &'a Set,
    nocache: &'a str,
}

impl Ask<'_> {
    fn warm(
        &self,
        http: &mut Http,
        question: &Question,
        form: Form,
        arguments: &Arguments,
    ) -> anyhow::Result<Times> {
        let repeats = arguments.repeats;
        let time_max = Duration::from_secs(arguments.question_seconds);
        self.once(http, question, form, repeats as i64)?;
        let begin = Instant::now();
        let mut times = Vec::new();
        let mut body = Vec::new();
        for earlier in (0..repeats as i64).rev() {
            let skip = begin.elapsed() > time_max && times.len() >= REPEATS_MIN && earlier > 0;
            if !skip {
                let (time_ms, answer) = self.once(http, question, form, earlier)?;
                times.push(time_ms);
                body = answer;
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        Ok(Times { p50: at(0.5), p99: at(0.99), cold: None, answer: Answer::parse(&body)? })
    }

    /// Asks once, so many steps before the newest; milliseconds and the body.
    fn once(
        &self,
        http: &mut Http,
        question: &Question,
        form: Form,
        earlier: i64,
    ) -> anyhow::Result<(f64, Vec<u8>)> {
        let query = question.query(self.set.window);
        let step = self.set.step_seconds;
        let end = self.load.first_ms / 1_000 + self.load.seconds as i64;
        let end = end - earlier * if matches!(form, Form::Range) { step } else { 1 };
        // A fifth of the data lies before the range, for windows and for ranges that are asked earlier.
        let start = end - self.load.seconds as i64 * 4 / 5 / step * step;
        let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
        let nocache = ("nocache", self.nocache);
        let begin = Instant::now();
        let (status, body) = match form {
            Form::Instant => http.post("/api/v1/query", &[("query", &query), ("time", &end), nocache])?,
            Form::Range => http.post(
                "/api/v1/query_range",
                &[("query", &query), ("start", &start), ("end", &end), ("step", &step), nocache],
            )?,
        };
        let time_ms = begin.elapsed().as_secs_f64() * 1_000.0;
        if status != 200 {
            bail!("{query}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok((time_ms, body))
    }
}

fn report(set: &Set, load: &Load, measured: &Measured) -> anyhow::Result<Value> {
    let mut questions = Vec::new();
    for number in 0..QUESTIONS.len() * 2 {
        let question = &QUESTIONS[number / 2];
        let form = [Form::Instant, Form::Range][number % 2];
        let mut servers = Map::new();
        let mut agreement = Map::new();
        let ours = measured.get(Kind::Pharos.name()).map(|times| &times[number]);
        for (name, times) in measured {
            let times = &times[number];
            servers.insert(
                name.clone(),
                json!({"p50_ms": times.p50, "p99_ms": times.p99, "cold_ms": times.cold,
                       "series": times.answer.len(), "checksum": times.answer.checksum()}),
            );
            if let Some(ours) = ours.filter(|_| name != Kind::Pharos.name()) {
                let peers = [Kind::VictoriaMetrics, Kind::Prometheus];
                let peer = peers.into_iter().find(|peer| name.starts_with(peer.name()));
                let why = peer.and_then(|peer| question.why(peer));
                agreement.insert(name.clone(), ours.answer.compare(&times.answer).json(why));
            }
        }
        questions.push(json!({"name": question.name, "form": form.name(),
            "query": question.query(set.window), "servers": servers, "agreement": agreement}));
    }
    let mut ratios = Map::new();
    for peer in measured.keys().filter(|name| *name != Kind::Pharos.name()) {
        let ratio = |figure: &str, form: Option<Form>| -> Option<f64> {
            let pairs = questions.iter().filter(|asked| form.is_none_or(|form| asked["form"] == form.name()));
            let logs: Vec<f64> = pairs
                .filter_map(|asked| {
                    let of = |name: &str| asked["servers"][name][figure].as_f64();
                    Some((of(Kind::Pharos.name())? / of(peer)?).ln())
                })
                .collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            (!logs.is_empty()).then(|| (mean.exp() * 1_000.0).round() / 1_000.0)
        };
        let mut against = Map::new();
        for (name, figure) in [("warm_p50", "p50_ms"), ("warm_p99", "p99_ms"), ("cold", "cold_ms")] {
            against.insert(
                name.to_owned(),
                json!({"all": ratio(figure, None), "instant": ratio(figure, Some(Form::Instant)),
                       "range": ratio(figure, Some(Form::Range))}),
            );
        }
        let slower: Vec<Value> = questions
            .iter()
            .filter_map(|asked| {
                let of = |name: &str| asked["servers"][name]["p50_ms"].as_f64();
                let (ours, theirs) = (of(Kind::Pharos.name())?, of(peer)?);
                (ours > theirs * SLOWER_RATIO && ours > theirs + SLOWER_MS).then(|| {
                    json!(format!(
                        "{} {}: {ours:.2} ms, {theirs:.2} ms",
                        asked["name"].as_str().unwrap_or_default(),
                        asked["form"].as_str().unwrap_or_default()
                    ))
                })
            })
            .collect();
        against.insert("slower".to_owned(), slower.into());
        ratios.insert(peer.clone(), against.into());
    }
    print_table(set, measured);
    Ok(json!({"nodes": load.nodes, "seconds": load.seconds, "samples": load.samples(),
              "questions": questions, "pharos_time_by_peer_time": ratios}))
}

/// For people, as Markdown on stderr.
fn print_table(set: &Set, measured: &Measured) {
    let names: Vec<&String> = measured.keys().collect();
    let head: String = names.iter().map(|name| format!(" {name} p50 / p99 / cold |")).collect();
    eprintln!("| {}, ms |{head} answers |", set.name);
    eprintln!("|---|{}---|", "---|".repeat(names.len()));
    for number in 0..QUESTIONS.len() * 2 {
        let form = [Form::Instant, Form::Range][number % 2].name();
        let mut line = format!("| {} {form} |", QUESTIONS[number / 2].name);
        for name in &names {
            let times = &measured[*name][number];
            let cold = times.cold.map_or("-".to_owned(), |cold| format!("{cold:.1}"));
            line += &format!(" {:.2} / {:.2} / {cold} |", times.p50, times.p99);
        }
        let ours = measured.get(Kind::Pharos.name()).map(|times| &times[number].answer);
        let differ: Vec<&str> = names
            .iter()
            .filter(|name| ours.is_some_and(|ours| !ours.compare(&measured[**name][number].answer).same()))
            .map(|name| name.as_str())
            .collect();
        let verdict =
            if differ.is_empty() { "same".to_owned() } else { format!("{} differs", differ.join(", ")) };
        eprintln!("{line} {verdict} |");
    }
}
