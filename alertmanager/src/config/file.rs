//! The configuration file as it is written: Alertmanager's keys, and Pharos' two.

use super::receivers::ReceiverFile;
use super::secret::{Secret, SecretUrl};
use crate::matchers::Matchers;
use crate::time_interval::TimeInterval;
use pharos_common::duration::PrometheusDuration;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) global: GlobalFile,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) templates: Vec<String>,
    pub(crate) route: Option<RouteFile>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) receivers: Vec<ReceiverFile>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) inhibit_rules: Vec<InhibitRuleFile>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) time_intervals: Vec<NamedIntervalsFile>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) mute_time_intervals: Vec<NamedIntervalsFile>,
    /// Alertmanager's tracing of itself: read, and of no effect here.
    #[serde(default, rename = "tracing")]
    pub(crate) _tracing: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) escalations: Vec<EscalationFile>,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) remediations: Vec<RemediationFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GlobalFile {
    pub(crate) resolve_timeout: Option<PrometheusDuration>,
    pub(crate) http_config: Option<HttpConfigFile>,
    pub(crate) smtp_from: Option<String>,
    pub(crate) smtp_hello: Option<String>,
    pub(crate) smtp_smarthost: Option<String>,
    pub(crate) smtp_auth_username: Option<String>,
    pub(crate) smtp_auth_password: Option<Secret>,
    pub(crate) smtp_auth_password_file: Option<String>,
    pub(crate) smtp_auth_secret: Option<Secret>,
    pub(crate) smtp_auth_secret_file: Option<String>,
    pub(crate) smtp_auth_identity: Option<String>,
    pub(crate) smtp_require_tls: Option<bool>,
    pub(crate) smtp_force_implicit_tls: Option<bool>,
    pub(crate) smtp_tls_config: Option<TlsConfigFile>,
    pub(crate) slack_api_url: Option<SecretUrl>,
    pub(crate) slack_api_url_file: Option<String>,
    pub(crate) slack_app_token: Option<Secret>,
    pub(crate) slack_app_token_file: Option<String>,
    pub(crate) slack_app_url: Option<String>,
    pub(crate) pagerduty_url: Option<String>,
    pub(crate) opsgenie_api_url: Option<String>,
    pub(crate) opsgenie_api_key: Option<Secret>,
    pub(crate) opsgenie_api_key_file: Option<String>,
    // Of notifiers that are not sent here; their receivers are refused, these alone do no harm.
    pub(crate) wechat_api_url: Option<String>,
    pub(crate) wechat_api_secret: Option<Secret>,
    pub(crate) wechat_api_secret_file: Option<String>,
    pub(crate) wechat_api_corp_id: Option<String>,
    pub(crate) victorops_api_url: Option<String>,
    pub(crate) victorops_api_key: Option<Secret>,
    pub(crate) victorops_api_key_file: Option<String>,
    pub(crate) telegram_api_url: Option<String>,
    pub(crate) telegram_bot_token: Option<Secret>,
    pub(crate) telegram_bot_token_file: Option<String>,
    pub(crate) webex_api_url: Option<String>,
    pub(crate) jira_api_url: Option<String>,
    pub(crate) rocketchat_api_url: Option<String>,
    pub(crate) rocketchat_token: Option<Secret>,
    pub(crate) rocketchat_token_file: Option<String>,
    pub(crate) rocketchat_token_id: Option<Secret>,
    pub(crate) rocketchat_token_id_file: Option<String>,
    pub(crate) mattermost_webhook_url: Option<SecretUrl>,
    pub(crate) mattermost_webhook_url_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RouteFile {
    pub(crate) receiver: Option<String>,
    #[serde(deserialize_with = "super::one_or_many_option")]
    pub(crate) group_by: Option<Vec<String>>,
    #[serde(rename = "continue")]
    pub(crate) continues: bool,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) matchers: Matchers,
    #[serde(rename = "match", deserialize_with = "super::null_is_default")]
    pub(crate) equals: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) match_re: BTreeMap<String, String>,
    pub(crate) group_wait: Option<PrometheusDuration>,
    pub(crate) group_interval: Option<PrometheusDuration>,
    pub(crate) repeat_interval: Option<PrometheusDuration>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) mute_time_intervals: Vec<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) active_time_intervals: Vec<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) routes: Vec<RouteFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct InhibitRuleFile {
    pub(crate) name: Option<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) source_match: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) source_match_re: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) source_matchers: Matchers,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) target_match: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) target_match_re: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) target_matchers: Matchers,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) equal: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedIntervalsFile {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) time_intervals: Vec<TimeInterval>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EscalationFile {
    pub(crate) name: String,
    #[serde(rename = "match", default, deserialize_with = "super::null_is_default")]
    pub(crate) matchers: Matchers,
    pub(crate) tiers: Vec<TierFile>,
    #[serde(default)]
    pub(crate) stop_on: Option<Vec<StopOn>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TierFile {
    pub(crate) receiver: String,
    #[serde(default)]
    pub(crate) after: PrometheusDuration,
    pub(crate) repeat: Option<PrometheusDuration>,
}

/// What halts a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StopOn {
    /// Somebody took it.
    Acknowledged,
    /// The alert ended.
    Resolved,
    /// A silence applies.
    Silenced,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemediationFile {
    pub(crate) name: String,
    #[serde(rename = "match", default, deserialize_with = "super::null_is_default")]
    pub(crate) matchers: Matchers,
    #[serde(default)]
    pub(crate) mode: Mode,
    pub(crate) action: ActionFile,
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) limits: LimitsFile,
    pub(crate) verify: Option<VerifyFile>,
}

