//! The query log: a line of JSON for every query, in the shape of Prometheus' log.
//!
//! Who asked what, and what it cost, flow in; lines flow out through a bounded queue to a thread that owns the
//! file. A query never waits for the log: a line that finds no room is dropped and counted. A reload opens the
//! file again, so that it can be rotated.

use crate::limits::{QUERY_LOG_BYTES_QUEUED_MAX, QUERY_LOG_LINES_QUEUED_MAX};
use crate::queries::{QueryFailure, When};
use crate::query_cost::QueryCost;
use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, Method, Uri};
use chrono::{DateTime, SecondsFormat};
use pharos_common::sample::TimestampMs;
use prometheus::{IntCounter, IntGauge};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

/// Headers that tell which panel of which dashboard of Grafana asks, and their names in the log.
const DASHBOARD_HEADERS: [(&str, &str); 3] =
    [("user-agent", "userAgent"), ("x-dashboard-uid", "dashboardUID"), ("x-panel-id", "panelID")];

/// Who asked.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// A request.
    Request {
        /// Where it came from.
        client: Option<IpAddr>,
        /// `GET` or `POST`.
        method: Method,
        /// The path and what follows it.
        uri: Uri,
        /// Its headers.
        headers: HeaderMap,
    },
    /// A rule of a group.
    Rule {
        /// Its file.
        file: String,
        /// Its group.
        group: String,
    },
    /// The collector for itself.
    #[default]
    Own,
}

impl Origin {
    /// Adds the origin as Prometheus tells it.
    fn tell(&self, line: &mut Map<String, Value>) {
        match self {
            Origin::Own => {}
            Origin::Rule { file, group } => {
                line.insert("ruleGroup".to_owned(), json!({"file": file, "name": group}));
            }
            Origin::Request { client, method, uri, headers } => {
                let client = client.map(|client| client.to_canonical().to_string()).unwrap_or_default();
                let mut request = json!({"clientIP": client, "method": method.as_str(), "path": uri.path()});
                for (header, name) in DASHBOARD_HEADERS {
                    if let Some(value) = headers.get(header).and_then(|value| value.to_str().ok()) {
                        request[name] = Value::from(value);
                    }
                }
                line.insert("httpRequest".to_owned(), request);
            }
        }
    }
}

/// Takes lines while there is a file. Clones share it.
#[derive(Clone, Debug)]
pub struct QueryLog {
    queue: Arc<ArcSwapOption<Queue>>,
    enabled: IntGauge,
    failures: IntCounter,
}

#[derive(Debug)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

impl QueryLog {
    /// Switched off. `enabled` and `failures` tell how it does.
    pub fn new(enabled: IntGauge, failures: IntCounter) -> Self {
        QueryLog { queue: Arc::default(), enabled, failures }
    }

    /// Writes to a file from now on, or to none; the same file is opened again.
    ///
    /// # Errors
    /// If it cannot be opened; all stays as it was.
    pub fn reopen(&self, file: Option<&Path>) -> io::Result<()> {
        let queue = match file {
            None => None,
            Some(path) => {
                let file = File::options().append(true).create(true).open(path)?;
                let (lines, waiting) = sync_channel(QUERY_LOG_LINES_QUEUED_MAX);
                let bytes = Arc::new(AtomicUsize::new(0));
                let (queued, failures) = (Arc::clone(&bytes), self.failures.clone());
                std::thread::Builder::new()
                    .name("query-log".to_owned())
                    .spawn(move || write_lines(&waiting, file, &queued, &failures))?;
                Some(Arc::new(Queue { lines, bytes }))
            }
        };
        self.enabled.set(i64::from(queue.is_some()));
        self.queue.store(queue);
        Ok(())
    }

    /// Whether anything is logged.
    pub fn is_enabled(&self) -> bool {
        self.queue.load().is_some()
    }

    /// Logs a query that ended at `now_ms`.
    pub fn log(
        &self,
        query: &str,
        when: When,
        origin: &Origin,
        outcome: Result<&QueryCost, &QueryFailure>,
        now_ms: TimestampMs,
    ) {
        let queue = self.queue.load();
        let Some(queue) = queue.as_ref() else { return };
        let line = line(query, when, origin, outcome, now_ms);
        let bytes = line.len();
        let queued = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued.saturating_add(bytes) > QUERY_LOG_BYTES_QUEUED_MAX || queue.lines.try_send(line).is_err() {
            queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.failures.inc();
        }
    }
}

/// Writes lines until nobody sends any more.
fn write_lines(waiting: &Receiver<Vec<u8>>, file: File, queued: &AtomicUsize, failures: &IntCounter) {
    let mut file = BufWriter::new(file);
    let mut has_failed = false;
    let mut next = waiting.recv().ok();
    while let Some(line) = next {
        let mut written = file.write_all(&line);
        queued.fetch_sub(line.len(), Ordering::Relaxed);
        next = match waiting.try_recv() {
            Ok(line) => Some(line),
            Err(reason) => {
                written = written.and_then(|()| file.flush());
                match reason {
                    TryRecvError::Empty => waiting.recv().ok(),
                    TryRecvError::Disconnected => None,
                }
            }
        };
        if let Err(error) = written {
            failures.inc();
            // Once a file: a full disk fails every line.
            if !std::mem::replace(&mut has_failed, true) {
                tracing::error!(%error, "The query log cannot be written");
            }
        }
    }
}

