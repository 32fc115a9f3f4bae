//! What multiaddresses tell: transport, peer and reach.

use std::net::IpAddr;

use gristmill_protocol::listing::ADDRESSES_MAX;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::MeshError;

/// From where an address can be reached, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// From this machine.
    Machine,
    /// From the local network.
    LocalNetwork,
    /// From anywhere, as far as its numbers tell; also names, which are not looked up for this.
    Anywhere,
}

impl Reach {
    pub(super) fn of(address: &Multiaddr) -> Self {
        match ip(address) {
            Some(ip) if ip.is_loopback() => Self::Machine,
            Some(IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => Self::LocalNetwork,
            Some(IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::LocalNetwork,
            _ => Self::Anywhere,
        }
    }
}

/// The IP address in a multiaddress.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Whether an address is reached by QUIC.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

/// Whether the mesh has a transport for an address.
pub(super) fn is_supported(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address
        .iter()
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect();
    let host = matches!(
        parts.first(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    );
    host && matches!(
        parts[1..],
        [Protocol::Udp(_), Protocol::QuicV1] | [Protocol::Tcp(_)]
    )
}

/// The peer that a bootstrap address names, and the address without it.
pub(super) fn split_peer(mut address: Multiaddr) -> Result<(PeerId, Multiaddr), MeshError> {
    let given = address.clone();
    match address.pop() {
        Some(Protocol::P2p(peer)) if is_supported(&address) => Ok((peer, address)),
        _ => Err(MeshError::Address {
            address: given,
            expected: "bootstrap address; they look like /ip4/192.0.2.1/udp/7410/quic-v1/p2p/12D3Koo…",
        }),
    }
}

/// The addresses of a listing that can be dialled; others are skipped.
pub(super) fn dialable(peer: PeerId, addresses: &[String]) -> Vec<Multiaddr> {
    let own = |address: &Multiaddr| {
        address
            .iter()
            .all(|part| !matches!(part, Protocol::P2p(other) if other != peer))
    };
    addresses
        .iter()
        .take(ADDRESSES_MAX)
        .filter_map(|text| text.parse::<Multiaddr>().ok())
        .filter(|address| is_supported(address) && own(address))
        .collect()
}

/// Which of the addresses that a peer claims may be told to others. A peer that we know from the internet has no
/// say about addresses in our local network, one in the local network none about this machine.
pub(super) fn believable(
    connected_at: &Multiaddr,
    claimed: Vec<Multiaddr>,
) -> impl Iterator<Item = Multiaddr> {
    let nearest = Reach::of(connected_at);
    claimed
        .into_iter()
        .take(ADDRESSES_MAX)
        .filter(move |address| is_supported(address) && Reach::of(address) >= nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWGgZQtRkhjRxTZ6uQKhYgrFRbUy3j2SkZzEr8ucPb9nLt";

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn bootstrap_addresses_need_a_transport_and_a_peer() {
        let (peer, without) =
            split_peer(address(&format!("/ip4/1.2.3.4/udp/7410/quic-v1/p2p/{PEER}"))).unwrap();
        assert_eq!(
            (peer.to_string().as_str(), without),
            (PEER, address("/ip4/1.2.3.4/udp/7410/quic-v1"))
        );
        split_peer(address(&format!("/dns4/example.org/tcp/7410/p2p/{PEER}"))).unwrap();
        for text in [
            "/ip4/1.2.3.4/udp/7410/quic-v1".into(),
            format!("/p2p/{PEER}"),
            format!("/ip4/1.2.3.4/p2p/{PEER}"),
        ] {
            assert!(split_peer(address(&text)).is_err(), "{text}");
        }
    }

    #[test]
    fn only_dialable_addresses_of_the_same_peer_are_dialled() {
        let peer: PeerId = PEER.parse().unwrap();
        let other = PeerId::random();
        let given = [
            "/ip4/1.2.3.4/udp/7410/quic-v1".to_owned(),
            format!("/ip4/1.2.3.4/tcp/7410/p2p/{PEER}"),
            format!("/ip4/1.2.3.4/tcp/7410/p2p/{other}"),
            "http://example.org".to_owned(),
            "/ip4/1.2.3.4/udp/7410".to_owned(),
            "/unix/tmp".to_owned(),
        ];
        assert_eq!(dialable(peer, &given).len(), 2);
        assert_eq!(dialable(peer, &vec![given[0].clone(); 100]).len(), ADDRESSES_MAX);
    }

    #[test]
    fn peers_are_believed_about_their_own_reach_and_beyond() {
        let claimed = || {
            [
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/192.168.1.2/tcp/1",
                "/ip4/9.9.9.9/tcp/1",
            ]
            .map(address)
            .to_vec()
        };
        let count = |connected_at: &str| believable(&address(connected_at), claimed()).count();
        assert_eq!(count("/ip4/127.0.0.1/tcp/9"), 3);
        assert_eq!(count("/ip4/10.0.0.1/udp/9/quic-v1"), 2);
        assert_eq!(count("/ip4/8.8.8.8/udp/9/quic-v1"), 1);
    }
}
