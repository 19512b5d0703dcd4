//! A collector in this process, on a real folder and a free port, and a listener that takes its alerts.
#![allow(dead_code, reason = "every test file uses its own part")]

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use pharos_collector::{CollectorError, Options, run_with_clock};
use pharos_common::clock::{SharedClock, SystemClock};
use pharos_common::shutdown::Shutdown;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Far longer than anything takes: only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct TestCollector {
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), CollectorError>>,
    /// Its own, so that it can end with everything that runs in it.
    runtime: tokio::runtime::Runtime,
}

pub(crate) fn options(folder: &Path) -> Options {
    Options { storage_path: folder.join("data"), shipped_rules: false, ..Options::default() }
}

impl TestCollector {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(options(folder), SystemClock::shared()).await
    }

    pub(crate) async fn start_with(options: Options, clock: SharedClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        let until = shutdown.clone();
        let task = runtime.spawn(async move {
            run_with_clock(options, TcpListener::from_std(listener)?, until, clock).await
        });
        // The client is built before the collector may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().build().unwrap();
        let collector = TestCollector { url, client, shutdown, task, runtime };
        collector.until_ready().await;
        collector
    }

    /// The port accepts from the start; the first answer comes once the storage is open.
    async fn until_ready(&self) {
        let ready = tokio::time::timeout(PATIENCE, self.client.get(format!("{}/-/ready", self.url)).send());
        let response = ready.await.expect("the collector starts").expect("the collector answers");
        assert_eq!(response.status(), 200);
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        drop(self.client);
        self.task.await.unwrap().unwrap();
        end(self.runtime).await;
    }

    /// Ends it without a goodbye: every task stops where it stands.
    pub(crate) async fn kill(self) {
        end(self.runtime).await;
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let response = self.client.post(format!("{}{path}", self.url)).form(form).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap())
    }

    /// The data of a successful answer.
    pub(crate) async fn data(&self, path: &str) -> Value {
        let (status, mut body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(body["status"], "success");
        body["data"].take()
    }

    /// An instant query's result at a time in seconds.
    pub(crate) async fn query_at(&self, query: &str, time: &str) -> Value {
        let (status, mut body) = self.post("/api/v1/query", &[("query", query), ("time", time)]).await;
        assert_eq!(status, 200, "{query}: {body}");
        body["data"]["result"].take()
    }

    pub(crate) async fn import(&self, text: impl Into<String>) -> u16 {
        let url = format!("{}/api/v1/import/prometheus", self.url);
        self.client.post(url).body(text.into()).send().await.unwrap().status().as_u16()
    }

    /// Asks again until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.get(path).await.1;
                if wanted(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        if found.await.is_err() {
            panic!("{path} never became what was wanted: {last:#}");
        }
        last
    }
}

async fn end(runtime: tokio::runtime::Runtime) {
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
}

/// Takes alerts as Alertmanager does.
pub(crate) struct AlertListener {
    pub(crate) url: String,
    alerts: mpsc::UnboundedReceiver<Value>,
}

impl AlertListener {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub(crate) async fn start_on(address: &str) -> Self {
        let (sender, alerts) = mpsc::unbounded_channel();
        let take = |State(sender): State<mpsc::UnboundedSender<Value>>, body: axum::Json<Vec<Value>>| async move {
            for alert in body.0 {
                let _ = sender.send(alert);
            }
        };
        let app = Router::new().route("/api/v2/alerts", post(take)).with_state(sender);
        let listener = TcpListener::bind(address).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let limits = pharos_common::server::ServerLimits::default();
        tokio::spawn(pharos_common::server::serve(listener, app, None, limits, Shutdown::new()));
        AlertListener { url: format!("http://{address}"), alerts }
    }

    /// The next alert that arrives.
    pub(crate) async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.alerts.recv()).await.expect("an alert arrives").unwrap()
    }

    /// What has arrived by now.
    pub(crate) fn arrived(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.alerts.try_recv().ok()).collect()
    }
}
