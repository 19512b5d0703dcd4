//! An alertmanager on a manual clock, and services that receive what it sends.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use clap::Parser;
use pharos_alertmanager::{Options, RunError, run_with};
use pharos_common::clock::{Clock, ManualClock};
use pharos_common::shutdown::Shutdown;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Noon of a Friday: 2026-11-20T12:00:00Z.
pub(crate) const NOON_MS: i64 = 1_795_176_000_000;

/// After this a test that waits for something has failed. No test measures time.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request that a service received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or("")
    }

    /// `status alertname` of a webhook's alerts, sorted.
    pub(crate) fn alerts(&self) -> Vec<String> {
        let alerts = self.body["alerts"].as_array().unwrap();
        let mut names: Vec<String> = alerts
            .iter()
            .map(|alert| {
                format!(
                    "{} {}",
                    alert["status"].as_str().unwrap(),
                    alert["labels"]["alertname"].as_str().unwrap()
                )
            })
            .collect();
        names.sort();
        names
    }
}

#[derive(Clone)]
struct Answers {
    requests: mpsc::UnboundedSender<Received>,
    /// What to answer next; 200 when empty. Status 0 never answers.
    planned: Arc<Mutex<VecDeque<(u16, String)>>>,
}

/// A service of the network, e.g. Slack.
pub(crate) struct Service {
    pub(crate) url: String,
    requests: mpsc::UnboundedReceiver<Received>,
    planned: Arc<Mutex<VecDeque<(u16, String)>>>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        let planned = Arc::new(Mutex::new(VecDeque::new()));
        let answers = Answers { requests: sender, planned: Arc::clone(&planned) };
        let app = Router::new().fallback(answer).with_state(answers);
        tokio::spawn(async move { axum_serve(listener, app).await });
        Service { url, requests, planned }
    }

    /// Answers the next request so, and the ones after it with 200 again.
    pub(crate) fn plan(&self, status: u16, body: &str) {
        self.planned.lock().unwrap().push_back((status, body.to_owned()));
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("no request came").unwrap()
    }

    /// The next request, while the clock goes on: for what comes after pauses that begin at a moment the
    /// test cannot see.
    pub(crate) async fn next_while(&mut self, clock: &ManualClock) -> Received {
        for _ in 0..4_000 {
            tokio::select! {
                request = self.requests.recv() => return request.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(5)) => clock.advance(Duration::from_millis(100)),
            }
        }
        panic!("no request came");
    }

    /// Whether nothing has come.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

async fn axum_serve(listener: TcpListener, app: Router) {
    let limits = pharos_common::server::ServerLimits::default();
    pharos_common::server::serve(listener, app, None, limits, Shutdown::new()).await;
}

async fn answer(
    State(answers): State<Answers>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = uri.path_and_query().map(|path| path.to_string()).unwrap_or_default();
    let planned = answers.planned.lock().unwrap().pop_front();
    let _ = answers.requests.send(Received { path, headers, body });
    let (status, body) = planned.unwrap_or((200, "ok".to_owned()));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let retry_after = if status == 429 { "3" } else { "0" };
    (StatusCode::from_u16(status).unwrap(), [("retry-after", retry_after)], body)
}

/// A running alertmanager.
pub(crate) struct Alertmanager {
    pub(crate) url: String,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) http: reqwest::Client,
    shutdown: Shutdown,
    running: Option<JoinHandle<Result<(), RunError>>>,
    arguments: Vec<String>,
}

impl Alertmanager {
    /// Starts one with a configuration.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// Starts one with a configuration and more flags.
    pub(crate) async fn start_with(config: &str, flags: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("am.yml"), config).unwrap();
        let mut this = Alertmanager {
            url: String::new(),
            clock: ManualClock::new(NOON_MS),
            folder,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            shutdown: Shutdown::new(),
            running: None,
            arguments: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        this.launch().await;
        this
    }

    async fn launch(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.url = format!("http://{}", listener.local_addr().unwrap());
        self.shutdown = Shutdown::new();
        let mut arguments = vec![
            "pharos-alertmanager".to_owned(),
            format!("--config.file={}", self.config_file().display()),
            format!("--storage.path={}", self.folder.path().join("state").display()),
        ];
        arguments.extend(self.arguments.iter().cloned());
        let options = Options::try_parse_from(arguments).unwrap();
        let clock: Arc<dyn Clock> = self.clock.clone();
        let shutdown = self.shutdown.clone();
        self.running = Some(tokio::spawn(run_with(options, listener, shutdown, clock)));
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("am.yml")
    }

