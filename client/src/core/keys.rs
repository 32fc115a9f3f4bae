//! The keys that programs show to the endpoint: who has one, what each may spend and how often it may ask.
//!
//! Of a key only its BLAKE3 digest is kept. A key has 160 random bits, so a fast digest is enough.

use std::fmt;
use std::str::FromStr;

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How every key begins, so that people and scanners for leaked secrets know what it is.
pub const KEY_PREFIX: &str = "gm-";
/// Random bytes of a key.
pub const KEY_RANDOM_BYTES: usize = 20;
/// Most keys in use at once.
pub const KEYS_MAX: usize = 1_024;
/// Most revoked keys that are remembered.
const REVOKED_MAX: usize = 1_024;
/// Most bytes of a name.
const NAME_MAX_BYTES: usize = 64;
/// Names that the client itself uses for those who show no key of a program.
const RESERVED_NAMES: [&str; 2] = ["owner", "settings"];
/// Most requests per minute that a key can be limited to.
pub const REQUESTS_PER_MINUTE_MAX: u32 = 1_000_000;

/// The name of a key: 1 to 64 letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

/// A text that can't name a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' can't be the name of a key; use 1 to {NAME_MAX_BYTES} letters, digits, '-', '_' or '.', and neither 'owner' \
     nor 'settings'"
)]
pub struct KeyNameError(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let fits = (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        if !fits || RESERVED_NAMES.contains(&text) {
            return Err(KeyNameError(text.chars().take(NAME_MAX_BYTES).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for KeyName {
    type Error = KeyNameError;

    fn try_from(text: String) -> Result<Self, KeyNameError> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// The first half of a key's digest is too short to find the key and long enough to tell keys of one name apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

/// The digest of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest(blake3::Hash);

/// A text that is no digest, or no id, of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the id or digest of a key is hexadecimal, of 8 or 32 bytes")]
pub struct KeyDigestError;

impl KeyDigest {
    /// The digest of the key that a program shows.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(blake3::hash(key))
    }

    /// What tells this key from others.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0.as_bytes()[..8]);
        KeyId(id)
    }
}

/// Texts are how both are kept in files.
macro_rules! hexadecimal {
    ($name:ident, $bytes:literal, $of:expr, $text:expr) => {
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&$text(self))
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyDigestError;

            fn try_from(text: String) -> Result<Self, KeyDigestError> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyDigestError)?;
                Ok($of(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&$text(self))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::try_from(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

hexadecimal!(KeyId, 8, KeyId, |id: &KeyId| hex::encode(id.0));
hexadecimal!(
    KeyDigest,
    32,
    |bytes: [u8; 32]| KeyDigest(blake3::Hash::from_bytes(bytes)),
    |digest: &KeyDigest| digest.0.to_hex().to_string()
);

/// For how long an amount lasts. Days and months are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Anew each day
    Day,
    /// Anew each month
    Month,
    /// Once
    Ever,
}

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Ever => "ever",
        })
    }
}

/// The most that a program may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpendCap {
    /// How much, in microcredits.
    pub amount: Credits,
    /// For how long.
    pub per: Period,
}

/// The key of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramKey {
    /// What its owner calls it.
    pub name: KeyName,
    /// What is kept of it.
    pub digest: KeyDigest,
    /// The most that it may spend; none: no bound but the account's.
    pub cap: Option<SpendCap>,
    /// The most requests in a minute; none: no bound.
    pub requests_per_minute: Option<u32>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds, where it counts for nothing any more.
    pub revoked_at_ms: Option<u64>,
}

impl ProgramKey {
    /// Whether it opens the endpoint.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.revoked_at_ms.is_none()
    }
}

/// What a key shall be allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The most that it may spend.
    pub cap: Option<SpendCap>,
    /// The most requests in a minute.
    pub requests_per_minute: Option<u32>,
}

/// Why there is no such new key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CreateKeyError {
    /// The name is taken.
    #[error("there is a key '{0}' already; choose another name, or revoke that one first")]
    Exists(KeyName),
    /// There are too many.
    #[error("there are {KEYS_MAX} keys in use already; revoke one that nobody needs")]
    TooMany,
    /// A key that allows nothing.
    #[error("requests per minute must be 1 to {REQUESTS_PER_MINUTE_MAX}")]
    Rate,
}

