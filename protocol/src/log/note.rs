//! Signed notes: a text with the signatures of any number of keys under it, as transparency logs sign checkpoints.
//!
//! Source: [C2SP signed-note](https://c2sp.org/signed-note).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::identity::{Keypair, Signature};
use crate::log::cosignature;
use crate::log::note::key::{KEY_ID_BYTES, check_name};

mod key;

pub use crate::log::note::key::{KeyId, KeyKind, VerifierKey};

/// Most bytes of a signed note.
pub const NOTE_MAX_BYTES: usize = 16 * 1024;
/// Most signatures under a note.
pub const NOTE_SIGNATURES_MAX: usize = 64;
/// What every signature line begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

const SIGNATURE_BYTES: usize = 64;

/// Why a text is no note or no key, or a note's signatures do not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// More bytes than a note may have.
    #[error("a note of {0} bytes is over the limit of {NOTE_MAX_BYTES} bytes")]
    TooLarge(usize),
    /// More signatures than a note may have.
    #[error("the note has more than {NOTE_SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// Not the form of a note.
    #[error("the note is malformed: {0}")]
    Malformed(&'static str),
    /// Not the form of a verifier key.
    #[error("the verifier key is malformed: {0}; it looks like name+12ab34cd+base64")]
    Key(&'static str),
    /// A name that no key can have.
    #[error(
        "'{0}' can't be the name of a key; names are not empty and have no spaces, controls or plus signs"
    )]
    Name(String),
    /// A key that must have signed did not.
    #[error("the note is not signed by {0}")]
    NotSigned(String),
    /// A signature line of a known key that this key did not write. The whole note is void.
    #[error("the note's signature by {0} is not valid; the note was changed or made up")]
    WrongSignature(String),
}

/// One signature line of a note. What its bytes mean is up to the kind of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: KeyId,
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// A signature by a key.
    #[must_use]
    pub fn new(key: &VerifierKey, bytes: Vec<u8>) -> Self {
        Self {
            name: key.name().to_owned(),
            id: key.id(),
            bytes,
        }
    }

    /// The name of the key that claims to have signed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key that claims to have signed.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The signature without the key's id.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the line claims to be of this key.
    #[must_use]
    pub fn is_by(&self, key: &VerifierKey) -> bool {
        self.id == key.id() && self.name == key.name()
    }

    /// Reads one signature line with or without its newline, as a witness answers with.
    ///
    /// # Errors
    /// [`NoteError`] that says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Malformed;
        if line.len() > NOTE_MAX_BYTES {
            return Err(NoteError::TooLarge(line.len()));
        }
        let line = line.strip_suffix('\n').unwrap_or(line);
        let (name, signature) = line
            .strip_prefix(SIGNATURE_PREFIX)
            .and_then(|rest| rest.split_once(' '))
            .ok_or(malformed(
                "a signature line is an em dash, a name and base64, with single spaces",
            ))?;
        check_name(name)?;
        let decoded = STANDARD
            .decode(signature)
            .map_err(|_| malformed("a signature is not base64"))?;
        match decoded.split_first_chunk::<KEY_ID_BYTES>() {
            Some((id, bytes)) if !bytes.is_empty() => Ok(Self {
                name: name.to_owned(),
                id: KeyId(*id),
                bytes: bytes.to_vec(),
            }),
            _ => Err(malformed("a signature has no more than the key's id")),
        }
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = [self.id.0.as_slice(), &self.bytes].concat();
        writeln!(
            formatter,
            "{SIGNATURE_PREFIX}{} {}",
            self.name,
            STANDARD.encode(signature)
        )
    }
}

