//! How many bytes gossip takes: the sizes of libp2p's protobuf frames, one RPC each, as the shipped mesh sends them.
//!
//! Source: `rpc.proto` of the gossipsub specification. A frame is its length as a varint and the RPC; QUIC's and IP's own bytes are
//! the network's to count.

use gristmill_protocol::listing::LISTINGS_TOPIC;

use super::Payload;

/// Bytes of a message id: a BLAKE3 hash.
const ID_BYTES: u64 = 32;

/// Bytes of a number as a varint.
const fn varint(number: u64) -> u64 {
    let bits = 64 - (number | 1).leading_zeros() as u64;
    bits.div_ceil(7)
}

/// Bytes of a field of so many bytes, with a tag below 16.
const fn field(bytes: u64) -> u64 {
    1 + varint(bytes) + bytes
}

const fn topic() -> u64 {
    field(LISTINGS_TOPIC.len() as u64)
}

/// Bytes of a message within its RPC, which is what IDONTWANT's threshold is about.
#[must_use]
pub const fn message_bytes(content: u32) -> u64 {
    field(content as u64) + topic()
}

/// Bytes of a frame.
#[must_use]
pub fn frame_bytes(payload: &Payload) -> u64 {
    let ids = |ids: usize| ids as u64 * field(ID_BYTES);
    let control = |bytes: u64| field(field(bytes));
    let rpc = match payload {
        // A flag of two bytes and the topic.
        Payload::Subscribe => field(2 + topic()),
        Payload::Publish { message, .. } => field(message_bytes(message.bytes)),
        Payload::IHave(have) => control(topic() + ids(have.0.len())),
        Payload::IWant(want) => control(ids(want.0.len())),
        Payload::IDontWant(_) => control(ids(1)),
        Payload::Graft => control(topic()),
        Payload::Prune { backoff_s } => control(topic() + 1 + varint(u64::from(*backoff_s))),
    };
    varint(rpc) + rpc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::{Ids, Message, MessageId};

    /// Frames written by hand by the rules of protobuf.
    #[test]
    fn frames_are_as_large_as_on_the_wire() {
        let topic = LISTINGS_TOPIC.as_bytes();
        let field = |tag: u8, content: &[u8]| {
            let length = content.len();
            let mut bytes = vec![tag << 3 | 2];
            if length < 128 {
                bytes.push(length as u8);
            } else {
                bytes.extend([(length % 128) as u8 | 128, (length / 128) as u8]);
            }
            bytes.extend(content);
            bytes
        };
        let frame = |rpc: Vec<u8>| rpc.len() + if rpc.len() < 128 { 1 } else { 2 };
        let publish = field(2, &[field(2, &[7; 600]), field(4, topic)].concat());
        let subscribe = field(1, &[vec![8, 1], field(2, topic)].concat());
        let ihave = field(
            3,
            &field(
                1,
                &[field(1, topic), field(2, &[1; 32]), field(2, &[2; 32])].concat(),
            ),
        );
        let prune = field(3, &field(4, &[field(1, topic), vec![24, 60]].concat()));
        let message = Message {
            id: MessageId::new(1, 1),
            bytes: 600,
        };
        let ids = Box::new(Ids(vec![message.id, message.id]));
        let publish_payload = Payload::Publish {
            message,
            hops: 1,
            asked: false,
        };
        let cases = [
            (publish_payload, publish),
            (Payload::Subscribe, subscribe),
            (Payload::IHave(ids), ihave),
            (Payload::Prune { backoff_s: 60 }, prune),
        ];
        for (payload, rpc) in cases {
            assert_eq!(frame_bytes(&payload), frame(rpc) as u64, "{payload:?}");
        }
        assert_eq!(
            (varint(0), varint(127), varint(128), varint(16_384)),
            (1, 1, 2, 3)
        );
    }
}
