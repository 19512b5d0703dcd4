//! Frames: all readings of one tick, encoded once for journal and wire.
//!
//! The bytes of a frame are the field `readings` of `pharos.v1.Tick` as it stands on the wire, written by
//! hand because the values are at hand as plain slices: no message objects, no allocation per group.

use crate::directory::DefinitionSet;
use crate::group::Presence;
use pharos_common::sample::{STALE_NAN, TimestampMs};
use std::sync::Arc;

/// Readings of one tick that have no sequence yet.
#[derive(Clone, Debug)]
pub struct FrameDraft {
    /// What the readings refer to.
    pub definitions: Arc<DefinitionSet>,
    /// Encoded readings.
    pub readings: Vec<u8>,
    /// How many values they hold.
    pub samples: u32,
    /// Time of the newest reading.
    pub timestamp_ms: TimestampMs,
}

impl FrameDraft {
    /// A frame without readings.
    pub fn empty(definitions: Arc<DefinitionSet>) -> Self {
        FrameDraft { definitions, readings: Vec::new(), samples: 0, timestamp_ms: TimestampMs::MIN }
    }

    /// Adds the readings of a later draft, which refers to the same definitions.
    pub fn join(&mut self, later: &FrameDraft) {
        self.readings.extend_from_slice(&later.readings);
        self.samples += later.samples;
        self.timestamp_ms = self.timestamp_ms.max(later.timestamp_ms);
    }

    /// Adds a reading.
    pub fn add(&mut self, reading: &ReadingRef<'_>) {
        self.samples += reading.encode(&mut self.readings);
        self.timestamp_ms = self.timestamp_ms.max(reading.timestamp_ms);
    }
}

/// One group's reading.
#[derive(Clone, Copy, Debug)]
pub struct ReadingRef<'a> {
    /// The group's number.
    pub group: u32,
    /// When the reading ended.
    pub timestamp_ms: TimestampMs,
    /// Within which time the next is promised.
    pub interval_ms: u32,
    /// A place for each column.
    pub values: &'a [f64],
    /// Columns that have a value.
    pub present: Presence,
    /// Columns that get a stale marker instead.
    pub gone: Presence,
}

impl ReadingRef<'_> {
    /// Appends the reading as one entry of `Tick.readings`; returns how many values it has.
    pub fn encode(&self, out: &mut Vec<u8>) -> u32 {
        let sent = self.present.union(self.gone);
        let count = sent.len();
        if count == 0 {
            return 0;
        }
        let all = count == self.values.len();
        let mask = if all { 0 } else { self.values.len().div_ceil(8) };
        let zigzag = (self.timestamp_ms << 1 ^ self.timestamp_ms >> 63) as u64;
        let field = |length: usize| if length == 0 { 0 } else { 1 + varint_bytes(length as u64) + length };
        let body = 1
            + varint_bytes(self.group.into())
            + 1
            + varint_bytes(zigzag)
            + 1
            + varint_bytes(self.interval_ms.into())
            + field(mask)
            + field(count * 8);
        out.push(TAG_READINGS);
        put_varint(out, body as u64);
        out.push(TAG_GROUP);
        put_varint(out, self.group.into());
        out.push(TAG_TIMESTAMP);
        put_varint(out, zigzag);
        out.push(TAG_INTERVAL);
        put_varint(out, self.interval_ms.into());
        if mask > 0 {
            out.push(TAG_PRESENT);
            put_varint(out, mask as u64);
            out.extend_from_slice(&sent.bytes()[..mask]);
        }
        out.push(TAG_VALUES);
        put_varint(out, (count * 8) as u64);
        for (column, value) in self.values.iter().enumerate() {
            if self.present.contains(column) {
                out.extend_from_slice(&value.to_le_bytes());
            } else if self.gone.contains(column) {
                out.extend_from_slice(&STALE_NAN.to_le_bytes());
            }
        }
        count as u32
    }
}

// Field number and wire type, as in `ingest.proto`; a test compares with the generated code.
const TAG_READINGS: u8 = 3 << 3 | 2;
const TAG_GROUP: u8 = 1 << 3;
const TAG_TIMESTAMP: u8 = 2 << 3;
const TAG_INTERVAL: u8 = 3 << 3;
const TAG_PRESENT: u8 = 4 << 3 | 2;
const TAG_VALUES: u8 = 5 << 3 | 2;

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::sample::is_stale_nan;
    use pharos_proto::v1::Tick;
    use proptest::prelude::*;
    use prost::Message as _;

    proptest! {
        #[test]
        fn frames_are_what_the_protocol_says(
            group in 0u32..,
            timestamp_ms in any::<i64>(),
            interval_ms in 1u32..,
            columns in proptest::collection::vec((any::<f64>(), 0u8..3), 1..256),
        ) {
            let values: Vec<f64> = columns.iter().map(|(value, _)| *value).collect();
            let (mut present, mut gone) = (Presence::EMPTY, Presence::EMPTY);
            for (column, (_, state)) in columns.iter().enumerate() {
                match state {
                    0 => {}
                    1 => gone.insert(column),
                    _ => present.insert(column),
                }
            }
            let group = group.max(1);
            let reading = ReadingRef { group, timestamp_ms, interval_ms, values: &values, present, gone };
            let mut bytes = Vec::new();
            let count = reading.encode(&mut bytes) as usize;
            let sent = columns.iter().filter(|(_, state)| *state > 0).count();
            prop_assert_eq!(count, sent);
            let tick = Tick::decode(bytes.as_slice()).unwrap();
            if sent == 0 {
                prop_assert!(tick.readings.is_empty());
                return Ok(());
            }
            let decoded = &tick.readings[0];
            prop_assert_eq!((decoded.group, decoded.timestamp_ms, decoded.interval_ms), (group, timestamp_ms, interval_ms));
            prop_assert_eq!(decoded.values.len(), sent * 8);
            prop_assert_eq!(decoded.present.is_empty(), sent == values.len());
            let mut numbers = decoded.values.chunks(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()));
            for (column, (value, state)) in columns.iter().enumerate() {
                let bit = decoded.present.is_empty() || decoded.present[column / 8] >> (column % 8) & 1 == 1;
                prop_assert_eq!(bit, *state > 0);
                if *state == 2 {
                    prop_assert_eq!(numbers.next().unwrap().to_bits(), value.to_bits());
                } else if *state == 1 {
                    prop_assert!(is_stale_nan(numbers.next().unwrap()));
                }
            }
        }
    }
}