/// How far a remediation goes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Only says what it would do.
    #[default]
    DryRun,
    /// Waits for a person's approval.
    Approve,
    /// Acts within its limits.
    Auto,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ActionFile {
    pub(crate) exec: Option<ExecFile>,
    pub(crate) webhook: Option<serde::de::IgnoredAny>,
    pub(crate) kubernetes: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecFile {
    pub(crate) command: Vec<String>,
    pub(crate) timeout: Option<PrometheusDuration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    pub(crate) cooldown: Option<PrometheusDuration>,
    pub(crate) max_per_hour: Option<u32>,
    pub(crate) max_concurrent: Option<u32>,
    pub(crate) max_nodes_percent: Option<f64>,
    pub(crate) nodes_total: Option<u32>,
    pub(crate) node_label: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyFile {
    pub(crate) resolved_within: PrometheusDuration,
    #[serde(default)]
    pub(crate) otherwise: Otherwise,
}

/// What follows when a remediation did not help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Otherwise {
    /// The next tier is told at once.
    #[default]
    Escalate,
    /// Nothing but the audit record.
    Nothing,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpConfigFile {
    pub(crate) basic_auth: Option<BasicAuthFile>,
    pub(crate) authorization: Option<AuthorizationFile>,
    pub(crate) bearer_token: Option<Secret>,
    pub(crate) bearer_token_file: Option<String>,
    pub(crate) oauth2: Option<serde::de::IgnoredAny>,
    pub(crate) tls_config: Option<TlsConfigFile>,
    pub(crate) proxy_url: Option<SecretUrl>,
    pub(crate) no_proxy: Option<String>,
    pub(crate) proxy_from_environment: Option<bool>,
    pub(crate) proxy_connect_header: Option<serde::de::IgnoredAny>,
    pub(crate) follow_redirects: Option<bool>,
    pub(crate) enable_http2: Option<bool>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) http_headers: BTreeMap<String, HeaderFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeaderFile {
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) values: Vec<String>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) secrets: Vec<Secret>,
    #[serde(deserialize_with = "super::null_is_default")]
    pub(crate) files: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BasicAuthFile {
    pub(crate) username: String,
    pub(crate) username_file: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthorizationFile {
    #[serde(rename = "type")]
    pub(crate) scheme: Option<String>,
    pub(crate) credentials: Option<Secret>,
    pub(crate) credentials_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfigFile {
    pub(crate) ca: Option<String>,
    pub(crate) ca_file: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) cert_file: Option<String>,
    pub(crate) key: Option<Secret>,
    pub(crate) key_file: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) insecure_skip_verify: bool,
    pub(crate) min_version: Option<String>,
    pub(crate) max_version: Option<String>,
}
