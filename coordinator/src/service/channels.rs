//! Channels: opening with a ticket, looking at one, closing early.

use gristmill_ledger::book::{ChannelState, ChannelStatus};
use gristmill_ledger::entry::{CloseChannel, CloseReason, Entry, OpenChannel};
use gristmill_ledger::outcome::Effect;
use gristmill_ledger::refusal::Refusal;
use gristmill_protocol::coordinator_api::{ChannelView, OpenChannelAnswer, OpenChannelRequest};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;

use super::Service;
use crate::core::documents::ticket;
use crate::core::rejection::Rejection;

impl Service {
    /// Holds credits and writes the ticket. Asked again, the same ticket, whatever the policy is by then.
    pub(crate) async fn open_channel(
        &self,
        consumer: AccountId,
        request: OpenChannelRequest,
    ) -> Result<OpenChannelAnswer, Rejection> {
        let redeem_by_ms = match self.ledger.channel(&request.channel).await? {
            Some(opened) => opened.redeem_by_ms,
            None => self
                .policy
                .redeem_by_ms(&request, &consumer, self.clock.now_ms())?,
        };
        let request_digest = request.digest(&consumer);
        let OpenChannelRequest {
            channel,
            provider,
            limit,
            ..
        } = request;
        let fee_basis_points = self.settings.fee_basis_points;
        let open = OpenChannel {
            channel,
            consumer,
            provider,
            limit,
            fee_basis_points,
            redeem_by_ms,
            request_digest,
        };
        let posted = self.post(Entry::OpenChannel(open)).await?;
        let Effect::Opened(opened) = &posted.outcome.effect else {
            return Err(Self::contradiction("an opened channel", posted.sequence));
        };
        tracing::info!(%channel, %consumer, %provider, %limit, repeated = posted.repeated, "channel opened");
        let state = self.channel_of(&consumer, channel).await?;
        Ok(OpenChannelAnswer {
            ticket: ticket(&posted, opened, &self.keypair),
            channel: view(&state),
        })
    }

    /// A channel as one of its parties, or the operator, sees it.
    pub(crate) async fn channel(
        &self,
        caller: AccountId,
        channel: ChannelId,
    ) -> Result<ChannelView, Rejection> {
        Ok(view(&self.channel_of(&caller, channel).await?))
    }

    /// Ends a channel in its provider's name.
    pub(crate) async fn close_channel(
        &self,
        caller: AccountId,
        channel: ChannelId,
    ) -> Result<ChannelView, Rejection> {
        let state = self.channel_of(&caller, channel).await?;
        if caller != state.provider {
            return Err(Rejection::forbidden(
                "only the provider can close a channel early; what is left returns after its redeem-by time",
            ));
        }
        let close = CloseChannel {
            channel,
            reason: CloseReason::Provider,
        };
        let posted = self.post(Entry::CloseChannel(close)).await?;
        tracing::info!(%channel, repeated = posted.repeated, "channel closed by its provider");
        self.channel(caller, channel).await
    }

    /// Strangers can't tell a channel that they may not see from one that does not exist.
    async fn channel_of(&self, caller: &AccountId, channel: ChannelId) -> Result<ChannelState, Rejection> {
        let state = self.ledger.channel(&channel).await?.filter(|state| {
            *caller == state.consumer || *caller == state.provider || self.is_operator(caller)
        });
        Ok(state.ok_or(Refusal::UnknownChannel { channel })?)
    }
}

fn view(state: &ChannelState) -> ChannelView {
    ChannelView {
        channel: state.channel,
        consumer: state.consumer,
        provider: state.provider,
        limit: state.limit,
        settled: state.settled,
        fee_basis_points: state.fee_basis_points,
        redeem_by_ms: state.extended_redeem_by_ms,
        open: state.status == ChannelStatus::Open,
    }
}
