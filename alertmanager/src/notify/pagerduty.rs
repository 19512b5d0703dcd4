//! PagerDuty: Events API v2 (trigger, acknowledge, resolve), and its predecessor where a `service_key` is
//! written.

use super::http::HttpSender;
use super::notice::{Notice, NoticeKind};
use super::{NotifyError, truncate};
use crate::config::{Fault, PagerDutyFile, ReceiverBuilder, SecretSource};
use crate::render::{Renderer, Text, aside, render_map};
use pharos_common::template::Value as TemplateValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const EVENTS_V2_URL: &str = "https://events.pagerduty.com/v2/enqueue";
const EVENTS_V1_URL: &str = "https://events.pagerduty.com/generic/2010-04-15/create_event.json";
/// PagerDuty refuses longer summaries.
const SUMMARY_RUNES_MAX: usize = 1_024;
/// PagerDuty refuses larger events.
const EVENT_BYTES_MAX: usize = 512_000;

#[derive(Debug)]
pub(crate) struct PagerDuty {
    http: HttpSender,
    renderer: Arc<Renderer>,
    url: String,
    key: SecretSource,
    version_1: bool,
    client: Text,
    client_url: Text,
    description: Text,
    severity: Text,
    source: Text,
    component: Text,
    group: Text,
    class: Text,
    details: BTreeMap<String, Text>,
    images: Vec<[Text; 3]>,
    links: Vec<[Text; 2]>,
}

const DEFAULT_DETAILS: [(&str, &str); 4] = [
    ("firing", "{{ template \"pagerduty.default.instances\" .Alerts.Firing }}"),
    ("resolved", "{{ template \"pagerduty.default.instances\" .Alerts.Resolved }}"),
    ("num_firing", "{{ .Alerts.Firing | len }}"),
    ("num_resolved", "{{ .Alerts.Resolved | len }}"),
];

impl PagerDuty {
    pub(crate) fn build(written: &PagerDutyFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        let none = (&None, &None);
        let routing =
            builder.secret("routing_key", (&written.routing_key, &written.routing_key_file), none)?;
        let service =
            builder.secret("service_key", (&written.service_key, &written.service_key_file), none)?;
        let (key, version_1) = match (routing, service) {
            (Some(key), None) => (key, false),
            (None, Some(key)) => (key, true),
            (Some(_), Some(_)) => {
                return Err(
                    builder.fault("service_key", "at most one of routing_key and service_key may be written")
                );
            }
            (None, None) => return Err(builder.fault("routing_key", "missing routing_key or service_key")),
        };
        let default_url = if version_1 { EVENTS_V1_URL } else { EVENTS_V2_URL };
        let global = if version_1 { None } else { builder.global.pagerduty_url.clone() };
        let url = written.url.clone().or(global).unwrap_or_else(|| default_url.to_owned());
        builder.check_url("url", &url)?;
        let mut details: BTreeMap<String, Text> = BTreeMap::new();
        for (name, text) in DEFAULT_DETAILS {
            details.insert(name.to_owned(), builder.text("details", None, text)?);
        }
        for (name, text) in written.details.iter().flatten() {
            details.insert(name.clone(), builder.text(&format!("details.{name}"), Some(text), "")?);
        }
        let text = |key: &str, text: &String| builder.text(key, Some(text), "");
        let mut images = Vec::new();
        for (index, image) in written.images.iter().enumerate() {
            let key = format!("images[{index}]");
            images.push([text(&key, &image.src)?, text(&key, &image.alt)?, text(&key, &image.href)?]);
        }
        let mut links = Vec::new();
        for (index, link) in written.links.iter().enumerate() {
            let key = format!("links[{index}]");
            links.push([text(&key, &link.href)?, text(&key, &link.text)?]);
        }
        let client = "{{ template \"pagerduty.default.client\" . }}";
        let client_url = "{{ template \"pagerduty.default.clientURL\" . }}";
        let description = "{{ template \"pagerduty.default.description\" . }}";
        let source = written.source.as_deref().or(written.client.as_deref());
        let built = PagerDuty {
            renderer: Arc::clone(builder.renderer),
            url,
            key,
            version_1,
            client: builder.text("client", written.client.as_deref(), client)?,
            client_url: builder.text("client_url", written.client_url.as_deref(), client_url)?,
            description: builder.text("description", written.description.as_deref(), description)?,
            severity: builder.text("severity", written.severity.as_deref(), "error")?,
            source: builder.text("source", source, client)?,
            component: builder.text("component", written.component.as_deref(), "")?,
            group: builder.text("group", written.group.as_deref(), "")?,
            class: builder.text("class", written.class.as_deref(), "")?,
            details,
            images,
            links,
            http: builder.http(&written.http_config)?,
        };
        Ok(built)
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        let key = self.key.read().await?;
        let mut event =
            aside(|| if self.version_1 { self.event_v1(&key, notice) } else { self.event_v2(&key, notice) })?;
        if event.to_string().len() > EVENT_BYTES_MAX {
            let note =
                json!({"error": "Custom details have been removed because the event was larger than 512 kB"});
            let place = if self.version_1 { "/details" } else { "/payload/custom_details" };
            if let Some(details) = event.pointer_mut(place) {
                *details = note;
            }
        }
        self.http.post_json(&self.url, &event, &[]).await.map(drop)
    }

