//! Requests to services: clients made from `http_config`, and one way to judge an answer.

use super::NotifyError;
use crate::config::{HttpConfigFile, SecretSource, TlsConfigFile};
use crate::limits::ANSWER_BYTES_MAX;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, StatusCode};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Longest wait that a service's `Retry-After` can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Sends requests as one `http_config` says.
#[derive(Clone, Debug)]
pub(crate) struct HttpSender {
    client: Client,
    auth: Auth,
    headers: HeaderMap,
}

#[derive(Clone, Debug)]
enum Auth {
    None,
    Basic { username: String, password: Option<SecretSource> },
    Scheme { scheme: String, credentials: SecretSource },
}

/// What a service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: String,
}

impl HttpSender {
    /// Posts JSON; every status but 2xx is an error, worth another attempt if it is 429 or 5xx.
    pub(crate) async fn post_json(
        &self,
        url: &str,
        body: &serde_json::Value,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, NotifyError> {
        let mut request = self.client.post(url).json(body).headers(self.headers.clone());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // A header given for this request (a token) goes before what the configuration says for all.
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            request = match &self.auth {
                Auth::None => request,
                Auth::Basic { username, password } => {
                    let password = match password {
                        Some(source) => Some(source.read().await?),
                        None => None,
                    };
                    request.basic_auth(username, password)
                }
                Auth::Scheme { scheme, credentials } => {
                    request.header("Authorization", format!("{scheme} {}", credentials.read().await?))
                }
            };
        }
        // The URL may be a secret, so it is not repeated in messages.
        let response =
            request.send().await.map_err(|error| NotifyError::again(chain(&error.without_url())))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let body = read_bounded(response).await?;
        if status.is_success() {
            return Ok(Answer { body });
        }
        let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let message = format!("unexpected status code {status}: {}", super::truncate(body.trim(), 300));
        Err(NotifyError { message, retry: again, retry_after })
    }
}

/// An error with everything that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

async fn read_bounded(mut response: reqwest::Response) -> Result<String, NotifyError> {
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| NotifyError::again(chain(&error.without_url())))?
    {
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Clients made so far: integrations with the same settings share one, with its connections.
#[derive(Debug, Default)]
pub(crate) struct HttpClients {
    by_settings: HashMap<String, Client>,
}

impl HttpClients {
    /// A sender for one `http_config`.
    pub(crate) fn sender(&mut self, written: &HttpConfigFile, folder: &Path) -> Result<HttpSender, String> {
        if written.oauth2.is_some() {
            return Err("oauth2 is not in this version; use authorization or basic_auth".to_owned());
        }
        if written.proxy_connect_header.is_some() {
            return Err("proxy_connect_header is not in this version".to_owned());
        }
        Ok(HttpSender {
            client: self.client(written, folder)?,
            auth: auth(written, folder)?,
            headers: headers(written, folder)?,
        })
    }

    fn client(&mut self, written: &HttpConfigFile, folder: &Path) -> Result<Client, String> {
        // Secrets print alike, and none of them is part of a client.
        let key = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            written.tls_config,
            written.proxy_url.as_ref().map(|url| url.reveal()),
            written.no_proxy,
            written.proxy_from_environment,
            written.follow_redirects,
            written.enable_http2
        );
        if let Some(client) = self.by_settings.get(&key) {
            return Ok(client.clone());
        }
        let build = || builder(written, folder);
        let client = match build()?.build() {
            Ok(client) => client,
            Err(error) => {
                // Machines without any certificate authority can still send in clear.
                tracing::warn!(error = %chain(&error), "No certificate authorities: receivers with https:// will fail");
                build()?.tls_certs_only([]).build().map_err(|error| chain(&error))?
            }
        };
        self.by_settings.insert(key, client.clone());
        Ok(client)
    }
}

