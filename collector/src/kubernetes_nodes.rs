//! Nodes that should report, from Kubernetes: the nodes of the cluster that a selector matches.
//!
//! The API server is asked for all nodes once, in pages, and then watched for changes, as its own controllers
//! do; only the metadata of nodes is fetched. While it cannot be reached, what it said last counts. Out comes
//! the set of names, whenever it changed.

use crate::expected_nodes::ExpectedNodes;
use crate::limits::{
    EXPECTED_NODES_MAX, KUBERNETES_LINE_BYTES_MAX, KUBERNETES_RETRY_FIRST, KUBERNETES_RETRY_LONGEST,
    KUBERNETES_WATCH,
};
use crate::metrics::Metrics;
use pharos_common::shutdown::Shutdown;
use reqwest::StatusCode;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The label `source` of what comes from here.
const SOURCE: &str = "kubernetes";

/// Nodes in one page of a list.
const PAGE: usize = 500;
/// Time for a connection, and for a list's page.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Where a pod finds its account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CA_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// Metadata is all that is wanted; servers that cannot cut it out send whole nodes.
const ACCEPT_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const ACCEPT_WATCH: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// `pharos: expected_nodes_kubernetes`: where the nodes are asked for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesNodes {
    /// Nodes that run an agent, e.g. `nvidia.com/gpu.present=true`; all if empty.
    label_selector: String,
    /// URL of the API server; that of the cluster in which the collector runs if not said.
    api_server: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

/// Why the nodes are not known now.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("no api_server is configured, and this is no pod: KUBERNETES_SERVICE_HOST is not set")]
    NoServer,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the API server answers {0}: {1}")]
    Refused(StatusCode, String),
    #[error("the API server's answer cannot be read: {0}")]
    Malformed(String),
    #[error("more than {EXPECTED_NODES_MAX} nodes")]
    TooMany,
    /// What the watch began from is forgotten; the list has to be asked for anew.
    #[error("the watch is too old")]
    Outdated,
}

#[derive(Debug, Deserialize)]
struct List {
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListMetadata {
    #[serde(rename = "resourceVersion")]
    resource_version: String,
    r#continue: String,
}

#[derive(Debug, Deserialize)]
struct Object {
    #[serde(default)]
    metadata: ObjectMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectMetadata {
    name: String,
    #[serde(rename = "resourceVersion")]
    resource_version: String,
}

#[derive(Debug, Deserialize)]
struct Event {
    r#type: String,
    object: serde_json::Value,
}

/// The nodes as they were last told, and the version from which changes are to be told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    nodes: BTreeSet<String>,
    version: String,
}

impl Known {
    /// Takes one line of a watch. Whether the set changed.
    fn apply(&mut self, line: &[u8]) -> Result<bool, Fault> {
        let malformed = |error: serde_json::Error| Fault::Malformed(error.to_string());
        let event: Event = serde_json::from_slice(line).map_err(malformed)?;
        if event.r#type == "ERROR" {
            return match event.object["code"].as_u64() {
                Some(410) => Err(Fault::Outdated),
                _ => Err(Fault::Malformed(event.object["message"].as_str().unwrap_or("?").to_owned())),
            };
        }
        let Object { metadata } = serde_json::from_value(event.object).map_err(malformed)?;
        let changed = match event.r#type.as_str() {
            "ADDED" | "MODIFIED" => self.nodes.insert(metadata.name),
            "DELETED" => self.nodes.remove(&metadata.name),
            _ => false,
        };
        if !metadata.resource_version.is_empty() {
            self.version = metadata.resource_version;
        }
        if self.nodes.len() > EXPECTED_NODES_MAX { Err(Fault::TooMany) } else { Ok(changed) }
    }
}

