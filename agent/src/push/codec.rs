//! How messages to the collector become bytes, and bytes from it messages. Frames are copied as they are.
//!
//! A frame's readings were encoded when they were taken and lie in the journal in that form. Decoding and
//! encoding them again would cost more than reading the kernel's files did.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use pharos_proto::v1::{AgentMessage, CollectorMessage, Lane};
use prost::Message as _;

/// What goes out.
#[derive(Debug)]
pub(super) enum Wire {
    /// Anything that is rare.
    Message(AgentMessage),
    /// A `Tick`, of which the readings are encoded.
    Frame { lane: Lane, sequence: u64, readings: Bytes },
}

// Field number and wire type, as in `ingest.proto`; a test compares with the generated code.
const TAG_TICK: u8 = 4 << 3 | 2;
const TAG_LANE: u8 = 1 << 3;
const TAG_SEQUENCE: u8 = 2 << 3;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Longest message that a collector has a reason to send.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Appends a message as it goes over the wire.
pub(super) fn encode(wire: Wire, out: &mut BytesMut) {
    match wire {
        Wire::Message(message) => {
            let length = message.encoded_len();
            out.reserve(PREFIX_BYTES + length);
            put_prefix(length, out);
            // It has the room that it asked for.
            let _ = message.encode(out);
        }
        Wire::Frame { lane, sequence, readings } => {
            let (head, head_length) = frame_head(lane, sequence, readings.len());
            let length = head_length + readings.len();
            out.reserve(PREFIX_BYTES + length);
            put_prefix(length, out);
            out.put_slice(&head[..head_length]);
            out.put(readings);
        }
    }
}

fn put_prefix(length: usize, out: &mut BytesMut) {
    out.put_u8(0);
    out.put_u32(length as u32);
}

/// What a collector may not send.
#[derive(Debug, thiserror::Error)]
pub(super) enum MalformedMessage {
    #[error("the collector's answer is compressed, which nobody asked for")]
    Compressed,
    #[error("the collector's answer has {0} bytes")]
    TooLong(usize),
    #[error("the collector's answer makes no sense: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

/// Bytes from the collector that have not been taken as messages.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: BytesMut,
}

impl Received {
    /// Adds what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next message, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<CollectorMessage>, MalformedMessage> {
        let Some((prefix, behind)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(MalformedMessage::Compressed);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(MalformedMessage::TooLong(length));
        }
        let Some(body) = behind.get(..length) else { return Ok(None) };
        let message = CollectorMessage::decode(body)?;
        self.bytes.advance(PREFIX_BYTES + length);
        Ok(Some(message))
    }
}

/// What stands before the readings in an `AgentMessage`, and how long that is.
fn frame_head(lane: Lane, sequence: u64, readings: usize) -> ([u8; 32], usize) {
    let mut tick = Head::default();
    // A lane of 0 is not written.
    if lane != Lane::Live {
        tick.push(TAG_LANE);
        tick.push(lane as u8);
    }
    tick.push(TAG_SEQUENCE);
    tick.varint(sequence);
    let mut head = Head::default();
    head.push(TAG_TICK);
    head.varint((tick.length + readings) as u64);
    tick.bytes[..tick.length].iter().for_each(|byte| head.push(*byte));
    (head.bytes, head.length)
}

/// A few bytes: two tags with a varint each, and a lane, are 24 at most.
#[derive(Default)]
struct Head {
    bytes: [u8; 32],
    length: usize,
}

impl Head {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_proto::v1::agent_message::Message;
    use pharos_proto::v1::collector_message::Message as Reply;
    use pharos_proto::v1::{Acknowledge, Reading, Tick};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_the_message_that_the_protocol_says(
            backfill in any::<bool>(), sequence in 1u64.., groups in proptest::collection::vec(1u32.., 0..4),
        ) {
            let lane = if backfill { Lane::Backfill } else { Lane::Live };
            let readings = groups.iter().map(|group| Reading { group: *group, ..Reading::default() });
            let tick = Tick { lane: 0, sequence: 0, readings: readings.collect() };
            let encoded = tick.encode_to_vec();
            let mut bytes = BytesMut::new();
            encode(Wire::Frame { lane, sequence, readings: encoded.into() }, &mut bytes);
            let want = Tick { lane: lane.into(), sequence, ..tick };
            let want = AgentMessage { message: Some(Message::Tick(want)) };
            prop_assert_eq!(bytes[0], 0);
            prop_assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
            prop_assert_eq!(&AgentMessage::decode(&bytes[5..]).unwrap(), &want);
            let mut other = BytesMut::new();
            encode(Wire::Message(want), &mut other);
            prop_assert_eq!(other.len(), bytes.len());
        }

        #[test]
        fn messages_are_put_together_however_they_are_cut(
            sequences in proptest::collection::vec(any::<u64>(), 0..8), cut in 1usize..40,
        ) {
            let message = |sequence: &u64| {
                let acknowledge = Acknowledge { lane: 0, sequence: *sequence };
                CollectorMessage { message: Some(Reply::Acknowledge(acknowledge)) }
            };
            let mut bytes = BytesMut::new();
            for sequence in &sequences {
                let message = message(sequence);
                put_prefix(message.encoded_len(), &mut bytes);
                message.encode(&mut bytes).unwrap();
            }
            let (mut received, mut messages) = (Received::default(), Vec::new());
            for part in bytes.chunks(cut) {
                received.push(part);
                while let Some(message) = received.next().unwrap() {
                    messages.push(message);
                }
            }
            prop_assert_eq!(messages, sequences.iter().map(message).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_of_a_collector_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut received = Received::default();
            received.push(&bytes);
            while let Ok(Some(_)) = received.next() {}
        }
    }

    #[test]
    fn a_message_that_nobody_asked_for_is_refused() {
        let next = |bytes: &[u8]| {
            let mut received = Received::default();
            received.push(bytes);
            received.next().map_err(|error| error.to_string())
        };
        assert_eq!(next(&[0, 0, 0]), Ok(None));
        assert!(next(&[1, 0, 0, 0, 0]).unwrap_err().contains("compressed"));
        assert!(next(&[0, 0x7f, 0, 0, 0]).unwrap_err().contains("bytes"));
        assert!(next(&[0, 0, 0, 0, 1, 0xff]).unwrap_err().contains("makes no sense"));
    }
}
