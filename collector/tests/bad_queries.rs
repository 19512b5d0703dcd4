//! Queries that are made to hurt: each ends in an answer or in Prometheus' error, in bounded memory, and the
//! collector answers right after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::ManualClock;
use serde_json::Value;
use support::{TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;
const DEPTH: usize = 100_000;

async fn collector(folder: &std::path::Path) -> TestCollector {
    let collector = TestCollector::start_with(options(folder), ManualClock::new(NOW_MS)).await;
    assert_eq!(collector.import("m{a=\"b\"} 1\n").await, 204);
    collector
}

/// Asks, and then whether everything still works.
async fn ask(collector: &TestCollector, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let (status, body) = collector.post(path, form).await;
    assert_eq!(collector.query_at("m + 1", "1700000000").await[0]["value"][1], "2");
    (status, body)
}

/// Most memory that this process has held, bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn start(query: &str) -> String {
    query.chars().take(40).collect()
}

#[tokio::test]
async fn queries_of_any_depth_are_answered_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let wrapped = |open: &str, inner: &str, close: &str, depth| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for query in [
        wrapped("(", "m", ")", DEPTH),
        wrapped("-", "m", "", DEPTH),
        wrapped("sum(", "m", ")", DEPTH),
        wrapped("abs(", "m", ")", DEPTH),
        wrapped("sum by (a) (-(", "m", "))", DEPTH / 3),
        wrapped("", "m", " + 1", DEPTH),
        wrapped("", "1", " ^ 1", DEPTH),
        wrapped("", "m", " or m", 5_000),
        wrapped("", "m", "[1m:30s]", 1),
        format!("m[{}5m]", "1 + ".repeat(DEPTH)),
    ] {
        let form = [("query", query.as_str()), ("time", "1700000000")];
        let (status, body) = ask(&collector, "/api/v1/query", &form).await;
        assert!(matches!(status, 200 | 400 | 422), "{}: {status} {body}", start(&query));
    }
    let nested = wrapped("max_over_time(", "m", "[1d:1s])", 30);
    let (status, body) =
        ask(&collector, "/api/v1/query", &[("query", &nested), ("time", "1700000000")]).await;
    assert!(matches!(status, 200 | 422), "{body}");
    collector.stop().await;
}

#[tokio::test]
async fn what_is_no_query_is_refused_however_long_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let before = peak_memory();
    let megabyte = 1 << 20;
    // Just below what a form may have, and shorter ones of every kind.
    for (part, bytes) in [
        ("(", 9 * megabyte),
        ("1%2B", 9 * megabyte),
        ("-", megabyte),
        ("a[", megabyte),
        ("{", megabyte),
        ("sum(", megabyte),
        ("m or ", megabyte),
        ("\"", megabyte),
        ("m[1%2B", megabyte),
        ("a{a=\"b\",", megabyte),
        ("[5m:]", megabyte),
        ("é", megabyte),
    ] {
        let body = format!("query=m{}", part.repeat(bytes / part.len()));
        let url = format!("{}/api/v1/query", collector.url);
        let request = collector.client.post(url).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        assert!(matches!(status, 400 | 422), "{part}: {status} {answer}");
        assert!(answer.to_string().len() < 1_000, "{part}: an error must not repeat the query");
        assert_eq!(collector.query_at("m", "1700000000").await[0]["value"][1], "1");
    }
    let grown = peak_memory() - before;
    assert!(grown < 1 << 30, "held {} MiB", grown >> 20);
    // A little more than a form may have: with much more, the answer may come while the client still writes, and
    // what it has of it then is its own affair.
    let query = "a".repeat(10 << 20);
    let (status, _) = ask(&collector, "/api/v1/query", &[("query", &query)]).await;
    assert_eq!(status, 413);
    collector.stop().await;
}

#[tokio::test]
async fn patterns_that_explode_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    for (pattern, want) in [
        ("((a{100}){100}){100}", 400),
        ("(a|b|ab)*c|(x+x+)+y", 200),
        ("(((((((((.*)*)*)*)*)*)*)*)*)*b", 200),
        (&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)), 400),
        (&"a|".repeat(200_000), 400),
        ("[", 400),
        ("(?=a)", 400),
    ] {
        for query in
            [format!("m{{a=~\"{pattern}\"}}"), format!("label_replace(m, \"x\", \"\", \"a\", \"{pattern}\")")]
        {
            let (status, body) = ask(&collector, "/api/v1/query", &[("query", &query)]).await;
            let refused = matches!(status, 400 | 422);
            assert!(
                if want == 200 { status == 200 } else { refused || pattern.len() > 100_000 },
                "{}: {status} {body}",
                start(&query)
            );
        }
        let (status, body) = ask(
            &collector,
            "/api/v1/series",
            &[("match[]", &format!("{{a=~\"{pattern}\",b=\"\",__name__=\"m\"}}"))],
        )
        .await;
        assert!(matches!(status, 200 | 400 | 422), "{}: {status} {body}", start(pattern));
    }
    collector.stop().await;
}

#[tokio::test]
async fn absurd_durations_times_and_steps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    for query in [
        "m[99999999999999999999y]",
        "m[1e300]",
        "m offset 9e99y",
        "m @ 1e300",
        "m @ NaN",
        "rate(m[1e17s])",
        "m[5m:0s]",
        "m[0s]",
        "sum_over_time(m[290y:1ms])",
        "vector(1)[100y:1s]",
    ] {
        let (status, body) =
            ask(&collector, "/api/v1/query", &[("query", query), ("time", "1700000000")]).await;
        assert!(matches!(status, 400 | 422), "{query}: {status} {body}");
    }
    for (start, end, step) in [
        ("0", "1e15", "0.001"),
        ("-9e15", "9e15", "1"),
        ("0", "1", "1e-9"),
        ("0", "1", "NaN"),
        ("0", "1", "99999999999999999999y"),
        ("1e300", "1e301", "1"),
        ("0", "11001", "1"),
    ] {
        let form = [("query", "m"), ("start", start), ("end", end), ("step", step)];
        let (status, body) = ask(&collector, "/api/v1/query_range", &form).await;
        assert_eq!((status, body["errorType"].as_str()), (400, Some("bad_data")), "{form:?}: {body}");
    }
    for (name, value) in [("timeout", "x"), ("lookback_delta", "-1"), ("limit", "9".repeat(30).as_str())] {
        let form = [("query", "m"), (name, value)];
        let (status, body) = ask(&collector, "/api/v1/query", &form).await;
        assert_eq!(status, 400, "{name}: {body}");
    }
    collector.stop().await;
}
