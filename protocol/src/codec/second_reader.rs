//! bincode is no longer maintained. `wincode` reads and writes the same format; these tests hold the two against
//! each other for every message that travels, so that changing over is a change of one module.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bincode::{Decode, Encode};
use wincode::config::DefaultConfig;
use wincode::{SchemaRead, SchemaWrite};

use crate::credits::Credits;
use crate::identity::Keypair;
use crate::ids::ChannelId;
use crate::job::{
    Chunk, ConsumerFrame, Delivery, JobAccepted, JobDone, JobFailed, JobKind, JobRefused, OpenJob,
    ProviderFrame, RefusalCode, RequestId,
};
use crate::listing::{Capability, Listing, Offer, PrivacyTier};
use crate::trace::TraceParent;
use crate::usage::{Price, Unit, Usage};
use crate::voucher::Voucher;

fn same<T>(value: &T)
where
    T: Encode + Decode<()> + Debug + PartialEq,
    T: SchemaWrite<DefaultConfig, Src = T> + for<'de> SchemaRead<'de, DefaultConfig, Dst = T>,
{
    let bytes = super::encode(value);
    assert_eq!(wincode::serialize(value).unwrap(), bytes, "{value:?}");
    assert_eq!(&wincode::deserialize::<T>(&bytes).unwrap(), value);
    assert_eq!(&super::decode::<T, 1_000_000>(&bytes).unwrap(), value);
}

fn keypair() -> Keypair {
    Keypair::from_secret(&[5; 32])
}

fn price() -> Price {
    let per_million = BTreeMap::from([
        (Unit::InputToken, Credits::micro(7)),
        (Unit::ByteOut, Credits::MAX),
    ]);
    Price {
        constant: Credits::micro(3),
        per_million,
    }
}

fn request_id() -> RequestId {
    RequestId::from_random([6; 16])
}

fn voucher() -> crate::identity::Signed<Voucher> {
    keypair().sign(Voucher {
        channel: ChannelId::from_bytes([1; 16]),
        cumulative: Credits::micro(12),
        request_id: request_id(),
        transcript: [8; 32],
    })
}

#[test]
fn consumer_frames() {
    same(&ConsumerFrame::Open(OpenJob {
        ticket: "a.b.c".into(),
        request_id: request_id(),
        kind: JobKind::Embeddings,
        model: "modèle".into(),
        price_cap: price(),
        body_bytes: 1 << 40,
        content_type: "multipart/form-data; boundary=x".into(),
        trace_parent: Some(TraceParent {
            trace: [1; 16],
            parent: [2; 8],
            is_sampled: true,
        }),
    }));
    same(&ConsumerFrame::BodyPart(vec![0, 255, 1]));
    same(&ConsumerFrame::Voucher(voucher()));
    same(&ConsumerFrame::Cancel);
}

#[test]
fn provider_frames() {
    for highest_voucher in [None, Some(voucher())] {
        same(&ProviderFrame::Accepted(JobAccepted {
            price: price(),
            position: 3,
            credit_window: Credits::micro(9),
            highest_voucher,
        }));
    }
    same(&ProviderFrame::Refused(JobRefused::new(
        RefusalCode::ShuttingDown,
        5,
        "later",
    )));
    let usage = Usage::tokens(1, 2);
    same(&ProviderFrame::Chunk(Chunk {
        payload: vec![1; 300],
        ends_message: true,
        meter: usage.clone(),
    }));
    let delivery = Delivery {
        channel: ChannelId::from_bytes([1; 16]),
        request_id: request_id(),
        usage: usage.clone(),
        cost: Credits::micro(4),
        transcript: [9; 32],
    };
    same(&ProviderFrame::Done(JobDone {
        usage,
        delivery: keypair().sign(delivery),
    }));
    for param in [None, Some("messages")] {
        same(&ProviderFrame::Failed(JobFailed::new(
            400, "code", "reason", param,
        )));
    }
}

#[test]
fn listings() {
    let listing = Listing {
        provider: keypair().account(),
        sequence: u64::MAX,
        issued_at_ms: 1,
        ttl_ms: 2,
        addresses: vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()],
        coordinators: vec![keypair().account()],
        region: String::new(),
        privacy: PrivacyTier::Standard,
        offers: vec![Offer {
            kind: JobKind::ChatCompletions,
            model: "m".into(),
            weights_digest: Some([3; 32]),
            quantization: "q8_0".into(),
            context_length: 8_192,
            capabilities: vec![Capability::Tools, Capability::Passthrough],
            price: price(),
        }],
        slots: 4,
        free_slots: 1,
        certificates: vec!["a.b.c".into()],
    };
    same(&keypair().sign(listing));
}
