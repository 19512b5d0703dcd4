//! Configuration: Alertmanager's file plus `escalations:` and `remediations:`, made into what the program
//! runs on.
//!
//! [`load`] goes from text to [`Settings`] or to an error that names file, line, column and key; nothing
//! is half-applied. `file` and `receivers` hold the keys as they are written, `build` turns receivers
//! into notifiers, `shown` prints the file without its secrets.

mod build;
mod file;
mod receivers;
mod secret;
mod shown;

pub(crate) use build::{ReceiverBuilder, SecretSource};
pub(crate) use file::{
    ActionFile, EscalationFile, ExecFile, HttpConfigFile, LimitsFile, RemediationFile, RouteFile,
    TlsConfigFile,
};
pub(crate) use file::{Mode, Otherwise, StopOn};
pub(crate) use receivers::{
    EmailFile, OpsgenieFile, PagerDutyFile, SlackActionFile, SlackFieldFile, SlackFile, TeamsFile,
    WebhookFile,
};
pub(crate) use secret::Secret;

use crate::escalation::policy::EscalationPolicy;
use crate::inhibit::InhibitRule;
use crate::matchers::Matchers;
use crate::notify::{Receiver, http::HttpClients};
use crate::remediate::policy::RemediationPolicy;
use crate::render::Renderer;
use crate::route::{RouteTree, RouteTreeBuilder};
use crate::time_interval::TimeInterval;
use file::{ConfigFile, InhibitRuleFile};
use pharos_common::clock::SharedClock;
use pharos_common::config::{self as files, ConfigError};
use pharos_common::matcher::{MatchOp, Matcher};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the program runs on, made from one file.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The file without Pharos' keys and without secrets.
    pub(crate) original: String,
    /// Pharos' keys of the file.
    pub(crate) pharos_original: String,
    /// After how long an alert without `endsAt` counts as resolved.
    pub(crate) resolve_timeout_ms: i64,
    pub(crate) routes: RouteTree,
    pub(crate) receivers: BTreeMap<String, Arc<Receiver>>,
    pub(crate) inhibit_rules: Arc<[InhibitRule]>,
    pub(crate) intervals: BTreeMap<String, Vec<TimeInterval>>,
    pub(crate) escalations: Vec<Arc<EscalationPolicy>>,
    pub(crate) remediations: Vec<Arc<RemediationPolicy>>,
    pub(crate) renderer: Arc<Renderer>,
}

/// Where things are that a configuration refers to but does not say.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// The URL under which people reach this program.
    pub external_url: String,
    /// The time, for templates.
    pub clock: SharedClock,
    /// Whether alerts can come only from this machine. Remediations that act need it.
    pub loopback_only: bool,
}

/// `resolve_timeout` where none is written.
const RESOLVE_TIMEOUT_MS: i64 = 5 * 60_000;

/// What runs when no file is given.
const BUILT_IN: &str = include_str!("config/built_in.yml");

/// The name under which the built-in configuration shows in messages.
const BUILT_IN_NAME: &str = "built-in configuration";

/// Reads a file, or the built-in configuration.
///
/// # Errors
/// If the file cannot be read or makes no sense; the error says where.
pub(crate) fn load(file: Option<&Path>, surroundings: &Surroundings) -> Result<Settings, ConfigError> {
    match file {
        Some(file) => {
            let text = files::read(file)?;
            parse(file, &text, surroundings)
        }
        None => parse(Path::new(BUILT_IN_NAME), BUILT_IN, surroundings),
    }
}

/// Makes settings from the text of a file.
///
/// # Errors
/// As [`load`].
pub(crate) fn parse(file: &Path, text: &str, surroundings: &Surroundings) -> Result<Settings, ConfigError> {
    let written: ConfigFile = files::parse(file, text)?;
    Compiler { file, surroundings, written: &written }
        .settings(text)
        .map_err(|fault| fault.locate(file, text))
}

/// A fault found after parsing.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) key: String,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Fault { key: key.into(), message: message.to_string() }
    }

    /// With its place in the file; a key that is missing is looked for where it should be.
    fn locate(self, file: &Path, text: &str) -> ConfigError {
        let mut error = ConfigError::new(file, self.key, self.message).locate_in(text);
        let key = error.key.clone();
        let mut parent = key.as_str();
        while let (None, Some((shorter, _))) = (error.position, parent.rsplit_once('.')) {
            parent = shorter;
            error.position = ConfigError::new(file, parent, "").locate_in(text).position;
        }
        error
    }
}