fn line(
    query: &str,
    when: When,
    origin: &Origin,
    outcome: Result<&QueryCost, &QueryFailure>,
    now_ms: TimestampMs,
) -> Vec<u8> {
    let (start_ms, end_ms, step_ms) = match when {
        When::Instant(at_ms) => (at_ms, at_ms, 0),
        When::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
    };
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    put("ts", time(now_ms));
    put("level", "INFO".into());
    put("msg", "promql query logged".into());
    put(
        "params",
        json!({"query": query, "start": time(start_ms), "end": time(end_ms), "step": step_ms / 1_000}),
    );
    match outcome {
        Ok(cost) => drop(put("stats", cost.to_json())),
        Err(failure) => drop(put("error", failure.to_string().into())),
    }
    origin.tell(&mut line);
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// RFC 3339 as JavaScript and Prometheus' log write it.
fn time(timestamp_ms: TimestampMs) -> Value {
    let time = DateTime::from_timestamp_millis(timestamp_ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> QueryLog {
        let gauge = IntGauge::new("enabled", "help").unwrap();
        QueryLog::new(gauge, IntCounter::new("failures", "help").unwrap())
    }

    /// The lines of a file once there are so many.
    fn lines(path: &Path, count: usize) -> Vec<Value> {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count && text.ends_with('\n') {
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            std::thread::yield_now();
        }
    }

    const AT: When = When::Range { start_ms: 0, end_ms: 60_500, step_ms: 15_000 };

    #[test]
    fn lines_say_who_asked_what() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("query.log");
        let log = log();
        log.log("before", AT, &Origin::Own, Err(&QueryFailure::Full), 1_000);
        log.reopen(Some(&path)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-dashboard-uid", "abc".parse().unwrap());
        let request = Origin::Request {
            client: Some("::ffff:10.0.0.1".parse().unwrap()),
            method: Method::POST,
            uri: Uri::from_static("/api/v1/query_range?x=1"),
            headers,
        };
        log.log("up \"1\"", AT, &request, Err(&QueryFailure::Queue), 1_700_000_000_123);
        let rule = Origin::Rule { file: "a.yml".to_owned(), group: "g".to_owned() };
        log.log("up", When::Instant(1), &rule, Err(&QueryFailure::Full), 0);
        let lines = lines(&path, 2);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            json!({
                "ts": "2023-11-14T22:13:20.123Z",
                "level": "INFO",
                "msg": "promql query logged",
                "params": {
                    "query": "up \"1\"",
                    "start": "1970-01-01T00:00:00.000Z",
                    "end": "1970-01-01T00:01:00.500Z",
                    "step": 15,
                },
                "error": "query timed out in query queue",
                "httpRequest": {
                    "clientIP": "10.0.0.1",
                    "method": "POST",
                    "path": "/api/v1/query_range",
                    "dashboardUID": "abc",
                },
            })
        );
        assert_eq!(lines[1]["ruleGroup"], json!({"file": "a.yml", "name": "g"}));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("query.log"), folder.path().join("query.log.1"));
        let log = log();
        let say = |text| log.log(text, AT, &Origin::Own, Err(&QueryFailure::Full), 0);
        log.reopen(Some(&path)).unwrap();
        say("first");
        std::fs::rename(&path, &moved).unwrap();
        log.reopen(Some(&path)).unwrap();
        say("second");
        assert_eq!(lines(&moved, 1)[0]["params"]["query"], "first");
        assert_eq!(lines(&path, 1)[0]["params"]["query"], "second");
        assert!(log.reopen(Some(&folder.path().join("no/such/folder"))).is_err());
        assert!(log.is_enabled());
        log.reopen(None).unwrap();
        assert!(!log.is_enabled());
        assert_eq!(log.enabled.get(), 0);
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted() {
        let log = log();
        // Nobody reads from this queue.
        let (lines, _waiting) = sync_channel(2);
        log.queue.store(Some(Arc::new(Queue { lines, bytes: Arc::default() })));
        for _ in 0..5 {
            log.log("up", AT, &Origin::Own, Err(&QueryFailure::Full), 0);
        }
        assert_eq!(log.failures.get(), 3);
        let (lines, _waiting) = sync_channel(2);
        log.queue.store(Some(Arc::new(Queue { lines, bytes: Arc::default() })));
        let long = "x".repeat(QUERY_LOG_BYTES_QUEUED_MAX);
        log.log(&long, AT, &Origin::Own, Err(&QueryFailure::Full), 0);
        assert_eq!(log.failures.get(), 4);
    }
}
