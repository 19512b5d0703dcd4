//! The one HTTP client that asks all servers: HTTP/1.1 over a connection that stays open, no compression,
//! so that what is timed is the server.

use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A query that takes longer has failed.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Http {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

/// Status and body.
pub(crate) type Answer = (u16, Vec<u8>);

impl Http {
    /// To the server at `address`; connects with the first request.
    pub(crate) fn new(address: &str) -> Http {
        Http { address: address.to_owned(), stream: None }
    }

    /// GET.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.request("GET", path, "")
    }

    /// POST of a form.
    pub(crate) fn post(&mut self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Answer> {
        self.request("POST", path, &encode(form))
    }

    /// Any request with an encoded form as body. A kept connection that the server has closed meanwhile is
    /// opened anew, once.
    pub(crate) fn request(&mut self, method: &str, path: &str, form: &str) -> anyhow::Result<Answer> {
        if self.stream.is_some()
            && let Ok(answer) = self.exchange(method, path, form)
        {
            return Ok(answer);
        }
        let stream = TcpStream::connect(&self.address).with_context(|| self.address.clone())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        self.stream = Some(BufReader::with_capacity(64 << 10, stream));
        self.exchange(method, path, form)
    }

    fn exchange(&mut self, method: &str, path: &str, form: &str) -> anyhow::Result<Answer> {
        let mut stream = self.stream.take().context("not connected")?;
        let (address, length) = (&self.address, form.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{form}"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.with_context(|| format!("not an answer of HTTP: {line:?}"))?;
        let (mut length, mut chunked, mut keep) = (0, false, true);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or_default();
            match name {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => chunked = value.contains("chunked"),
                "connection" => keep = !value.contains("close"),
                _ => {}
            }
        }
        let mut body = Vec::with_capacity(length);
        if chunked {
            read_chunks(&mut stream, &mut body)?;
        } else {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        if keep {
            self.stream = Some(stream);
        }
        Ok((status, body))
    }
}

fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
        let Ok(length) = length else { bail!("not a chunk's length: {line:?}") };
        let at = body.len();
        body.resize(at + length, 0);
        stream.read_exact(&mut body[at..])?;
        line.clear();
        stream.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// A form, percent-encoded.
pub(crate) fn encode(form: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in form {
        if !text.is_empty() {
            text.push('&');
        }
        let _ = write!(text, "{name}=");
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}
