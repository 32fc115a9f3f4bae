use super::*;
use crate::codec;
use crate::log::cosignature::witness_key;
use proptest::prelude::*;

/// The example of the specification.
const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const NOTE: &str = "This is an example message.\n\n\
     — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
/// The example of the Go package that notes come from.
const OTHER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const OTHER_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
     then you don't know what your problem is.\n\n\
     — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
/// The key of a witness that runs.
const WITNESS_KEY: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

fn key(name: &str, secret: u8) -> VerifierKey {
    VerifierKey::new(name, KeyKind::Ed25519, keypair(secret).account()).unwrap()
}

fn signed(text: &str) -> SignedNote {
    SignedNote::sign(text, "signer", &keypair(1)).unwrap()
}

#[test]
fn notes_of_others_are_verified() {
    for (key, note) in [(KEY, NOTE), (OTHER_KEY, OTHER_NOTE)] {
        let key: VerifierKey = key.parse().unwrap();
        let note: SignedNote = note.parse().unwrap();
        assert_eq!(note.verify(&key), Ok(()));
    }
    let key: VerifierKey = KEY.parse().unwrap();
    let other: SignedNote = OTHER_NOTE.parse().unwrap();
    assert_eq!(
        other.verify(&key),
        Err(NoteError::NotSigned("example.com/foo".to_owned()))
    );
    let changed: SignedNote = NOTE.replace("an example", "no example").parse().unwrap();
    assert_eq!(
        changed.verify(&key),
        Err(NoteError::WrongSignature("example.com/foo".to_owned()))
    );
}

#[test]
fn keys_have_one_spelling() {
    for text in [KEY, OTHER_KEY, WITNESS_KEY] {
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{text}\""));
    }
    let witness: VerifierKey = WITNESS_KEY.parse().unwrap();
    assert_eq!(witness.kind(), KeyKind::Cosignature);
    for text in [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+0530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/fooo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+BOkyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3Q==",
        "example.com/foo+530d903a+",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
        " example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ] {
        assert!(text.parse::<VerifierKey>().is_err(), "{text}");
    }
    assert!(
        format!("{}+1+2", "a".repeat(NOTE_MAX_BYTES))
            .parse::<VerifierKey>()
            .is_err()
    );
}

#[test]
fn names_are_those_that_a_line_can_have() {
    for name in ["a", "gristmill/log/x", "☃", "a-b_c.d/e"] {
        assert!(SignedNote::sign("text\n", name, &keypair(1)).is_ok(), "{name}");
    }
    for name in [
        "",
        "a b",
        "a+b",
        "a\n",
        "a\u{a0}b",
        "a\u{2003}b",
        "a\u{1}b",
        " ",
        "\u{85}",
    ] {
        let signed = SignedNote::sign("text\n", name, &keypair(1));
        assert_eq!(signed, Err(NoteError::Name(name.to_owned())), "{name}");
    }
}

#[test]
fn a_signed_note_is_the_same_bytes_again_and_holds() {
    for text in [
        "text\n",
        "\n",
        "two\n\nparts\n",
        "ends with empty lines\n\n\n",
        "— looks like a line\n",
    ] {
        let note = signed(text);
        assert_eq!(note, signed(text));
        assert_eq!(note.to_string().parse(), Ok(note.clone()), "{text:?}");
        assert_eq!(note.text(), text);
        assert_eq!(note.verify(&key("signer", 1)), Ok(()));
        let bytes = codec::encode(&note);
        assert_eq!(codec::decode::<SignedNote, 4096>(&bytes), Ok(note.clone()));
        let json = serde_json::to_string(&note).unwrap();
        assert_eq!(serde_json::from_str::<SignedNote>(&json).unwrap(), note);
    }
}

#[test]
fn texts_that_are_no_notes_are_not_signed() {
    for text in [
        "",
        "no newline",
        "tab\t\n",
        "return\r\n",
        "null\0\n",
        "cosignature/v1\ntime 1\nx\n",
    ] {
        let signed = SignedNote::sign(text, "signer", &keypair(1));
        assert!(matches!(signed, Err(NoteError::Malformed(_))), "{text:?}");
    }
}

#[test]
fn every_other_form_is_refused() {
    let note = signed("text\n").to_string();
    let line = note.strip_prefix("text\n\n").unwrap();
    assert_eq!(note.parse(), Ok(signed("text\n")));
    for malformed in [
        String::new(),
        "\n".to_owned(),
        "text\n".to_owned(),
        "text\n\n".to_owned(),
        note.replace("\n\n", "\n"),
        note.trim_end().to_owned(),
        format!("{note}\n"),
        format!("{note}{}", line.trim_end()),
        note.replace("— ", "- "),
        note.replace("— ", "—"),
        note.replace("— ", "—  "),
        note.replace("— ", " — "),
        note.replace(" signer ", " signer  "),
        note.replace(" signer ", "  "),
        note.replace(" signer ", " a+b "),
        note.replace(" signer ", " a\u{a0}b "),
        note.replace(" signer ", " "),
        note.replace('=', ""),
        note.replace("=\n", "=A\n"),
        note.replace("=\n", "= \n"),
        note.replace('\n', "\r\n"),
        note.replace("text", "te\u{1}xt"),
        format!("text\n\n— signer {}\n", STANDARD.encode([1, 2, 3, 4])),
        format!("text\n\n— signer {}\n", STANDARD.encode([1, 2, 3])),
        "text\n\n— signer \n".to_owned(),
    ] {
        let parsed = malformed.parse::<SignedNote>();
        assert!(
            matches!(parsed, Err(NoteError::Malformed(_) | NoteError::Name(_))),
            "{malformed:?}"
        );
    }
}

