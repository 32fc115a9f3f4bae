//! The places on the board and in opening a listing.

use gristmill_protocol::board::{Board, Insertion};
use gristmill_protocol::codec;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Listing, Offer, PrivacyTier};
use gristmill_protocol::planted::Bug;
use gristmill_protocol::usage::Price;

use super::Place;

pub(super) const PLACES: &[Place] = &[
    (Bug::StaleListingTaken, || {
        let mut board = board();
        let later = NOW + 10_000;
        board.insert(&sealed(4, later), later) != Ok(Insertion::Stale)
    }),
    (Bug::ListingIntervalIgnored, || {
        board().insert(&sealed(6, NOW), NOW + 1) != Ok(Insertion::TooSoon)
    }),
    (Bug::ListingNeverExpires, || {
        board().listings(NOW + TTL_MS).next().is_some()
    }),
    (Bug::ForgedListingTaken, || {
        let forged = codec::encode(&Keypair::from_secret(&[9; 32]).sign(listing(5, NOW)));
        Board::default().insert(&forged, NOW).is_ok()
    }),
];

pub(super) const NOW: u64 = 1_800_000_000_000;
pub(super) const MODEL: &str = "guide";
const TTL_MS: u64 = 60_000;

pub(super) fn provider() -> Keypair {
    Keypair::from_secret(&[3; 32])
}

pub(super) fn coordinator() -> Keypair {
    Keypair::from_secret(&[1; 32])
}

/// A board with one listing.
pub(super) fn board() -> Board {
    let mut board = Board::default();
    board.insert(&sealed(5, NOW), NOW).unwrap();
    board
}

/// A board with the listings of two.
pub(super) fn board_of_two() -> Board {
    let other = Keypair::from_secret(&[7; 32]);
    let listing = Listing {
        provider: other.account(),
        ..listing(5, NOW)
    };
    let mut board = board();
    board.insert(&listing.seal(&other).unwrap(), NOW).unwrap();
    board
}

fn sealed(sequence: u64, issued_at_ms: u64) -> Vec<u8> {
    listing(sequence, issued_at_ms).seal(&provider()).unwrap()
}

fn listing(sequence: u64, issued_at_ms: u64) -> Listing {
    Listing {
        provider: provider().account(),
        sequence,
        issued_at_ms,
        ttl_ms: TTL_MS,
        addresses: vec![],
        coordinators: vec![coordinator().account()],
        region: String::new(),
        privacy: PrivacyTier::Standard,
        offers: vec![Offer {
            kind: JobKind::ChatCompletions,
            model: MODEL.into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: 512,
            capabilities: vec![],
            price: Price::default(),
        }],
        slots: 1,
        free_slots: 1,
        certificates: vec![],
    }
}
