//! Who is who: one Ed25519 key per installation is the libp2p peer, the account that earns and the account
//! that spends. Signatures are separated by domain, so that none of one kind can pass for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use bincode::{Decode, Encode};
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::codec;

mod parsed_keys;
mod peer_id_text;
mod strict;

/// The bytes before the key in a libp2p peer id of an Ed25519 key: an identity multihash (0x00) of 36 bytes
/// (0x24) over the protobuf `PublicKey { Type: Ed25519 (08 01), Data: 32 bytes (12 20 …) }`.
///
/// Source: libp2p specification, "Peer Ids and Keys".
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Longest text that can be a peer id of an Ed25519 key.
const PEER_ID_TEXT_MAX_BYTES: usize = 64;

/// The name of an account: an Ed25519 public key, written as its libp2p peer id (`12D3Koo…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct AccountId([u8; 32]);

/// Why a text or bytes are no account.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccountIdError {
    /// Not base58, or not the peer id of an Ed25519 key.
    #[error("'{0}' is not an account; accounts are peer ids of Ed25519 keys and begin with 12D3Koo")]
    Malformed(String),
}

impl AccountId {
    /// An account from the bytes of its public key.
    #[must_use]
    pub const fn from_public_key(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The binary libp2p peer id, 38 bytes.
    #[must_use]
    pub fn peer_id_bytes(&self) -> Vec<u8> {
        [PEER_ID_PREFIX.as_slice(), &self.0].concat()
    }

    /// An account from a binary libp2p peer id.
    ///
    /// # Errors
    /// [`AccountIdError::Malformed`] where the peer id is not that of an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, AccountIdError> {
        bytes
            .strip_prefix(&PEER_ID_PREFIX)
            .and_then(|key| <[u8; 32]>::try_from(key).ok())
            .map(Self)
            .ok_or_else(|| AccountIdError::Malformed(hex::encode(&bytes[..bytes.len().min(38)])))
    }

    /// Checks a signature over raw bytes, strictly: small-order keys and non-canonical encodings fail.
    ///
    /// # Errors
    /// [`InvalidSignature`] where the signature is not this account's over these bytes.
    pub fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), InvalidSignature> {
        let key = parsed_keys::parse(&self.0).ok_or(InvalidSignature)?;
        strict::verify(&key, message, &signature.0)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut peer_id = [0; peer_id_text::PEER_ID_BYTES];
        let (prefix, key) = peer_id.split_at_mut(PEER_ID_PREFIX.len());
        prefix.copy_from_slice(&PEER_ID_PREFIX);
        key.copy_from_slice(&self.0);
        let text = peer_id_text::encode(&peer_id);
        // Every character is one of base58's.
        formatter.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AccountId({self})")
    }
}

impl FromStr for AccountId {
    type Err = AccountIdError;

    fn from_str(text: &str) -> Result<Self, AccountIdError> {
        let malformed = || AccountIdError::Malformed(text.chars().take(PEER_ID_TEXT_MAX_BYTES).collect());
        if text.len() > PEER_ID_TEXT_MAX_BYTES {
            return Err(malformed());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| malformed())?;
        Self::from_peer_id_bytes(&bytes).map_err(|_| malformed())
    }
}

impl Serialize for AccountId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
crate::text_schema!(
    AccountId,
    "An account: the libp2p peer id of its Ed25519 key",
    "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Signature([u8; 64]);

impl Signature {
    /// A signature from its bytes (R then S, RFC 8032 section 5.1.6).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes of the signature.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature({}…)", hex::encode(&self.0[..4]))
    }
}

/// A signature that is not this account's over these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature is not valid for this account and content")]
pub struct InvalidSignature;

/// The key of an installation. Its secret is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct Keypair {
    key: SigningKey,
    /// The same key where signing takes half as long. Signatures of RFC 8032 are the same bytes whoever computes them,
    /// so where this library has no memory for a key or a signature, `key` signs.
    signer: Option<Arc<Ed25519KeyPair>>,
}

impl Keypair {
    /// A key from its 32 secret bytes (the seed of RFC 8032).
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(secret);
        Self {
            signer: Ed25519KeyPair::from_seed_unchecked(secret).ok().map(Arc::new),
            key,
        }
    }

    /// The 32 secret bytes, for the key file and for libp2p. They are wiped when dropped.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The account of this key.
    #[must_use]
    pub fn account(&self) -> AccountId {
        AccountId(self.key.verifying_key().to_bytes())
    }

    /// Signs raw bytes. Callers separate domains; prefer [`Keypair::sign`].
    #[must_use]
    pub fn sign_bytes(&self, message: &[u8]) -> Signature {
        let quick = self
            .signer
            .as_ref()
            .and_then(|signer| signer.try_sign(message).ok());
        let bytes = quick.and_then(|signature| signature.as_ref().try_into().ok());
        Signature(bytes.unwrap_or_else(|| self.key.sign(message).to_bytes()))
    }

    /// Signs a struct in its own domain.
    #[must_use]
    pub fn sign<T: SignedContent>(&self, content: T) -> Signed<T> {
        let signature = self.sign_bytes(&signing_input(&content));
        Signed {
            content,
            signer: self.account(),
            signature,
        }
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keypair({})", self.account())
    }
}

