//! Bytes as clients really send them, good and bad, over a plain connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::ManualClock;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use support::{PATIENCE, TestCollector, options};

struct Connection(BufReader<TcpStream>);

/// Status, head in lower case, and body.
type Response = (u16, String, String);

impl Connection {
    fn open(collector: &TestCollector) -> Self {
        let stream = TcpStream::connect(collector.url.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may have answered and gone before all of it was sent.
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    fn response(&mut self) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "the connection ended: {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        (status, head, String::from_utf8(body).unwrap())
    }

    fn ask(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        self.response()
    }
}

async fn with_collector(test: impl FnOnce(&TestCollector) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let collector =
        TestCollector::start_with(options(folder.path()), ManualClock::new(1_700_000_000_000)).await;
    let collector = tokio::task::spawn_blocking(move || {
        test(&collector);
        collector
    });
    collector.await.unwrap().stop().await;
}

#[tokio::test]
async fn every_request_of_a_connection_may_hold_raw_quotes_and_braces() {
    with_collector(|collector| {
        let mut connection = Connection::open(collector);
        for _ in 0..3 {
            let (status, _, body) = connection.ask("/api/v1/query?query=vector(1)or+up{job=\"node\",a!=\"ä|b\"}");
            assert_eq!(status, 200, "{body}");
            let form = "query=up{a=\"GET / HTTP/1.1\"}";
            connection.send(format!(
                "POST /api/v1/query HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                 content-length: {}\r\n\r\n{form}",
                form.len()
            ));
            assert_eq!(connection.response().0, 200);
        }
        // The same in one piece.
        connection.send("GET /api/v1/labels?match[]={a=\"b\"} HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3));
        for _ in 0..3 {
            assert_eq!(connection.response().0, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_the_connection_ends() {
    with_collector(|collector| {
        let long_line = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(70_000));
        let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        let long_header = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(200_000));
        for (bytes, status, text) in [
            ("nonsense\r\n\r\n", 400, "malformed request: the first line"),
            ("GET /metrics HTTP/9.9\r\n\r\n", 400, "malformed request: the version"),
            ("GET /a b HTTP/1.1\r\n\r\n", 400, "malformed request: the first line"),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed request: a header line"),
            ("POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400, "malformed request: content-length"),
            ("GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400, "malformed"),
            (&long_line, 414, "the request's target is longer"),
            (&many_headers, 431, "the request's head is larger"),
            (&long_header, 431, "the request's head is larger"),
        ] {
            let mut connection = Connection::open(collector);
            let start: String = bytes.chars().take(60).collect();
            connection.send(bytes);
            let (got, head, body) = connection.response();
            assert_eq!(got, status, "{start:?}: {body}");
            assert!(body.starts_with(text), "{start:?}: {body}");
            assert!(head.contains("connection: close"), "{start:?}: {head}");
            // Also behind a good request, after its answer.
            let mut connection = Connection::open(collector);
            connection.send(format!("GET /-/healthy HTTP/1.1\r\nhost: a\r\n\r\n{bytes}"));
            assert_eq!(connection.response().0, 200, "{start:?}");
            assert_eq!(connection.response().0, status, "{start:?}");
        }
        assert_eq!(Connection::open(collector).ask("/-/healthy").0, 200);
    })
    .await;
}

#[tokio::test]
async fn malformed_parameters_are_left_out_as_in_prometheus() {
    with_collector(|collector| {
        let mut connection = Connection::open(collector);
        let (status, _, body) = connection.ask("/api/v1/query?query=up%7");
        assert_eq!(status, 400);
        assert!(body.contains("no expression found in input"), "{body}");
        let (status, _, body) = connection.ask("/api/v1/query?query=1&time=1&other=%zz");
        assert_eq!(status, 200, "{body}");
        let (status, _, body) = connection.ask("/api/v1/series?match[]=up&start=%zz");
        assert_eq!(status, 400);
        assert!(body.contains("error parsing form values: invalid URL escape \\\"%zz\\\""), "{body}");
    })
    .await;
}

#[tokio::test]
async fn own_metrics_are_compressed_for_who_takes_it() {
    with_collector(|collector| {
        let mut connection = Connection::open(collector);
        let (_, head, plain) = connection.ask("/metrics");
        assert!(!head.contains("content-encoding"), "{head}");
        connection.send("GET /metrics HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            connection.0.read_line(&mut head).unwrap();
        }
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-encoding: gzip"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut packed = vec![0; length.parse().unwrap()];
        connection.0.read_exact(&mut packed).unwrap();
        assert!(packed.len() * 3 < plain.len());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert!(text.contains("pharos_build_info"));
    })
    .await;
}
