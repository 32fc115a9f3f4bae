//! Gossip of listings and checkpoints: its setup, its scores, and what to do with a message.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use gristmill_protocol::board::Insertion;
use gristmill_protocol::codec::LISTING_MAX_BYTES;
use gristmill_protocol::listing::{LISTINGS_TOPIC, ListingError};
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    score_parameter_decay,
};

/// Gossip that knows the topics of this market only.
pub(super) type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

use super::checkpoints::{CHECKPOINT_MESSAGE_MAX_BYTES, CHECKPOINTS_TOPIC, Judgement};

/// Room for gossipsub's own fields around a message.
const ENVELOPE_MAX_BYTES: usize = 1024;
/// How long a message is remembered, so that one sent again is not even looked at.
const DUPLICATE_CACHE: Duration = Duration::from_secs(120);
/// How long misbehaviour counts.
const MEMORY_OF_MISBEHAVIOUR: Duration = Duration::from_secs(600);

/// The topic of listings.
pub(super) fn listings_topic() -> IdentTopic {
    IdentTopic::new(LISTINGS_TOPIC)
}

/// The topic of checkpoints.
pub(super) fn checkpoints_topic() -> IdentTopic {
    IdentTopic::new(CHECKPOINTS_TOPIC)
}

/// The parameters of gossip. Public so that the simulator's model of it can be held against them.
///
/// Messages are anonymous: a listing carries its provider's signature, a checkpoint its log's, which is what counts. A second one by
/// gossipsub would name the first sender, cost a verification at every hop, and let one listing travel under many
/// message ids. The id is the content's BLAKE3 hash, so that nobody can make two messages collide.
#[must_use]
pub fn gossip_parameters() -> ConfigBuilder {
    let mut builder = ConfigBuilder::default();
    builder
        .protocol_id_prefix("/gristmill/gossip")
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::new(blake3::hash(&message.data).as_bytes()))
        // What holds for whole frames must let the largest message of any topic pass.
        .max_transmit_size(CHECKPOINT_MESSAGE_MAX_BYTES + ENVELOPE_MAX_BYTES)
        .max_transmit_size_for_topic(LISTING_MAX_BYTES, listings_topic().hash())
        .max_transmit_size_for_topic(CHECKPOINT_MESSAGE_MAX_BYTES, checkpoints_topic().hash())
        .duplicate_cache_time(DUPLICATE_CACHE);
    builder
}

/// What peers earn and lose by gossip. Public for the same reason.
#[must_use]
pub fn gossip_scores() -> (PeerScoreParams, PeerScoreThresholds) {
    (score_parameters(), score_thresholds())
}

/// Gossip, scoring, and subscribed to listings. To checkpoints, it subscribes once there is a log to watch: others tell
/// a newcomer what they know when it subscribes.
pub(super) fn gossip() -> Result<Gossip, String> {
    let config = gossip_parameters().build().map_err(|error| error.to_string())?;
    let topics = [listings_topic(), checkpoints_topic()];
    let filter = WhitelistSubscriptionFilter(HashSet::from(topics.each_ref().map(IdentTopic::hash)));
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)?;
    gossip.with_peer_score(score_parameters(), score_thresholds())?;
    gossip
        .subscribe(&listings_topic())
        .map_err(|error| error.to_string())?;
    Ok(gossip)
}

/// What a peer earns and loses. A peer of good standing has at most 20 points; invalid messages cost ten points
/// times the square of their number. So one mistake of a peer of good standing is forgiven, two end its gossip, and
/// three end its being heard at all, for ten minutes.
fn score_parameters() -> PeerScoreParams {
    let forgets = score_parameter_decay(MEMORY_OF_MISBEHAVIOUR);
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        // 10 points after 1,000 seconds in the mesh.
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1000.0,
        // 10 points for having been first with 20 messages.
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: forgets,
        first_message_deliveries_cap: 20.0,
        // Messages are few and far between: a quiet peer is no bad peer.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: forgets,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([
            (listings_topic().hash(), topic.clone()),
            (checkpoints_topic().hash(), topic),
        ]),
        topic_score_cap: 20.0,
        // A household shares one address, a Sybil's server farm should not.
        ip_colocation_factor_weight: -1.0,
        ip_colocation_factor_threshold: 16.0,
        ip_colocation_factor_whitelist: HashSet::from([
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
        ]),
        // GRAFT during back-off, promises of messages not kept.
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: forgets,
        ..PeerScoreParams::default()
    }
}

const fn score_thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -5.0,
        publish_threshold: -40.0,
        graylist_threshold: -60.0,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 2.0,
    }
}

/// What to do with a message about a log.
pub(super) const fn judged(judgement: Judgement) -> MessageAcceptance {
    match judgement {
        Judgement::Forward => MessageAcceptance::Accept,
        Judgement::Drop => MessageAcceptance::Ignore,
        Judgement::Blame => MessageAcceptance::Reject,
    }
}

/// What to do with a listing, by what the board said.
///
/// Only what no honest peer could have forwarded costs its sender score. Clocks differ: a listing from the future
/// for us may have been just in time for an honest peer, so it is dropped without blame.
pub(super) const fn acceptance(outcome: &Result<Insertion, ListingError>) -> MessageAcceptance {
    match outcome {
        Ok(insertion) if insertion.is_news() => MessageAcceptance::Accept,
        Ok(_) | Err(ListingError::FromTheFuture { .. }) => MessageAcceptance::Ignore,
        Err(_) => MessageAcceptance::Reject,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::codec::DecodeError;
    use gristmill_protocol::identity::AccountId;

    #[test]
    fn the_setup_is_valid() {
        gossip().unwrap();
    }

    #[test]
    fn only_what_no_honest_peer_forwards_costs_score() {
        let provider = AccountId::from_public_key([1; 32]);
        let cases = [
            (Ok(Insertion::New), "Accept"),
            (Ok(Insertion::Renewed), "Accept"),
            (Ok(Insertion::Left), "Accept"),
            (Ok(Insertion::Stale), "Ignore"),
            (Ok(Insertion::TooSoon), "Ignore"),
            (Ok(Insertion::Full), "Ignore"),
            (
                Err(ListingError::FromTheFuture {
                    provider,
                    ahead_ms: 60_001,
                }),
                "Ignore",
            ),
            (Err(ListingError::Decode(DecodeError::TrailingBytes(1))), "Reject"),
            (
                Err(ListingError::OutOfBounds {
                    provider,
                    field: "offers",
                }),
                "Reject",
            ),
        ];
        for (outcome, expected) in cases {
            assert_eq!(format!("{:?}", acceptance(&outcome)), expected, "{outcome:?}");
        }
    }
}
