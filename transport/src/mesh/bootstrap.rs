//! When to dial which bootstrap peer. Pure: of the time and a random number.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId};

/// First wait after a failure, in milliseconds; doubles with each failure.
const BACK_OFF_MIN_MS: u64 = 500;
/// Longest wait, in milliseconds.
const BACK_OFF_MAX_MS: u64 = 60_000;

/// The bootstrap peers and how each is doing.
#[derive(Debug, Default)]
pub(super) struct BootstrapPeers {
    peers: BTreeMap<PeerId, BootstrapPeer>,
}

#[derive(Debug)]
struct BootstrapPeer {
    addresses: Vec<Multiaddr>,
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connected,
    Dialling,
    /// Due at a time in milliseconds.
    Waiting(u64),
}

impl BootstrapPeers {
    /// Adds a peer, or one more address of it, due at once unless it is connected.
    pub(super) fn add(&mut self, peer: PeerId, address: Multiaddr, now_ms: u64, connected: bool) {
        let state = if connected {
            State::Connected
        } else {
            State::Waiting(now_ms)
        };
        let known = self.peers.entry(peer).or_insert(BootstrapPeer {
            addresses: vec![],
            failures: 0,
            state,
        });
        if !known.addresses.contains(&address) {
            known.addresses.push(address);
        }
    }

    /// The peers to dial now, which count as being dialled from here on.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, known) in &mut self.peers {
            if matches!(known.state, State::Waiting(at_ms) if at_ms <= now_ms) {
                known.state = State::Dialling;
                due.push((*peer, known.addresses.clone()));
            }
        }
        due
    }

    pub(super) fn on_connected(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.failures = 0;
            known.state = State::Connected;
        }
    }

    /// The last connection closed, or a dial failed. `jitter` is random, from 0 to 1.
    pub(super) fn on_lost(&mut self, peer: &PeerId, now_ms: u64, jitter: f64) {
        if let Some(known) = self.peers.get_mut(peer)
            && !matches!(known.state, State::Waiting(_))
        {
            known.state = State::Waiting(now_ms.saturating_add(back_off_ms(known.failures, jitter)));
            known.failures = known.failures.saturating_add(1);
        }
    }
}

/// Doubles from [`BACK_OFF_MIN_MS`] to [`BACK_OFF_MAX_MS`]; between half of it and all of it is waited, so that
/// peers which lost a bootstrap peer together do not all come back at once.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a product of at most 60,000 with at most one"
)]
fn back_off_ms(failures: u32, jitter: f64) -> u64 {
    let longest = BACK_OFF_MIN_MS
        .saturating_mul(1 << failures.min(20))
        .min(BACK_OFF_MAX_MS);
    (longest as f64 * (0.5 + jitter.clamp(0.0, 1.0) / 2.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_peers_are_dialled_less_and_less_often_and_connected_ones_not_at_all() {
        let (mut peers, peer) = (BootstrapPeers::default(), PeerId::random());
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        peers.add(peer, address.clone(), 0, false);
        peers.add(peer, address.clone(), 0, false);
        let mut now_ms = 0;
        let mut waits = vec![];
        for _ in 0..12 {
            assert_eq!(peers.take_due(now_ms), vec![(peer, vec![address.clone()])]);
            assert!(peers.take_due(now_ms).is_empty(), "dialled once");
            peers.on_lost(&peer, now_ms, 1.0);
            let started_ms = now_ms;
            while !matches!(peers.peers[&peer].state, State::Waiting(at_ms) if at_ms <= now_ms) {
                now_ms += 100;
            }
            waits.push(now_ms - started_ms);
        }
        assert_eq!(
            waits,
            [
                500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000, 60000, 60000
            ]
        );
        peers.take_due(now_ms);
        peers.on_connected(&peer);
        assert!(peers.take_due(u64::MAX).is_empty());
        peers.on_lost(&peer, now_ms, 0.0);
        assert!(peers.take_due(now_ms + 249).is_empty());
        assert_eq!(
            peers.take_due(now_ms + 250).len(),
            1,
            "after a success the wait starts small again"
        );
    }

    #[test]
    fn strangers_are_no_matter() {
        let mut peers = BootstrapPeers::default();
        peers.on_lost(&PeerId::random(), 0, 0.5);
        peers.on_connected(&PeerId::random());
        assert!(peers.take_due(u64::MAX).is_empty());
    }
}
