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
/// From how many channels on ended ones are looked for. Doubles with those that are left.
const SWEEP_FROM: usize = 256;
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
    open: Mutex<Open>,
}

struct Open {
    channels: BTreeMap<ChannelId, Arc<OpenChannel>>,
    sweep_from: usize,
}

impl Open {
    /// Forgets channels that have ended and that no job uses, where there are many. Each time takes as long as the
    /// channels that came since the last one.
    fn sweep(&mut self, now_ms: u64) {
        if self.channels.len() >= self.sweep_from.min(CHANNELS_MAX) {
            self.channels
                .retain(|_, channel| now_ms < channel.ends_at_ms || Arc::strong_count(channel) > 1);
            self.sweep_from = (self.channels.len() * 2).max(SWEEP_FROM);
        }
    }
}

impl Channels {
    /// No channels yet; each will be extended at most `window` of unpaid work.
    pub(crate) const fn new(window: Credits) -> Self {
        Self {
            window,
            open: Mutex::new(Open {
                channels: BTreeMap::new(),
                sweep_from: SWEEP_FROM,
            }),
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
        if let Some(known) = open.channels.get(&ticket.jti) {
            check_channel(ticket, &known.lock(), known.limit)?;
            return Ok(Arc::clone(known));
        }
        open.sweep(now_ms);
        if open.channels.len() >= CHANNELS_MAX {
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
        open.channels.insert(ticket.jti, Arc::clone(&channel));
        Ok(channel)
    }

    /// Everything delivered and not vouchered, over all channels.
    pub(crate) fn unpaid(&self) -> Credits {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.channels
            .values()
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

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::jws::Audience;

    fn ticket(number: u16, ends_at_ms: u64) -> TicketClaims {
        let account = |byte| Keypair::from_secret(&[byte; 32]).account();
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        TicketClaims {
            iss: account(1),
            sub: account(2),
            aud: Audience::One(account(3)),
            jti: ChannelId::from_bytes(id),
            iat: 0,
            exp: ends_at_ms.div_ceil(1_000),
            limit: Credits::micro(100),
            fee_basis_points: 0,
            redeem_by_ms: ends_at_ms,
        }
    }

    #[test]
    fn ended_channels_make_room_and_those_in_use_stay() {
        let folder = tempfile::tempdir().unwrap();
        let clock = gristmill_service::clock::system_clock();
        let vouchers = VoucherFile::open(folder.path().join("vouchers"), clock).unwrap();
        let channels = Channels::new(Credits::micro(10));
        let enter = |number, ends_at_ms, now_ms| {
            channels
                .enter(&ticket(number, ends_at_ms), &vouchers, now_ms)
                .unwrap()
        };
        let in_use = enter(0, 1_000, 0);
        for number in 1..256 {
            enter(number, 1_000, 0);
        }
        enter(256, 5_000, 1_000);
        let open = channels.open.lock().unwrap();
        assert_eq!(open.channels.len(), 2);
        assert!(open.channels.contains_key(&in_use.lock().id()));
        drop(open);
        vouchers.close();
    }

    #[test]
    fn a_ticket_for_other_parties_under_a_known_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let clock = gristmill_service::clock::system_clock();
        let vouchers = VoucherFile::open(folder.path().join("vouchers"), clock).unwrap();
        let (honest, other) = (ticket(1, 9_000), Keypair::from_secret(&[8; 32]));
        let voucher = Keypair::from_secret(&[2; 32]).sign(Voucher {
            channel: honest.jti,
            cumulative: Credits::micro(7),
            request_id: gristmill_protocol::job::RequestId::from_random([1; 16]),
            transcript: [0; 32],
        });
        vouchers.keep(Box::new(voucher), ChannelTerms::from(&honest));
        let channels = Channels::new(Credits::micro(10));
        let foreign = TicketClaims {
            sub: other.account(),
            ..honest.clone()
        };
        let refused = channels.enter(&foreign, &vouchers, 0).err().unwrap();
        assert_eq!(refused.code, RefusalCode::InvalidTicket);
        let resumed = channels.enter(&honest, &vouchers, 0).unwrap();
        assert_eq!(resumed.lock().vouchered(), Credits::micro(7));
        vouchers.close();
    }
}