/// Follows what `wanted` says, until shutdown; `tell` learns the nodes whenever they changed.
pub(crate) async fn run(
    mut wanted: watch::Receiver<Option<KubernetesNodes>>,
    metrics: Arc<Metrics>,
    tell: impl Fn(ExpectedNodes) + Send + Sync,
    shutdown: Shutdown,
) {
    loop {
        let configured = wanted.borrow_and_update().clone();
        let follow = async {
            match &configured {
                Some(configured) => follow(configured, &metrics, &tell).await,
                None => {
                    tell(ExpectedNodes::default());
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            () = follow => {}
            changed = wanted.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Lists and watches for ever.
async fn follow(configured: &KubernetesNodes, metrics: &Metrics, tell: &(impl Fn(ExpectedNodes) + Sync)) {
    let mut wait = KUBERNETES_RETRY_FIRST;
    let mut known = Known::default();
    loop {
        let outcome = async {
            let session = Session::open(configured).await?;
            if known.version.is_empty() {
                known = session.list().await?;
                tell(ExpectedNodes { source: SOURCE.to_owned(), nodes: known.nodes.clone() });
            }
            session.watch(&mut known, tell).await
        };
        match outcome.await {
            // The server ends every watch after a while.
            Ok(()) => wait = KUBERNETES_RETRY_FIRST,
            Err(Fault::Outdated) => known.version.clear(),
            Err(error) => {
                metrics.kubernetes_failures.inc();
                tracing::warn!(%error, "Kubernetes does not tell which nodes there are; what it said last counts");
                known.version.clear();
                wait = (wait * 2).min(KUBERNETES_RETRY_LONGEST);
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// A client with the account's token as it is now: tokens are renewed on disk.
struct Session {
    client: reqwest::Client,
    url: String,
    token: Option<String>,
    selector: String,
}

impl Session {
    async fn open(configured: &KubernetesNodes) -> Result<Self, Fault> {
        let in_cluster = configured.api_server.is_none();
        let url = match &configured.api_server {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => server_of_cluster().ok_or(Fault::NoServer)?,
        };
        // Outside of a cluster only what is configured is used.
        let file = |configured: &Option<PathBuf>, usual: &str| {
            configured.clone().or_else(|| in_cluster.then(|| PathBuf::from(usual)))
        };
        let token = match file(&configured.token_file, TOKEN_FILE) {
            Some(path) => Some(String::from_utf8_lossy(&read(path).await?).trim().to_owned()),
            None => None,
        };
        let mut client = reqwest::Client::builder().connect_timeout(ANSWER_TIME_MAX);
        if let Some(path) = file(&configured.ca_file, CA_FILE) {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&read(path).await?)?);
        }
        let selector = configured.label_selector.clone();
        Ok(Session { client: client.build()?, url, token, selector })
    }

    async fn get(
        &self,
        query: &[(&str, &str)],
        accept: &str,
        time: Duration,
    ) -> Result<reqwest::Response, Fault> {
        let mut request = self.client.get(format!("{}/api/v1/nodes", self.url)).query(query);
        if !self.selector.is_empty() {
            request = request.query(&[("labelSelector", self.selector.as_str())]);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.header("accept", accept).timeout(time).send().await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::GONE => Err(Fault::Outdated),
            status => {
                let text = response.text().await.unwrap_or_default();
                Err(Fault::Refused(status, text.chars().take(200).collect()))
            }
        }
    }

    async fn list(&self) -> Result<Known, Fault> {
        let (page, mut next) = (PAGE.to_string(), String::new());
        let mut nodes = BTreeSet::new();
        loop {
            let mut query = vec![("limit", page.as_str())];
            if !next.is_empty() {
                query.push(("continue", next.as_str()));
            }
            let list: List = self.get(&query, ACCEPT_LIST, ANSWER_TIME_MAX).await?.json().await?;
            nodes.extend(list.items.into_iter().map(|node| node.metadata.name));
            if nodes.len() > EXPECTED_NODES_MAX {
                return Err(Fault::TooMany);
            }
            next = list.metadata.r#continue;
            if next.is_empty() {
                return Ok(Known { nodes, version: list.metadata.resource_version });
            }
        }
    }

    async fn watch(&self, known: &mut Known, tell: &impl Fn(ExpectedNodes)) -> Result<(), Fault> {
        let seconds = KUBERNETES_WATCH.as_secs().to_string();
        let version = known.version.clone();
        let query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", seconds.as_str()),
            ("resourceVersion", version.as_str()),
        ];
        let mut response = self.get(&query, ACCEPT_WATCH, KUBERNETES_WATCH + ANSWER_TIME_MAX).await?;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            rest.extend_from_slice(&chunk);
            let mut changed = false;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    changed |= known.apply(&line)?;
                }
            }
            if rest.len() > KUBERNETES_LINE_BYTES_MAX {
                return Err(Fault::Malformed("a line without end".to_owned()));
            }
            if changed {
                tell(ExpectedNodes { source: SOURCE.to_owned(), nodes: known.nodes.clone() });
            }
        }
        Ok(())
    }
}

/// As every pod is told.
fn server_of_cluster() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

async fn read(path: PathBuf) -> Result<Vec<u8>, Fault> {
    tokio::fs::read(&path).await.map_err(|source| Fault::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_watch_change_the_set() {
        let mut known = Known { nodes: ["a".to_owned(), "b".to_owned()].into(), version: "5".to_owned() };
        let mut apply = |kind: &str, name: &str, version: &str| {
            let line = format!(
                r#"{{"type":"{kind}","object":{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#
            );
            let changed = known.apply(line.as_bytes()).unwrap();
            (changed, known.nodes.iter().cloned().collect::<Vec<_>>().join(" "), known.version.clone())
        };
        let told = |changed, nodes: &str, version: &str| (changed, nodes.to_owned(), version.to_owned());
        assert_eq!(apply("ADDED", "c", "6"), told(true, "a b c", "6"));
        assert_eq!(apply("MODIFIED", "c", "7"), told(false, "a b c", "7"));
        assert_eq!(apply("DELETED", "a", "8"), told(true, "b c", "8"));
        assert_eq!(apply("BOOKMARK", "", "9"), told(false, "b c", "9"));
    }

    #[test]
    fn an_outdated_watch_is_told_from_other_faults() {
        let apply = |line: &str| Known::default().apply(line.as_bytes()).unwrap_err();
        assert!(matches!(apply(r#"{"type":"ERROR","object":{"code":410}}"#), Fault::Outdated));
        assert!(matches!(
            apply(r#"{"type":"ERROR","object":{"code":500,"message":"no"}}"#),
            Fault::Malformed(_)
        ));
        assert!(matches!(apply("{"), Fault::Malformed(_)));
    }
}
