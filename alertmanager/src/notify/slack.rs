//! Slack: incoming webhooks, or the Web API where an `app_token` is written. Only messages posted by the
//! API can be edited later.

use super::http::HttpSender;
use super::notice::{Notice, NoticeKind};
use super::{NotifyError, Receipt, truncate};
use crate::config::{Fault, ReceiverBuilder, SecretSource, SlackActionFile, SlackFieldFile, SlackFile};
use crate::render::{Renderer, Text, aside};
use pharos_common::template::{TemplateError, Value as TemplateValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const POST_MESSAGE_URL: &str = "https://slack.com/api/chat.postMessage";
/// Slack cuts longer titles.
const TITLE_RUNES_MAX: usize = 1_024;
/// What Slack answers as `error` when a later attempt may succeed.
const PASSING_ERRORS: [&str; 6] = [
    "ratelimited",
    "rate_limited",
    "service_unavailable",
    "internal_error",
    "fatal_error",
    "request_timeout",
];

#[derive(Debug)]
pub(crate) struct Slack {
    http: HttpSender,
    renderer: Arc<Renderer>,
    way: Way,
    channel: Text,
    username: Text,
    icon_emoji: Text,
    icon_url: Text,
    link_names: bool,
    message_text: Text,
    /// Texts of the attachment by their key.
    attachment: Vec<(&'static str, Text)>,
    mrkdwn_in: Vec<String>,
    fields: Vec<(Text, Text, bool)>,
    actions: Vec<Action>,
    update_message: bool,
}

#[derive(Debug)]
enum Way {
    Webhook(SecretSource),
    Api { token: SecretSource, post_url: String, update_url: String },
}

#[derive(Debug)]
struct Action {
    kind: Text,
    text: Text,
    url: Text,
    style: Text,
    name: Text,
    value: Text,
    confirm: Option<[Text; 4]>,
}

/// Where a message is.
#[derive(Debug, Serialize, Deserialize)]
struct Posted {
    channel: String,
    ts: String,
}

impl Slack {
    pub(crate) fn build(written: &SlackFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        let way = way(written, builder)?;
        let template = |key: &'static str, own: &Option<String>, default: &str| {
            builder.text(key, own.as_deref(), default).map(|text| (key, text))
        };
        let attachment = vec![
            template("title", &written.title, "{{ template \"slack.default.title\" . }}")?,
            template("title_link", &written.title_link, "{{ template \"slack.default.titlelink\" . }}")?,
            template("pretext", &written.pretext, "{{ template \"slack.default.pretext\" . }}")?,
            template("text", &written.text, "{{ template \"slack.default.text\" . }}")?,
            template("fallback", &written.fallback, "{{ template \"slack.default.fallback\" . }}")?,
            template("callback_id", &written.callback_id, "{{ template \"slack.default.callbackid\" . }}")?,
            template("footer", &written.footer, "{{ template \"slack.default.footer\" . }}")?,
            template("image_url", &written.image_url, "")?,
            template("thumb_url", &written.thumb_url, "")?,
            template("color", &written.color, "{{ if eq .Status \"firing\" }}danger{{ else }}good{{ end }}")?,
        ];
        let one = |key: &'static str, own: &Option<String>, default: &str| {
            builder.text(key, own.as_deref(), default)
        };
        let channel = one("channel", &written.channel, "")?;
        let username = one("username", &written.username, "{{ template \"slack.default.username\" . }}")?;
        let icon_emoji =
            one("icon_emoji", &written.icon_emoji, "{{ template \"slack.default.iconemoji\" . }}")?;
        let icon_url = one("icon_url", &written.icon_url, "{{ template \"slack.default.iconurl\" . }}")?;
        let message_text = one("message_text", &written.message_text, "")?;
        let default_in = || ["fallback", "pretext", "text"].map(str::to_owned).to_vec();
        Ok(Slack {
            renderer: Arc::clone(builder.renderer),
            way,
            channel,
            username,
            icon_emoji,
            icon_url,
            link_names: written.link_names,
            message_text,
            attachment,
            mrkdwn_in: written.mrkdwn_in.clone().unwrap_or_else(default_in),
            fields: fields(&written.fields, written.short_fields, builder)?,
            actions: actions(&written.actions, builder)?,
            update_message: written.update_message,
            http: builder.http(&written.http_config)?,
        })
    }

    /// Whether messages can be changed after they were sent.
    pub(crate) fn can_edit(&self) -> bool {
        matches!(self.way, Way::Api { .. })
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<Receipt, NotifyError> {
        let posted: Option<Posted> =
            notice.receipt.as_deref().and_then(|receipt| serde_json::from_str(receipt).ok());
        let mut body = aside(|| self.message(notice))?;
        match &self.way {
            Way::Webhook(_) if notice.kind == NoticeKind::Acknowledged => Ok(None),
            Way::Webhook(url) => {
                let answer = self.http.post_json(&url.read().await?, &body, &[]).await?;
                check(&answer.body)?;
                Ok(None)
            }
            Way::Api { token, post_url, update_url } => {
                let edits = notice.kind == NoticeKind::Acknowledged || self.update_message;
                let url = match posted.filter(|_| edits) {
                    Some(posted) => {
                        body["channel"] = json!(posted.channel);
                        body["ts"] = json!(posted.ts);
                        update_url
                    }
                    None if notice.kind == NoticeKind::Acknowledged => return Ok(None),
                    None => post_url,
                };
                let headers = [("Authorization", format!("Bearer {}", token.read().await?))];
                let answer = self.http.post_json(url, &body, &headers).await?;
                let answer = check(&answer.body)?;
                let place = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
                let posted = place("channel").zip(place("ts")).map(|(channel, ts)| Posted { channel, ts });
                Ok(posted.and_then(|posted| serde_json::to_string(&posted).ok()))
            }
        }
    }

    fn message(&self, notice: &Notice) -> Result<Value, TemplateError> {
        let data = self.renderer.data(notice);
        let render = |text: &Text| self.renderer.render(text, &data);
        let mut attachment = Map::new();
        for (key, text) in &self.attachment {
            let text = render(text)?;
            let text = if *key == "title" { truncate(&text, TITLE_RUNES_MAX) } else { text };
            set_unless_empty(&mut attachment, key, text);
        }
        attachment.insert("mrkdwn_in".to_owned(), json!(self.mrkdwn_in));
        if !self.fields.is_empty() {
            let mut fields = Vec::new();
            for (title, value, short) in &self.fields {
                fields.push(json!({"title": render(title)?, "value": render(value)?, "short": short}));
            }
            attachment.insert("fields".to_owned(), Value::Array(fields));
        }
        let actions = self.buttons(notice, &data)?;
        if !actions.is_empty() {
            attachment.insert("actions".to_owned(), Value::Array(actions));
        }
        if let Some((by, comment)) = &notice.acknowledged {
            attachment.insert("color".to_owned(), json!("warning"));
            attachment.insert("footer".to_owned(), json!(format!("Acknowledged by {by} {comment}").trim()));
        }
        let mut message = Map::new();
        let texts = [
            ("channel", &self.channel),
            ("username", &self.username),
            ("icon_emoji", &self.icon_emoji),
            ("icon_url", &self.icon_url),
            ("text", &self.message_text),
        ];
        for (key, text) in texts {
            set_unless_empty(&mut message, key, render(text)?);
        }
        if self.link_names {
            message.insert("link_names".to_owned(), json!(true));
        }
        message.insert("attachments".to_owned(), json!([attachment]));
        Ok(Value::Object(message))
    }

    fn buttons(&self, notice: &Notice, data: &TemplateValue) -> Result<Vec<Value>, TemplateError> {
        let render = |text: &Text| self.renderer.render(text, data);
        let mut buttons = Vec::new();
        for action in &self.actions {
            let mut button = Map::new();
            let texts = [
                ("type", &action.kind),
                ("text", &action.text),
                ("url", &action.url),
                ("style", &action.style),
                ("name", &action.name),
                ("value", &action.value),
            ];
            for (key, text) in texts {
                set_unless_empty(&mut button, key, render(text)?);
            }
            if let Some([title, text, ok, dismiss]) = &action.confirm {
                let mut confirm = Map::new();
                for (key, text) in
                    [("title", title), ("text", text), ("ok_text", ok), ("dismiss_text", dismiss)]
                {
                    set_unless_empty(&mut confirm, key, render(text)?);
                }
                button.insert("confirm".to_owned(), Value::Object(confirm));
            }
            buttons.push(Value::Object(button));
        }
        if let (Some(tier), NoticeKind::Firing) = (&notice.tier, notice.kind) {
            buttons.push(json!({"type": "button", "text": "Acknowledge", "url": tier.acknowledge_url}));
        }
        Ok(buttons)
    }
}

fn way(written: &SlackFile, builder: &ReceiverBuilder<'_>) -> Result<Way, Fault> {
    let global = builder.global;
    let none = (&None, &None);
    let own_url = builder.secret("api_url", (&written.api_url, &written.api_url_file), none)?;
    let own_token = builder.secret("app_token", (&written.app_token, &written.app_token_file), none)?;
    let global_token =
        builder.secret("slack_app_token", (&global.slack_app_token, &global.slack_app_token_file), none)?;
    let global_url =
        builder.secret("slack_api_url", (&global.slack_api_url, &global.slack_api_url_file), none)?;
    let (token, url) = match (own_token, own_url) {
        (Some(_), Some(_)) => {
            return Err(builder.fault("app_token", "at most one of api_url and app_token may be written"));
        }
        (Some(token), None) => (Some(token), None),
        (None, Some(url)) => (None, Some(url)),
        (None, None) => (global_token, global_url),
    };
    if let Some(token) = token {
        let app_url = written.app_url.clone().or(global.slack_app_url.clone());
        let post_url = app_url.unwrap_or_else(|| POST_MESSAGE_URL.to_owned());
        builder.check_url("app_url", &post_url)?;
        let update_url = post_url.replace("chat.postMessage", "chat.update");
        return Ok(Way::Api { token, post_url, update_url });
    }
    let missing =
        || builder.fault("api_url", "no Slack API URL nor App token set either inline or in a file");
    let url = url.ok_or_else(missing)?;
    builder.check_secret_url("api_url", &url)?;
    Ok(Way::Webhook(url))
}

fn fields(
    written: &[SlackFieldFile],
    short: bool,
    builder: &ReceiverBuilder<'_>,
) -> Result<Vec<(Text, Text, bool)>, Fault> {
    let mut fields = Vec::new();
    for (index, field) in written.iter().enumerate() {
        let key = format!("fields[{index}]");
        if field.title.is_empty() || field.value.is_empty() {
            return Err(builder.fault(&key, "missing title or value in Slack field"));
        }
        let title = builder.text(&key, Some(&field.title), "")?;
        let value = builder.text(&key, Some(&field.value), "")?;
        fields.push((title, value, field.short.unwrap_or(short)));
    }
    Ok(fields)
}

fn actions(written: &[SlackActionFile], builder: &ReceiverBuilder<'_>) -> Result<Vec<Action>, Fault> {
    let mut actions = Vec::new();
    for (index, action) in written.iter().enumerate() {
        let key = format!("actions[{index}]");
        if action.kind.is_empty() || action.text.is_empty() {
            return Err(builder.fault(&key, "missing type or text in Slack action"));
        }
        if action.url.is_empty() && action.name.is_empty() {
            return Err(builder.fault(&key, "missing name or url in Slack action"));
        }
        let text = |text: &String| builder.text(&key, Some(text), "");
        let confirm = match &action.confirm {
            None => None,
            Some(confirm) => Some([
                text(&confirm.title)?,
                text(&confirm.text)?,
                text(&confirm.ok_text)?,
                text(&confirm.dismiss_text)?,
            ]),
        };
        actions.push(Action {
            kind: text(&action.kind)?,
            text: text(&action.text)?,
            url: text(&action.url)?,
            style: text(&action.style)?,
            name: text(&action.name)?,
            value: text(&action.value)?,
            confirm,
        });
    }
    Ok(actions)
}

/// Slack says `ok` in words, or as JSON that may hold an error in spite of its status 200.
fn check(body: &str) -> Result<Value, NotifyError> {
    let Ok(answer) = serde_json::from_str::<Value>(body) else { return Ok(Value::Null) };
    if answer.get("ok") != Some(&Value::Bool(false)) {
        return Ok(answer);
    }
    let error = answer.get("error").and_then(Value::as_str).unwrap_or("unknown");
    let message = format!("Slack refused the message: {error}");
    Err(if PASSING_ERRORS.contains(&error) {
        NotifyError::again(message)
    } else {
        NotifyError::last(message)
    })
}

fn set_unless_empty(object: &mut Map<String, Value>, key: &str, text: String) {
    if !text.is_empty() {
        object.insert(key.to_owned(), Value::String(text));
    }
}
