//! Samples: a timestamp in milliseconds since the epoch and a float.

/// Milliseconds since 1970-01-01 UTC, possibly negative.
pub type TimestampMs = i64;

/// Bits of the NaN by which Prometheus marks a series as gone (`value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Bits of the NaN that is an ordinary value (`value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker.
pub const STALE_NAN: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a value is the stale marker. Compare bits, never values: it is a NaN.
#[inline]
pub fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One measurement of one series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was taken.
    pub timestamp_ms: TimestampMs,
    /// What was read.
    pub value: f64,
}

/// Equal bit for bit, so that NaNs compare.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.timestamp_ms == other.timestamp_ms && self.value.to_bits() == other.value.to_bits()
    }
}
