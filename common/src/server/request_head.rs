//! The head of an HTTP/1 request as bytes: where it ends, what is wrong with it, what body follows, and its
//! target with what may not stand there percent-encoded.
//!
//! `curl 'http://.../api/v1/query?query=up{job="node"}'` sends its quotes and braces as they are. Go's servers
//! take them, so scripts written for Prometheus rely on it.

use http::StatusCode;

/// Longest target of a request, encoded, bytes: more cannot be represented.
const TARGET_BYTES_MAX: usize = (u16::MAX - 1) as usize;

/// Longest head, bytes. Go's servers take a megabyte, but nobody sends it.
pub(super) const HEAD_BYTES_MAX: usize = 128 << 10;

/// Header lines of a request.
const HEADERS_MAX: usize = 100;

/// Why a head is not answered by what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    Malformed(&'static str),
    TargetTooLong,
    HeadersTooLarge,
    TimedOut,
}

impl HeadFault {
    pub(super) fn status(self) -> StatusCode {
        match self {
            HeadFault::Malformed(_) => StatusCode::BAD_REQUEST,
            HeadFault::TargetTooLong => StatusCode::URI_TOO_LONG,
            HeadFault::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadFault::TimedOut => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            HeadFault::Malformed(what) => format!("malformed request: {what}\n"),
            HeadFault::TargetTooLong => {
                format!("the request's target is longer than {TARGET_BYTES_MAX} bytes; send a form by POST\n")
            }
            HeadFault::HeadersTooLarge => format!(
                "the request's head is larger than {HEAD_BYTES_MAX} bytes or has more than {HEADERS_MAX} headers\n"
            ),
            HeadFault::TimedOut => "the request's head took too long\n".to_owned(),
        }
    }
}

/// What comes behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes, often none.
    Length(u64),
    Chunked,
    /// Something else: what follows is not looked at any more.
    Unknown,
}

/// One past the end of a head that starts at the front of `bytes`, if all of it is there. `seen` bytes were
/// searched before.
pub(super) fn find_end(bytes: &[u8], seen: usize) -> Option<usize> {
    let mut from = seen.saturating_sub(3);
    while let Some(at) = bytes.get(from..)?.iter().position(|&byte| byte == b'\n') {
        let line_break = from + at;
        match bytes.get(line_break + 1..)? {
            [b'\n', ..] => return Some(line_break + 2),
            [b'\r', b'\n', ..] => return Some(line_break + 3),
            _ => from = line_break + 1,
        }
    }
    None
}

/// What is wrong with a head that is not complete yet, if no more can mend it.
pub(super) fn fault_of_part(bytes: &[u8]) -> Option<HeadFault> {
    let has_line = bytes.iter().take(TARGET_BYTES_MAX + 64).any(|&byte| byte == b'\n');
    match bytes.len() {
        0..=TARGET_BYTES_MAX => None,
        _ if !has_line && bytes.len() > TARGET_BYTES_MAX + 64 => Some(HeadFault::TargetTooLong),
        length if length > HEAD_BYTES_MAX => Some(HeadFault::HeadersTooLarge),
        _ => None,
    }
}

/// Checks a complete head, encodes what its target may not hold, and says what follows it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn mend(head: &mut Vec<u8>) -> Result<Body, HeadFault> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(HeadFault::HeadersTooLarge);
    }
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let mut parts = first.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadFault::Malformed("the first line is not METHOD TARGET VERSION"));
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(HeadFault::Malformed("the method is none"));
    }
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err(HeadFault::Malformed("the version of HTTP is not known"));
    }
    if target.is_empty() || target.iter().any(|&byte| byte < b' ' || byte == 0x7f) {
        return Err(HeadFault::Malformed("the target is none"));
    }
    let body = if method == b"CONNECT" { Body::Unknown } else { body_of(lines)? };
    let illegal = target.iter().filter(|&&byte| is_illegal(byte)).count();
    if target.len() + 2 * illegal > TARGET_BYTES_MAX {
        return Err(HeadFault::TargetTooLong);
    }
    if illegal > 0 {
        let start = method.len() + 1;
        let encoded = encode(target);
        let range = start..start + target.len();
        head.splice(range, encoded);
    }
    Ok(body)
}

