//! Under which names requests that change something may address this program.
//!
//! A page of another site can make its own name point to 127.0.0.1 (DNS rebinding): a browser then takes
//! this program for a part of that site, and no `Origin` tells otherwise. The name in `Host` does.

use super::ApiError;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The names of this program.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// `None` where any name will do: a listener that others reach has names nobody here knows.
    hosts: Option<Arc<[String]>>,
}

impl Site {
    /// The names of a listener: what its flags say, if it is a loopback one.
    pub(crate) fn new(loopback: bool, listen_address: &str, external_url: &str) -> Self {
        let external = reqwest::Url::parse(external_url).ok();
        let external = external.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        let hosts = || [listen_address, external].map(|host| bare(host).to_ascii_lowercase()).into();
        Site { hosts: loopback.then(hosts) }
    }

    /// Whether a `Host` is one of its names.
    fn knows(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let host = bare(host).to_ascii_lowercase();
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || hosts.iter().any(|known| !known.is_empty() && *known == host)
    }
}

/// A host without its port and brackets.
fn bare(host: &str) -> &str {
    if let Some((inner, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inner;
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// Refuses requests that change something under a name that is not this program's.
pub(crate) async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let host = match request.headers().get(header::HOST) {
        // What is no text is no name of ours.
        Some(host) => Some(host.to_str().unwrap_or("?")),
        None => request.uri().authority().map(|authority| authority.as_str()),
    };
    // Every browser names a host.
    match host.filter(|host| !site.knows(host)) {
        None => next.run(request).await,
        Some(host) => {
            let message = format!(
                "{host:?} is not a name of this program, which listens on a loopback address: use 127.0.0.1 or localhost, or start it with --web.external-url=http://{host}"
            );
            ApiError { status: StatusCode::FORBIDDEN, message }.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_listener_knows_its_names_and_no_others() {
        let site = Site::new(true, "am.internal:9493", "https://Alerts.Example:8443/am");
        let known =
            "127.0.0.1:9493 127.8.8.8 [::1]:9493 ::1 localhost:9493 LOCALHOST alerts.example am.internal:1";
        for host in known.split(' ') {
            assert!(site.knows(host), "{host}");
        }
        for host in ["evil.example:9493", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""]
        {
            assert!(!site.knows(host), "{host}");
        }
        assert!(!Site::new(true, ":9493", "").knows(""));
        assert!(Site::new(false, "0.0.0.0:9493", "").knows("am.cluster:9493"));
    }
}
