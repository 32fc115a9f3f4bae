//! The two sides of a channel. Many jobs share one; the consumer promises cumulatively, the provider extends at
//! most a credit window of unpaid work.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::credits::{Credits, CreditsError};
use crate::identity::{AccountId, InvalidSignature, Keypair, Signed};
use crate::ids::ChannelId;
use crate::job::RequestId;
use crate::planted::{self, Bug};
use crate::tokens::TicketClaims;
use crate::voucher::Voucher;

mod snapshot;

pub use snapshot::ConsumerChannelSnapshot;

/// The window is cut into so many parts: one may be reserved for unmetered input, one may wait for a voucher, one
/// may be in a single chunk. Three together stay below the window, so both sides never wait for each other.
pub const WINDOW_PARTS: u64 = 4;

/// A part of a credit window; see [`WINDOW_PARTS`]. At least one microcredit, so that nothing stalls at zero.
#[must_use]
pub fn window_part(window: Credits) -> Credits {
    let part = window.microcredits() / WINDOW_PARTS;
    // A quarter of an amount is an amount.
    Credits::from_microcredits(part.max(1)).unwrap_or(window)
}

/// Why a consumer's channel can't do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConsumerChannelError {
    /// The channel has too little left.
    #[error("channel {channel} has {left} left, {wanted} is needed; open another channel")]
    Exhausted {
        /// The channel.
        channel: ChannelId,
        /// What is neither owed nor reserved.
        left: Credits,
        /// What was to be reserved or owed.
        wanted: Credits,
    },
    /// The provider showed a voucher that this consumer did not sign for this channel.
    #[error("the provider showed a voucher that is not ours for channel {channel}")]
    ForeignVoucher {
        /// The channel.
        channel: ChannelId,
    },
}

/// The consumer's side of a channel.
#[derive(Clone, Debug)]
pub struct ConsumerChannel {
    keypair: Keypair,
    channel: ChannelId,
    limit: Credits,
    owed: Credits,
    promised: Credits,
    reserved: Credits,
    /// What was signed last. A provider shows it with each job, and its signature needs no check.
    newest: Option<Signed<Voucher>>,
}

impl ConsumerChannel {
    /// A channel of which nothing was promised yet, or `promised` where its consumer remembers.
    #[must_use]
    pub const fn new(keypair: Keypair, channel: ChannelId, limit: Credits, promised: Credits) -> Self {
        Self {
            keypair,
            channel,
            limit,
            owed: promised,
            promised,
            reserved: Credits::ZERO,
            newest: None,
        }
    }

    /// The name of the channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.channel
    }

    /// Everything promised so far.
    #[must_use]
    pub const fn promised(&self) -> Credits {
        self.promised
    }

    /// Everything received so far, promised or not.
    #[must_use]
    pub const fn owed(&self) -> Credits {
        self.owed
    }

    /// What can still be reserved.
    #[must_use]
    pub const fn left(&self) -> Credits {
        self.limit.saturating_sub(self.owed).saturating_sub(self.reserved)
    }

    /// Sets aside what a job may cost at most.
    ///
    /// # Errors
    /// [`ConsumerChannelError::Exhausted`] where less is left.
    pub fn reserve(&mut self, wanted: Credits) -> Result<(), ConsumerChannelError> {
        let left = self.left();
        if wanted > left {
            return Err(ConsumerChannelError::Exhausted {
                channel: self.channel,
                left,
                wanted,
            });
        }
        self.reserved = self.reserved.saturating_add(wanted);
        Ok(())
    }

    /// Gives back what [`ConsumerChannel::reserve`] set aside and the job has not used.
    pub const fn release(&mut self, amount: Credits) {
        self.reserved = self.reserved.saturating_sub(amount);
    }

    /// Notes that output worth `amount` was received and found plausible, out of a job's reservation.
    ///
    /// # Errors
    /// [`ConsumerChannelError::Exhausted`] where the channel's limit would be passed: nothing is noted then.
    pub fn receive(&mut self, amount: Credits) -> Result<(), ConsumerChannelError> {
        let left = self.limit.saturating_sub(self.owed);
        match self.owed.checked_add(amount) {
            Ok(owed) if owed <= self.limit => {
                self.owed = owed;
                Ok(())
            }
            _ => Err(ConsumerChannelError::Exhausted {
                channel: self.channel,
                left,
                wanted: amount,
            }),
        }
    }

    /// Whether enough is owed that the provider should hear of it now.
    #[must_use]
    pub fn voucher_due(&self, window: Credits) -> bool {
        let owed = self.owed.saturating_sub(self.promised);
        if planted::is(Bug::VoucherTooLate) {
            return owed >= window.saturating_add(window);
        }
        owed >= window_part(window)
    }

    /// A voucher over everything owed, where something is owed.
    pub fn promise(&mut self, request_id: &RequestId, transcript: [u8; 32]) -> Option<Signed<Voucher>> {
        (self.owed > self.promised).then(|| {
            self.promised = self.owed;
            self.sign(request_id, transcript)
        })
    }

    /// A voucher over everything owed, also where all of it was promised before: that promise may have gone out on
    /// another job's stream, whose end the provider did not wait for.
    pub fn promise_again(&mut self, request_id: &RequestId, transcript: [u8; 32]) -> Option<Signed<Voucher>> {
        let promised_before = (!self.promised.is_zero()).then_some(());
        self.promise(request_id, transcript)
            .or_else(|| promised_before.map(|()| self.sign(request_id, transcript)))
    }

    /// Compares with the highest voucher that the provider holds. Where this consumer lost its state, its own
    /// signature brings it back; where the provider lost a voucher, the answer is that voucher again.
    ///
    /// # Errors
    /// [`ConsumerChannelError::ForeignVoucher`] where the voucher is not this consumer's: don't deal with that
    /// provider.
    pub fn reconcile(
        &mut self,
        shown: Option<&Signed<Voucher>>,
        request_id: &RequestId,
    ) -> Result<Option<Signed<Voucher>>, ConsumerChannelError> {
        let foreign = ConsumerChannelError::ForeignVoucher {
            channel: self.channel,
        };
        let shown = match shown {
            None => Credits::ZERO,
            Some(shown) if shown.content_unchecked().channel != self.channel => return Err(foreign),
            Some(shown) if self.newest.as_ref() == Some(shown) => shown.content_unchecked().cumulative,
            Some(shown) => {
                shown
                    .verify_from(&self.keypair.account())
                    .map_err(|_: InvalidSignature| foreign)?
                    .cumulative
            }
        };
        if shown > self.promised {
            let unpromised = self.owed.saturating_sub(self.promised);
            self.promised = shown;
            self.owed = shown.saturating_add(unpromised).min(self.limit);
            return Ok(None);
        }
        Ok((shown < self.promised).then(|| self.sign(request_id, [0; 32])))
    }

    fn sign(&mut self, request_id: &RequestId, transcript: [u8; 32]) -> Signed<Voucher> {
        let (channel, cumulative) = (self.channel, self.promised);
        let voucher = self.keypair.sign(Voucher {
            channel,
            cumulative,
            request_id: request_id.clone(),
            transcript,
        });
        self.newest = Some(voucher.clone());
        voucher
    }
}

