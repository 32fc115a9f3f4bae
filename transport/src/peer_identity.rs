//! The one key of an installation, seen as a libp2p identity: the account *is* the peer id.

use gristmill_protocol::identity::{AccountId, AccountIdError, Keypair};
use libp2p::PeerId;
use libp2p::identity::{self, DecodingError};

/// The libp2p identity of an installation's key.
///
/// # Errors
/// [`DecodingError`] where libp2p refuses the secret; it takes every 32 bytes.
pub(crate) fn libp2p_keypair(keypair: &Keypair) -> Result<identity::Keypair, DecodingError> {
    // libp2p wipes the bytes that it is given.
    let mut secret = keypair.secret();
    identity::Keypair::ed25519_from_bytes(secret.as_mut_slice())
}

/// The peer of an account.
///
/// # Errors
/// The parse error of libp2p; the bytes of every account are a valid peer id.
pub(crate) fn peer_of(account: AccountId) -> Result<PeerId, String> {
    PeerId::from_bytes(&account.peer_id_bytes()).map_err(|error| error.to_string())
}

/// The account of a peer.
///
/// # Errors
/// [`AccountIdError`] where the peer's key is not an Ed25519 key.
pub(crate) fn account_of(peer: &PeerId) -> Result<AccountId, AccountIdError> {
    AccountId::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_peer_ids_are_the_same_text_and_bytes() {
        for byte in 0..=255 {
            let keypair = Keypair::from_secret(&[byte; 32]);
            let peer = libp2p_keypair(&keypair).unwrap().public().to_peer_id();
            assert_eq!(peer.to_string(), keypair.account().to_string());
            assert_eq!(account_of(&peer), Ok(keypair.account()));
            assert_eq!(peer_of(keypair.account()), Ok(peer));
        }
    }

    #[test]
    fn peers_with_other_keys_have_no_account() {
        let rsa_style = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
            .parse::<PeerId>()
            .unwrap();
        assert!(account_of(&rsa_style).is_err());
    }
}
