//! Receivers as written into receivers that can send: global values filled in, templates parsed, HTTP
//! clients made. Whatever is missing is an error here, not when an alert fires.

use super::Fault;
use super::file::{GlobalFile, HttpConfigFile};
use super::receivers::ReceiverFile;
use super::secret::Secret;
use crate::alert::label_map;
use crate::notify::http::{HttpClients, HttpSender};
use crate::notify::{
    Integration, LogNotifier, Notifier, Receiver, email::Email, opsgenie::Opsgenie, pagerduty::PagerDuty,
    slack::Slack, teams::Teams, webhook::Webhook,
};
use crate::render::{Renderer, Text};
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What this version sends to, for messages.
const SENT: &str = "slack_configs, pagerduty_configs, opsgenie_configs, msteamsv2_configs, email_configs and webhook_configs";

/// A secret in the configuration, or in a file that is read whenever it is needed.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    Inline(Secret),
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now.
    pub(crate) async fn read(&self) -> Result<String, std::io::Error> {
        match self {
            SecretSource::Inline(secret) => Ok(secret.reveal().to_owned()),
            SecretSource::File(path) => Ok(tokio::fs::read_to_string(path).await?.trim().to_owned()),
        }
    }
}

pub(crate) struct ReceiverBuilder<'a> {
    pub(crate) global: &'a GlobalFile,
    pub(crate) folder: &'a Path,
    pub(crate) renderer: &'a Arc<Renderer>,
    pub(crate) clients: &'a mut HttpClients,
    /// The receiver's place in the file.
    pub(crate) key: String,
    /// Whether notices of a receiver without integrations are worth a log line.
    pub(crate) log_unsent: bool,
}

impl ReceiverBuilder<'_> {
    pub(crate) fn receiver(&mut self, written: &ReceiverFile) -> Result<Receiver, Fault> {
        if let Some(kind) = written.not_sent() {
            let message = format!("this version does not send by {kind}; it sends by {SENT}");
            return Err(Fault::new(format!("{}.{kind}", self.key), message));
        }
        let place = self.key.clone();
        let mut integrations = Vec::new();
        let mut add = |kind: &'static str,
                       index: usize,
                       default_resolved: bool,
                       written: Option<bool>,
                       timeout: Option<PrometheusDuration>,
                       notifier: Notifier| {
            integrations.push(Arc::new(Integration::new(
                kind,
                index,
                written,
                default_resolved,
                timeout,
                notifier,
            )));
        };
        for (index, slack) in written.slack_configs.iter().enumerate() {
            self.key = format!("{place}.slack_configs[{index}]");
            add(
                "slack",
                index,
                false,
                slack.send_resolved,
                slack.timeout,
                Notifier::Slack(Slack::build(slack, self)?),
            );
        }
        for (index, pagerduty) in written.pagerduty_configs.iter().enumerate() {
            self.key = format!("{place}.pagerduty_configs[{index}]");
            let notifier = Notifier::PagerDuty(PagerDuty::build(pagerduty, self)?);
            add("pagerduty", index, true, pagerduty.send_resolved, pagerduty.timeout, notifier);
        }
        for (index, opsgenie) in written.opsgenie_configs.iter().enumerate() {
            self.key = format!("{place}.opsgenie_configs[{index}]");
            let notifier = Notifier::Opsgenie(Opsgenie::build(opsgenie, self)?);
            add("opsgenie", index, true, opsgenie.send_resolved, opsgenie.timeout, notifier);
        }
        for (index, teams) in written.msteamsv2_configs.iter().enumerate() {
            self.key = format!("{place}.msteamsv2_configs[{index}]");
            add(
                "msteamsv2",
                index,
                true,
                teams.send_resolved,
                teams.timeout,
                Notifier::Teams(Teams::build(teams, self)?),
            );
        }
        for (index, email) in written.email_configs.iter().enumerate() {
            self.key = format!("{place}.email_configs[{index}]");
            add(
                "email",
                index,
                false,
                email.send_resolved,
                None,
                Notifier::Email(Box::new(Email::build(email, self)?)),
            );
        }
        for (index, webhook) in written.webhook_configs.iter().enumerate() {
            self.key = format!("{place}.webhook_configs[{index}]");
            add(
                "webhook",
                index,
                true,
                webhook.send_resolved,
                webhook.timeout,
                Notifier::Webhook(Webhook::build(webhook, self)?),
            );
        }
        if integrations.is_empty() {
            let notifier = Notifier::Log(LogNotifier { visible: self.log_unsent });
            integrations.push(Arc::new(Integration::new("log", 0, None, true, None, notifier)));
        }
        self.key = place;
        let labels = Labels::from_pairs(written.labels.iter());
        Ok(Receiver { name: written.name.clone(), labels: label_map(&labels), integrations })
    }

    /// A fault at one key of the integration being built.
    pub(crate) fn fault(&self, key: &str, message: impl std::fmt::Display) -> Fault {
        Fault::new(format!("{}.{key}", self.key), message)
    }

    /// A template, or its default.
    pub(crate) fn text(&self, key: &str, written: Option<&str>, default: &str) -> Result<Text, Fault> {
        self.renderer.text(written.unwrap_or(default)).map_err(|error| self.fault(key, error))
    }

    /// A path relative to the configuration file.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// A secret from its own key, its file, or the global ones.
    pub(crate) fn secret(
        &self,
        key: &str,
        own: (&Option<Secret>, &Option<String>),
        global: (&Option<Secret>, &Option<String>),
    ) -> Result<Option<SecretSource>, Fault> {
        for (inline, file) in [own, global] {
            match (inline, file) {
                (Some(_), Some(_)) => {
                    return Err(
                        self.fault(key, format!("at most one of {key} and {key}_file may be written"))
                    );
                }
                (Some(secret), None) => return Ok(Some(SecretSource::Inline(secret.clone()))),
                (None, Some(file)) => return Ok(Some(SecretSource::File(self.path(file)))),
                (None, None) => {}
            }
        }
        Ok(None)
    }

    /// The sender of an integration, from its own `http_config` or the global one.
    pub(crate) fn http(&mut self, own: &Option<HttpConfigFile>) -> Result<HttpSender, Fault> {
        let default = HttpConfigFile::default();
        let written = own.as_ref().or(self.global.http_config.as_ref()).unwrap_or(&default);
        let key = format!("{}.http_config", self.key);
        self.clients.sender(written, self.folder).map_err(|message| Fault::new(key, message))
    }

    /// Checks a URL that is fixed at configuration time.
    pub(crate) fn check_url(&self, key: &str, url: &str) -> Result<(), Fault> {
        let parsed =
            reqwest::Url::parse(url).map_err(|error| self.fault(key, format!("not a URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(self.fault(key, "not a URL: only http:// and https:// can be sent to"));
        }
        Ok(())
    }

    /// Checks a secret URL if it is in the file itself.
    pub(crate) fn check_secret_url(&self, key: &str, source: &SecretSource) -> Result<(), Fault> {
        match source {
            SecretSource::Inline(secret) => self.check_url(key, secret.reveal()),
            SecretSource::File(_) => Ok(()),
        }
    }
}
