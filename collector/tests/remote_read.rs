//! Remote read: whole messages and streamed chunks, decoded here by the formats' descriptions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::ManualClock;
use pharos_proto::prometheus as wire;
use prost::Message;
use support::{TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;

fn query(name: &str, start_ms: i64, end_ms: i64) -> wire::Query {
    let matcher = |kind, name: &str, value: &str| wire::LabelMatcher {
        r#type: kind,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    wire::Query {
        start_timestamp_ms: start_ms,
        end_timestamp_ms: end_ms,
        matchers: vec![matcher(0, "__name__", name), matcher(3, "i", "no.*"), matcher(2, "i", "[a-z0-9]*")],
    }
}

/// Status, content type and body.
async fn read(
    collector: &TestCollector,
    queries: Vec<wire::Query>,
    accepted: &[i32],
) -> (u16, String, Vec<u8>) {
    let request = wire::ReadRequest { queries, accepted_response_types: accepted.to_vec() };
    let packed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap();
    read_bytes(collector, packed).await
}

async fn read_bytes(collector: &TestCollector, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    let url = format!("{}/api/v1/read", collector.url);
    let response = collector.client.post(url).body(body).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.bytes().await.unwrap().to_vec())
}

fn samples_of(body: &[u8]) -> Vec<wire::QueryResult> {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    wire::ReadResponse::decode(message.as_slice()).unwrap().results
}

/// Takes bits off bytes, the highest first.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, count: u32) -> u64 {
        (0..count).fold(0, |value, _| {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            value << 1 | u64::from(bit)
        })
    }

    fn uvarint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.take(8);
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn varint(&mut self) -> i64 {
        let value = self.uvarint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }
}

fn floats_of(chunk: &wire::Chunk) -> Vec<(i64, f64)> {
    assert_eq!(chunk.r#type, 1);
    let mut bits = BitReader { bytes: &chunk.data, at: 16 };
    let count = u16::from_be_bytes([chunk.data[0], chunk.data[1]]);
    let (mut time, mut value) = (bits.varint(), bits.take(64));
    let (mut delta, mut leading, mut trailing) = (0i64, 0, 0);
    let mut samples = vec![(time, f64::from_bits(value))];
    for number in 1..count {
        if number == 1 {
            delta = bits.uvarint() as i64;
        } else {
            let mut ones = 0;
            while ones < 4 && bits.take(1) == 1 {
                ones += 1;
            }
            let size = [0, 14, 17, 20, 64][ones];
            if size > 0 {
                let raw = bits.take(size);
                let beyond = size < 64 && raw > 1 << (size - 1);
                delta += if beyond { raw as i64 - (1 << size) } else { raw as i64 };
            }
        }
        time += delta;
        if bits.take(1) == 1 {
            if bits.take(1) == 1 {
                leading = bits.take(5) as u32;
                let length = match bits.take(6) as u32 {
                    0 => 64,
                    length => length,
                };
                trailing = 64 - leading - length;
            }
            value ^= bits.take(64 - leading - trailing) << trailing;
        }
        samples.push((time, f64::from_bits(value)));
    }
    assert_eq!((chunk.min_time_ms, chunk.max_time_ms), (samples[0].0, samples[samples.len() - 1].0));
    samples
}

/// The messages of a streamed answer.
fn frames(mut body: &[u8]) -> Vec<wire::ChunkedReadResponse> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let length = prost::encoding::decode_varint(&mut body).unwrap() as usize;
        // The checksum is compared where it is made.
        found.push(wire::ChunkedReadResponse::decode(&body[4..4 + length]).unwrap());
        body = &body[4 + length..];
    }
    found
}