/// A struct that is signed, and the domain of its signatures.
pub trait SignedContent: Encode {
    /// The name of the struct in the domain, in lower case.
    const NAME: &'static str;
    /// Raised whenever the encoding changes.
    const VERSION: u16;
}

/// What is signed: `gristmill/<struct>/<version>\0` followed by the canonical encoding.
fn signing_input<T: SignedContent>(content: &T) -> Vec<u8> {
    let mut input = format!("gristmill/{}/{}\0", T::NAME, T::VERSION).into_bytes();
    input.extend_from_slice(&codec::encode(content));
    input
}

/// A struct with the account that signed it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Signed<T> {
    content: T,
    signer: AccountId,
    signature: Signature,
}

impl<T: SignedContent> Signed<T> {
    /// What was signed, after checking that `signer` signed it.
    ///
    /// # Errors
    /// [`InvalidSignature`] where the signature does not hold.
    pub fn verify(&self) -> Result<&T, InvalidSignature> {
        self.signer
            .verify_bytes(&signing_input(&self.content), &self.signature)?;
        Ok(&self.content)
    }

    /// What was signed, after checking that exactly this account signed it.
    ///
    /// # Errors
    /// [`InvalidSignature`] where somebody else signed, or the signature does not hold.
    pub fn verify_from(&self, signer: &AccountId) -> Result<&T, InvalidSignature> {
        if self.signer != *signer {
            return Err(InvalidSignature);
        }
        self.verify()
    }
}

impl<T> Signed<T> {
    /// The content without checking the signature: for what this process signed or has checked before.
    #[must_use]
    pub const fn content_unchecked(&self) -> &T {
        &self.content
    }

    /// The account that claims to have signed.
    #[must_use]
    pub const fn signer(&self) -> &AccountId {
        &self.signer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
    struct Note(u64);
    impl SignedContent for Note {
        const NAME: &'static str = "note";
        const VERSION: u16 = 1;
    }

    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
    struct OtherNote(u64);
    impl SignedContent for OtherNote {
        const NAME: &'static str = "other-note";
        const VERSION: u16 = 1;
    }

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    #[test]
    fn accounts_are_libp2p_peer_ids() {
        // Public key and peer id as libp2p writes them; transport tests hold it against libp2p itself.
        let account = keypair(1).account();
        let text = account.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<AccountId>().unwrap(), account);
        assert_eq!(
            serde_json::from_str::<AccountId>(&serde_json::to_string(&account).unwrap()).unwrap(),
            account
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "12D3KooW",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
            "0OIl",
            &"1".repeat(1000),
        ] {
            assert!(text.parse::<AccountId>().is_err(), "{text}");
        }
    }

    #[test]
    fn signatures_hold_only_for_signer_content_and_domain() {
        let signed = keypair(1).sign(Note(7));
        assert_eq!(signed.verify_from(&keypair(1).account()), Ok(&Note(7)));
        assert_eq!(signed.verify_from(&keypair(2).account()), Err(InvalidSignature));
        let other_content = Signed {
            content: Note(8),
            ..signed
        };
        assert_eq!(other_content.verify(), Err(InvalidSignature));
        let other_domain = Signed {
            content: OtherNote(7),
            signer: signed.signer,
            signature: signed.signature,
        };
        assert_eq!(other_domain.verify(), Err(InvalidSignature));
    }

    #[test]
    fn signatures_are_the_bytes_that_any_implementation_makes() {
        for (byte, length) in [(0, 0), (1, 1), (7, 63), (8, 64), (9, 200), (255, 100_000)] {
            let message = vec![byte; length];
            let theirs = SigningKey::from_bytes(&[byte; 32]).sign(&message).to_bytes();
            let quick = keypair(byte);
            assert!(quick.signer.is_some());
            let slow = Keypair {
                signer: None,
                ..quick.clone()
            };
            for keypair in [quick, slow] {
                assert_eq!(*keypair.sign_bytes(&message).bytes(), theirs);
            }
        }
    }

    #[test]
    fn small_order_keys_are_refused() {
        // The identity point verifies anything under the cofactored equation; strict verification says no.
        let mut key = [0u8; 32];
        key[0] = 1;
        let mut signature = [0u8; 64];
        signature[0] = 1;
        let account = AccountId::from_public_key(key);
        assert_eq!(
            account.verify_bytes(b"anything", &Signature::from_bytes(signature)),
            Err(InvalidSignature)
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let keypair = keypair(0xab);
        assert!(!format!("{keypair:?}").contains("abab"));
    }
}
