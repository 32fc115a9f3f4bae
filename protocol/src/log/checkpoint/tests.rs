use super::*;
use crate::handover::KeyHandover;
use crate::log::hash::{empty_root, leaf_hash};
use proptest::prelude::*;

/// The text of the specification's example.
const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

fn account(name: u8) -> AccountId {
    keypair(name).account()
}

fn checkpoint(size: u64) -> Checkpoint {
    Checkpoint::new(&origin_of(&account(1)), size, leaf_hash(b"root"))
}

fn handover(log: u8, old: u8, new: u8) -> SignedHandover {
    let (log, agreed_at_ms) = (account(log), 5);
    let agreed = KeyHandover {
        log,
        old: account(old),
        new: account(new),
        agreed_at_ms,
    };
    SignedHandover {
        by_old: keypair(old).sign(agreed),
        by_new: keypair(new).sign(agreed),
    }
}

#[test]
fn texts_are_those_of_the_specification() {
    let checkpoint: Checkpoint = EXAMPLE.parse().unwrap();
    assert_eq!(
        (checkpoint.origin.as_str(), checkpoint.size),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(checkpoint.to_string(), EXAMPLE);
    let extended = format!("{EXAMPLE}further\nlines\n");
    let checkpoint: Checkpoint = extended.parse().unwrap();
    assert_eq!(checkpoint.extensions, ["further", "lines"]);
    assert_eq!(checkpoint.to_string(), extended);
}

#[test]
fn every_other_text_is_refused() {
    let largest = EXAMPLE.replace("20852163", &LOG_SIZE_MAX.to_string());
    assert_eq!(largest.parse::<Checkpoint>().unwrap().size, LOG_SIZE_MAX);
    let larger = EXAMPLE.replace("20852163", &(LOG_SIZE_MAX + 1).to_string());
    assert_eq!(
        larger.parse::<Checkpoint>(),
        Err(CheckpointError::Size(LOG_SIZE_MAX + 1))
    );
    for text in [
        String::new(),
        "\n".to_owned(),
        "\n\n\n".to_owned(),
        EXAMPLE.trim_end().to_owned(),
        format!("{EXAMPLE}\n"),
        format!("{EXAMPLE}\nfurther\n"),
        format!("\n{EXAMPLE}"),
        EXAMPLE.replacen("example.com/behind-the-sofa", "", 1),
        EXAMPLE.replace("20852163", "020852163"),
        EXAMPLE.replace("20852163", "+20852163"),
        EXAMPLE.replace("20852163", "-1"),
        EXAMPLE.replace("20852163", ""),
        EXAMPLE.replace("20852163", "18446744073709551616"),
        EXAMPLE.replace("20852163", " 20852163"),
        EXAMPLE.replace("q2I=", "q2I"),
        EXAMPLE.replace("q2I=", "q2J="),
        EXAMPLE.replace("q2I=", "q2I=AAAA"),
        EXAMPLE.replace("CsUY", ""),
    ] {
        assert!(
            matches!(text.parse::<Checkpoint>(), Err(CheckpointError::Malformed(_))),
            "{text:?}"
        );
    }
}

#[test]
fn origins_name_the_first_key() {
    let origin = origin_of(&account(1));
    assert!(origin.starts_with("gristmill/log/12D3KooW"));
    assert_eq!(account_of_origin(&origin), Some(account(1)));
    for other in [
        "",
        "gristmill/log/",
        "gristmill/log/x",
        &origin[1..],
        &format!("{origin} "),
    ] {
        assert_eq!(account_of_origin(other), None, "{other}");
    }
}

#[test]
fn signed_checkpoints_hold_for_their_log_alone() {
    let keys = LogKeys::new(account(1));
    let signed = SignedCheckpoint::sign(&checkpoint(7), &keypair(1)).unwrap();
    assert_eq!(
        SignedCheckpoint::open(signed.note().clone(), &keys),
        Ok(signed.clone())
    );
    assert_eq!(
        SignedCheckpoint::sign(&checkpoint(7), &keypair(1)).unwrap(),
        signed
    );
    let of_other = SignedCheckpoint::open(signed.note().clone(), &LogKeys::new(account(2)));
    assert!(matches!(of_other, Err(CheckpointError::Origin { .. })));
    let by_other = SignedCheckpoint::sign(&checkpoint(7), &keypair(2)).unwrap();
    let opened = SignedCheckpoint::open(by_other.into_note(), &keys);
    assert!(matches!(
        opened,
        Err(CheckpointError::Note(NoteError::NotSigned(_)))
    ));
    // The right key under another name.
    let note = SignedNote::sign(&checkpoint(7).to_string(), "other", &keypair(1)).unwrap();
    let opened = SignedCheckpoint::open(note, &keys);
    assert!(matches!(
        opened,
        Err(CheckpointError::Note(NoteError::NotSigned(_)))
    ));
}

#[test]
fn what_could_not_be_read_again_is_not_signed() {
    for (origin, extension) in [
        ("two\nlines", "x"),
        ("", "x"),
        ("a b", "x"),
        ("a", ""),
        ("a", "x\ny"),
    ] {
        let mut checkpoint = Checkpoint::new(origin, 0, empty_root());
        checkpoint.extensions.push(extension.to_owned());
        assert!(
            SignedCheckpoint::sign(&checkpoint, &keypair(1)).is_err(),
            "{origin:?} {extension:?}"
        );
    }
    assert!(SignedCheckpoint::sign(&checkpoint(LOG_SIZE_MAX + 1), &keypair(1)).is_err());
}

#[test]
fn keys_are_handed_over_in_order() {
    let mut keys = LogKeys::new(account(1));
    let by_second = SignedCheckpoint::sign(&checkpoint(7), &keypair(2))
        .unwrap()
        .into_note();
    assert!(SignedCheckpoint::open(by_second.clone(), &keys).is_err());
    let not_from_known = Err(HandoverError::NotFromKnown {
        old: account(2),
        known: account(1),
    });
    assert_eq!(keys.follow(&handover(1, 2, 3)), not_from_known);
    assert!(matches!(
        keys.follow(&handover(9, 1, 2)),
        Err(HandoverError::OtherLog { .. })
    ));
    assert_eq!(keys.follow(&handover(1, 1, 2)), Ok(()));
    assert_eq!(keys.follow(&handover(1, 2, 3)), Ok(()));
    assert_eq!(keys.newest(), &account(3));
    // Known ones change nothing, forks of the chain are refused.
    let known = keys.clone();
    assert_eq!(keys.follow(&handover(1, 1, 2)), Ok(()));
    assert!(keys.follow(&handover(1, 1, 4)).is_err());
    assert_eq!(keys, known);
    assert_eq!(keys.origin(), origin_of(&account(1)));
    assert!(SignedCheckpoint::open(by_second, &keys).is_ok());
}

#[test]
fn a_smaller_note_still_holds() {
    let mut keys = LogKeys::new(account(1));
    keys.add_key(account(2));
    let mut note = SignedCheckpoint::sign(&checkpoint(7), &keypair(2))
        .unwrap()
        .into_note();
    let stranger = SignedNote::sign(note.text(), "stranger", &keypair(5)).unwrap();
    note.add(stranger.signatures()[0].clone()).unwrap();
    let opened = SignedCheckpoint::open(note, &keys).unwrap();
    let smaller = opened.without_cosignatures(&keys);
    assert_eq!(smaller.note().signatures().len(), 1);
    assert_eq!(SignedCheckpoint::open(smaller.note().clone(), &keys), Ok(smaller));
}

proptest! {
    #[test]
    fn what_parses_is_spelled_so(text in "[ab+ ]{0,3}\n[0-9]{0,3}\n(CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2[A-Z]=)?\n([a-b\n]{0,4}\n)?") {
        if let Ok(parsed) = text.parse::<Checkpoint>() {
            prop_assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        prop_assert!(text.parse::<Checkpoint>().is_err());
    }
}
