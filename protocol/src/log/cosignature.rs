//! Cosignatures: a witness's statement that at a time a checkpoint was the newest consistent one it knew of.
//!
//! Source: [C2SP tlog-cosignature](https://c2sp.org/tlog-cosignature), version `cosignature/v1`.

use thiserror::Error;

use crate::identity::{AccountId, Keypair, Signature};
use crate::log::checkpoint::SignedCheckpoint;
use crate::log::note::{KeyKind, NoteError, NoteSignature, SignedNote, VerifierKey};

/// The first line of what a witness signs; no note may begin with it.
pub(super) const HEADER: &str = "cosignature/v1\n";
/// Latest time that a cosignature can tell, in Unix seconds.
pub const COSIGNATURE_SECONDS_MAX: u64 = i64::MAX.unsigned_abs();

const TIME_BYTES: usize = 8;
const WITNESS_PREFIX: &str = "gristmill/witness/";

/// Why a cosignature does not count.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CosignatureError {
    /// The key is one that signs notes, not one of a witness.
    #[error("{0} is not the key of a witness; such keys have type 4")]
    NotAWitness(String),
    /// The witness did not sign.
    #[error("{0} has not cosigned the checkpoint")]
    NotCosigned(String),
    /// The signature is not the witness's over this checkpoint and time.
    #[error("the cosignature by {0} is not valid")]
    Wrong(String),
    /// A time that does not fit.
    #[error("{0} is later than any time a cosignature can tell")]
    Time(u64),
}

/// The name under which an account cosigns.
#[must_use]
pub fn witness_name(account: &AccountId) -> String {
    format!("{WITNESS_PREFIX}{account}")
}

/// The account behind the name of a witness; `None` where the name is not one of this market's.
#[must_use]
pub fn account_of_witness(name: &str) -> Option<AccountId> {
    let account: AccountId = name.strip_prefix(WITNESS_PREFIX)?.parse().ok()?;
    (witness_name(&account) == name).then_some(account)
}

/// The key with which an account cosigns, under its name as a witness.
#[must_use]
pub fn witness_key(account: &AccountId) -> VerifierKey {
    VerifierKey::of_account(&witness_name(account), KeyKind::Cosignature, *account)
}

/// What a witness signs: a header, the time, and the text of the checkpoint.
fn message(text: &str, seconds: u64) -> Vec<u8> {
    format!("{HEADER}time {seconds}\n{text}").into_bytes()
}

/// Cosigns a checkpoint whose consistency this witness has checked, at a time in Unix seconds. Ask
/// [`Witness`](crate::log::witness::Witness) whether to.
///
/// # Errors
/// [`CosignatureError::Time`] where the time does not fit.
pub fn cosign(
    checkpoint: &SignedCheckpoint,
    keypair: &Keypair,
    seconds: u64,
) -> Result<NoteSignature, CosignatureError> {
    if seconds > COSIGNATURE_SECONDS_MAX {
        return Err(CosignatureError::Time(seconds));
    }
    let signature = keypair.sign_bytes(&message(checkpoint.note().text(), seconds));
    let bytes = [seconds.to_be_bytes().as_slice(), signature.bytes()].concat();
    Ok(NoteSignature::new(&witness_key(&keypair.account()), bytes))
}

/// Checks that a witness cosigned the checkpoint of a note, and tells when: the latest time, in Unix seconds, if it
/// did so more than once. Whether the log signed the note is not looked at.
///
/// # Errors
/// [`CosignatureError`] where it did not, or one of its cosignatures is wrong.
pub fn verify(note: &SignedNote, key: &VerifierKey) -> Result<u64, CosignatureError> {
    if key.kind() != KeyKind::Cosignature {
        return Err(CosignatureError::NotAWitness(key.name().to_owned()));
    }
    let lines = note.signatures().iter().filter(|line| line.is_by(key));
    let times: Vec<u64> = lines
        .map(|line| verify_line(note.text(), key, line))
        .collect::<Result<_, _>>()?;
    let latest = times.into_iter().max();
    latest.ok_or_else(|| CosignatureError::NotCosigned(key.name().to_owned()))
}