    fn action(notice: &Notice) -> &'static str {
        match notice.kind {
            NoticeKind::Firing => "trigger",
            NoticeKind::Acknowledged => "acknowledge",
            NoticeKind::Resolved => "resolve",
        }
    }

    fn event_v2(&self, key: &str, notice: &Notice) -> Result<Value, NotifyError> {
        let mut event = json!({
            "routing_key": key,
            "event_action": Self::action(notice),
            "dedup_key": notice.dedup_key,
        });
        if notice.kind == NoticeKind::Acknowledged {
            return Ok(event);
        }
        let data = self.renderer.data(notice);
        let render = |text: &Text| self.renderer.render(text, &data);
        let mut payload = json!({
            "summary": truncate(&render(&self.description)?, SUMMARY_RUNES_MAX),
            "source": render(&self.source)?,
            "severity": render(&self.severity)?,
            "custom_details": render_map(&self.renderer, &self.details, &data)?,
        });
        if payload["source"] == "" {
            payload["source"] = json!("pharos");
        }
        for (name, text) in [("component", &self.component), ("group", &self.group), ("class", &self.class)] {
            set_unless_empty(&mut payload, name, render(text)?);
        }
        event["payload"] = payload;
        set_unless_empty(&mut event, "client", render(&self.client)?);
        set_unless_empty(&mut event, "client_url", render(&self.client_url)?);
        let images = self.pictures(&data)?;
        if !images.is_empty() {
            event["images"] = Value::Array(images);
        }
        let mut links = Vec::new();
        for [href, text] in &self.links {
            let href = render(href)?;
            if !href.is_empty() {
                links.push(json!({"href": href, "text": render(text)?}));
            }
        }
        if let Some(tier) = &notice.tier {
            links.push(json!({"href": tier.acknowledge_url, "text": "Acknowledge in Pharos"}));
        }
        if !links.is_empty() {
            event["links"] = Value::Array(links);
        }
        Ok(event)
    }

    fn pictures(&self, data: &TemplateValue) -> Result<Vec<Value>, NotifyError> {
        let mut images = Vec::new();
        for [src, alt, href] in &self.images {
            let src = self.renderer.render(src, data)?;
            if !src.is_empty() {
                let mut image = json!({"src": src});
                set_unless_empty(&mut image, "alt", self.renderer.render(alt, data)?);
                set_unless_empty(&mut image, "href", self.renderer.render(href, data)?);
                images.push(image);
            }
        }
        Ok(images)
    }

    fn event_v1(&self, key: &str, notice: &Notice) -> Result<Value, NotifyError> {
        let data = self.renderer.data(notice);
        let description = self.renderer.render(&self.description, &data)?;
        let mut event = json!({
            "service_key": key,
            "event_type": Self::action(notice),
            "incident_key": notice.dedup_key,
            "description": truncate(&description, SUMMARY_RUNES_MAX),
        });
        if notice.kind == NoticeKind::Firing {
            event["details"] = json!(render_map(&self.renderer, &self.details, &data)?);
            set_unless_empty(&mut event, "client", self.renderer.render(&self.client, &data)?);
            set_unless_empty(&mut event, "client_url", self.renderer.render(&self.client_url, &data)?);
        }
        Ok(event)
    }
}

fn set_unless_empty(object: &mut Value, name: &str, text: String) {
    if !text.is_empty() {
        object[name] = Value::String(text);
    }
}
