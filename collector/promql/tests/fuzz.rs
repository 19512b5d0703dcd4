//! Throws changed queries at parser, printer and engine: the same ones in every run, more of them for as many
//! seconds as `PHAROS_FUZZ_SECONDS` says. A failure prints the query; `fuzz/` feeds the same by coverage.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use std::time::{Duration, Instant};

/// Queries in any case.
const QUERIES_MIN: u64 = 3_000;

const SEEDS: &[&str] = &[
    "sum by (job, \"a.b\") (rate(http_requests_total{job=~\"a|b\", x!=\"\"}[5m] offset -1h)) > bool 0.5e-3",
    "label_replace({\"utf-8 name\", a='b'}, `x`, \"$1\", \"y\", \"(.*)\") # remark\n or on () vector(-0x1F)",
    "histogram_quantile(0.9, sum(rate(h_bucket[1m:step()*2] @ end())) without (le))",
    "a + on (x) group_left (y) fill_left (1) fill_right (-2) b ^ -2 ^ 3 % c atan2 d",
    "topk(3, rate(m[min_of(1m, 30s) + 2^6] anchored)) unless ignoring (z) n smoothed @ -1.5",
    "quantile_over_time(NaN, max_over_time((-up)[1h30m:5m])[2d:1h] offset (5m - 1s))",
    "count_values(\"v\", limit_ratio(-0.5, info(m, {data=~\".+\"}))) == 1 and vector(time()) >= bool pi()",
    "sort_by_label_desc(absent(nonexistent{a=\"\\x41\\u00e4\\n\"}), \"l\") or predict_linear(m[1h], 3600) + Inf",
];

const WORDS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "5m",
    "[5m:]",
    " offset ",
    " @ ",
    "start()",
    "99999999999999999999",
    "-",
    "^",
    " and ",
    " bool ",
    "\"",
    "'",
    "`",
    "\\",
    "#",
    "\n",
    ",",
    "=~\"(((a{9}){9}){9})\"",
    "1e308",
    " by (",
    "fill(",
    "0x",
    "_",
    "ä",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) as usize % limit.max(1)
    }
}

/// A query made from others: parts cut out, doubled, replaced, words and bytes put in.
fn changed(random: &mut Random) -> Vec<u8> {
    let mut bytes = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..1 + random.below(5) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(20)).min(bytes.len());
        let part: Vec<u8> = match random.below(6) {
            0 => Vec::new(),
            1 => bytes[at..end].repeat(2),
            2 => bytes[at..end].repeat(1 + random.below(50)),
            3 => vec![random.below(256) as u8],
            4 => WORDS[random.below(WORDS.len())].as_bytes().to_vec(),
            _ => {
                let other = SEEDS[random.below(SEEDS.len())].as_bytes();
                let from = random.below(other.len());
                other[from..(from + random.below(40)).min(other.len())].to_vec()
            }
        };
        bytes.splice(at..end, part);
    }
    bytes
}

#[test]
fn changed_queries_are_read_printed_and_evaluated_or_refused() {
    let seconds = std::env::var("PHAROS_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut number = 0;
    while number < QUERIES_MIN || until.is_some_and(|until| Instant::now() < until) {
        number += 1;
        let query = changed(&mut random);
        let outcome = std::panic::catch_unwind(|| pharos_promql::fuzz::query(&query));
        let text = String::from_utf8_lossy(&query);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(difference)) => panic!("query {number}: {difference}"),
            Err(_) => panic!("query {number} panics: {text:?}"),
        }
    }
}

#[test]
fn the_queries_to_begin_from_are_queries() {
    for seed in SEEDS {
        pharos_promql::parse(seed).unwrap_or_else(|error| panic!("{seed}: {error}"));
    }
}
