//! The generic webhook: Alertmanager's body, version 4, with an `Idempotency-Key`.

use super::NotifyError;
use super::http::HttpSender;
use super::notice::{Notice, NoticeKind};
use crate::alert::label_map;
use crate::api::time::rfc3339_short;
use crate::config::ReceiverBuilder;
use crate::config::{Fault, SecretSource, WebhookFile};
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Webhook {
    http: HttpSender,
    url: SecretSource,
    /// 0 sends all.
    max_alerts: u64,
    external_url: String,
}

impl Webhook {
    pub(crate) fn build(written: &WebhookFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        if written.payload.is_some() {
            return Err(builder.fault("payload", "custom payloads are not in this version"));
        }
        let url = builder
            .secret("url", (&written.url, &written.url_file), (&None, &None))?
            .ok_or_else(|| builder.fault("url", "one of url or url_file must be configured"))?;
        builder.check_secret_url("url", &url)?;
        Ok(Webhook {
            http: builder.http(&written.http_config)?,
            url,
            max_alerts: written.max_alerts,
            external_url: builder.renderer.external_url().to_owned(),
        })
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        if notice.kind == NoticeKind::Acknowledged {
            return Ok(());
        }
        let url = self.url.read().await?;
        let headers = [("Idempotency-Key", notice.idempotency_key())];
        self.http.post_json(&url, &self.body(notice), &headers).await.map(drop)
    }

    fn body(&self, notice: &Notice) -> Value {
        let shown = match self.max_alerts {
            0 => notice.alerts.len(),
            most => notice.alerts.len().min(usize::try_from(most).unwrap_or(usize::MAX)),
        };
        let alerts: Vec<Value> = notice
            .alerts
            .iter()
            .take(shown)
            .map(|item| {
                let alert = &item.alert;
                json!({
                    "status": item.status(),
                    "labels": label_map(&alert.labels),
                    "annotations": alert.annotations,
                    "startsAt": rfc3339_short(alert.starts_at_ms),
                    // Go's zero time: the alert has no end yet.
                    "endsAt": if item.resolved { rfc3339_short(alert.ends_at_ms) } else { "0001-01-01T00:00:00Z".to_owned() },
                    "generatorURL": alert.generator_url,
                    "fingerprint": alert.fingerprint().to_string(),
                })
            })
            .collect();
        let mut body = json!({
            "version": "4",
            "groupKey": notice.group_key,
            "truncatedAlerts": notice.alerts.len() - shown,
            "receiver": notice.receiver,
            "status": notice.status(),
            "alerts": alerts,
            "groupLabels": label_map(&notice.group_labels),
            "commonLabels": label_map(&notice.common_labels()),
            "commonAnnotations": notice.common_annotations(),
            "externalURL": self.external_url,
            "notification_reason": notice.reason,
        });
        if let (Some(tier), Some(fields)) = (&notice.tier, body.as_object_mut()) {
            let escalation = json!({
                "name": tier.escalation,
                "tier": tier.tier + 1,
                "acknowledgeURL": tier.acknowledge_url,
            });
            fields.insert("escalation".to_owned(), escalation);
        }
        body
    }
}