    /// Stops it cleanly.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.unwrap().unwrap();
        }
    }

    /// Stops it cleanly and starts another on the same folder and clock.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.launch().await;
    }

    pub(crate) fn seconds(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn minutes(&self, minutes: u64) {
        self.seconds(60 * minutes);
    }

    /// The time of the manual clock as RFC 3339, moved by `seconds`.
    pub(crate) fn time(&self, seconds: i64) -> String {
        let at = chrono::DateTime::from_timestamp_millis(self.clock.now_ms() + seconds * 1_000).unwrap();
        at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }

    /// Reports alerts that fire until they are said to be over (or for a day).
    pub(crate) async fn fire(&self, labels: &[Value]) {
        let alerts: Vec<Value> = labels
            .iter()
            .map(|labels| json!({"labels": labels, "annotations": {"summary": "it broke"}, "endsAt": self.time(86_400), "startsAt": self.time(0)}))
            .collect();
        self.post_ok("/api/v2/alerts", &json!(alerts)).await;
    }

    /// Reports that alerts are over.
    pub(crate) async fn resolve(&self, labels: &[Value]) {
        let alerts: Vec<Value> = labels
            .iter()
            .map(|labels| json!({"labels": labels, "startsAt": self.time(-1), "endsAt": self.time(0)}))
            .collect();
        self.post_ok("/api/v2/alerts", &json!(alerts)).await;
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    pub(crate) async fn post_ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.answer(self.http.delete(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.answer(self.http.get(format!("{}{path}", self.url))).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub(crate) async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks until `done` says so.
    pub(crate) async fn wait_for(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        wait_for(&self.http, &self.url, path, done).await
    }

    /// The fingerprint of the only alert.
    pub(crate) async fn fingerprint(&self) -> String {
        self.get("/api/v2/alerts").await[0]["fingerprint"].as_str().unwrap().to_owned()
    }

    /// The next request of a service, once its delivery is written down: then the clock may go on.
    pub(crate) async fn next(&self, service: &mut Service) -> Received {
        let request = service.next().await;
        self.settle().await;
        request
    }

    /// Waits until nothing is being delivered.
    pub(crate) async fn settle(&self) {
        let idle = |text: &Value| {
            text.as_str()
                .is_some_and(|text| text.contains("\npharos_alertmanager_notifications_in_flight 0\n"))
        };
        self.wait_for("/metrics", idle).await;
    }

    /// Silences one label value for some minutes.
    pub(crate) async fn silence(&self, label: &str, value: &str, minutes: i64) -> String {
        let silence = json!({
            "matchers": [{"name": label, "value": value, "isRegex": false}],
            "startsAt": self.time(0), "endsAt": self.time(60 * minutes), "createdBy": "me", "comment": "test",
        });
        self.post_ok("/api/v2/silences", &silence).await["silenceID"].as_str().unwrap().to_owned()
    }
}

/// Asks a server until `done` says so.
pub(crate) async fn wait_for(
    http: &reqwest::Client,
    url: &str,
    path: &str,
    done: impl Fn(&Value) -> bool,
) -> Value {
    let mut last = Value::Null;
    for _ in 0..3_000 {
        if let Ok(response) = http.get(format!("{url}{path}")).send().await {
            let text = response.text().await.unwrap_or_default();
            last = serde_json::from_str(&text).unwrap_or(Value::String(text));
            if done(&last) {
                return last;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} stayed {last}");
}

/// The real program, to be killed.
pub(crate) struct Program {
    child: std::process::Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

impl Program {
    /// Starts it on a free port and waits until it listens.
    pub(crate) async fn start(folder: &Path, config: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        std::fs::write(folder.join("am.yml"), config).unwrap();
        let log = folder.join("am.log");
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_pharos-alertmanager"))
            .current_dir(folder)
            .args(["--config.file=am.yml", "--storage.path=state", "--web.listen-address=127.0.0.1:0"])
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut this = Program {
            child,
            url: String::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        for _ in 0..3_000 {
            let text = std::fs::read_to_string(&log).unwrap();
            let address = text
                .split_once("msg=\"Listening on\" address=")
                .and_then(|(_, rest)| rest.split_once('\n'))
                .map(|(address, _)| address.to_owned());
            if let Some(address) = address {
                this.url = format!("http://{address}");
                return this;
            }
            assert!(this.child.try_wait().unwrap().is_none(), "it ended: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not listen");
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let response = self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn wait_for(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        wait_for(&self.http, &self.url, path, done).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