/// Nobody has such a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no key '{0}' in use; 'gristmill client keys list' shows those there are")]
pub struct NoSuchKey(pub KeyName);

/// All keys of programs, revoked ones among them: a book that ever had a key never opens the endpoint to everybody
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyBook {
    keys: Vec<ProgramKey>,
}

impl KeyBook {
    /// Makes a key from fresh random bytes. Its text is shown this once and not kept.
    ///
    /// # Errors
    /// [`CreateKeyError`] where the name is taken, there are too many keys, or the rate makes no sense.
    pub fn create(
        &mut self,
        name: KeyName,
        allowance: Allowance,
        random: [u8; KEY_RANDOM_BYTES],
        now_ms: u64,
    ) -> Result<String, CreateKeyError> {
        if self.active(&name).is_some() {
            return Err(CreateKeyError::Exists(name));
        }
        if self.keys.iter().filter(|key| key.is_active()).count() >= KEYS_MAX {
            return Err(CreateKeyError::TooMany);
        }
        let rate = allowance.requests_per_minute;
        if rate.is_some_and(|rate| !(1..=REQUESTS_PER_MINUTE_MAX).contains(&rate)) {
            return Err(CreateKeyError::Rate);
        }
        let text = format!("{KEY_PREFIX}{}", hex::encode(random));
        self.keys.push(ProgramKey {
            name,
            digest: KeyDigest::of(text.as_bytes()),
            cap: allowance.cap,
            requests_per_minute: rate,
            created_at_ms: now_ms,
            revoked_at_ms: None,
        });
        Ok(text)
    }

    /// From now on the key opens nothing.
    ///
    /// # Errors
    /// [`NoSuchKey`] where no key in use has the name.
    pub fn revoke(&mut self, name: &KeyName, now_ms: u64) -> Result<(), NoSuchKey> {
        let found = self
            .keys
            .iter_mut()
            .find(|key| key.is_active() && key.name == *name);
        found.ok_or_else(|| NoSuchKey(name.clone()))?.revoked_at_ms = Some(now_ms);
        let revoked = self.keys.iter().filter(|key| !key.is_active()).count();
        let mut surplus = revoked.saturating_sub(REVOKED_MAX);
        self.keys.retain(|key| {
            let goes = surplus > 0 && !key.is_active();
            surplus -= usize::from(goes);
            !goes
        });
        Ok(())
    }

    /// The key that is shown, where it is one in use.
    #[must_use]
    pub fn find(&self, shown: &[u8]) -> Option<&ProgramKey> {
        let digest = KeyDigest::of(shown);
        // Every key is compared, each in constant time, so that the time does not tell which one was near.
        self.keys
            .iter()
            .filter(|key| key.is_active())
            .fold(
                None,
                |found, key| {
                    if key.digest == digest { Some(key) } else { found }
                },
            )
    }

    /// The key in use of a name.
    #[must_use]
    pub fn active(&self, name: &KeyName) -> Option<&ProgramKey> {
        self.keys.iter().find(|key| key.is_active() && key.name == *name)
    }

    /// All keys, in the order in which they were made.
    #[must_use]
    pub fn keys(&self) -> &[ProgramKey] {
        &self.keys
    }

    /// Whether no key was ever made.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// Somebody on this machine, where no key is asked for.
    #[default]
    Anyone,
    /// Who can read the client's own files, such as its commands.
    Owner,
    /// A program with one of the keys in the settings.
    Settings,
    /// A program with a key of its own.
    Key {
        /// The key's name.
        name: KeyName,
        /// The key.
        id: KeyId,
        /// What it is allowed.
        allowance: Allowance,
    },
}

impl From<&ProgramKey> for Program {
    fn from(key: &ProgramKey) -> Self {
        Self::Key {
            name: key.name.clone(),
            id: key.digest.id(),
            allowance: Allowance {
                cap: key.cap,
                requests_per_minute: key.requests_per_minute,
            },
        }
    }
}