/// The time of one signature line by this witness over this text, in Unix seconds.
pub(super) fn verify_line(
    text: &str,
    key: &VerifierKey,
    line: &NoteSignature,
) -> Result<u64, CosignatureError> {
    let wrong = || CosignatureError::Wrong(key.name().to_owned());
    let (time, signature) = line.bytes().split_first_chunk::<TIME_BYTES>().ok_or_else(wrong)?;
    let seconds = u64::from_be_bytes(*time);
    if seconds > COSIGNATURE_SECONDS_MAX {
        return Err(wrong());
    }
    let signature = <[u8; 64]>::try_from(signature).map_err(|_| wrong())?;
    key.account()
        .verify_bytes(&message(text, seconds), &Signature::from_bytes(signature))
        .map_err(|_| wrong())?;
    Ok(seconds)
}

/// The witnesses of this market that cosigned a note, each with the latest time in Unix seconds. Lines of others, and
/// lines that do not hold, count for nothing.
#[must_use]
pub fn cosigners(note: &SignedNote) -> Vec<(AccountId, u64)> {
    let mut cosigners = std::collections::BTreeMap::new();
    for line in note.signatures() {
        let Some(account) = account_of_witness(line.name()) else {
            continue;
        };
        let key = witness_key(&account);
        if line.is_by(&key)
            && let Ok(seconds) = verify_line(note.text(), &key, line)
        {
            let latest = cosigners.entry(account).or_insert(seconds);
            *latest = seconds.max(*latest);
        }
    }
    cosigners.into_iter().collect()
}

/// Adds a cosignature that holds to a note.
///
/// # Errors
/// [`AddCosignatureError`] where the cosignature does not hold, or the note is full.
pub fn add(
    note: &mut SignedNote,
    account: &AccountId,
    line: NoteSignature,
) -> Result<(), AddCosignatureError> {
    let key = witness_key(account);
    if !line.is_by(&key) {
        return Err(CosignatureError::NotCosigned(key.name().to_owned()).into());
    }
    verify_line(note.text(), &key, &line)?;
    Ok(note.add(line)?)
}

