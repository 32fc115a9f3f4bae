//! Network address translation: who can be dialled by whom.

use serde::Deserialize;

use super::weights::Kind;
use crate::scenario::Fraction;

/// A kind of translation (RFC 3489's names; RFC 4787 speaks of endpoint-independent and address-and-port-dependent mapping and
/// filtering).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// None, or a forwarded port: everybody can dial.
    Open,
    /// One mapping for all: who has sent anything can be dialled by everybody at the same port. QUIC dials from the port that it
    /// listens on, so such a node is as good as open.
    FullCone,
    /// One mapping for all, but only those pass whom the node has sent something.
    PortRestricted,
    /// A mapping for each peer: what others see of it does not help to reach it.
    Symmetric,
}

impl Kind for Nat {
    const ALL: &'static [(Self, u16)] = &[
        (Self::Open, 25),
        (Self::FullCone, 15),
        (Self::PortRestricted, 45),
        (Self::Symmetric, 15),
    ];
}

impl Nat {
    const fn can_be_dialled(self) -> bool {
        matches!(self, Self::Open | Self::FullCone)
    }
}

/// What nodes do about translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Traversal {
    /// Nothing, as the shipped mesh: one of both must be open to be dialled.
    #[default]
    None,
    /// Both send at once after a third introduced them (libp2p's DCUtR).
    HolePunching {
        /// Share of pairs for which it works, of those for which it could: 0.7 as measured.
        success: Fraction,
    },
    /// A third forwards everything where nothing else helps.
    Relay,
}

impl Traversal {
    /// Whether two nodes can have a connection. `luck` is the pair's, 64 random bits.
    #[must_use]
    pub fn connects(self, one: Nat, other: Nat, luck: u64) -> bool {
        if one.can_be_dialled() || other.can_be_dialled() {
            return true;
        }
        match self {
            Self::None => false,
            Self::Relay => true,
            Self::HolePunching { success } => {
                // A symmetric one sends from a port that the other cannot know, and a restricted one lets only known ports pass.
                let possible = one != Nat::Symmetric && other != Nat::Symmetric;
                let luck = u32::try_from(luck >> 32).map_or(0.0, f64::from) / 4_294_967_296.0;
                possible && luck < success.get()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_both_must_be_open_or_somebody_must_help() {
        use Nat::{FullCone, Open, PortRestricted, Symmetric};
        let punching = |percent| Traversal::HolePunching {
            success: Fraction::percent(percent),
        };
        let cases = [
            (Traversal::None, Symmetric, Open, true),
            (Traversal::None, FullCone, Symmetric, true),
            (Traversal::None, PortRestricted, PortRestricted, false),
            (punching(100), PortRestricted, PortRestricted, true),
            (punching(0), PortRestricted, PortRestricted, false),
            (punching(100), PortRestricted, Symmetric, false),
            (punching(100), Symmetric, Symmetric, false),
            (Traversal::Relay, Symmetric, Symmetric, true),
        ];
        for (traversal, one, other, expected) in cases {
            for (one, other) in [(one, other), (other, one)] {
                let found = traversal.connects(one, other, u64::MAX / 2);
                assert_eq!(found, expected, "{traversal:?} {one:?} {other:?}");
            }
        }
    }
}
