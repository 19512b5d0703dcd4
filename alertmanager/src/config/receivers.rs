//! Receivers as they are written.
//!
//! Every kind of Alertmanager has its key here. Those that this version does not send are read as
//! [`NotSent`], so that using one is an error that says so, never a receiver that keeps silent.

use super::file::{HttpConfigFile, TlsConfigFile};
use super::secret::{Secret, SecretUrl};
use pharos_common::duration::PrometheusDuration;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One receiver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReceiverFile {
    pub(crate) name: String,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) slack_configs: Vec<SlackFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) pagerduty_configs: Vec<PagerDutyFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) opsgenie_configs: Vec<OpsgenieFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) msteamsv2_configs: Vec<TeamsFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) email_configs: Vec<EmailFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) webhook_configs: Vec<WebhookFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) discord_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) incidentio_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) jira_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) mattermost_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) msteams_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) pushover_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) rocketchat_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) sns_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) telegram_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) victorops_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) webex_configs: Vec<NotSent>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) wechat_configs: Vec<NotSent>,
}

impl ReceiverFile {
    /// The keys of what it names but this version cannot send.
    pub(crate) fn not_sent(&self) -> Option<&'static str> {
        [
            ("discord_configs", &self.discord_configs),
            ("incidentio_configs", &self.incidentio_configs),
            ("jira_configs", &self.jira_configs),
            ("mattermost_configs", &self.mattermost_configs),
            ("msteams_configs", &self.msteams_configs),
            ("pushover_configs", &self.pushover_configs),
            ("rocketchat_configs", &self.rocketchat_configs),
            ("sns_configs", &self.sns_configs),
            ("telegram_configs", &self.telegram_configs),
            ("victorops_configs", &self.victorops_configs),
            ("webex_configs", &self.webex_configs),
            ("wechat_configs", &self.wechat_configs),
        ]
        .into_iter()
        .find_map(|(key, list)| (!list.is_empty()).then_some(key))
    }
}

/// A notifier that this version does not send.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct NotSent(serde::de::IgnoredAny);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SlackFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) api_url: Option<SecretUrl>,
    pub(crate) api_url_file: Option<String>,
    pub(crate) app_token: Option<Secret>,
    pub(crate) app_token_file: Option<String>,
    pub(crate) app_url: Option<String>,
    pub(crate) channel: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) color: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) title_link: Option<String>,
    pub(crate) pretext: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) message_text: Option<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) fields: Vec<SlackFieldFile>,
    pub(crate) short_fields: bool,
    pub(crate) footer: Option<String>,
    pub(crate) fallback: Option<String>,
    pub(crate) callback_id: Option<String>,
    pub(crate) icon_emoji: Option<String>,
    pub(crate) icon_url: Option<String>,
    pub(crate) image_url: Option<String>,
    pub(crate) thumb_url: Option<String>,
    pub(crate) link_names: bool,
    pub(crate) mrkdwn_in: Option<Vec<String>>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) actions: Vec<SlackActionFile>,
    pub(crate) update_message: bool,
    pub(crate) timeout: Option<PrometheusDuration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SlackFieldFile {
    pub(crate) title: String,
    pub(crate) value: String,
    pub(crate) short: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SlackActionFile {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) url: String,
    pub(crate) style: String,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) confirm: Option<SlackConfirmFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SlackConfirmFile {
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) ok_text: String,
    pub(crate) dismiss_text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PagerDutyFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) service_key: Option<Secret>,
    pub(crate) service_key_file: Option<String>,
    pub(crate) routing_key: Option<Secret>,
    pub(crate) routing_key_file: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) client_url: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) component: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) class: Option<String>,
    pub(crate) details: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) images: Vec<PagerDutyImageFile>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) links: Vec<PagerDutyLinkFile>,
    pub(crate) timeout: Option<PrometheusDuration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PagerDutyImageFile {
    pub(crate) src: String,
    pub(crate) alt: String,
    pub(crate) href: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PagerDutyLinkFile {
    pub(crate) href: String,
    pub(crate) text: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OpsgenieFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) api_key: Option<Secret>,
    pub(crate) api_key_file: Option<String>,
    pub(crate) api_url: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) source: Option<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) details: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) responders: Vec<OpsgenieResponderFile>,
    pub(crate) tags: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) priority: Option<String>,
    pub(crate) update_alerts: bool,
    pub(crate) entity: Option<String>,
    pub(crate) actions: Option<String>,
    pub(crate) timeout: Option<PrometheusDuration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OpsgenieResponderFile {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) username: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TeamsFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) webhook_url: Option<SecretUrl>,
    pub(crate) webhook_url_file: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) timeout: Option<PrometheusDuration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmailFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) to: String,
    pub(crate) from: Option<String>,
    pub(crate) hello: Option<String>,
    pub(crate) smarthost: Option<String>,
    pub(crate) auth_username: Option<String>,
    pub(crate) auth_password: Option<Secret>,
    pub(crate) auth_password_file: Option<String>,
    pub(crate) auth_secret: Option<Secret>,
    pub(crate) auth_secret_file: Option<String>,
    pub(crate) auth_identity: Option<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) html: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) require_tls: Option<bool>,
    pub(crate) force_implicit_tls: Option<bool>,
    pub(crate) tls_config: Option<TlsConfigFile>,
    pub(crate) threading: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhookFile {
    pub(crate) send_resolved: Option<bool>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) url: Option<SecretUrl>,
    pub(crate) url_file: Option<String>,
    pub(crate) max_alerts: u64,
    pub(crate) timeout: Option<PrometheusDuration>,
    pub(crate) payload: Option<serde::de::IgnoredAny>,
}
