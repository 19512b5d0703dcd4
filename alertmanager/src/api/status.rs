//! `/api/v2/status`.

use super::Api;
use super::time::rfc3339;
use axum::Json;
use axum::extract::State as Shared;
use serde_json::{Value, json};

pub(super) async fn status(Shared(api): Shared<Api>) -> Json<Value> {
    let settings = api.engine.settings.load();
    Json(json!({
        "cluster": {"status": "disabled", "peers": []},
        "config": {"original": settings.original},
        "uptime": rfc3339(api.engine.started_at_ms),
        "versionInfo": {
            "version": env!("CARGO_PKG_VERSION"),
            "revision": "",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        },
    }))
}