/// What the header lines say about the body.
fn body_of<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Result<Body, HeadFault> {
    let (mut length, mut coding, mut headers) = (None, None, 0);
    let mut changes_protocol = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        headers += 1;
        if headers > HEADERS_MAX {
            return Err(HeadFault::HeadersTooLarge);
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Err(HeadFault::Malformed("a header line has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(HeadFault::Malformed("a header's name is none"));
        }
        if value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return Err(HeadFault::Malformed("a header's value has control characters"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
            let Some(number) = number.and_then(|text| text.parse::<u64>().ok()) else {
                return Err(HeadFault::Malformed("content-length is no number"));
            };
            if length.replace(number).is_some_and(|before| before != number) {
                return Err(HeadFault::Malformed("content-length is given twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked") && coding.is_none();
            coding = Some(if is_chunked { Body::Chunked } else { Body::Unknown });
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            changes_protocol = true;
        }
    }
    match (coding, length) {
        // Two readers of it could disagree about where the next request begins.
        (Some(_), Some(_)) => Err(HeadFault::Malformed("both content-length and transfer-encoding")),
        _ if changes_protocol => Ok(Body::Unknown),
        (Some(coding), None) => Ok(coding),
        (None, length) => Ok(Body::Length(length.unwrap_or(0))),
    }
}

fn encode(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len() * 2);
    for &byte in target {
        if is_illegal(byte) {
            encoded.push(b'%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| b"0123456789ABCDEF"[usize::from(digit)]));
        } else {
            encoded.push(byte);
        }
    }
    encoded
}

/// Bytes that a URI may not hold, and that are no white space or control characters either.
fn is_illegal(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

/// Bytes of methods and of names of headers.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_encoded_and_nothing_else() {
        #[track_caller]
        fn check(head: &str, want: &str) {
            let mut bytes = head.as_bytes().to_vec();
            assert!(mend(&mut bytes).is_ok());
            assert_eq!(String::from_utf8_lossy(&bytes), want);
        }
        check(
            "GET /q?query=up{job=\"node\"} HTTP/1.1\r\nx: {}\r\n\r\n",
            "GET /q?query=up%7Bjob=%22node%22%7D HTTP/1.1\r\nx: {}\r\n\r\n",
        );
        check("GET /ä HTTP/1.1\r\n\r\n", "GET /%C3%A4 HTTP/1.1\r\n\r\n");
        check("GET /a%7B HTTP/1.0\n\n", "GET /a%7B HTTP/1.0\n\n");
    }

    #[test]
    fn bodies_are_measured() {
        #[track_caller]
        fn check(headers: &str, want: Result<Body, HeadFault>) {
            let mut bytes = format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n").into_bytes();
            assert_eq!(mend(&mut bytes), want, "{headers}");
        }
        check("", Ok(Body::Length(0)));
        check("Content-Length: 17\r\n", Ok(Body::Length(17)));
        check("content-length: 17\r\ncontent-length: 17\r\n", Ok(Body::Length(17)));
        check("Transfer-Encoding: Chunked\r\n", Ok(Body::Chunked));
        check("Transfer-Encoding: gzip, chunked\r\n", Ok(Body::Unknown));
        check("Upgrade: h2c\r\n", Ok(Body::Unknown));
        let malformed = |what| Err(HeadFault::Malformed(what));
        check("content-length: 1\r\ncontent-length: 2\r\n", malformed("content-length is given twice"));
        check("content-length: +1\r\n", malformed("content-length is no number"));
        check(
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            malformed("both content-length and transfer-encoding"),
        );
        check("no colon\r\n", malformed("a header line has no colon"));
        check("a b: c\r\n", malformed("a header's name is none"));
        check(" folded: c\r\n", malformed("a header's name is none"));
        check("a: \0\r\n", malformed("a header's value has control characters"));
        check(&"a: b\r\n".repeat(101), Err(HeadFault::HeadersTooLarge));
    }

    #[test]
    fn first_lines_are_checked() {
        #[track_caller]
        fn check(line: &str, want: StatusCode) {
            let mut bytes = format!("{line}\r\n\r\n").into_bytes();
            assert_eq!(mend(&mut bytes).map_err(HeadFault::status), Err(want), "{line}");
        }
        check("", StatusCode::BAD_REQUEST);
        check("GET", StatusCode::BAD_REQUEST);
        check("GET /a{ b} HTTP/1.1", StatusCode::BAD_REQUEST);
        check("G{T / HTTP/1.1", StatusCode::BAD_REQUEST);
        check("GET /\u{1} HTTP/1.1", StatusCode::BAD_REQUEST);
        check("GET / HTTP/3.0", StatusCode::BAD_REQUEST);
        check(&format!("GET /{} HTTP/1.1", "{".repeat(30_000)), StatusCode::URI_TOO_LONG);
        check(
            &format!("GET / HTTP/1.1\r\na: {}", "b".repeat(HEAD_BYTES_MAX)),
            HeadFault::HeadersTooLarge.status(),
        );
    }

    #[test]
    fn ends_are_found_wherever_the_search_was_broken_off() {
        for head in ["GET / HTTP/1.1\r\na: b\r\n\r\n", "GET / HTTP/1.1\na: b\n\n"] {
            let more = format!("{head}body\n\n");
            for seen in 0..head.len() {
                assert_eq!(find_end(&more.as_bytes()[..seen], 0), None);
                assert_eq!(find_end(more.as_bytes(), seen), Some(head.len()));
            }
        }
    }

    #[test]
    fn what_never_ends_is_refused() {
        assert_eq!(fault_of_part(&vec![b'a'; 60_000]), None);
        assert_eq!(fault_of_part(&vec![b'a'; 70_000]), Some(HeadFault::TargetTooLong));
        let mut lines = b"GET / HTTP/1.1\r\na: ".to_vec();
        lines.resize(100_000, b'b');
        assert_eq!(fault_of_part(&lines), None);
        lines.resize(HEAD_BYTES_MAX + 1, b'b');
        assert_eq!(fault_of_part(&lines), Some(HeadFault::HeadersTooLarge));
    }
}