/// Why a cosignature was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddCosignatureError {
    /// It does not hold.
    #[error(transparent)]
    Cosignature(#[from] CosignatureError),
    /// The note is full.
    #[error(transparent)]
    Note(#[from] NoteError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::checkpoint::{Checkpoint, LogKeys, origin_of};
    use crate::log::hash::leaf_hash;

    fn keypair(name: u8) -> Keypair {
        Keypair::from_secret(&[name; 32])
    }

    fn checkpoint() -> SignedCheckpoint {
        let origin = origin_of(&keypair(1).account());
        SignedCheckpoint::sign(&Checkpoint::new(&origin, 7, leaf_hash(b"root")), &keypair(1)).unwrap()
    }

    #[test]
    fn the_message_is_that_of_the_specification() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let expected = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n\
                        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        assert_eq!(message(text, 1_679_315_147), expected.as_bytes());
    }

    #[test]
    fn the_time_stands_before_the_signature() {
        // A line of a witness that runs, and its time as its operator's own tools read it.
        let line = "— witness ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA==";
        let line = NoteSignature::parse(line).unwrap();
        let (time, signature) = line.bytes().split_first_chunk().unwrap();
        assert_eq!(u64::from_be_bytes(*time), 1_727_964_367);
        assert_eq!(signature.len(), 64);
    }

    #[test]
    fn cosignatures_hold_for_witness_time_and_checkpoint() {
        let (checkpoint, witness) = (checkpoint(), keypair(2).account());
        let mut note = checkpoint.note().clone();
        add(
            &mut note,
            &witness,
            cosign(&checkpoint, &keypair(2), 1000).unwrap(),
        )
        .unwrap();
        let key = witness_key(&witness);
        assert_eq!(verify(&note, &key), Ok(1000));
        assert_eq!(note.verify(&key), Ok(()));
        assert!(SignedCheckpoint::open(note.clone(), &LogKeys::new(keypair(1).account())).is_ok());
        assert_eq!(cosigners(&note), [(witness, 1000)]);
        // A later one takes its place.
        add(
            &mut note,
            &witness,
            cosign(&checkpoint, &keypair(2), 2000).unwrap(),
        )
        .unwrap();
        assert_eq!(
            (note.signatures().len(), cosigners(&note)),
            (2, vec![(witness, 2000)])
        );

        let stranger = witness_key(&keypair(3).account());
        assert_eq!(
            verify(&note, &stranger),
            Err(CosignatureError::NotCosigned(stranger.name().to_owned()))
        );
        let log = LogKeys::new(keypair(1).account()).keys()[0].clone();
        assert!(matches!(
            verify(&note, &log),
            Err(CosignatureError::NotAWitness(_))
        ));
        let other: SignedNote = note.to_string().replacen("\n7\n", "\n8\n", 1).parse().unwrap();
        assert_eq!(
            verify(&other, &key),
            Err(CosignatureError::Wrong(key.name().to_owned()))
        );
        assert_eq!(cosigners(&other), []);
    }

    #[test]
    fn changed_lines_are_refused() {
        let (checkpoint, witness) = (checkpoint(), keypair(2).account());
        let key = witness_key(&witness);
        let good = cosign(&checkpoint, &keypair(2), 1000).unwrap().bytes().to_vec();
        for position in 0..good.len() {
            let mut changed = good.clone();
            changed[position] ^= 1;
            let line = NoteSignature::new(&key, changed);
            let mut note = checkpoint.note().clone();
            let refused = add(&mut note, &witness, line);
            assert!(matches!(
                refused,
                Err(AddCosignatureError::Cosignature(CosignatureError::Wrong(_)))
            ));
            assert_eq!(&note, checkpoint.note());
        }
        for length in [0, 7, 8, 71, 73] {
            let line = NoteSignature::new(&key, [good.as_slice(), &[0]].concat()[..length].to_vec());
            assert!(
                verify_line(checkpoint.note().text(), &key, &line).is_err(),
                "{length}"
            );
        }
        let of_other = cosign(&checkpoint, &keypair(3), 1000).unwrap();
        assert!(add(&mut checkpoint.note().clone(), &witness, of_other).is_err());
    }

    #[test]
    fn times_end_with_signed_integers() {
        let checkpoint = checkpoint();
        let key = witness_key(&keypair(2).account());
        let last = cosign(&checkpoint, &keypair(2), COSIGNATURE_SECONDS_MAX).unwrap();
        assert_eq!(
            verify_line(checkpoint.note().text(), &key, &last),
            Ok(COSIGNATURE_SECONDS_MAX)
        );
        let later = COSIGNATURE_SECONDS_MAX + 1;
        assert_eq!(
            cosign(&checkpoint, &keypair(2), later),
            Err(CosignatureError::Time(later))
        );
        // Signed all the same, by a witness that does not care.
        let text = checkpoint.note().text();
        let signature = keypair(2).sign_bytes(&message(text, later));
        let bytes = [later.to_be_bytes().as_slice(), signature.bytes()].concat();
        assert!(verify_line(text, &key, &NoteSignature::new(&key, bytes)).is_err());
    }

    #[test]
    fn names_of_witnesses_are_their_accounts() {
        let account = keypair(2).account();
        let name = witness_name(&account);
        assert!(name.starts_with("gristmill/witness/12D3KooW"));
        assert_eq!(account_of_witness(&name), Some(account));
        for other in ["", "gristmill/witness/", "gristmill/log/x", &format!("{name}x")] {
            assert_eq!(account_of_witness(other), None);
        }
    }
}
