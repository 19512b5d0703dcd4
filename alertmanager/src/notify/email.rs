//! Email over SMTP.

use super::NotifyError;
use super::notice::{Notice, NoticeKind};
use crate::config::{EmailFile, Fault, ReceiverBuilder, SecretSource};
use crate::limits::ATTEMPT_TIME_MAX;
use crate::render::{Renderer, Text, aside};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailboxes, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The port on which TLS starts with the connection.
const IMPLICIT_TLS_PORT: u16 = 465;

/// How the connection is protected.
struct Protection {
    parameters: TlsParameters,
    /// From the first byte, not by STARTTLS.
    implicit: bool,
}

impl std::fmt::Debug for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protection").field("implicit", &self.implicit).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Email {
    renderer: Arc<Renderer>,
    host: String,
    port: u16,
    hello: String,
    tls: Option<Protection>,
    username: Option<String>,
    password: Option<SecretSource>,
    to: Text,
    from: Text,
    subject: Text,
    html: Text,
    text: Text,
    headers: BTreeMap<String, Text>,
}

impl Email {
    pub(crate) fn build(written: &EmailFile, builder: &mut ReceiverBuilder<'_>) -> Result<Self, Fault> {
        let global = builder.global;
        if written.threading.is_some() {
            return Err(builder.fault("threading", "threading is not in this version"));
        }
        let secrets = [&written.auth_secret, &global.smtp_auth_secret].into_iter().flatten().count();
        let files = [&written.auth_secret_file, &global.smtp_auth_secret_file].into_iter().flatten().count();
        if secrets + files > 0 {
            return Err(builder.fault("auth_secret", "CRAM-MD5 is not in this version; use auth_password"));
        }
        if written.to.is_empty() {
            return Err(builder.fault("to", "missing to address in email config"));
        }
        let pick = |own: &Option<String>, global: &Option<String>| own.clone().or(global.clone());
        let smarthost = pick(&written.smarthost, &global.smtp_smarthost)
            .ok_or_else(|| builder.fault("smarthost", "no global SMTP smarthost set"))?;
        let (host, port) = smarthost
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)))
            .ok_or_else(|| builder.fault("smarthost", format!("{smarthost:?} is no HOST:PORT")))?;
        let from = pick(&written.from, &global.smtp_from)
            .ok_or_else(|| builder.fault("from", "no global SMTP from set"))?;
        let require_tls = written.require_tls.or(global.smtp_require_tls).unwrap_or(true);
        let force = written.force_implicit_tls.or(global.smtp_force_implicit_tls);
        let implicit = force.unwrap_or(port == IMPLICIT_TLS_PORT);
        let password = builder.secret(
            "auth_password",
            (&written.auth_password, &written.auth_password_file),
            (&global.smtp_auth_password, &global.smtp_auth_password_file),
        )?;
        let tls_config = written.tls_config.as_ref().or(global.smtp_tls_config.as_ref());
        let tls = if require_tls || implicit {
            Some(Protection { parameters: tls_parameters(&host, tls_config, builder)?, implicit })
        } else {
            None
        };
        let subject_default = "{{ template \"email.default.subject\" . }}".to_owned();
        let mut headers = BTreeMap::new();
        let mut subject = builder.text("headers.Subject", None, &subject_default)?;
        for (name, text) in &written.headers {
            let key = format!("headers.{name}");
            let text = builder.text(&key, Some(text), "")?;
            match name.to_ascii_lowercase().as_str() {
                "subject" => subject = text,
                "from" | "to" => return Err(builder.fault(&key, "write `from` and `to` beside `headers`")),
                _ => drop(headers.insert(name.clone(), text)),
            }
        }
        Ok(Email {
            renderer: Arc::clone(builder.renderer),
            host,
            port,
            hello: pick(&written.hello, &global.smtp_hello).unwrap_or_else(|| "localhost".to_owned()),
            tls,
            username: pick(&written.auth_username, &global.smtp_auth_username)
                .filter(|name| !name.is_empty()),
            password,
            to: builder.text("to", Some(&written.to), "")?,
            from: builder.text("from", Some(&from), "")?,
            subject,
            html: builder.text("html", written.html.as_deref(), "{{ template \"email.default.html\" . }}")?,
            text: builder.text("text", written.text.as_deref(), "")?,
            headers,
        })
    }

    pub(crate) async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        if notice.kind == NoticeKind::Acknowledged {
            return Ok(());
        }
        let message = aside(|| self.message(notice))?;
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .hello_name(ClientId::Domain(self.hello.clone()))
            .timeout(Some(ATTEMPT_TIME_MAX))
            .tls(match &self.tls {
                None => Tls::None,
                Some(tls) if tls.implicit => Tls::Wrapper(tls.parameters.clone()),
                Some(tls) => Tls::Required(tls.parameters.clone()),
            });
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            transport = transport.credentials(Credentials::new(username.clone(), password.read().await?));
        }
        match transport.build().send(message).await {
            Ok(_) => Ok(()),
            // A permanent refusal (5xx) will be the same next time.
            Err(error) if error.is_permanent() => Err(NotifyError::last(error.to_string())),
            Err(error) => Err(NotifyError::again(error.to_string())),
        }
    }

    fn message(&self, notice: &Notice) -> Result<Message, NotifyError> {
        let data = self.renderer.data(notice);
        let to: Mailboxes = parsed("to", &self.renderer.render(&self.to, &data)?)?;
        let from: Mailboxes = parsed("from", &self.renderer.render(&self.from, &data)?)?;
        let mut message = Message::builder().subject(self.renderer.render(&self.subject, &data)?);
        for mailbox in from {
            message = message.from(mailbox);
        }
        for mailbox in to {
            message = message.to(mailbox);
        }
        for (name, text) in &self.headers {
            let header = HeaderName::new_from_ascii(name.clone())
                .map_err(|error| NotifyError::last(format!("header {name}: {error}")))?;
            message = message.raw_header(HeaderValue::new(header, self.renderer.render(text, &data)?));
        }
        let html = self.renderer.render_html(&self.html, &data)?;
        let text = self.renderer.render(&self.text, &data)?;
        let body = match (text.is_empty(), html.is_empty()) {
            (true, _) => MultiPart::alternative().singlepart(SinglePart::html(html)),
            (false, true) => MultiPart::alternative().singlepart(SinglePart::plain(text)),
            (false, false) => MultiPart::alternative_plain_html(text, html),
        };
        message.multipart(body).map_err(|error| NotifyError::last(error.to_string()))
    }
}

fn parsed(key: &str, text: &str) -> Result<Mailboxes, NotifyError> {
    text.parse().map_err(|error| NotifyError::last(format!("{key}: {error}")))
}

fn tls_parameters(
    host: &str,
    written: Option<&crate::config::TlsConfigFile>,
    builder: &ReceiverBuilder<'_>,
) -> Result<TlsParameters, Fault> {
    crate::install_tls_provider();
    let fault = |message: &dyn std::fmt::Display| builder.fault("tls_config", message);
    let server = written.and_then(|tls| tls.server_name.clone()).unwrap_or_else(|| host.to_owned());
    let mut parameters = TlsParameters::builder(server);
    if let Some(tls) = written {
        parameters = parameters.dangerous_accept_invalid_certs(tls.insecure_skip_verify);
        if let Some(file) = &tls.ca_file {
            let path = builder.path(file);
            let pem = std::fs::read(&path).map_err(|error| fault(&format!("{}: {error}", path.display())))?;
            parameters =
                parameters.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| fault(&error))?);
        }
        if tls.cert_file.is_some() || tls.cert.is_some() {
            return Err(fault(&"client certificates for SMTP are not in this version"));
        }
    }
    parameters.build().map_err(|error| fault(&error))
}
