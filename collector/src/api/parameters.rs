//! Parameters of a request: of the URL, and of a form in the body.

use super::answer::ApiError;
use super::encoding::Encoding;
use crate::limits::FORM_BYTES_MAX;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// What a request asks for. Those of the body come before those of the URL, as in Go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pairs: Vec<(String, String)>,
    /// How the answer is compressed.
    pub(crate) encoding: Encoding,
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
        let mut pairs = Vec::new();
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
                Err(error) => return Err(ApiError::bad_data(format!("error parsing form values: {error}"))),
            };
            decode(&body, &mut pairs);
        }
        decode(parts.uri.query().unwrap_or("").as_bytes(), &mut pairs);
        Ok(Parameters { pairs, encoding: Encoding::accepted(&parts.headers) })
    }
}

/// `a=1&b=x+y%21`
fn decode(text: &[u8], pairs: &mut Vec<(String, String)>) {
    for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let split = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let value = pair.get(split + 1..).unwrap_or_default();
        pairs.push((unescape(&pair[..split]), unescape(value)));
    }
}

fn unescape(text: &[u8]) -> String {
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
                _ => out.push(b'%'),
            },
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let mut pairs = Vec::new();
        decode(b"query=up%7Ba%3D%22+x%22%7D&match[]=a&match%5B%5D=b&flag&bad=%zz", &mut pairs);
        let parameters = Parameters { pairs, ..Parameters::default() };
        assert_eq!(parameters.get("query"), Some("up{a=\" x\"}"));
        assert_eq!(parameters.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parameters.get("flag"), None);
        assert_eq!(parameters.get("bad"), Some("%zz"));
    }
}