#[tokio::test]
async fn samples_come_back_as_they_are_stored_whole_and_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TestCollector::start_with(options(folder.path()), ManualClock::new(NOW_MS)).await;
    // Steady, jumping, constant and special values; regular and odd times; enough for three chunks.
    let value = |i: usize, n: i64| match i {
        0 => n as f64 * 0.1,
        1 => (n % 7) as f64 * 1e300 / (n as f64 + 1.0),
        2 => [f64::from_bits(0x7ff8_0000_0000_0001), f64::INFINITY, -0.5, 5e-324][(n % 4) as usize],
        _ => 42.0,
    };
    let time = |i: usize, n: i64| match i {
        0 | 3 => NOW_MS - 400_000 + n * 1_000,
        1 => NOW_MS - 4_000_000 + n * n * 17 + n,
        _ => NOW_MS - 40_000_000 + n * 100_000 + (n % 5) * 20_000,
    };
    let mut text = String::new();
    let mut want = vec![Vec::new(); 4];
    for (i, want) in want.iter_mut().enumerate() {
        for n in 0..300 {
            text += &format!("m{{i=\"{i}\"}} {} {}\n", value(i, n), time(i, n));
            want.push((time(i, n), value(i, n).to_bits()));
        }
    }
    text += "m{i=\"none\"} 1\nother 1\n";
    assert_eq!(collector.import(text).await, 204);
    let all = || query("m", NOW_MS - 50_000_000, NOW_MS);

    let (status, kind, body) = read(&collector, vec![all(), query("nothing", 0, 1)], &[]).await;
    assert_eq!((status, kind.as_str()), (200, "application/x-protobuf"));
    let results = samples_of(&body);
    assert_eq!((results.len(), results[1].timeseries.len()), (2, 0));
    let names = |labels: &[wire::Label]| {
        labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>()
    };
    assert_eq!(results[0].timeseries.len(), 4);
    for (i, series) in results[0].timeseries.iter().enumerate() {
        assert_eq!(names(&series.labels), ["__name__=m".to_owned(), format!("i={i}")]);
        let got: Vec<_> = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        assert_eq!(got, want[i]);
    }

    let (status, kind, body) = read(&collector, vec![all(), all()], &[1, 0]).await;
    assert_eq!(
        (status, kind.as_str()),
        (200, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
    );
    let frames = frames(&body);
    assert_eq!(frames.iter().map(|frame| frame.query_index).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 1]);
    for (i, frame) in frames.iter().take(4).enumerate() {
        let series = &frame.chunked_series[0];
        assert_eq!(names(&series.labels)[1], format!("i={i}"));
        assert_eq!(series.chunks.len(), 3);
        let samples = series.chunks.iter().flat_map(floats_of);
        let got: Vec<_> = samples.map(|(time, value)| (time, value.to_bits())).collect();
        assert_eq!(got, want[i]);
    }
    collector.stop().await;
}

#[tokio::test]
async fn malformed_reads_are_refused_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let limited = pharos_collector::Options {
        query: pharos_collector::QueryFlags { samples_max: 3, ..Default::default() },
        ..options(folder.path())
    };
    let collector = TestCollector::start_with(limited, ManualClock::new(NOW_MS)).await;
    assert_eq!(collector.import("m 1\nm2 1\n").await, 204);
    for body in [&b"garbage"[..], b"", &[0xff; 100]] {
        assert_eq!(read_bytes(&collector, body.to_vec()).await.0, 400, "{body:?}");
    }
    let bad_pattern = wire::LabelMatcher { r#type: 2, name: "a".to_owned(), value: "(".to_owned() };
    let bad_kind = wire::LabelMatcher { r#type: 9, ..bad_pattern.clone() };
    for matcher in [bad_pattern, bad_kind] {
        let query = wire::Query { matchers: vec![matcher], ..wire::Query::default() };
        assert_eq!(read(&collector, vec![query], &[]).await.0, 400);
    }
    assert_eq!(read(&collector, vec![wire::Query::default(); 101], &[]).await.0, 400);
    assert_eq!(read(&collector, Vec::new(), &[7]).await.0, 400);
    let many: String = (0..20).map(|n| format!("m {n} {}\n", NOW_MS - n * 1_000)).collect();
    assert_eq!(collector.import(many).await, 204);
    assert_eq!(read(&collector, vec![query("m", 0, NOW_MS)], &[]).await.0, 422);
    assert_eq!(read(&collector, vec![query("m2", 0, NOW_MS)], &[]).await.0, 200);
    collector.stop().await;
}
