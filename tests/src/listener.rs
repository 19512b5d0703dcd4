//! A real HTTP listener that stands at the edge: where Slack, PagerDuty or a webhook would be.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;
use std::sync::{Arc, Mutex};

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path of the request.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as JSON; null if it is none.
    pub body: Value,
}

/// Takes every request, answers it as PagerDuty and Slack would, and remembers it.
#[derive(Clone, Debug)]
pub struct Listener {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Listener {
    /// Listens on a free port.
    pub async fn start() -> Listener {
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let app = Router::new().fallback(take).with_state(Arc::clone(&received));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", socket.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(socket, app).await });
        Listener { url, received }
    }

    /// `http://IP:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All requests to a path so far.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.received.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Requests to a path whose body mentions a text.
    pub fn mentioning(&self, path: &str, text: &str) -> Vec<Received> {
        self.received(path).into_iter().filter(|request| request.body.to_string().contains(text)).collect()
    }
}

async fn take(
    State(received): State<Arc<Mutex<Vec<Received>>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (axum::http::StatusCode, String) {
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let key = body["dedup_key"].clone();
    received.lock().unwrap().push(Received { path: uri.path().to_owned(), headers, body });
    if uri.path().ends_with("/enqueue") {
        let answer = serde_json::json!({"status": "success", "message": "Event processed", "dedup_key": key});
        return (axum::http::StatusCode::ACCEPTED, answer.to_string());
    }
    (axum::http::StatusCode::OK, "ok".to_owned())
}
