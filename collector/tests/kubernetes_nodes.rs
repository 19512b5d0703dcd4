//! Expected nodes from an API server that lists in pages and watches as Kubernetes does, also over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pharos_collector::Options;
use pharos_common::clock::ManualClock;
use pharos_common::flags::ConfigFlag;
use pharos_common::server::{ServerLimits, TlsFiles, load_tls, serve};
use pharos_common::shutdown::Shutdown;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use support::{TestCollector, options};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

const TOKEN: &str = "secret-token";

/// A few nodes, and those who watch them.
#[derive(Default)]
struct Cluster {
    nodes: BTreeSet<String>,
    version: u64,
    watchers: Vec<mpsc::UnboundedSender<String>>,
    lists: usize,
    refusals: usize,
    /// The account's token now; that of the constant if empty.
    token: String,
    /// Watches from before are refused as too old.
    oldest: u64,
}

type Shared = Arc<Mutex<Cluster>>;

fn node(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string(), "labels": {"gpu": "true"}}})
}

impl Cluster {
    fn event(&mut self, kind: &str, name: &str) {
        self.version += 1;
        match kind {
            "ADDED" => drop(self.nodes.insert(name.to_owned())),
            _ => drop(self.nodes.remove(name)),
        }
        let line = format!("{}\n", json!({"type": kind, "object": node(name, self.version)}));
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

async fn nodes(
    State(cluster): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let asked = |name: &str| query.get(name).map(String::as_str);
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let token = cluster.lock().unwrap().token.clone();
    let token = if token.is_empty() { TOKEN } else { &token };
    if header("authorization") != format!("Bearer {token}") {
        cluster.lock().unwrap().refusals += 1;
        return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    }
    assert_eq!(asked("labelSelector"), Some("gpu=true"));
    assert!(header("accept").contains("PartialObjectMetadata"));
    let mut cluster = cluster.lock().unwrap();
    let version = cluster.version.to_string();
    if asked("watch") == Some("1") {
        let from: u64 = asked("resourceVersion").unwrap().parse().unwrap();
        let (send, lines) = mpsc::unbounded_channel();
        if from < cluster.oldest {
            let status = json!({"kind": "Status", "code": 410, "reason": "Expired"});
            send.send(format!("{}\n", json!({"type": "ERROR", "object": status}))).unwrap();
        } else {
            assert_eq!(from, cluster.version, "a watch begins where the list or the watch before ended");
            cluster.watchers.push(send);
        }
        let lines = UnboundedReceiverStream::new(lines).map(Ok::<_, std::convert::Infallible>);
        return Body::from_stream(lines).into_response();
    }
    cluster.lists += 1;
    // Pages of two, whatever the limit.
    assert_eq!(asked("limit"), Some("500"));
    let from: usize = asked("continue").map_or(0, |from| from.parse().unwrap());
    let page: Vec<Value> = cluster.nodes.iter().skip(from).take(2).map(|name| node(name, 1)).collect();
    let more = if from + 2 < cluster.nodes.len() { (from + 2).to_string() } else { String::new() };
    axum::Json(json!({"metadata": {"resourceVersion": version, "continue": more}, "items": page}))
        .into_response()
}

/// Advances the clock until exactly these nodes are expected.
async fn until_expected(collector: &TestCollector, clock: &ManualClock, want: &[&str]) {
    let query = "/api/v1/query?query=pharos_node_expected{source=%22kubernetes%22}";
    let found = |answer: &Value| -> Vec<String> {
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        result.iter().map(|series| series["metric"]["instance"].as_str().unwrap().to_owned()).collect()
    };
    collector
        .until(query, |answer| {
            clock.advance(std::time::Duration::from_millis(100));
            found(answer) == want
        })
        .await;
}

/// Waits until it is counted that Kubernetes could not be asked.
async fn until_failed(collector: &TestCollector) {
    let metrics = format!("{}/metrics", collector.url);
    let all = async {
        loop {
            let text = collector.client.get(&metrics).send().await.unwrap().text().await.unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("pharos_collector_kubernetes_failures_total "));
            let failures: u64 = line.unwrap().parse().unwrap();
            if failures > 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, all).await.expect("a failure is counted")
}

#[tokio::test]
async fn nodes_of_kubernetes_are_expected_while_it_has_them() {
    let cluster: Shared = Arc::default();
    cluster.lock().unwrap().nodes = ["n1", "n2", "n3"].map(str::to_owned).into();
    cluster.lock().unwrap().version = 7;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/api/v1/nodes", get(nodes)).with_state(Arc::clone(&cluster));
    tokio::spawn(serve(listener, app, None, ServerLimits::default(), Shutdown::new()));

    let folder = tempfile::tempdir().unwrap();
    let (config, token) = (folder.path().join("collector.yml"), folder.path().join("token"));
    // The account's token comes late; until then the server refuses.
    std::fs::write(&token, "not yet\n").unwrap();
    let text = format!(
        "pharos:\n  expected_nodes_kubernetes:\n    label_selector: gpu=true\n    api_server: http://{address}\n    token_file: {}\n",
        token.display()
    );
    std::fs::write(&config, text).unwrap();
    let options = Options {
        config: ConfigFlag { config_file: Some(config.clone()) },
        shipped_rules: true,
        ..options(folder.path())
    };
    let clock = ManualClock::new(1_700_000_000_000);
    let collector = TestCollector::start_with(options, Arc::clone(&clock) as _).await;
    until_failed(&collector).await;
    std::fs::write(&token, TOKEN).unwrap();

    let expected = async |want: &[&str]| until_expected(&collector, &clock, want).await;
    expected(&["n1", "n2", "n3"]).await;
    cluster.lock().unwrap().event("ADDED", "n4");
    expected(&["n1", "n2", "n3", "n4"]).await;
    cluster.lock().unwrap().event("DELETED", "n2");
    expected(&["n1", "n3", "n4"]).await;
    // The built-in alert for nodes that never reported.
    let alerts = "/api/v1/alerts";
    collector
        .until(alerts, |answer| {
            clock.advance(std::time::Duration::from_secs(1));
            let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
            ["n1", "n3", "n4"].iter().all(|name| {
                alerts.iter().any(|alert| {
                    alert["labels"]["alertname"] == "NodeNeverReported"
                        && alert["labels"]["instance"] == *name
                        && alert["state"] == "firing"
                })
            })
        })
        .await;
    // The server forgets what the watch began from: everything is listed anew.
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.watchers.clear();
        cluster.nodes.remove("n1");
        cluster.version = 100;
        cluster.oldest = 100;
    }
    expected(&["n3", "n4"]).await;
    assert_eq!(cluster.lock().unwrap().lists, 3, "one list of two pages, and one of one page");
    // Without the configuration nobody of Kubernetes is expected any more.
    std::fs::write(&config, "{}\n").unwrap();
    let reload = collector.client.post(format!("{}/-/reload", collector.url)).send().await.unwrap();
    assert_eq!(reload.status(), 200);
    expected(&[]).await;
    collector.stop().await;
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted_and_a_renewed_token_is_read_again() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    let cluster: Shared = Arc::default();
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.nodes = ["n1"].map(str::to_owned).into();
        cluster.version = 7;
        cluster.token = "first".to_owned();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/api/v1/nodes", get(nodes)).with_state(Arc::clone(&cluster));
    let tls = load_tls(&TlsFiles {
        cert_file: fixtures.join("server.pem"),
        key_file: fixtures.join("server.key"),
        client_ca_file: None,
    });
    tokio::spawn(serve(listener, app, Some(tls.unwrap()), ServerLimits::default(), Shutdown::new()));

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The collector is told of another authority than the one that signed the server's certificate.
    std::fs::copy(fixtures.join("another.pem"), at("ca.crt")).unwrap();
    std::fs::write(at("token"), "first\n").unwrap();
    let text = format!(
        "pharos:\n  expected_nodes_kubernetes:\n    label_selector: gpu=true\n    api_server: https://{address}\n    \
         token_file: {}\n    ca_file: {}\n",
        at("token").display(),
        at("ca.crt").display()
    );
    std::fs::write(at("collector.yml"), text).unwrap();
    let options =
        Options { config: ConfigFlag { config_file: Some(at("collector.yml")) }, ..options(folder.path()) };
    let clock = ManualClock::new(1_700_000_000_000);
    let collector = TestCollector::start_with(options, Arc::clone(&clock) as _).await;
    until_failed(&collector).await;
    assert_eq!(cluster.lock().unwrap().refusals, 0, "no token goes to a server that is not trusted");
    assert_eq!(cluster.lock().unwrap().lists, 0);

    std::fs::copy(fixtures.join("authority.pem"), at("ca.crt")).unwrap();
    until_expected(&collector, &clock, &["n1"]).await;

    // The token is renewed: the next watch comes with the new one.
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.token = "second".to_owned();
        cluster.nodes.insert("n2".to_owned());
        cluster.watchers.clear();
    }
    let refused = async {
        while cluster.lock().unwrap().refusals == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, refused).await.expect("the old token is tried, and refused");
    until_expected(&collector, &clock, &["n1"]).await;
    std::fs::write(at("token"), "second\n").unwrap();
    until_expected(&collector, &clock, &["n1", "n2"]).await;
    collector.stop().await;
}
