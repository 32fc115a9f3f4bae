use super::*;
use proptest::prelude::*;

const KIND: JournalKind = *b"ledger\0\0";
const SALT: u32 = 0x1234_5678;

fn record(synced: u64, sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_record(&mut bytes, SALT, synced, sequence, 1_000 + sequence, content);
    bytes
}

#[test]
fn headers_come_back_and_every_changed_byte_is_noticed() {
    let header = SegmentHeader {
        kind: KIND,
        salt: SALT,
        first_sequence: 42,
    };
    let bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes, KIND), Ok(header));
    for position in 0..bytes.len() {
        let mut damaged = bytes;
        damaged[position] ^= 0x10;
        assert!(SegmentHeader::decode(&damaged, KIND).is_err(), "byte {position}");
    }
    assert!(matches!(
        SegmentHeader::decode(&bytes, *b"vouchers"),
        Err(FormatError::Kind { .. })
    ));
}

#[test]
fn the_format_is_pinned() {
    let bytes = record(1, 2, b"abc");
    assert_eq!(hex::encode(&bytes[..4]), "1b000000");
    assert_eq!(
        hex::encode(&bytes[8..]),
        "01000000000000000200000000000000ea03000000000000616263"
    );
    let (decoded, used) = decode_record(&bytes, SALT).unwrap();
    assert_eq!(
        (decoded.sequence, decoded.time_ms, used),
        (2, 1_002, RECORD_HEADER_BYTES + 3)
    );
    assert_eq!(decoded.hash(), record_hash(2, 1_002, b"abc"));
    assert_eq!(Record::from_log_entry(&decoded.log_entry()), Some(decoded));
}

#[test]
fn content_is_bounded_at_n_and_refused_at_n_plus_1() {
    assert!(decode_record(&record(0, 1, &vec![7; CONTENT_MAX_BYTES]), SALT).is_some());
    assert!(decode_record(&record(0, 1, &vec![7; CONTENT_MAX_BYTES + 1]), SALT).is_none());
}

#[test]
fn tails_are_told_apart() {
    let first = record(0, 1, b"first");
    let same_batch = record(0, 2, b"second");
    let next_batch = record(1, 2, b"second");
    let damaged = |mut bytes: Vec<u8>| {
        bytes[20] ^= 1;
        bytes
    };
    let other_salt = {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, SALT + 1, 1, 2, 0, b"");
        bytes
    };
    for (name, bytes, expected) in [
        ("nothing", vec![], Tail::Clean),
        ("half a length", first[..3].to_vec(), Tail::Unfinished),
        (
            "half a record",
            first[..RECORD_HEADER_BYTES].to_vec(),
            Tail::Unfinished,
        ),
        ("a damaged last record", damaged(first.clone()), Tail::Torn),
        (
            "one batch, torn at its start",
            [damaged(first.clone()), same_batch.clone()].concat(),
            Tail::Torn,
        ),
        (
            "damage before a later batch",
            [damaged(first.clone()), next_batch.clone()].concat(),
            Tail::Damaged(FormatError::Record { expected: 1 }),
        ),
        (
            "content that looks like a record",
            [damaged(first.clone()), other_salt].concat(),
            Tail::Torn,
        ),
        (
            "a record that is missing",
            next_batch,
            Tail::Damaged(FormatError::Sequence {
                actual: 2,
                expected: 1,
            }),
        ),
        ("zeros, which are space made ahead", vec![0; 9_000], Tail::Clean),
        (
            "half a record in such space",
            [&first[..RECORD_HEADER_BYTES + 2], &[0; 9_000]].concat(),
            Tail::Unfinished,
        ),
        (
            "a damaged last record in such space",
            [damaged(first.clone()), vec![0; 9_000]].concat(),
            Tail::Torn,
        ),
        (
            "damage to the length before a later batch",
            [
                vec![first[0] ^ 1],
                first[1..].to_vec(),
                same_batch.clone(),
                record(2, 3, b"third"),
            ]
            .concat(),
            Tail::Damaged(FormatError::Record { expected: 1 }),
        ),
        (
            "damage before the rest of its batch and a later one",
            [
                damaged(first.clone()),
                same_batch,
                record(2, 3, b"third"),
                vec![0; 50],
            ]
            .concat(),
            Tail::Damaged(FormatError::Record { expected: 1 }),
        ),
    ] {
        assert_eq!(classify(&bytes, 0, SALT, 1), expected, "{name}");
    }
}

#[test]
fn zeros_at_the_end_are_counted() {
    for length in [0, 1, 4095, 4096, 4097, 10_000] {
        assert_eq!(without_zeros(&vec![0; length]), 0, "{length}");
        for position in [0, 1, length / 2, length.saturating_sub(1)] {
            let mut bytes = vec![0; length];
            let Some(byte) = bytes.get_mut(position) else {
                continue;
            };
            *byte = 1;
            assert_eq!(without_zeros(&bytes), position + 1, "{length}");
        }
    }
}

proptest! {
    #[test]
    fn records_come_back_and_every_changed_byte_is_noticed(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        sequence in 1u64..1 << 60,
        position: prop::sample::Index,
        change in 1u8..,
    ) {
        let bytes = record(sequence - 1, sequence, &content);
        let (decoded, used) = decode_record(&bytes, SALT).unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!((decoded.sequence, &decoded.content), (sequence, &content));
        let mut damaged = bytes.clone();
        damaged[position.index(bytes.len())] ^= change;
        prop_assert!(decode_record(&damaged, SALT).is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), expected: u64) {
        let _ = decode_record(&bytes, SALT);
        let _ = classify(&bytes, bytes.len() / 2, SALT, expected);
    }
}
