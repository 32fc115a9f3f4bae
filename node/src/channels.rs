//! The channels that jobs are paid through, shared by all jobs of a channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_protocol::channel::ProviderChannel;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{JobRefused, RefusalCode};
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::voucher::Voucher;
use tokio::sync::watch;

use crate::core::admission::{check_channel, ends_at_ms};
use crate::core::voucher_book::ChannelTerms;
use crate::voucher_file::VoucherFile;

/// Most channels at once. Each stands for a hold at the coordinator, so that many cost their consumers something.
const CHANNELS_MAX: usize = 65_536;
/// When it may be worth asking again a node that has too many channels.
const FULL_RETRY_AFTER_MS: u32 = 60_000;

/// One channel in use.
pub(crate) struct OpenChannel {
    state: Mutex<ProviderChannel>,
    limit: Credits,
    terms: ChannelTerms,
    ends_at_ms: u64,
    changes: watch::Sender<u64>,
}

impl OpenChannel {
    /// The channel itself. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ProviderChannel> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its ticket says.
    pub(crate) const fn terms(&self) -> ChannelTerms {
        self.terms
    }

    /// When its ticket ends, Unix milliseconds.
    pub(crate) const fn ends_at_ms(&self) -> u64 {
        self.ends_at_ms
    }

    /// Wakes the channel's other jobs: one of them paid, or gave back what it had reserved.
    pub(crate) fn wake_jobs(&self) {
        self.changes
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Follows [`OpenChannel::wake_jobs`].
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The channels in use.
pub(crate) struct Channels {
    window: Credits,
    open: Mutex<BTreeMap<ChannelId, Arc<OpenChannel>>>,
}

impl Channels {
    /// No channels yet; each will be extended at most `window` of unpaid work.
    pub(crate) const fn new(window: Credits) -> Self {
        Self {
            window,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// The channel of a verified ticket. After a restart it goes on from the highest voucher on disk.
    ///
    /// # Errors
    /// [`JobRefused`] where the ticket contradicts the channel, or there are too many channels.
    pub(crate) fn enter(
        &self,
        ticket: &TicketClaims,
        vouchers: &VoucherFile,
        now_ms: u64,
    ) -> Result<Arc<OpenChannel>, JobRefused> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&ticket.jti) {
            check_channel(ticket, &known.lock(), known.limit)?;
            return Ok(Arc::clone(known));
        }
        if open.len() >= CHANNELS_MAX {
            // Only channels that no job uses can go; a job keeps its own alive.
            open.retain(|_, channel| now_ms < channel.ends_at_ms || Arc::strong_count(channel) > 1);
        }
        if open.len() >= CHANNELS_MAX {
            let reason = "this provider has too many channels; try another one";
            return Err(JobRefused::new(RefusalCode::Busy, FULL_RETRY_AFTER_MS, reason));
        }
        let highest = highest_voucher(ticket, vouchers)?;
        let channel = Arc::new(OpenChannel {
            state: Mutex::new(ProviderChannel::new(ticket, self.window, highest)),
            limit: ticket.limit,
            terms: ChannelTerms::from(ticket),
            ends_at_ms: ends_at_ms(ticket),
            changes: watch::Sender::new(0),
        });
        open.insert(ticket.jti, Arc::clone(&channel));
        Ok(channel)
    }

    /// Everything delivered and not vouchered, over all channels.
    pub(crate) fn unpaid(&self) -> Credits {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .map(|channel| channel.lock().unpaid())
            .fold(Credits::ZERO, Credits::saturating_add)
    }
}

/// The highest voucher on disk, if it is of the same channel and not of one that another coordinator or consumer
/// gave the same name.
fn highest_voucher(
    ticket: &TicketClaims,
    vouchers: &VoucherFile,
) -> Result<Option<Signed<Voucher>>, JobRefused> {
    vouchers.with_book(|book| match book.channel(&ticket.jti) {
        None => Ok(None),
        Some(kept) if kept.terms.coordinator == ticket.iss && kept.terms.consumer == ticket.sub => {
            Ok(Some(kept.voucher.clone()))
        }
        Some(_) => {
            let reason = format!("channel {} is known here with other parties", ticket.jti);
            Err(JobRefused::new(RefusalCode::InvalidTicket, 0, &reason))
        }
    })
}