/// Why a provider does not take a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VoucherError {
    /// For another channel.
    #[error("the voucher is for channel {actual}, not for {expected}")]
    OtherChannel {
        /// The voucher's channel.
        actual: ChannelId,
        /// This channel.
        expected: ChannelId,
    },
    /// Not signed by the channel's consumer.
    #[error("the voucher of channel {channel} is not signed by its consumer")]
    Signature {
        /// The channel.
        channel: ChannelId,
    },
    /// More than the coordinator holds.
    #[error("the voucher over {cumulative} is above the limit of {limit} of channel {channel}")]
    AboveLimit {
        /// The channel.
        channel: ChannelId,
        /// What was promised.
        cumulative: Credits,
        /// What is held.
        limit: Credits,
    },
}

/// Why a provider takes no further job on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdmissionRefusal {
    /// Reading the prompt alone could cost more than is extended without a voucher.
    #[error("reading this prompt could cost {wanted}, more than the {extended} extended without a voucher")]
    InputAboveWindow {
        /// What it could cost.
        wanted: Credits,
        /// What is extended for input.
        extended: Credits,
    },
    /// Other jobs of the channel use what is extended; later it may fit.
    #[error("other jobs of this channel use the credit window; try again shortly or open another channel")]
    WindowTaken,
    /// Unpaid work fills the window, or the limit is used up.
    #[error("the channel is used up: {unpaid} unpaid, {left} of its limit left; open another channel")]
    Exhausted {
        /// Delivered and not promised.
        unpaid: Credits,
        /// Of the limit, neither delivered nor reserved.
        left: Credits,
    },
}

/// The provider's side of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderChannel {
    channel: ChannelId,
    consumer: AccountId,
    limit: Credits,
    window: Credits,
    delivered: Credits,
    reserved: Credits,
    /// How many jobs run, or still wait for their last voucher.
    jobs: u32,
    #[serde(with = "crate::codec::canonical")]
    highest: Option<Signed<Voucher>>,
}

impl ProviderChannel {
    /// A channel from its verified ticket, the owner's credit window, and the highest voucher that was persisted.
    ///
    /// After a restart, work that was delivered and not promised is forgotten: that is the provider's risk, at
    /// most the window.
    #[must_use]
    pub fn new(ticket: &TicketClaims, window: Credits, highest: Option<Signed<Voucher>>) -> Self {
        let mut channel = Self {
            channel: ticket.jti,
            consumer: ticket.sub,
            limit: ticket.limit,
            window,
            delivered: Credits::ZERO,
            reserved: Credits::ZERO,
            jobs: 0,
            highest,
        };
        channel.delivered = channel.vouchered();
        channel
    }