#[test]
fn limits_hold_at_their_number_and_not_one_more() {
    let overhead = signed("\n").to_string().len() - 1;
    let longest = format!("{}\n", "x".repeat(NOTE_MAX_BYTES - overhead - 1));
    let note = SignedNote::sign(&longest, "signer", &keypair(1)).unwrap();
    assert_eq!(note.to_string().len(), NOTE_MAX_BYTES);
    assert_eq!(note.to_string().parse(), Ok(note));
    let longer = SignedNote::sign(&format!("x{longest}"), "signer", &keypair(1));
    assert_eq!(longer, Err(NoteError::TooLarge(NOTE_MAX_BYTES + 1)));
    let too_large = format!("x{}", signed(&longest));
    assert_eq!(
        too_large.parse::<SignedNote>(),
        Err(NoteError::TooLarge(NOTE_MAX_BYTES + 1))
    );

    let mut note = signed("text\n");
    for number in 1..NOTE_SIGNATURES_MAX {
        let line = NoteSignature::new(&key(&format!("signer{number}"), 1), vec![1; 64]);
        note.add(line).unwrap();
    }
    let full = note.clone();
    assert_eq!(full.to_string().parse(), Ok(full.clone()));
    let line = NoteSignature::new(&key("another", 1), vec![1; 64]);
    assert_eq!(note.add(line.clone()), Err(NoteError::TooManySignatures));
    assert_eq!(note, full);
    assert_eq!(
        format!("{full}{line}").parse::<SignedNote>(),
        Err(NoteError::TooManySignatures)
    );
    // One in the place of another of the same key is no more.
    let again = NoteSignature::new(&key("signer5", 1), vec![2; 64]);
    note.add(again.clone()).unwrap();
    assert_eq!(note.signatures().len(), NOTE_SIGNATURES_MAX);
    assert_eq!(note.signatures().last(), Some(&again));
}

#[test]
fn lines_of_unknown_keys_are_skipped_and_wrong_ones_of_known_keys_are_not() {
    let good = signed("text\n");
    let mut note = good.clone();
    // The same name with another key, and another name with the same key.
    note.add(NoteSignature::new(&key("signer", 2), vec![7; 64]))
        .unwrap();
    note.add(NoteSignature::new(&key("other", 1), vec![7; 64]))
        .unwrap();
    assert_eq!(note.verify(&key("signer", 1)), Ok(()));
    assert_eq!(
        note.verify(&key("stranger", 3)),
        Err(NoteError::NotSigned("stranger".to_owned()))
    );
    let wrong = |name: &str| Err(NoteError::WrongSignature(name.to_owned()));
    assert_eq!(note.verify(&key("signer", 2)), wrong("signer"));
    assert_eq!(note.verify_any(&[key("signer", 1), key("stranger", 3)]), Ok(()));
    assert_eq!(
        note.verify_any(&[key("signer", 1), key("other", 1)]),
        wrong("other")
    );
    assert!(matches!(note.verify_any(&[]), Err(NoteError::NotSigned(_))));
    // A good line and a wrong one of the same key.
    let line = NoteSignature::new(&key("signer", 1), vec![7; 64]);
    for both in [
        format!("{good}{line}"),
        format!("text\n\n{line}{}", good.signatures()[0]),
    ] {
        let both: SignedNote = both.parse().unwrap();
        assert_eq!(both.verify(&key("signer", 1)), wrong("signer"));
    }
    // A repeated line does no harm; one of another length is wrong.
    let twice: SignedNote = format!("{good}{}", good.signatures()[0]).parse().unwrap();
    assert_eq!(twice.verify(&key("signer", 1)), Ok(()));
    let line = NoteSignature::new(&key("signer", 1), vec![7; 65]);
    let longer: SignedNote = format!("text\n\n{line}").parse().unwrap();
    assert_eq!(longer.verify(&key("signer", 1)), wrong("signer"));
}

#[test]
fn a_note_is_no_cosignature() {
    let account = keypair(1).account();
    let witness = witness_key(&account);
    let note = SignedNote::sign("text\n", witness.name(), &keypair(1)).unwrap();
    assert!(matches!(note.verify(&witness), Err(NoteError::NotSigned(_))));
    let line = NoteSignature::new(&witness, note.signatures()[0].bytes().to_vec());
    let forged: SignedNote = format!("text\n\n{line}").parse().unwrap();
    assert!(matches!(
        forged.verify(&witness),
        Err(NoteError::WrongSignature(_))
    ));
}

proptest! {
    #[test]
    fn what_parses_is_spelled_so(note in "[a\n— =A+]{0,60}|[a-c\n]{1,9}\n\n(— [a-b ]{0,3} [A-D+=]{0,12}\n){0,3}") {
        if let Ok(parsed) = note.parse::<SignedNote>() {
            prop_assert_eq!(parsed.to_string(), note);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = text.parse::<SignedNote>();
        let _ = NoteSignature::parse(&text);
        prop_assert!(text.parse::<VerifierKey>().is_err());
        let _ = codec::decode::<SignedNote, 4096>(&bytes);
    }

    #[test]
    fn any_changed_byte_is_refused(position in 0usize..400, change in 1u8..=255) {
        let mut note = signed("some text\nof two lines\n").to_string().into_bytes();
        let position = position % note.len();
        note[position] ^= change;
        let verified = String::from_utf8(note)
            .ok()
            .and_then(|text| text.parse::<SignedNote>().ok())
            .map(|note| note.verify(&key("signer", 1)));
        prop_assert!(!matches!(verified, Some(Ok(()))));
    }
}