/// A text with signatures, none of which was checked yet. It is only ever as its one spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Signs a text under a name. The same text, name and key always give the same bytes.
    ///
    /// Texts that begin like a cosignature are refused, so that no signature of a note can pass for one.
    ///
    /// # Errors
    /// [`NoteError`] where the text is no note's, or no key can have the name.
    pub fn sign(text: &str, name: &str, keypair: &Keypair) -> Result<Self, NoteError> {
        check_text(text)?;
        if text.starts_with(cosignature::HEADER) {
            return Err(NoteError::Malformed("its text begins like a cosignature"));
        }
        let key = VerifierKey::new(name, KeyKind::Ed25519, keypair.account())?;
        let signature = keypair.sign_bytes(text.as_bytes()).bytes().to_vec();
        let note = Self {
            text: text.to_owned(),
            signatures: vec![NoteSignature::new(&key, signature)],
        };
        match note.to_string().len() {
            0..=NOTE_MAX_BYTES => Ok(note),
            bytes => Err(NoteError::TooLarge(bytes)),
        }
    }

    /// What was signed, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in their order. At least one.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature line, in place of one with the same name and key id.
    ///
    /// # Errors
    /// [`NoteError`] where the note would have too many signatures or bytes; it stays as it was.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let same = |other: &NoteSignature| other.id == signature.id && other.name == signature.name;
        let mut changed = self.clone();
        changed.signatures.retain(|other| !same(other));
        changed.signatures.push(signature);
        *self = changed.to_string().parse()?;
        Ok(())
    }

    /// The note with one of its signature lines alone.
    pub(super) fn with_only(&self, line: NoteSignature) -> Self {
        Self {
            text: self.text.clone(),
            signatures: vec![line],
        }
    }

    /// Whether a line claims to be of this key.
    #[must_use]
    pub fn names(&self, key: &VerifierKey) -> bool {
        self.signatures.iter().any(|line| line.is_by(key))
    }

    /// Checks that this key signed the text.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] where no line is of this key, [`NoteError::WrongSignature`] where one does not hold.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        self.verify_any([key])
    }

    /// Checks that at least one of these keys signed the text, and that no line of any of them is wrong.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] where no line is of these keys, [`NoteError::WrongSignature`] where one of theirs
    /// does not hold.
    pub fn verify_any<'a>(&self, keys: impl IntoIterator<Item = &'a VerifierKey>) -> Result<(), NoteError> {
        let mut missing = None;
        let mut signed = false;
        for key in keys {
            missing = Some(key.name());
            let mut verified: Option<&[u8]> = None;
            for line in self.signatures.iter().filter(|line| line.is_by(key)) {
                // A line that somebody repeats is checked once.
                if verified != Some(line.bytes()) {
                    self.verify_line(key, line)?;
                    verified = Some(line.bytes());
                }
                signed = true;
            }
        }
        match signed {
            true => Ok(()),
            false => Err(NoteError::NotSigned(
                missing.unwrap_or("any known key").to_owned(),
            )),
        }
    }

    fn verify_line(&self, key: &VerifierKey, line: &NoteSignature) -> Result<(), NoteError> {
        let wrong = || NoteError::WrongSignature(key.name().to_owned());
        match key.kind() {
            KeyKind::Ed25519 => {
                let bytes = <[u8; SIGNATURE_BYTES]>::try_from(line.bytes()).map_err(|_| wrong())?;
                key.account()
                    .verify_bytes(self.text.as_bytes(), &Signature::from_bytes(bytes))
                    .map_err(|_| wrong())
            }
            KeyKind::Cosignature => cosignature::verify_line(&self.text, key, line)
                .map(|_| ())
                .map_err(|_| wrong()),
        }
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if text.len() > NOTE_MAX_BYTES {
        return Err(NoteError::TooLarge(text.len()));
    }
    if !text.ends_with('\n') {
        return Err(NoteError::Malformed("its text does not end with a newline"));
    }
    if text.contains(|character: char| character < ' ' && character != '\n') {
        return Err(NoteError::Malformed("it has control characters"));
    }
    Ok(())
}

impl fmt::Display for SignedNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(formatter))
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        check_text(note)?;
        // The signatures have no empty line, the text may have some.
        let blank = note.rfind("\n\n").ok_or(NoteError::Malformed(
            "no empty line stands between text and signatures",
        ))?;
        let (text, signatures) = note.split_at(blank + 1);
        let lines = signatures.split_inclusive('\n').skip(1);
        let signatures: Vec<_> = lines
            .take(NOTE_SIGNATURES_MAX + 1)
            .map(NoteSignature::parse)
            .collect::<Result<_, _>>()?;
        match signatures.len() {
            0 => Err(NoteError::Malformed("it has no signature")),
            1..=NOTE_SIGNATURES_MAX => Ok(Self {
                text: text.to_owned(),
                signatures,
            }),
            _ => Err(NoteError::TooManySignatures),
        }
    }
}

impl Serialize for SignedNote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SignedNote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Encode for SignedNote {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.to_string().encode(encoder)
    }
}

impl<Context> Decode<Context> for SignedNote {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let text = String::decode(decoder)?;
        text.parse()
            .map_err(|error: NoteError| DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(SignedNote);

#[cfg(test)]
mod tests;