    /// The name of the channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.channel
    }

    /// Who pays.
    #[must_use]
    pub const fn consumer(&self) -> &AccountId {
        &self.consumer
    }

    /// Most unpaid work.
    #[must_use]
    pub const fn window(&self) -> Credits {
        self.window
    }

    /// The highest voucher so far.
    #[must_use]
    pub const fn highest_voucher(&self) -> Option<&Signed<Voucher>> {
        self.highest.as_ref()
    }

    /// What the highest voucher promises.
    #[must_use]
    pub fn vouchered(&self) -> Credits {
        self.highest
            .as_ref()
            .map_or(Credits::ZERO, |voucher| voucher.content_unchecked().cumulative)
    }

    /// Delivered and not promised.
    #[must_use]
    pub fn unpaid(&self) -> Credits {
        self.delivered.saturating_sub(self.vouchered())
    }

    /// Everything delivered since the channel was opened.
    #[must_use]
    pub const fn delivered(&self) -> Credits {
        self.delivered
    }

    /// Takes a job whose input could cost up to `input_cost` before the first voucher can be asked for, and
    /// reserves that much of the window.
    ///
    /// # Errors
    /// [`AdmissionRefusal`] where the window or the limit does not allow it.
    pub fn admit(&mut self, input_cost: Credits) -> Result<(), AdmissionRefusal> {
        let extended = window_part(self.window);
        if input_cost > extended {
            return Err(AdmissionRefusal::InputAboveWindow {
                wanted: input_cost,
                extended,
            });
        }
        // At the threshold an honest consumer has sent a voucher; one part more is what may be on the way.
        let unpaid = self.unpaid();
        let left = self
            .limit
            .saturating_sub(self.delivered)
            .saturating_sub(self.reserved);
        let is_owing = unpaid > extended.saturating_add(extended);
        // Jobs that run will pay for what their consumer has not read yet; what nobody works on stays unpaid.
        let may_be_paid = self.jobs > 0;
        if (is_owing && !may_be_paid) || input_cost > left || left.is_zero() {
            return Err(AdmissionRefusal::Exhausted { unpaid, left });
        }
        let reserved = self.reserved.saturating_add(input_cost);
        if is_owing || reserved > extended {
            return Err(AdmissionRefusal::WindowTaken);
        }
        self.reserved = reserved;
        self.jobs = self.jobs.saturating_add(1);
        Ok(())
    }

    /// A job that was admitted is over, and `input_cost` of its reservation is left.
    pub const fn end_job(&mut self, input_cost: Credits) {
        self.release(input_cost);
        self.jobs = self.jobs.saturating_sub(1);
    }

    /// Gives back a reservation, when the meter has shown the input.
    pub const fn release(&mut self, input_cost: Credits) {
        self.reserved = self.reserved.saturating_sub(input_cost);
    }

    /// Whether output worth `cost` may be delivered now without unpaid work passing the window.
    ///
    /// `settled_reservation` is the job's own reservation that this output settles.
    #[must_use]
    pub fn may_deliver(&self, cost: Credits, settled_reservation: Credits) -> bool {
        let reserved = self.reserved.saturating_sub(settled_reservation);
        let unpaid = self.unpaid().saturating_add(cost).saturating_add(reserved);
        let too_wide =
            planted::is(Bug::WindowTooWide) && unpaid <= self.window.saturating_add(window_part(self.window));
        (unpaid <= self.window || too_wide) && self.fits_limit(cost)
    }

    /// Whether output worth `cost` fits in what the coordinator holds.
    #[must_use]
    pub fn fits_limit(&self, cost: Credits) -> bool {
        self.delivered
            .checked_add(cost)
            .is_ok_and(|delivered| delivered <= self.limit || planted::is(Bug::ChannelLimitIgnored))
    }

    /// Notes that output worth `cost` was delivered.
    ///
    /// # Errors
    /// [`CreditsError::TooLarge`] where the sum is no amount any more.
    pub fn deliver(&mut self, cost: Credits) -> Result<(), CreditsError> {
        self.delivered = self.delivered.checked_add(cost)?;
        Ok(())
    }

    /// Takes a voucher. Returns whether it is higher than all before and so to be persisted.
    ///
    /// # Errors
    /// [`VoucherError`] where it is not a voucher of this channel's consumer within the limit.
    pub fn accept(&mut self, voucher: &Signed<Voucher>) -> Result<bool, VoucherError> {
        let (channel, content) = (self.channel, voucher.content_unchecked());
        if content.channel != channel {
            return Err(VoucherError::OtherChannel {
                actual: content.channel,
                expected: channel,
            });
        }
        if content.cumulative > self.limit {
            let (cumulative, limit) = (content.cumulative, self.limit);
            return Err(VoucherError::AboveLimit {
                channel,
                cumulative,
                limit,
            });
        }
        if content.cumulative <= self.vouchered() && !planted::is(Bug::OlderVoucherTaken) {
            // Late or repeated: whatever it is, it changes nothing, and a signature check would cost time.
            return Ok(false);
        }
        voucher
            .verify_from(&self.consumer)
            .map_err(|_| VoucherError::Signature { channel })?;
        self.highest = Some(voucher.clone());
        // What is promised beyond what we remember pays for what we forgot in a restart, not for later work.
        self.delivered = self.delivered.max(self.vouchered());
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
