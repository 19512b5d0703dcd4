//! Microsoft Teams by Power Automate workflows: one adaptive card a message.

use super::NotifyError;
use super::http::HttpSender;
use super::notice::{Notice, NoticeKind};
use crate::config::{Fault, ReceiverBuilder, SecretSource, TeamsFile};
use crate::render::{Renderer, Text, aside};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Teams {
    http: HttpSender,
    renderer: Arc<Renderer>,
    url: SecretSource,
    title: Text,
    text: Text,
}

impl Teams {
    pub(crate) fn build(written: &TeamsFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        let url = builder
            .secret("webhook_url", (&written.webhook_url, &written.webhook_url_file), (&None, &None))?
            .ok_or_else(|| {
                builder.fault("webhook_url", "one of webhook_url or webhook_url_file must be configured")
            })?;
        builder.check_secret_url("webhook_url", &url)?;
        let title = "{{ template \"msteamsv2.default.title\" . }}";
        let text = "{{ template \"msteamsv2.default.text\" . }}";
        Ok(Teams {
            renderer: Arc::clone(builder.renderer),
            url,
            title: builder.text("title", written.title.as_deref(), title)?,
            text: builder.text("text", written.text.as_deref(), text)?,
            http: builder.http(&written.http_config)?,
        })
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        if notice.kind == NoticeKind::Acknowledged {
            return Ok(());
        }
        let card = aside(|| self.card(notice))?;
        self.http.post_json(&self.url.read().await?, &card, &[]).await.map(drop)
    }

    fn card(&self, notice: &Notice) -> Result<Value, NotifyError> {
        let data = self.renderer.data(notice);
        let color = if notice.kind == NoticeKind::Resolved { "Good" } else { "Attention" };
        let title = self.renderer.render(&self.title, &data)?;
        let text = self.renderer.render(&self.text, &data)?;
        let mut content = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": title, "weight": "Bolder", "size": "Medium", "wrap": true, "style": "heading", "color": color},
                {"type": "TextBlock", "text": text, "wrap": true},
            ],
            "msteams": {"width": "full"},
        });
        if let (Some(tier), NoticeKind::Firing) = (&notice.tier, notice.kind) {
            content["actions"] =
                json!([{"type": "Action.OpenUrl", "title": "Acknowledge", "url": tier.acknowledge_url}]);
        }
        Ok(json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": content,
            }],
        }))
    }
}