fn builder(written: &HttpConfigFile, folder: &Path) -> Result<ClientBuilder, String> {
    crate::install_tls_provider();
    let mut builder = Client::builder()
        .user_agent(concat!("Pharos-Alertmanager/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(300));
    if written.follow_redirects == Some(false) {
        builder = builder.redirect(reqwest::redirect::Policy::none());
    }
    if written.enable_http2 == Some(false) {
        builder = builder.http1_only();
    }
    if let Some(url) = &written.proxy_url {
        let no_proxy = written.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let proxy = reqwest::Proxy::all(url.reveal()).map_err(|error| chain(&error.without_url()))?;
        builder = builder.proxy(proxy.no_proxy(no_proxy));
    } else if written.proxy_from_environment != Some(true) {
        builder = builder.no_proxy();
    }
    match &written.tls_config {
        Some(tls) => tls_settings(builder, tls, folder),
        None => Ok(builder),
    }
}

fn tls_settings(
    mut builder: ClientBuilder,
    tls: &TlsConfigFile,
    folder: &Path,
) -> Result<ClientBuilder, String> {
    if tls.server_name.is_some() {
        return Err("tls_config.server_name is not in this version".to_owned());
    }
    if let Some(pem) = inline_or_file(tls.ca.as_deref(), tls.ca_file.as_deref(), folder)? {
        let certificates =
            reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| chain(&error))?;
        builder = builder.tls_certs_only(certificates);
    }
    let certificate = inline_or_file(tls.cert.as_deref(), tls.cert_file.as_deref(), folder)?;
    let key = inline_or_file(tls.key.as_ref().map(|key| key.reveal()), tls.key_file.as_deref(), folder)?;
    match (certificate, key) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let pem = format!("{certificate}\n{key}");
            let identity = reqwest::Identity::from_pem(pem.as_bytes()).map_err(|error| chain(&error))?;
            builder = builder.identity(identity);
        }
        _ => return Err("a client certificate needs both cert and key".to_owned()),
    }
    for (text, minimum) in [(&tls.min_version, true), (&tls.max_version, false)] {
        let Some(text) = text else { continue };
        let version = match text.as_str() {
            "TLS12" => reqwest::tls::Version::TLS_1_2,
            "TLS13" => reqwest::tls::Version::TLS_1_3,
            other => return Err(format!("unknown TLS version {other:?}: write TLS12 or TLS13")),
        };
        builder = if minimum { builder.tls_version_min(version) } else { builder.tls_version_max(version) };
    }
    Ok(builder.tls_danger_accept_invalid_certs(tls.insecure_skip_verify))
}

fn inline_or_file(inline: Option<&str>, file: Option<&str>, folder: &Path) -> Result<Option<String>, String> {
    match (inline, file) {
        (Some(_), Some(_)) => Err("a value and its file cannot both be written".to_owned()),
        (Some(text), None) => Ok(Some(text.to_owned())),
        (None, Some(file)) => {
            let path = folder.join(file);
            std::fs::read_to_string(&path).map(Some).map_err(|error| format!("{}: {error}", path.display()))
        }
        (None, None) => Ok(None),
    }
}

fn auth(written: &HttpConfigFile, folder: &Path) -> Result<Auth, String> {
    let source = |inline: &Option<crate::config::Secret>, file: &Option<String>| match (inline, file) {
        (Some(_), Some(_)) => Err("a secret and its file cannot both be written".to_owned()),
        (Some(secret), None) => Ok(Some(SecretSource::Inline(secret.clone()))),
        (None, Some(file)) => Ok(Some(SecretSource::File(folder.join(file)))),
        (None, None) => Ok(None),
    };
    let mut found = Vec::new();
    if let Some(basic) = &written.basic_auth {
        let username = match &basic.username_file {
            Some(file) => inline_or_file(None, Some(file), folder)?.unwrap_or_default().trim().to_owned(),
            None => basic.username.clone(),
        };
        found.push(Auth::Basic { username, password: source(&basic.password, &basic.password_file)? });
    }
    if let Some(authorization) = &written.authorization {
        let scheme = authorization.scheme.clone().unwrap_or_else(|| "Bearer".to_owned());
        let credentials = source(&authorization.credentials, &authorization.credentials_file)?
            .ok_or("authorization needs credentials")?;
        found.push(Auth::Scheme { scheme, credentials });
    }
    if let Some(credentials) = source(&written.bearer_token, &written.bearer_token_file)? {
        found.push(Auth::Scheme { scheme: "Bearer".to_owned(), credentials });
    }
    if found.len() > 1 {
        return Err("at most one of basic_auth, authorization and bearer_token may be written".to_owned());
    }
    Ok(found.pop().unwrap_or(Auth::None))
}

fn headers(written: &HttpConfigFile, folder: &Path) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, header) in &written.http_headers {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("{name}: {error}"))?;
        let mut values: Vec<String> = header.values.clone();
        values.extend(header.secrets.iter().map(|secret| secret.reveal().to_owned()));
        for file in &header.files {
            values.extend(inline_or_file(None, Some(file), folder)?.map(|text| text.trim().to_owned()));
        }
        for value in values {
            let value = HeaderValue::from_str(&value).map_err(|error| format!("{name}: {error}"))?;
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}
