//! Channels: which one pays for a job, and one call to the coordinator where another is needed.

use std::collections::BTreeSet;

use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::tokens::TicketClaims;

use super::{Channel, Consumer, Opening};
use crate::engine::Breach;
use crate::people::coordinator::amount;
use crate::people::job_text::channel_id;
use crate::world::event::{JobId, Message, StreamId, Timer};
use crate::world::kept::Kept;
use crate::world::scene::Scene;
use crate::world::tally::Unserved;

/// How long the coordinator has for an answer, and how often it is asked, as in the wallet: 8 seconds in all.
pub(crate) const CALL_US: u64 = 2_000_000;
pub(crate) const CALLS_MAX: u32 = 4;
/// A channel is not used in the last part of its life, one of so many, so that its provider has time to redeem.
const LIFE_PARTS: u64 = 6;
/// Shortest and longest of those parts, in milliseconds.
const UNUSED_MIN_MS: u64 = 35_000;
const UNUSED_MAX_MS: u64 = 600_000;

impl Consumer {
    /// Who has a channel that has something left.
    pub(super) fn funded(&self, now_ms: u64) -> BTreeSet<AccountId> {
        let usable = self
            .channels
            .values()
            .filter(|channel| now_ms < channel.use_until_ms);
        let has_left = |channel: &&Channel| {
            channel
                .account
                .awake()
                .is_some_and(|account| !account.left().is_zero())
        };
        usable.filter(has_left).map(|channel| channel.provider).collect()
    }

    /// The channel that pays a provider so much, or the one that is being opened for it.
    pub(super) fn fund(
        &mut self,
        provider: AccountId,
        cost_max: Credits,
        scene: &mut Scene<'_, '_>,
    ) -> (ChannelId, bool) {
        let now_ms = scene.now_ms();
        let pays = |channel: &&Channel| {
            let left = channel
                .account
                .awake()
                .map_or(Credits::ZERO, ConsumerChannel::left);
            channel.provider == provider && now_ms < channel.use_until_ms && left >= cost_max
        };
        if let Some((id, _)) = self.channels.iter().find(|(_, channel)| pays(channel)) {
            return (*id, true);
        }
        let opening = self
            .openings
            .values()
            .find(|opening| opening.request.provider == provider);
        if let Some(opening) = opening.filter(|opening| opening.request.limit >= cost_max) {
            return (opening.request.channel, false);
        }
        let config = self.config(scene);
        let count = self.channels_asked;
        self.channels_asked += 1;
        let request = OpenChannelRequest {
            channel: channel_id(scene.node(), count),
            provider,
            limit: amount(config.channel_limit.get()).max(cost_max),
            life_ms: config.channel_life_s.get() * 1_000,
        };
        let channel = request.channel;
        self.openings.insert(count, Opening { request, calls: 0 });
        self.call(count, scene);
        (channel, false)
    }

    fn call(&mut self, count: u32, scene: &mut Scene<'_, '_>) {
        if let Some(opening) = self.openings.get_mut(&count) {
            opening.calls += 1;
            scene.send(0, Message::OpenChannel(opening.request.clone()));
            scene.after(CALL_US, Timer::Opening(count));
        }
    }

    /// The coordinator has not answered in time: asks for the very same once more, or gives up.
    pub(super) fn opening_is_late(&mut self, count: u32, scene: &mut Scene<'_, '_>) {
        match self.openings.get(&count) {
            None => {}
            Some(opening) if opening.calls < CALLS_MAX => self.call(count, scene),
            Some(opening) => {
                let channel = opening.request.channel;
                self.fail_opening(channel, Unserved::NoCoordinator, scene);
            }
        }
    }

    /// The coordinator holds the credits.
    pub(super) fn opened(
        &mut self,
        channel: ChannelId,
        ticket: String,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let Some(count) = self.opening_of(channel) else {
            return Ok(());
        };
        let Some(Opening { request, .. }) = self.openings.remove(&count) else {
            return Ok(());
        };
        let coordinator = scene.world.coordinator_account();
        let claims = TicketClaims::verify(&ticket, &coordinator, &request.provider, scene.now_ms());
        let Ok(claims) = claims else {
            self.fail_opening(channel, Unserved::NoCoordinator, scene);
            return Ok(());
        };
        let unused_ms = (request.life_ms / LIFE_PARTS).clamp(UNUSED_MIN_MS, UNUSED_MAX_MS);
        let account = ConsumerChannel::new(scene.keypair(), channel, claims.limit, Credits::ZERO);
        self.forget_ended_channels(scene.now_ms());
        let opened = Channel {
            account: Kept::Awake(account),
            provider: request.provider,
            ticket,
            use_until_ms: claims.redeem_by_ms.saturating_sub(unused_ms),
        };
        self.bounds.opened(channel, claims.limit);
        self.channels.insert(channel, opened);
        scene.tell(None, || {
            format!("A channel over {} credits is open.", request.limit)
        });
        for stream in self.waiting_for(channel) {
            self.open_stream(stream, scene)?;
        }
        Ok(())
    }

    /// The coordinator holds nothing.
    pub(super) fn not_opened(
        &mut self,
        channel: ChannelId,
        is_out_of_credits: bool,
        scene: &mut Scene<'_, '_>,
    ) {
        let why = if is_out_of_credits {
            Unserved::NoCredits
        } else {
            Unserved::NoCoordinator
        };
        self.fail_opening(channel, why, scene);
    }

    fn fail_opening(&mut self, channel: ChannelId, why: Unserved, scene: &mut Scene<'_, '_>) {
        if let Some(count) = self.opening_of(channel) {
            self.openings.remove(&count);
        }
        for stream in self.waiting_for(channel) {
            self.unfunded(stream, why, scene);
        }
    }

    fn opening_of(&self, channel: ChannelId) -> Option<u32> {
        let is_it = |(_, opening): &(&u32, &Opening)| opening.request.channel == channel;
        self.openings.iter().find(is_it).map(|(count, _)| *count)
    }

    /// The streams that wait for a channel.
    fn waiting_for(&self, channel: ChannelId) -> Vec<StreamId> {
        let attempts = self.jobs.values().flat_map(|job| &job.live);
        let waits = attempts.filter(|attempt| attempt.session.is_none() && attempt.channel == channel);
        waits.map(|attempt| attempt.stream).collect()
    }

    /// Nothing pays for this attempt: another provider would not help.
    fn unfunded(&mut self, stream: StreamId, why: Unserved, scene: &mut Scene<'_, '_>) {
        let job: JobId = stream.job();
        let Some(asked) = self.jobs.get_mut(&job) else {
            return;
        };
        asked.live.retain(|attempt| attempt.stream != stream);
        if asked.live.is_empty() {
            let why = if asked.got > 0 { Unserved::BrokeOff } else { why };
            self.end_unserved(job, why, scene);
        }
    }

    fn forget_ended_channels(&mut self, now_ms: u64) {
        let used: BTreeSet<ChannelId> = self
            .jobs
            .values()
            .flat_map(|job| &job.live)
            .map(|attempt| attempt.channel)
            .collect();
        let bounds = &mut self.bounds;
        self.channels.retain(|id, channel| {
            let stays = now_ms < channel.use_until_ms || used.contains(id);
            if !stays {
                bounds.closed(id);
            }
            stays
        });
    }
}
