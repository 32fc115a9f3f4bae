//! The name of an account's starter grant. How many are given in a day is the book's business.

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::GrantId;

/// The name of an account's starter grant: always the same, so that there is at most one.
#[must_use]
pub fn starter_grant_id(account: &AccountId) -> GrantId {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill/starter-grant/1");
    hasher.update(account.public_key());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    GrantId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_has_one_name_of_its_own() {
        let name = |key| starter_grant_id(&AccountId::from_public_key([key; 32]));
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
    }
}
