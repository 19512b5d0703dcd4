//! Asks the programs over HTTP.

use serde_json::Value;
use std::sync::OnceLock;

/// The one HTTP client of a test process.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Another part of the process may have been first; either provider will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
    })
}

/// A program's HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    url: String,
}

impl Api {
    /// Of the program at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Api { url: url.into() }
    }

    /// GET: status and body.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<(u16, String)> {
        let response = client().get(format!("{}{path}", self.url)).query(query).send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.text().await.ok()?))
    }

    /// GET: the body as JSON, if the answer is 2xx.
    pub async fn json(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let (status, body) = self.get(path, query).await?;
        if !(200..300).contains(&status) {
            return None;
        }
        serde_json::from_str(&body).ok()
    }

    /// POST of JSON: status and body.
    pub async fn post(&self, path: &str, body: &Value) -> Option<(u16, String)> {
        let response = client()
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .ok()?;
        let status = response.status().as_u16();
        Some((status, response.text().await.ok()?))
    }

    /// POST of bytes with headers: the status.
    pub async fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Option<u16> {
        let mut request = client().post(format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// An instant query's result, `None` if it fails.
    pub async fn query(&self, query: &str) -> Option<Vec<Value>> {
        let answer = self.json("/api/v1/query", &[("query", query)]).await?;
        answer["data"]["result"].as_array().cloned()
    }

    /// The value of an instant query that answers one series.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let result = self.query(query).await?;
        result.first()?["value"][1].as_str()?.parse().ok()
    }
}
