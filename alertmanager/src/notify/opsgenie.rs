//! Opsgenie: creates an alert under an alias, closes it when all is resolved.

use super::http::HttpSender;
use super::notice::{Notice, NoticeKind};
use super::{NotifyError, truncate};
use crate::config::{Fault, OpsgenieFile, ReceiverBuilder, SecretSource};
use crate::render::{Renderer, Text, aside, render_map};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const API_URL: &str = "https://api.opsgenie.com/";
/// Opsgenie refuses longer messages.
const MESSAGE_RUNES_MAX: usize = 130;
const RESPONDER_KINDS: [&str; 5] = ["team", "teams", "user", "escalation", "schedule"];

#[derive(Debug)]
pub(crate) struct Opsgenie {
    http: HttpSender,
    renderer: Arc<Renderer>,
    url: String,
    key: SecretSource,
    message: Text,
    description: Text,
    source: Text,
    details: BTreeMap<String, Text>,
    responders: Vec<[Text; 4]>,
    tags: Text,
    note: Text,
    priority: Text,
    entity: Text,
    actions: Text,
    update_alerts: bool,
}

impl Opsgenie {
    pub(crate) fn build(written: &OpsgenieFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        let global = builder.global;
        let key = builder
            .secret(
                "api_key",
                (&written.api_key, &written.api_key_file),
                (&global.opsgenie_api_key, &global.opsgenie_api_key_file),
            )?
            .ok_or_else(|| builder.fault("api_key", "no OpsGenie API key set either inline or in a file"))?;
        let url = written.api_url.clone().or(global.opsgenie_api_url.clone());
        let mut url = url.unwrap_or_else(|| API_URL.to_owned());
        builder.check_url("api_url", &url)?;
        if !url.ends_with('/') {
            url.push('/');
        }
        let mut responders = Vec::new();
        for (index, responder) in written.responders.iter().enumerate() {
            let place = format!("responders[{index}]");
            let templated = responder.kind.contains("{{");
            if !templated && !RESPONDER_KINDS.contains(&responder.kind.to_lowercase().as_str()) {
                let message = "type must be one of team, teams, user, escalation and schedule";
                return Err(builder.fault(&format!("{place}.type"), message));
            }
            if responder.id.is_empty() && responder.name.is_empty() && responder.username.is_empty() {
                return Err(
                    builder.fault(&place, "has to have at least one of id, username or name specified")
                );
            }
            let text = |text: &String| builder.text(&place, Some(text), "");
            responders.push([
                text(&responder.id)?,
                text(&responder.name)?,
                text(&responder.username)?,
                text(&responder.kind)?,
            ]);
        }
        let mut details = BTreeMap::new();
        for (name, text) in &written.details {
            details.insert(name.clone(), builder.text(&format!("details.{name}"), Some(text), "")?);
        }
        let text =
            |key: &str, own: &Option<String>, default: &str| builder.text(key, own.as_deref(), default);
        Ok(Opsgenie {
            renderer: Arc::clone(builder.renderer),
            url,
            key,
            message: text("message", &written.message, "{{ template \"opsgenie.default.message\" . }}")?,
            description: text(
                "description",
                &written.description,
                "{{ template \"opsgenie.default.description\" . }}",
            )?,
            source: text("source", &written.source, "{{ template \"opsgenie.default.source\" . }}")?,
            details,
            responders,
            tags: text("tags", &written.tags, "")?,
            note: text("note", &written.note, "")?,
            priority: text("priority", &written.priority, "")?,
            entity: text("entity", &written.entity, "")?,
            actions: text("actions", &written.actions, "")?,
            update_alerts: written.update_alerts,
            http: builder.http(&written.http_config)?,
        })
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        let headers = [("Authorization", format!("GenieKey {}", self.key.read().await?))];
        let alias = &notice.dedup_key;
        match notice.kind {
            NoticeKind::Acknowledged => Ok(()),
            NoticeKind::Resolved => {
                let url = format!("{}v2/alerts/{alias}/close?identifierType=alias", self.url);
                let source = aside(|| self.renderer.render(&self.source, &self.renderer.data(notice)))?;
                self.http.post_json(&url, &json!({"source": source}), &headers).await.map(drop)
            }
            NoticeKind::Firing => {
                let body = aside(|| self.alert(notice))?;
                self.http.post_json(&format!("{}v2/alerts", self.url), &body, &headers).await?;
                if self.update_alerts {
                    for part in ["message", "description"] {
                        let url = format!("{}v2/alerts/{alias}/{part}?identifierType=alias", self.url);
                        let update = json!({part: body[part]});
                        self.http.post_json(&url, &update, &headers).await?;
                    }
                }
                Ok(())
            }
        }
    }

    fn alert(&self, notice: &Notice) -> Result<Value, NotifyError> {
        let data = self.renderer.data(notice);
        let render = |text: &Text| self.renderer.render(text, &data);
        let list = |text: &Text| -> Result<Vec<String>, NotifyError> {
            let text = render(text)?;
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        };
        let mut details: BTreeMap<String, String> = crate::alert::label_map(&notice.common_labels());
        details.extend(render_map(&self.renderer, &self.details, &data)?);
        let mut responders = Vec::new();
        for texts in &self.responders {
            let mut responder = Map::new();
            for (name, text) in ["id", "name", "username", "type"].into_iter().zip(texts) {
                let text = render(text)?;
                if !text.is_empty() {
                    responder.insert(name.to_owned(), Value::String(text));
                }
            }
            responders.push(Value::Object(responder));
        }
        let mut body = json!({
            "alias": notice.dedup_key,
            "message": truncate(&render(&self.message)?, MESSAGE_RUNES_MAX),
            "description": render(&self.description)?,
            "details": details,
            "source": render(&self.source)?,
            "responders": responders,
            "tags": list(&self.tags)?,
            "note": render(&self.note)?,
            "priority": render(&self.priority)?,
            "entity": render(&self.entity)?,
            "actions": list(&self.actions)?,
        });
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| match value {
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                _ => true,
            });
        }
        Ok(body)
    }
}