struct Compiler<'a> {
    file: &'a Path,
    surroundings: &'a Surroundings,
    written: &'a ConfigFile,
}

impl Compiler<'_> {
    fn settings(&self, text: &str) -> Result<Settings, Fault> {
        let folder = self.file.parent().map(Path::to_owned).unwrap_or_default();
        let renderer = self.renderer(&folder)?;
        let shown = shown::show(text).map_err(|message| Fault::new("", message))?;
        let receivers = self.receivers(&folder, &renderer)?;
        let intervals = self.intervals()?;
        let routes = self.routes(&receivers, &intervals)?;
        let escalations = self.escalations(&receivers)?;
        let remediations = self.remediations(&renderer)?;
        let resolve_timeout = self.written.global.resolve_timeout;
        Ok(Settings {
            original: shown.alertmanager,
            pharos_original: shown.pharos,
            resolve_timeout_ms: resolve_timeout
                .map_or(RESOLVE_TIMEOUT_MS, |duration| duration.as_millis_i64()),
            routes,
            receivers,
            inhibit_rules: self.inhibit_rules()?.into(),
            intervals,
            escalations,
            remediations,
            renderer,
        })
    }

    fn renderer(&self, folder: &Path) -> Result<Arc<Renderer>, Fault> {
        let mut renderer =
            Renderer::new(self.surroundings.external_url.clone(), Arc::clone(&self.surroundings.clock));
        for (index, pattern) in self.written.templates.iter().enumerate() {
            let key = format!("templates[{index}]");
            for path in matching_files(folder, pattern).map_err(|message| Fault::new(&key, message))? {
                let text = files::read(&path).map_err(|error| Fault::new(&key, error))?;
                renderer
                    .add_templates(&text)
                    .map_err(|error| Fault::new(&key, format!("{}: {error}", path.display())))?;
            }
        }
        Ok(Arc::new(renderer))
    }

    fn receivers(
        &self,
        folder: &Path,
        renderer: &Arc<Renderer>,
    ) -> Result<BTreeMap<String, Arc<Receiver>>, Fault> {
        let mut receivers = BTreeMap::new();
        let mut clients = HttpClients::default();
        let builtin = self.file == Path::new(BUILT_IN_NAME);
        for (index, written) in self.written.receivers.iter().enumerate() {
            let key = format!("receivers[{index}]");
            if written.name.is_empty() {
                return Err(Fault::new(format!("{key}.name"), "missing name in receiver"));
            }
            let mut builder = build::ReceiverBuilder {
                global: &self.written.global,
                folder,
                renderer,
                clients: &mut clients,
                key: key.clone(),
                log_unsent: builtin,
            };
            let receiver = builder.receiver(written)?;
            if receivers.insert(written.name.clone(), Arc::new(receiver)).is_some() {
                let message = format!("notification config name {:?} is not unique", written.name);
                return Err(Fault::new(format!("{key}.name"), message));
            }
        }
        Ok(receivers)
    }

    fn intervals(&self) -> Result<BTreeMap<String, Vec<TimeInterval>>, Fault> {
        let mut all = BTreeMap::new();
        let lists = [
            ("time_intervals", &self.written.time_intervals),
            ("mute_time_intervals", &self.written.mute_time_intervals),
        ];
        for (list, written) in lists {
            for (index, named) in written.iter().enumerate() {
                let key = format!("{list}[{index}].name");
                if named.name.is_empty() {
                    return Err(Fault::new(key, "missing name in time interval"));
                }
                if all.insert(named.name.clone(), named.time_intervals.clone()).is_some() {
                    return Err(Fault::new(key, format!("time interval {:?} is not unique", named.name)));
                }
            }
        }
        Ok(all)
    }

    fn routes(
        &self,
        receivers: &BTreeMap<String, Arc<Receiver>>,
        intervals: &BTreeMap<String, Vec<TimeInterval>>,
    ) -> Result<RouteTree, Fault> {
        let root = self.written.route.as_ref().ok_or_else(|| Fault::new("route", "no route provided"))?;
        RouteTreeBuilder { receivers, intervals }.build(root)
    }

    fn inhibit_rules(&self) -> Result<Vec<InhibitRule>, Fault> {
        let rules = self.written.inhibit_rules.iter().enumerate();
        rules.map(|(index, written)| inhibit_rule(written, &format!("inhibit_rules[{index}]"))).collect()
    }

    fn escalations(
        &self,
        receivers: &BTreeMap<String, Arc<Receiver>>,
    ) -> Result<Vec<Arc<EscalationPolicy>>, Fault> {
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for (index, written) in self.written.escalations.iter().enumerate() {
            let key = format!("escalations[{index}]");
            if !names.insert(&written.name) {
                return Err(Fault::new(format!("{key}.name"), format!("{:?} is not unique", written.name)));
            }
            policies.push(Arc::new(EscalationPolicy::build(written, &key, receivers)?));
        }
        Ok(policies)
    }

    fn remediations(&self, renderer: &Renderer) -> Result<Vec<Arc<RemediationPolicy>>, Fault> {
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for (index, written) in self.written.remediations.iter().enumerate() {
            let key = format!("remediations[{index}]");
            if !names.insert(&written.name) {
                return Err(Fault::new(format!("{key}.name"), format!("{:?} is not unique", written.name)));
            }
            let policy = RemediationPolicy::build(written, &key, renderer)?;
            if policy.mode != Mode::DryRun && !self.surroundings.loopback_only {
                let message = "a mode other than dry_run needs --web.listen-address on loopback \
                               (for example 127.0.0.1:9493): anybody who reaches the port could make it act";
                return Err(Fault::new(format!("{key}.mode"), message));
            }
            policies.push(Arc::new(policy));
        }
        Ok(policies)
    }
}

