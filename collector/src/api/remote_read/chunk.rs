//! Samples as Prometheus' chunks: floats by XOR, histograms one to a chunk.
//! Source: tsdb/chunkenc/{xor,float_histogram,histogram_meta}.go of Prometheus describe the formats.

use super::bits::Bits;
use pharos_common::histogram::{BucketSpan, CounterResetHint, FloatHistogram, HistogramSample};
use pharos_common::sample::TimestampMs;
use pharos_proto::prometheus::Chunk;

/// Samples of one chunk of floats, as in Prometheus.
pub(super) const SAMPLES_PER_CHUNK: usize = 120;

/// Kinds of chunks on the wire.
const XOR: i32 = 1;
const FLOAT_HISTOGRAM: i32 = 3;

/// A chunk of up to [`SAMPLES_PER_CHUNK`] floats; at least one.
pub(super) fn of_floats(timestamps: &[TimestampMs], values: &[f64]) -> Chunk {
    // The number of samples comes first.
    let mut bits = Bits::after(vec![0, 0]);
    let mut xor = Xor::default();
    let (mut before_ms, mut delta_before) = (0, 0);
    for (number, (&timestamp_ms, &value)) in timestamps.iter().zip(values).enumerate() {
        let delta = timestamp_ms.wrapping_sub(before_ms);
        match number {
            0 => {
                bits.put_varint(timestamp_ms);
                bits.put_float(value);
                xor.before = value.to_bits();
            }
            1 => {
                bits.put_uvarint(delta as u64);
                xor.put(&mut bits, value);
            }
            _ => {
                put_change(&mut bits, delta.wrapping_sub(delta_before));
                xor.put(&mut bits, value);
            }
        }
        (before_ms, delta_before) = (timestamp_ms, delta);
    }
    set_count(&mut bits, timestamps.len());
    Chunk {
        min_time_ms: timestamps.first().copied().unwrap_or(0),
        max_time_ms: timestamps.last().copied().unwrap_or(0),
        r#type: XOR,
        data: bits.into_bytes(),
    }
}

fn set_count(bits: &mut Bits, count: usize) {
    if let Some(place) = bits.bytes_mut().first_chunk_mut() {
        *place = (count as u16).to_be_bytes();
    }
}

/// By how much the distance of timestamps changed.
fn put_change(bits: &mut Bits, change: i64) {
    let fits = |bits: u32| -((1 << (bits - 1)) - 1) <= change && change <= 1 << (bits - 1);
    match change {
        0 => bits.put_bit(false),
        _ if fits(14) => {
            bits.put(0b10, 2);
            bits.put(change as u64, 14);
        }
        _ if fits(17) => {
            bits.put(0b110, 3);
            bits.put(change as u64, 17);
        }
        _ if fits(20) => {
            bits.put(0b1110, 4);
            bits.put(change as u64, 20);
        }
        _ => {
            bits.put(0b1111, 4);
            bits.put(change as u64, 64);
        }
    }
}

/// Values as what differs from the one before.
#[derive(Debug, Default)]
struct Xor {
    before: u64,
    /// Zero bits before and after the bits written last, once there are some.
    window: Option<(u32, u32)>,
}

impl Xor {
    fn put(&mut self, bits: &mut Bits, value: f64) {
        let delta = value.to_bits() ^ self.before;
        self.before = value.to_bits();
        bits.put_bit(delta != 0);
        if delta == 0 {
            return;
        }
        // Five bits tell how many are left out in front.
        let (leading, trailing) = (delta.leading_zeros().min(31), delta.trailing_zeros());
        match self.window {
            Some((known_leading, known_trailing))
                if leading >= known_leading && trailing >= known_trailing =>
            {
                bits.put_bit(false);
                bits.put(delta >> known_trailing, 64 - known_leading - known_trailing);
            }
            _ => {
                self.window = Some((leading, trailing));
                let length = 64 - leading - trailing;
                bits.put_bit(true);
                bits.put(u64::from(leading), 5);
                // 64 is written as 0.
                bits.put(u64::from(length), 6);
                bits.put(delta >> trailing, length);
            }
        }
    }
}

/// A chunk of one histogram.
pub(super) fn of_histogram(sample: &HistogramSample) -> Chunk {
    let histogram: &FloatHistogram = &sample.histogram;
    let header = match histogram.counter_reset_hint {
        CounterResetHint::Unknown => 0b0000_0000,
        CounterResetHint::Reset => 0b1000_0000,
        CounterResetHint::NotReset => 0b0100_0000,
        CounterResetHint::Gauge => 0b1100_0000,
    };
    let mut bits = Bits::after(vec![0, 1, header]);
    put_zero_threshold(&mut bits, histogram.zero_threshold);
    bits.put_varbit_int(i64::from(histogram.schema));
    put_spans(&mut bits, &histogram.positive_spans);
    put_spans(&mut bits, &histogram.negative_spans);
    if histogram.uses_custom_buckets() {
        bits.put_varbit_uint(histogram.custom_values.len() as u64);
        histogram.custom_values.iter().for_each(|&bound| put_bound(&mut bits, bound));
    }
    bits.put_varbit_int(sample.timestamp_ms);
    for value in [histogram.count, histogram.zero_count, histogram.sum] {
        bits.put_float(value);
    }
    for &count in histogram.positive_buckets.iter().chain(&histogram.negative_buckets) {
        bits.put_float(count);
    }
    Chunk {
        min_time_ms: sample.timestamp_ms,
        max_time_ms: sample.timestamp_ms,
        r#type: FLOAT_HISTOGRAM,
        data: bits.into_bytes(),
    }
}

fn put_spans(bits: &mut Bits, spans: &[BucketSpan]) {
    bits.put_varbit_uint(spans.len() as u64);
    for span in spans {
        bits.put_varbit_uint(u64::from(span.length));
        bits.put_varbit_int(i64::from(span.offset));
    }
}

/// Powers of two, which thresholds are, in a byte.
fn put_zero_threshold(bits: &mut Bits, threshold: f64) {
    // 2^exponent with the mantissa 1.0: as 0.5 * 2^(exponent + 1).
    let exponent = ((threshold.to_bits() >> 52) & 0x7ff) as i64 - 1_023 + 1;
    let is_power = threshold > 0.0 && threshold.to_bits() & ((1 << 52) - 1) == 0;
    if threshold == 0.0 {
        bits.put(0, 8);
    } else if is_power && (-242..=11).contains(&exponent) {
        bits.put((exponent + 243) as u64, 8);
    } else {
        bits.put(255, 8);
        bits.put_float(threshold);
    }
}

/// Bounds with at most three digits behind the point in few bits.
fn put_bound(bits: &mut Bits, bound: f64) {
    const THOUSANDTHS_MAX: f64 = 33_554_430.0;
    let thousandths = bound * 1_000.0;
    let exact = thousandths.round() / 1_000.0 == bound;
    if (0.0..=THOUSANDTHS_MAX).contains(&thousandths) && exact {
        bits.put_varbit_uint(thousandths.round() as u64 + 1);
    } else {
        bits.put_bit(false);
        bits.put_float(bound);
    }
}
