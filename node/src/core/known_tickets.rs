//! Tickets whose signatures were checked: all jobs of a channel show the same one, and a signature takes longer to
//! check than everything else about a job's opening.

use std::collections::BTreeMap;

use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::tokens::TicketClaims;

/// Most tickets that are remembered, some hundred bytes each.
const TICKETS_MAX: usize = 4_096;

/// What the checked tickets say, for as long as the coordinator has the same keys.
#[derive(Debug, Default)]
pub struct KnownTickets {
    keys: Option<LogKeys>,
    /// By the BLAKE3 hash of the token.
    claims: BTreeMap<[u8; 32], TicketClaims>,
}

impl KnownTickets {
    /// What a ticket says, where this very one was checked with these keys before. Whether it still holds now is for
    /// the caller to check.
    #[must_use]
    pub fn get(&self, token: &str, keys: &LogKeys) -> Option<&TicketClaims> {
        let is_current = self.keys.as_ref() == Some(keys);
        self.claims.get(&name(token)).filter(|_| is_current)
    }

    /// Remembers a ticket that was checked with these keys.
    pub fn remember(&mut self, token: &str, keys: &LogKeys, claims: &TicketClaims) {
        if self.keys.as_ref() != Some(keys) || self.claims.len() >= TICKETS_MAX {
            // All are checked once more, which is cheaper than knowing which of them are still used.
            self.claims.clear();
            self.keys = Some(keys.clone());
        }
        self.claims.insert(name(token), claims.clone());
    }
}

fn name(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::jws::Audience;

    fn keys(byte: u8) -> LogKeys {
        LogKeys::new(Keypair::from_secret(&[byte; 32]).account())
    }

    fn claims() -> TicketClaims {
        let account = |byte| Keypair::from_secret(&[byte; 32]).account();
        TicketClaims {
            iss: account(1),
            sub: account(2),
            aud: Audience::One(account(3)),
            jti: ChannelId::from_bytes([7; 16]),
            iat: 0,
            exp: 1,
            limit: Credits::micro(100),
            fee_basis_points: 0,
            redeem_by_ms: 1_000,
        }
    }

    #[test]
    fn the_very_same_ticket_is_known_while_the_keys_are_the_same() {
        let mut known = KnownTickets::default();
        assert_eq!(known.get("a.b.c", &keys(1)), None);
        known.remember("a.b.c", &keys(1), &claims());
        assert_eq!(known.get("a.b.c", &keys(1)), Some(&claims()));
        assert_eq!(known.get("a.b.d", &keys(1)), None, "any other bytes");
        assert_eq!(known.get("a.b.c", &keys(2)), None, "keys have changed");
        known.remember("a.b.d", &keys(2), &claims());
        assert_eq!(known.get("a.b.c", &keys(1)), None, "forgotten with the keys");
        assert_eq!(known.get("a.b.c", &keys(2)), None, "checked with other keys");
    }

    #[test]
    fn never_more_than_so_many_are_remembered() {
        let mut known = KnownTickets::default();
        for number in 0..=TICKETS_MAX {
            known.remember(&number.to_string(), &keys(1), &claims());
            assert!(known.claims.len() <= TICKETS_MAX);
        }
        assert!(known.get(&TICKETS_MAX.to_string(), &keys(1)).is_some());
    }
}