fn inhibit_rule(written: &InhibitRuleFile, key: &str) -> Result<InhibitRule, Fault> {
    let source = written.source_matchers.join(old_matchers(
        &written.source_match,
        &written.source_match_re,
        &format!("{key}.source_match_re"),
    )?);
    let target = written.target_matchers.join(old_matchers(
        &written.target_match,
        &written.target_match_re,
        &format!("{key}.target_match_re"),
    )?);
    Ok(InhibitRule { source, target, equal: written.equal.clone() })
}

/// `match` and `match_re` as matchers.
pub(crate) fn old_matchers(
    equals: &BTreeMap<String, String>,
    patterns: &BTreeMap<String, String>,
    key: &str,
) -> Result<Vec<Matcher>, Fault> {
    let mut all: Vec<Matcher> = equals.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    for (name, pattern) in patterns {
        let matcher = Matcher::new(name, MatchOp::Regex, pattern).map_err(|error| Fault::new(key, error))?;
        all.push(matcher);
    }
    Ok(all)
}

/// Combines `matchers` with `match` and `match_re`.
pub(crate) fn all_matchers(
    matchers: &Matchers,
    equals: &BTreeMap<String, String>,
    patterns: &BTreeMap<String, String>,
    key: &str,
) -> Result<Matchers, Fault> {
    Ok(matchers.join(old_matchers(equals, patterns, &format!("{key}.match_re"))?))
}

/// The files that a pattern such as `templates/*.tmpl` names, sorted. Only the last part may hold `*`
/// and `?`; a pattern that matches nothing yet is no fault.
fn matching_files(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let full = folder.join(pattern);
    let name = full.file_name().and_then(|name| name.to_str()).ok_or("not a file name")?.to_owned();
    let parent = full.parent().map(Path::to_owned).unwrap_or_default();
    if parent.to_string_lossy().contains(['*', '?']) {
        return Err("only the last part of a pattern may hold * or ?".to_owned());
    }
    if !name.contains(['*', '?']) {
        return Ok(if full.exists() { vec![full] } else { Vec::new() });
    }
    let wild = format!("^{}$", regex::escape(&name).replace(r"\*", ".*").replace(r"\?", "."));
    let wild = regex::Regex::new(&wild).map_err(|error| error.to_string())?;
    let parent = if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent };
    let Ok(entries) = std::fs::read_dir(&parent) else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| wild.is_match(name))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Reads a list of texts, or one text as a list of one.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list))
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

/// Reads a key with nothing behind it (`routes:`) as if it were not written, as Go does.
pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// [`one_or_many`] for a key that may be absent.
pub(crate) fn one_or_many_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    one_or_many(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
