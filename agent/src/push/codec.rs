//! How messages to the collector become bytes: frames are copied as they are, everything else is encoded.
//!
//! A frame's readings were encoded when they were taken and lie in the journal in that form. Decoding and
//! encoding them again would cost more than reading the kernel's files did.

use bytes::{Buf as _, BufMut as _, Bytes};
use pharos_proto::v1::{AgentMessage, CollectorMessage, Lane};
use prost::Message as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Where `pharos.v1.Ingest/Push` is served.
pub(super) const PUSH_PATH: &str = "/pharos.v1.Ingest/Push";

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

/// The codec of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AgentCodec;

impl Codec for AgentCodec {
    type Encode = Wire;
    type Decode = CollectorMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AgentCodec {
    type Item = Wire;
    type Error = Status;

    fn encode(&mut self, item: Wire, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Wire::Message(message) => {
                message.encode(out).map_err(|error| Status::internal(error.to_string()))?;
            }
            Wire::Frame { lane, sequence, readings } => {
                let (head, length) = frame_head(lane, sequence, readings.len());
                out.put_slice(&head[..length]);
                out.put(readings);
            }
        }
        Ok(())
    }
}

impl Decoder for AgentCodec {
    type Item = CollectorMessage;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<CollectorMessage>, Status> {
        let message = CollectorMessage::decode(source.copy_to_bytes(source.remaining()));
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
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
    use pharos_proto::v1::{Reading, Tick};
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
            let (head, length) = frame_head(lane, sequence, encoded.len());
            let bytes = [&head[..length], &encoded].concat();
            let want = Tick { lane: lane.into(), sequence, ..tick };
            let decoded = AgentMessage::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(decoded, AgentMessage { message: Some(Message::Tick(want)) });
        }
    }
}
