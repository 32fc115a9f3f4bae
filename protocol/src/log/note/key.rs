//! The keys that sign notes, and their names.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::identity::AccountId;
use crate::log::note::{NOTE_MAX_BYTES, NoteError};

/// Bytes of a key's short id.
pub(super) const KEY_ID_BYTES: usize = 4;

/// What a key signs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Ed25519 over the note's text: signature type 0x01.
    Ed25519,
    /// A witness's Ed25519 over the note's text and a time: signature type 0x04, `cosignature/v1`.
    Cosignature,
}

impl KeyKind {
    /// The byte that names the signature type in keys and key ids.
    #[must_use]
    pub const fn type_byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// The short id of a key in signature lines. It tells keys apart, it does not authenticate them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub(super) [u8; KEY_ID_BYTES]);

impl KeyId {
    /// The id of a key with this name: the first four bytes of SHA-256 over name, newline, type and public key.
    #[must_use]
    pub fn of(name: &str, kind: KeyKind, account: &AccountId) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name);
        hasher.update([b'\n', kind.type_byte()]);
        hasher.update(account.public_key());
        let digest: [u8; 32] = hasher.finalize().into();
        Self([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}

/// A public key with the name it signs notes under: `name+12ab34cd+base64`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    account: AccountId,
    id: KeyId,
}

impl VerifierKey {
    /// The key of this account under this name.
    ///
    /// # Errors
    /// [`NoteError::Name`] where no key can have that name.
    pub fn new(name: &str, kind: KeyKind, account: AccountId) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self::of_account(name, kind, account))
    }

    /// The key of an account under a name that was made of an account, and so can be one.
    pub(in crate::log) fn of_account(name: &str, kind: KeyKind, account: AccountId) -> Self {
        let id = KeyId::of(name, kind, &account);
        Self {
            name: name.to_owned(),
            kind,
            account,
            id,
        }
    }

    /// The name in its signature lines.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs, and how.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The account whose key it is.
    #[must_use]
    pub const fn account(&self) -> &AccountId {
        &self.account
    }

    /// The id in its signature lines.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.type_byte()];
        key.extend_from_slice(self.account.public_key());
        write!(formatter, "{}+{}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        if text.len() > NOTE_MAX_BYTES {
            return Err(NoteError::Key("it is over 16 KiB"));
        }
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("it has no three parts"));
        };
        let key = STANDARD
            .decode(key)
            .map_err(|_| NoteError::Key("its key is not base64"))?;
        let kind = match key.first() {
            Some(0x01) => KeyKind::Ed25519,
            Some(0x04) => KeyKind::Cosignature,
            _ => {
                return Err(NoteError::Key(
                    "only Ed25519 (type 1) and cosignatures (type 4) are known",
                ));
            }
        };
        let public =
            <[u8; 32]>::try_from(&key[1..]).map_err(|_| NoteError::Key("an Ed25519 key has 32 bytes"))?;
        let key = Self::new(name, kind, AccountId::from_public_key(public))?;
        match key.id.to_string() == id {
            true => Ok(key),
            false => Err(NoteError::Key("its id is not that of its name and key")),
        }
    }
}

impl Serialize for VerifierKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifierKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Checks that a name can stand in a signature line and in a verifier key.
pub(super) fn check_name(name: &str) -> Result<(), NoteError> {
    let refused = |character: char| character.is_whitespace() || character < ' ' || character == '+';
    match name.is_empty() || name.contains(refused) {
        true => Err(NoteError::Name(name.chars().take(80).collect())),
        false => Ok(()),
    }
}
