//! Sessions and channels that are written down and read back at random steps go on as if nothing had happened.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::session::restore::RestoreError;

/// Through text, and through bytes as a simulator's files hold them.
fn written<T: Serialize + DeserializeOwned>(state: &T) -> T {
    let text = serde_json::to_string(state).unwrap();
    let read: T = serde_json::from_str(&text).unwrap();
    let configuration = bincode::config::standard();
    let bytes = bincode::serde::encode_to_vec(&read, configuration).unwrap();
    bincode::serde::decode_from_slice(&bytes, configuration)
        .unwrap()
        .0
}

impl World {
    /// Replaces everything by what is read back of it.
    fn write_and_read(&mut self) {
        self.consumer = ConsumerChannel::restore(written(&self.consumer.snapshot()), consumer_key()).unwrap();
        self.provider = written(&self.provider);
        for stream in &mut self.streams {
            if let Some(session) = &stream.consumer {
                let snapshot = written(&session.snapshot());
                stream.consumer = Some(ConsumerSession::restore(snapshot, &stream.output).unwrap());
            }
            if let Some(session) = &stream.provider {
                let snapshot = written(&session.snapshot());
                let (body, output) = (vec![b'x'; 200], &stream.output);
                stream.provider =
                    Some(ProviderSession::restore(snapshot, provider_key(), &body, output).unwrap());
            }
        }
    }

    /// Everything that can be seen of it: what is on its way, how jobs ended, and what the channels stand at.
    fn seen(&self) -> String {
        let streams = self.streams.iter().map(|stream| {
            let sessions = (
                stream.consumer.as_ref().map(ConsumerSession::snapshot),
                stream.provider.as_ref().map(ProviderSession::snapshot),
            );
            let ends = (&stream.consumer_outcome, &stream.provider_outcome);
            format!(
                "{:?} {:?} {sessions:?} {ends:?}",
                stream.to_provider, stream.to_consumer
            )
        });
        let streams: Vec<String> = streams.collect();
        format!("{streams:?} {:?} {:?}", self.consumer, self.provider)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_and_read_back_goes_on_the_same(seed: u64, provider_lies: bool, breaks in 1u32..40) {
        let mut twins = [(); 2].map(|()| (StdRng::seed_from_u64(seed), World::new(provider_lies, true)));
        let mut moments = StdRng::seed_from_u64(seed ^ 1);
        for step in 0..600 {
            for (rng, world) in &mut twins {
                world.step(rng);
            }
            if moments.random_range(0..breaks) == 0 {
                twins[1].1.write_and_read();
            }
            if step % 25 == 0 {
                prop_assert_eq!(twins[0].1.seen(), twins[1].1.seen());
            }
        }
        prop_assert_eq!(twins[0].1.seen(), twins[1].1.seen());
    }
}

/// One job in the middle of its answer, with output that waits for a voucher.
fn half_answered() -> World {
    let mut world = World::new(false, false);
    world.open(100, 1_000);
    world.deliver_to_provider(0, false);
    while world.streams[0].provider.as_ref().unwrap().wants_output() {
        world.run_engine(0, 150);
        world.deliver_to_consumer(0);
    }
    world
}

#[test]
fn other_keys_and_other_texts_restore_nothing() {
    let world = half_answered();
    let stream = &world.streams[0];
    let (consumer, provider) = (
        stream.consumer.as_ref().unwrap(),
        stream.provider.as_ref().unwrap(),
    );
    let (asked, answering) = (consumer.snapshot(), provider.snapshot());
    assert!(answering.output_bytes() > asked.answer_bytes() && asked.answer_bytes() > 0);
    assert_eq!(answering.body_bytes(), 0, "the engine has it");

    let short = &stream.output[..asked.answer_bytes() as usize - 1];
    let mut altered = stream.output.clone();
    altered[0] ^= 1;
    for wrong in [short, &altered[..]] {
        assert!(matches!(
            ConsumerSession::restore(asked.clone(), wrong),
            Err(RestoreError::OtherContent { what: "answer", .. })
        ));
        assert!(matches!(
            ProviderSession::restore(answering.clone(), provider_key(), &[], wrong),
            Err(RestoreError::OtherContent { what: "output", .. })
        ));
    }
    assert!(matches!(
        ProviderSession::restore(answering, consumer_key(), &[], &stream.output),
        Err(RestoreError::OtherKey { .. })
    ));
    assert!(matches!(
        ConsumerChannel::restore(world.consumer.snapshot(), provider_key()),
        Err(RestoreError::OtherKey { .. })
    ));
}

#[test]
fn an_altered_snapshot_is_an_error_and_no_panic() {
    let world = half_answered();
    let stream = &world.streams[0];
    let asked = serde_json::to_string(&stream.consumer.as_ref().unwrap().snapshot()).unwrap();
    let answering = serde_json::to_string(&stream.provider.as_ref().unwrap().snapshot()).unwrap();
    let altered = asked.replace(r#""message_bytes":0"#, r#""message_bytes":18446744073709551615"#);
    assert_ne!(altered, asked);
    let restored = ConsumerSession::restore(serde_json::from_str(&altered).unwrap(), &stream.output);
    assert!(matches!(restored, Err(RestoreError::Contradiction { .. })));
    let (before, after) = answering.split_once(r#""waiting":[{"bytes":"#).unwrap();
    let after = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
    for bytes in [u64::MAX, 1_000_000] {
        let altered = format!(r#"{before}"waiting":[{{"bytes":{bytes}{after}"#);
        let snapshot = serde_json::from_str(&altered).unwrap();
        let restored = ProviderSession::restore(snapshot, provider_key(), &[], &stream.output);
        assert!(
            matches!(restored, Err(RestoreError::Contradiction { .. })),
            "{bytes}"
        );
    }
}

/// Snapshots lie on disks; what was asked and answered does not.
#[test]
fn a_snapshot_has_neither_keys_nor_texts() {
    let world = half_answered();
    let stream = &world.streams[0];
    let texts = [
        serde_json::to_string(&stream.consumer.as_ref().unwrap().snapshot()).unwrap(),
        serde_json::to_string(&stream.provider.as_ref().unwrap().snapshot()).unwrap(),
        serde_json::to_string(&world.consumer.snapshot()).unwrap(),
    ];
    for text in texts {
        // As text, in hexadecimal and as numbers.
        let secrets = [[2u8; 32], [3; 32]].map(hex::encode);
        let kept = [
            "yyyy",
            "79797979",
            "121,121,121",
            "2,2,2,2",
            "3,3,3,3",
            &secrets[0],
            &secrets[1],
        ];
        for secret in kept {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