impl Program {
    /// The name under which it stands in what is kept of its requests; none where no key was asked for.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Anyone => None,
            Self::Owner => Some("owner"),
            Self::Settings => Some("settings"),
            Self::Key { name, .. } => Some(name.as_str()),
        }
    }

    /// Its own key.
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        match self {
            Self::Key { id, .. } => Some(*id),
            Self::Anyone | Self::Owner | Self::Settings => None,
        }
    }

    /// What it is allowed.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        match self {
            Self::Key { allowance, .. } => *allowance,
            Self::Anyone | Self::Owner | Self::Settings => Allowance::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> KeyName {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_opens_until_it_is_revoked_and_its_name_is_free_again() {
        let mut book = KeyBook::default();
        assert!(book.is_unused());
        let text = book.create(name("ci"), Allowance::default(), [7; 20], 1).unwrap();
        assert_eq!(text, format!("gm-{}", "07".repeat(20)));
        assert_eq!(book.find(text.as_bytes()).unwrap().name, name("ci"));
        for other in [&text[..text.len() - 1], "", "gm-", &text.to_uppercase()] {
            assert!(book.find(other.as_bytes()).is_none(), "{other}");
        }
        let again = book.create(name("ci"), Allowance::default(), [8; 20], 1);
        assert_eq!(again, Err(CreateKeyError::Exists(name("ci"))));
        book.revoke(&name("ci"), 2).unwrap();
        assert!(book.find(text.as_bytes()).is_none() && !book.is_unused());
        assert_eq!(book.revoke(&name("ci"), 3), Err(NoSuchKey(name("ci"))));
        let second = book.create(name("ci"), Allowance::default(), [9; 20], 4).unwrap();
        let ids: Vec<_> = book.keys().iter().map(|key| key.digest.id()).collect();
        assert!(ids[0] != ids[1] && book.find(second.as_bytes()).is_some());
    }

    #[test]
    fn the_text_of_a_key_is_not_kept() {
        let mut book = KeyBook::default();
        let cap = SpendCap {
            amount: Credits::micro(5),
            per: Period::Day,
        };
        let allowance = Allowance {
            cap: Some(cap),
            requests_per_minute: Some(3),
        };
        let text = book.create(name("ci"), allowance, [7; 20], 1).unwrap();
        let kept = serde_json::to_string(&book).unwrap();
        assert!(
            !kept.contains(&text[3..]) && !format!("{book:?}").contains(&text[3..]),
            "{kept}"
        );
        assert_eq!(serde_json::from_str::<KeyBook>(&kept).unwrap(), book);
    }

    #[test]
    fn names_and_rates_have_bounds() {
        assert!("x".repeat(64).parse::<KeyName>().is_ok());
        for text in ["", "a b", "ä", "a/b", "owner", "settings", &"x".repeat(65)] {
            assert!(text.parse::<KeyName>().is_err(), "{text}");
        }
        let mut book = KeyBook::default();
        for rate in [0, REQUESTS_PER_MINUTE_MAX + 1] {
            let allowance = Allowance {
                requests_per_minute: Some(rate),
                ..Allowance::default()
            };
            assert_eq!(
                book.create(name("a"), allowance, [1; 20], 0),
                Err(CreateKeyError::Rate)
            );
        }
    }

    #[test]
    fn the_book_is_bounded_and_never_forgets_that_there_were_keys() {
        let mut book = KeyBook::default();
        let random = |index: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&index.to_le_bytes());
            bytes
        };
        for index in 0..KEYS_MAX {
            book.create(name(&format!("k{index}")), Allowance::default(), random(index), 0)
                .unwrap();
        }
        let more = book.create(name("more"), Allowance::default(), [9; 20], 0);
        assert_eq!(more, Err(CreateKeyError::TooMany));
        for round in 0..2 {
            for index in 0..KEYS_MAX {
                book.revoke(&name(&format!("k{index}")), 1).unwrap();
                let again = random(index + (round + 1) * KEYS_MAX);
                book.create(name(&format!("k{index}")), Allowance::default(), again, 2)
                    .unwrap();
            }
        }
        assert_eq!(book.keys().len(), KEYS_MAX + REVOKED_MAX);
    }
}
