//! The configuration as it may be shown: secrets replaced, Pharos' own keys apart.
//!
//! `amtool` reads `config.original` strictly, so the two keys it does not know go elsewhere, and what it
//! parses as a URL stays one.

use super::secret::REDACTED;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt::{self, Write};
use std::path::Path;

pub(super) struct Shown {
    /// Alertmanager's keys.
    pub(super) alertmanager: String,
    /// `escalations:` and `remediations:`.
    pub(super) pharos: String,
}

const PHAROS_KEYS: [&str; 2] = ["escalations", "remediations"];

/// Keys whose text is secret wherever they stand.
const SECRET_KEYS: [&str; 30] = [
    "api_key",
    "api_secret",
    "app_token",
    "auth_password",
    "auth_secret",
    "bearer_token",
    "bot_token",
    "client_secret",
    "credentials",
    "key",
    "mattermost_webhook_url",
    "opsgenie_api_key",
    "password",
    "proxy_url",
    "rocketchat_token",
    "rocketchat_token_id",
    "routing_key",
    "secret_key",
    "service_key",
    "slack_api_url",
    "slack_app_token",
    "smtp_auth_password",
    "smtp_auth_secret",
    "telegram_bot_token",
    "token",
    "token_id",
    "user_key",
    "victorops_api_key",
    "webhook_url",
    "wechat_api_secret",
];

/// Prints the text of a configuration file without its secrets.
pub(super) fn show(text: &str) -> Result<Shown, String> {
    let tree: Tree = pharos_common::config::parse(Path::new(""), text).map_err(|error| error.message)?;
    let Tree::Map(entries) = tree else { return Err("the file is no mapping".to_owned()) };
    let (pharos, alertmanager): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| PHAROS_KEYS.contains(&key.as_str()));
    let print = |mut entries: Vec<(String, Tree)>| {
        for (key, value) in &mut entries {
            redact(key, value, "");
        }
        let mut out = String::new();
        print_map(&mut out, &entries, 0);
        out
    };
    Ok(Shown { alertmanager: print(alertmanager), pharos: print(pharos) })
}

#[derive(Debug)]
enum Tree {
    Null,
    /// A scalar as it is printed.
    Plain(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

fn redact(key: &str, value: &mut Tree, parent: &str) {
    match value {
        Tree::Text(text) if !text.is_empty() => {
            let secret = SECRET_KEYS.contains(&key)
                || (key == "api_url" && matches!(parent, "slack_configs" | "discord_configs"));
            if secret {
                *text = REDACTED.to_owned();
            } else if key == "url" && parent == "webhook_configs" {
                *text = redact_url(text);
            }
        }
        Tree::List(items) => {
            for item in items {
                // The entries of `slack_configs:` have that key as their parent.
                match item {
                    Tree::Map(entries) => {
                        for (inner, value) in entries {
                            redact(inner, value, key);
                        }
                    }
                    Tree::Text(text) if key == "secrets" => *text = REDACTED.to_owned(),
                    item => redact(key, item, parent),
                }
            }
        }
        Tree::Map(entries) => {
            for (inner, value) in entries {
                redact(inner, value, key);
            }
        }
        Tree::Null | Tree::Plain(_) | Tree::Text(_) => {}
    }
}

/// Keeps scheme, host and port: the path, query and user of a webhook let its holder in.
fn redact_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return REDACTED.to_owned() };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = if path.len() > 1 { "/<secret>" } else { path };
    format!("{scheme}://{host}{path}")
}

fn print_map(out: &mut String, entries: &[(String, Tree)], indent: usize) {
    for (key, value) in entries {
        let _ = write!(out, "{:indent$}{}:", "", scalar(key));
        print_value(out, value, indent);
    }
}

fn print_value(out: &mut String, value: &Tree, indent: usize) {
    match value {
        Tree::Null => out.push_str(" null\n"),
        Tree::Plain(text) => {
            let _ = writeln!(out, " {text}");
        }
        Tree::Text(text) => {
            let _ = writeln!(out, " {}", scalar(text));
        }
        Tree::List(items) if items.is_empty() => out.push_str(" []\n"),
        Tree::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Tree::List(items) => {
            out.push('\n');
            for item in items {
                let _ = write!(out, "{:indent$}-", "");
                match item {
                    Tree::Map(entries) if !entries.is_empty() => {
                        let mut inner = String::new();
                        print_map(&mut inner, entries, indent + 2);
                        // The first key stands behind the dash.
                        let _ = write!(out, " {}", inner.trim_start());
                    }
                    item => print_value(out, item, indent + 2),
                }
            }
        }
        Tree::Map(entries) => {
            out.push('\n');
            print_map(out, entries, indent + 2);
        }
    }
}

/// Plain where no reader of YAML could take it for anything else, otherwise in double quotes.
fn scalar(text: &str) -> String {
    const NOT_TEXT: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "null", "y"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str())
        && text != "n"
        && text != "N";
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Plain(value.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_pharos_keys_are_left_out() {
        let text = "global:\n  slack_api_url: https://hooks.slack.com/x\n  resolve_timeout: 5m\n\
                    route: {receiver: a, group_by: ['...'], routes: [{match: {a: 'yes'}}]}\n\
                    receivers:\n- name: a\n  webhook_configs:\n  - url: http://u:p@h:1/secret?x=1\n    send_resolved: true\n\
                    escalations:\n- name: e\n  tiers: []\n";
        let shown = show(text).unwrap();
        assert_eq!(
            shown.alertmanager,
            "global:\n  slack_api_url: \"<secret>\"\n  resolve_timeout: \"5m\"\n\
             route:\n  receiver: a\n  group_by:\n  - \"...\"\n  routes:\n  - match:\n      a: \"yes\"\n\
             receivers:\n- name: a\n  webhook_configs:\n  - url: \"http://h:1/<secret>\"\n    send_resolved: true\n"
        );
        assert_eq!(shown.pharos, "escalations:\n- name: e\n  tiers: []\n");
        let again: serde_json::Value =
            pharos_common::config::parse(Path::new("x"), &shown.alertmanager).unwrap();
        assert_eq!(again["route"]["routes"][0]["match"]["a"], "yes");
    }
}
