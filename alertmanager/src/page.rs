//! The page for people at `/`, and the page behind signed links. Rendered here, no assets from elsewhere,
//! everything from outside escaped by the template engine.

use crate::alert::label_map;
use crate::api::escalations::{build, parse_fingerprint, take};
use crate::api::time::rfc3339;
use crate::api::{Api, ApiError};
use crate::engine::State;
use crate::silence::SilenceState;
use axum::Router;
use axum::extract::{Form, Path, Query, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pharos_common::template::{Escaping, Functions, Library, Template, Value};
use serde::Deserialize;

const HOME: &str = include_str!("page/home.html");
const ACKNOWLEDGE: &str = include_str!("page/acknowledge.html");
const MESSAGE: &str = include_str!("page/message.html");
/// Rows of one table: a page of a hundred thousand alerts helps nobody.
const ROWS_MAX: usize = 500;

/// The routes of the pages.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/acknowledge/{fingerprint}", get(ask).post(acknowledge))
        .with_state(api)
}

fn render(status: StatusCode, template: &str, data: &Value) -> Response {
    let html = Template::parse(template).and_then(|template| {
        template.render_with(data, &Functions::standard(), &Library::default(), Escaping::Html)
    });
    match html {
        Ok(html) => {
            let mut response = (status, html).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            let policy =
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => ApiError::internal(error).into_response(),
    }
}

fn message(status: StatusCode, title: &str, text: &str) -> Response {
    render(status, MESSAGE, &Value::object([("Title", Value::from(title)), ("Text", Value::from(text))]))
}

pub(crate) async fn home(Shared(api): Shared<Api>) -> Response {
    let now_ms = api.engine.now_ms();
    let data = {
        let state = api.engine.lock();
        Value::object([
            ("Now", Value::from(rfc3339(now_ms))),
            ("Alerts", alerts(&state, now_ms)),
            ("Escalations", escalations(&api, &state, now_ms)),
            ("Silences", silences(&state, now_ms)),
            ("Remediations", remediations(&state)),
            ("Rows", Value::Int(ROWS_MAX as i64)),
        ])
    };
    render(StatusCode::OK, HOME, &data)
}

fn alerts(state: &State, now_ms: i64) -> Value {
    let firing = state.alerts.iter().filter(|(_, alert)| !alert.is_resolved_at(now_ms));
    let judged = firing.map(|(fingerprint, alert)| {
        let inhibited = state.inhibitor.inhibiting(&alert.labels, &state.alerts, now_ms).is_some();
        let status = match () {
            () if state.silences.silences(&alert.labels, now_ms) => "silenced",
            () if inhibited => "inhibited",
            () => "active",
        };
        (status, alert, fingerprint)
    });
    let mut rows: Vec<_> = judged.collect();
    // What people are told of comes first, the newest at the top.
    rows.sort_by_key(|(status, alert, fingerprint)| {
        (*status != "active", std::cmp::Reverse(alert.starts_at_ms), *fingerprint)
    });
    Value::list(rows.into_iter().take(ROWS_MAX).map(|(status, alert, _)| {
        Value::object([
            ("Labels", Value::map(label_map(&alert.labels))),
            ("Summary", Value::from(alert.summary())),
            ("Since", Value::from(rfc3339(alert.starts_at_ms))),
            ("Status", Value::from(status)),
        ])
    }))
}

fn escalations(api: &Api, state: &State, now_ms: i64) -> Value {
    Value::list(state.escalations.values().take(ROWS_MAX).map(|escalation| {
        let world = api.engine.circumstances(state, &escalation.alert, now_ms);
        let taken = state.acknowledgements.get(&escalation.fingerprint());
        let reached = escalation.reached.checked_sub(1).and_then(|tier| escalation.told.get(&tier));
        let link = if taken.is_none() && !world.resolved {
            api.engine.links.acknowledge_path(&escalation.alert, now_ms)
        } else {
            String::new()
        };
        Value::object([
            ("Name", Value::from(escalation.policy.as_str())),
            ("Labels", Value::map(label_map(&escalation.alert.labels))),
            ("State", Value::from(escalation.state(&world))),
            ("Tier", Value::Int(escalation.reached as i64)),
            ("Receiver", Value::from(reached.map_or("", |told| told.receiver.as_str()))),
            ("By", Value::from(taken.map_or("", |taken| taken.by.as_str()))),
            ("Comment", Value::from(taken.map_or("", |taken| taken.comment.as_str()))),
            ("Link", Value::from(link)),
        ])
    }))
}

fn silences(state: &State, now_ms: i64) -> Value {
    let live = state.silences.iter().filter(|silence| silence.state_at(now_ms) != SilenceState::Expired);
    Value::list(live.take(ROWS_MAX).map(|silence| {
        let matchers: Vec<String> = silence
            .matchers
            .iter()
            .map(|matcher| {
                let op = match (matcher.is_regex, matcher.is_equal) {
                    (false, true) => "=",
                    (false, false) => "!=",
                    (true, true) => "=~",
                    (true, false) => "!~",
                };
                format!("{}{op}{:?}", matcher.name, matcher.value)
            })
            .collect();
        Value::object([
            ("Matchers", Value::from(matchers.join(", "))),
            ("State", Value::from(silence.state_at(now_ms).as_str())),
            ("Ends", Value::from(rfc3339(silence.ends_at_ms))),
            ("By", Value::from(silence.created_by.as_str())),
            ("Comment", Value::from(silence.comment.as_str())),
        ])
    }))
}

fn remediations(state: &State) -> Value {
    let mut newest: Vec<_> = state.remediations.values().collect();
    newest.sort_by_key(|repair| std::cmp::Reverse(repair.created_at_ms));
    Value::list(newest.into_iter().take(ROWS_MAX).map(|repair| {
        Value::object([
            ("Policy", Value::from(repair.policy.as_str())),
            ("State", Value::from(repair.state.as_str())),
            ("Labels", Value::map(label_map(&repair.alert.labels))),
            ("Command", Value::from(repair.arguments.join(" "))),
            ("Reason", Value::from(repair.reason.as_deref().unwrap_or(""))),
            ("At", Value::from(rfc3339(repair.updated_at_ms))),
        ])
    }))
}

/// What a signed link carries.
#[derive(Debug, Deserialize)]
struct Link {
    firing: i64,
    expires: i64,
    signature: String,
}

/// Opening a link changes nothing: chat programs open links to show previews.
async fn ask(Shared(api): Shared<Api>, Path(fingerprint): Path<String>, link: Query<Link>) -> Response {
    let Ok(fingerprint) = parse_fingerprint(&fingerprint) else {
        return message(StatusCode::NOT_FOUND, "Not found", "There is no such alert.");
    };
    let now_ms = api.engine.now_ms();
    if let Err(error) =
        api.engine.links.check(fingerprint, link.firing, link.expires, &link.signature, now_ms)
    {
        return message(StatusCode::FORBIDDEN, "This link does not work", &error.to_string());
    }
    let data = {
        let state = api.engine.lock();
        let alert = state.alerts.get(fingerprint).cloned();
        let alert = alert.or_else(|| {
            let mut all = state.escalations.values();
            all.find(|escalation| escalation.fingerprint() == fingerprint)
                .map(|escalation| escalation.alert.clone())
        });
        let Some(alert) = alert.filter(|alert| !alert.is_resolved_at(now_ms)) else {
            return message(StatusCode::OK, "Resolved", "This alert does not fire any more.");
        };
        let taken = state.acknowledgements.get(&fingerprint);
        Value::object([
            ("Labels", Value::map(label_map(&alert.labels))),
            ("Summary", Value::from(alert.summary())),
            ("Since", Value::from(rfc3339(alert.starts_at_ms))),
            ("By", Value::from(taken.map_or("", |taken| taken.by.as_str()))),
            ("Firing", Value::Int(link.firing)),
            ("Expires", Value::Int(link.expires)),
            ("Signature", Value::from(link.signature.as_str())),
        ])
    };
    render(StatusCode::OK, ACKNOWLEDGE, &data)
}

#[derive(Debug, Deserialize)]
struct AcknowledgeForm {
    firing: i64,
    expires: i64,
    signature: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    comment: String,
}

async fn acknowledge(
    Shared(api): Shared<Api>,
    Path(fingerprint): Path<String>,
    Form(form): Form<AcknowledgeForm>,
) -> Response {
    match acknowledge_inner(&api, &fingerprint, form).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn acknowledge_inner(
    api: &Api,
    fingerprint: &str,
    form: AcknowledgeForm,
) -> Result<Response, ApiError> {
    // No check of the request's origin: the signature proves that a person was given this link.
    let fingerprint = parse_fingerprint(fingerprint)?;
    let now_ms = api.engine.now_ms();
    if let Err(error) =
        api.engine.links.check(fingerprint, form.firing, form.expires, &form.signature, now_ms)
    {
        return Ok(message(StatusCode::FORBIDDEN, "This link does not work", &error.to_string()));
    }
    let by = if form.by.trim().is_empty() { "somebody with the link" } else { form.by.as_str() };
    let given = build(fingerprint, by, &form.comment, None, now_ms)?;
    take(api, given, Some(form.firing)).await?;
    Ok(message(StatusCode::OK, "Acknowledged", "The escalation stands still until the alert ends."))
}
