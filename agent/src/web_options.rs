//! Where and how the agent serves: `--web.*`, with node_exporter's meanings.
//!
//! Flags and the file of `--web.config.file` come in; a checked path and the server's certificate go out.

use crate::error::AgentError;
use clap::builder::{OsStringValueParser, TypedValueParser};
use pharos_common::config::{self, ConfigError};
use pharos_common::server::{TlsError, TlsFiles, load_tls};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Flags about serving.
#[derive(Clone, Debug, clap::Args)]
pub struct WebOptions {
    /// Address to serve /metrics on; repeat for more
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_values_t = ["127.0.0.1:9492".to_owned()])]
    pub listen_addresses: Vec<String>,
    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    pub telemetry_path: String,
    /// File that turns TLS on, as of Prometheus' exporters: cert_file, key_file and client_ca_file of tls_server_config
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = path_or_empty())]
    pub web_config: Option<PathBuf>,
}

/// A path that may be empty, which is how node_exporter's help writes that there is none.
pub(crate) fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What else is served, so that no metrics can be there.
const TAKEN: [&str; 3] = ["/samplers", "/-/", "/debug/"];

impl WebOptions {
    /// The path of the metrics, if nothing else is served there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn telemetry_path(&self) -> Result<String, AgentError> {
        let path = &self.telemetry_path;
        let fault = |message: &str| {
            Err(AgentError::Flag {
                flag: "--web.telemetry-path".into(),
                message: format!("{path:?} {message}"),
            })
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if !path.starts_with('/') || !path.chars().all(legal) || path.contains("//") {
            return fault("is no path; write it as /metrics");
        }
        if TAKEN.iter().any(|taken| path.starts_with(taken)) {
            return fault("is where the agent serves something else");
        }
        Ok(path.clone())
    }

    /// Where the server's certificate lies; `None` serves in clear.
    ///
    /// # Errors
    /// What is wrong with the file or with those that it names.
    pub(crate) fn tls(&self) -> Result<Option<TlsFiles>, AgentError> {
        let Some(path) = self.web_config.as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let text = config::read(path)?;
        // A file without a line turns nothing on.
        let file: WebConfig =
            if text.trim().is_empty() { WebConfig::default() } else { config::parse(path, &text)? };
        let Some(files) = file.files(path).map_err(|error| error.locate_in(&text))? else { return Ok(None) };
        load_tls(&files).map_err(tls_fault)?;
        Ok(Some(files))
    }
}

/// What is wrong with the files of a certificate.
pub(crate) fn tls_fault(error: TlsError) -> AgentError {
    AgentError::Flag { flag: "--web.config.file".into(), message: error.to_string() }
}

/// The file: what Prometheus' exporters read, as far as the agent can do it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WebConfig {
    tls_server_config: Option<TlsServerConfig>,
    http_server_config: Option<serde::de::IgnoredAny>,
    basic_auth_users: Option<serde::de::IgnoredAny>,
    rate_limit: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsServerConfig {
    cert_file: PathBuf,
    key_file: PathBuf,
    client_ca_file: Option<PathBuf>,
    client_auth_type: String,
    min_version: String,
}

impl WebConfig {
    fn files(&self, path: &Path) -> Result<Option<TlsFiles>, ConfigError> {
        let refuse = |key: &str, message: &str| Err(ConfigError::new(path, key, message));
        for (key, given) in [
            ("basic_auth_users", self.basic_auth_users.is_some()),
            ("http_server_config", self.http_server_config.is_some()),
            ("rate_limit", self.rate_limit.is_some()),
        ] {
            if given {
                return refuse(
                    key,
                    "the agent does not do this; put a proxy before it, or ask for client certificates",
                );
            }
        }
        let Some(tls) = &self.tls_server_config else { return Ok(None) };
        // Names of files are read from where the configuration lies.
        let resolve = |file: &Path| path.parent().map_or_else(|| file.to_owned(), |folder| folder.join(file));
        let named = |file: &Path| !file.as_os_str().is_empty();
        if !named(&tls.cert_file) || !named(&tls.key_file) {
            return refuse("tls_server_config", "cert_file and key_file are both needed");
        }
        if !matches!(tls.min_version.as_str(), "" | "TLS10" | "TLS11" | "TLS12") {
            return refuse("tls_server_config.min_version", "TLS 1.2 and 1.3 are both served");
        }
        let authorities = tls.client_ca_file.as_deref().filter(|file| named(file));
        match (tls.client_auth_type.as_str(), authorities) {
            ("" | "NoClientCert", None) | ("RequireAndVerifyClientCert", Some(_)) => {}
            ("RequireAndVerifyClientCert", None) => {
                return refuse("tls_server_config.client_auth_type", "this needs client_ca_file");
            }
            ("" | "NoClientCert", Some(_)) => {
                return refuse(
                    "tls_server_config.client_ca_file",
                    "this needs client_auth_type: RequireAndVerifyClientCert",
                );
            }
            _ => {
                let message = "write NoClientCert or RequireAndVerifyClientCert";
                return refuse("tls_server_config.client_auth_type", message);
            }
        }
        Ok(Some(TlsFiles {
            cert_file: resolve(&tls.cert_file),
            key_file: resolve(&tls.key_file),
            client_ca_file: authorities.map(resolve),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(path: &str, file: Option<PathBuf>) -> WebOptions {
        WebOptions { listen_addresses: Vec::new(), telemetry_path: path.to_owned(), web_config: file }
    }

    #[test]
    fn metrics_are_served_where_nothing_else_is() {
        for path in ["/metrics", "/", "/node/metrics"] {
            assert_eq!(web(path, None).telemetry_path().unwrap(), path);
        }
        for path in ["", "metrics", "/samplers", "/-/ready", "/{x}", "/a//b", "/*"] {
            let message = web(path, None).telemetry_path().unwrap_err().to_string();
            assert!(message.starts_with("--web.telemetry-path: "), "{message}");
        }
    }

    #[test]
    fn the_web_configuration_turns_tls_on_and_what_it_cannot_have_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        let tls = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let outcome = web("/metrics", Some(path.clone())).tls();
            outcome.map(|tls| tls.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(tls(""), Ok(false));
        assert_eq!(tls("{}\n"), Ok(false));
        std::fs::write(folder.path().join("c.pem"), include_str!("../tests/data/tls/localhost.pem")).unwrap();
        std::fs::write(folder.path().join("k.pem"), include_str!("../tests/data/tls/localhost.key")).unwrap();
        let pair = "tls_server_config:\n  cert_file: c.pem\n  key_file: k.pem\n";
        assert_eq!(tls(pair), Ok(true));
        let check = |text: &str, wanted: &str| {
            let message = tls(text).unwrap_err();
            assert!(message.contains(wanted), "{message} has no {wanted}");
        };
        check("basic_auth_users: {a: b}\n", "basic_auth_users");
        check("tls_server_config: {cert_file: c.pem}\n", "key_file");
        check(&format!("{pair}  client_auth_type: RequestClientCert\n"), "client_auth_type");
        check(&format!("{pair}  client_auth_type: RequireAndVerifyClientCert\n"), "client_ca_file");
        check(&format!("{pair}  cipher_suites: [x]\n"), "cipher_suites");
        check("tls_server_config: {cert_file: none.pem, key_file: k.pem}\n", "none.pem");
    }
}
