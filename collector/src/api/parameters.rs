//! Parameters of a request: of the URL, and of a form in the body.

use super::answer::ApiError;
use super::encoding::Encoding;
use crate::limits::FORM_BYTES_MAX;
use crate::query_log::Origin;
use axum::extract::{ConnectInfo, FromRequest, OriginalUri, Request};
use axum::http::{Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pharos_common::server::BodyTooSlow;
use std::net::SocketAddr;

/// What a request asks for. Those of the body come before those of the URL, as in Go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pairs: Vec<(String, String)>,
    /// Why a pair was left out, as Go says it.
    malformed: Option<String>,
    /// How the answer is compressed.
    pub(crate) encoding: Encoding,
    /// Who asks.
    pub(crate) origin: Origin,
}

impl Parameters {
    /// The first value of a parameter; empty values count as missing.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(key, _)| key == name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// The first value of a parameter, or nothing.
    pub(crate) fn get_or_empty(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// Refuses a request of which a pair was left out: some endpoints insist on all of them.
    pub(crate) fn insist_on_all(&self) -> Result<(), ApiError> {
        match &self.malformed {
            None => Ok(()),
            Some(why) => Err(ApiError::bad_data(format!("error parsing form values: {why}"))),
        }
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `limit`: how many results; `None` for all.
    pub(crate) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(0) => Ok(None),
            Ok(limit) if limit > 0 => Ok(Some(usize::try_from(limit).unwrap_or(usize::MAX))),
            Ok(_) => Err(ApiError::parameter("limit", "limit must be non-negative")),
            Err(_) => Err(ApiError::parameter("limit", format!("{text:?} is no whole number"))),
        }
    }
}

impl<S: Sync> FromRequest<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut parameters =
            Parameters { encoding: Encoding::accepted(&parts.headers), ..Parameters::default() };
        let query = parts.uri.query().unwrap_or("").to_owned();
        let is_form = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        if parts.method == Method::POST && is_form {
            let body = match Limited::new(body, FORM_BYTES_MAX).collect().await {
                Ok(collected) => collected.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    let message = format!("the form is larger than {FORM_BYTES_MAX} bytes");
                    return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_data", message));
                }
                Err(error) if BodyTooSlow::caused(&*error) => return Err(ApiError::too_slow()),
                Err(error) => return Err(ApiError::bad_data(format!("error parsing form values: {error}"))),
            };
            parameters.decode(&body);
        }
        parameters.decode(query.as_bytes());
        let whole = parts.extensions.get::<OriginalUri>().map(|OriginalUri(uri)| uri.clone());
        parameters.origin = Origin::Request {
            client: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()),
            method: parts.method,
            uri: whole.unwrap_or(parts.uri),
            headers: parts.headers,
        };
        Ok(parameters)
    }
}

impl Parameters {
    /// `a=1&b=x+y%21`. As in Go a malformed pair is left out and the others hold.
    fn decode(&mut self, text: &[u8]) {
        for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            match decode_pair(pair) {
                Ok(pair) => self.pairs.push(pair),
                Err(why) => {
                    self.malformed.get_or_insert(why);
                }
            }
        }
    }
}

fn decode_pair(pair: &[u8]) -> Result<(String, String), String> {
    if pair.contains(&b';') {
        return Err("invalid semicolon separator in query".to_owned());
    }
    let split = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
    let value = pair.get(split + 1..).unwrap_or_default();
    Ok((unescape(&pair[..split])?, unescape(value)?))
}

fn unescape(text: &[u8]) -> Result<String, String> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| (byte as char).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut position = 0;
    while let Some(&byte) = text.get(position) {
        position += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match (digit(text.get(position)), digit(text.get(position + 1))) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    position += 2;
                }
                _ => {
                    let escape = &text[position - 1..text.len().min(position + 2)];
                    let escape = String::from_utf8_lossy(escape);
                    return Err(format!("invalid URL escape {}", serde_json::Value::from(escape)));
                }
            },
            byte => out.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Parameters {
        let mut parameters = Parameters::default();
        parameters.decode(text.as_bytes());
        parameters
    }

    #[test]
    fn forms_are_decoded() {
        let parameters = decoded("query=up%7Ba%3D%22+x%22%7D&match[]=a&match%5B%5D=b&flag");
        assert_eq!(parameters.get("query"), Some("up{a=\" x\"}"));
        assert_eq!(parameters.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parameters.get("flag"), None);
        assert!(parameters.insist_on_all().is_ok());
    }

    #[test]
    fn malformed_pairs_are_left_out_as_in_go() {
        #[track_caller]
        fn check(text: &str, want: &str) {
            let parameters = decoded(text);
            assert_eq!((parameters.get("query"), parameters.get("b")), (None, Some("1")), "{text}");
            let error = parameters.insist_on_all().unwrap_err();
            assert_eq!(error.message(), format!("error parsing form values: {want}"));
        }
        check("query=up%7&b=1", "invalid URL escape \"%7\"");
        check("query=%zzz&b=1", "invalid URL escape \"%zz\"");
        check("b=1&query=%", "invalid URL escape \"%\"");
        check("query=up;x=1&b=1", "invalid semicolon separator in query");
    }
}
