//! The coordinator: the shipped ledger's book, really signed tickets, and a disk that takes its time.
//!
//! An entry takes effect when it is on the disk, and only then does anybody hear of it. Entries that come during a write
//! wait for the next one together (group commit). What an outage finds unwritten is lost; nobody was told.

use std::collections::{BTreeMap, VecDeque};

use gristmill_ledger::book::{Applied, ApplyError, Book};
use gristmill_ledger::entry::{
    CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle, Started,
};
use gristmill_ledger::refusal::Refusal;
use gristmill_protocol::codec::canonical;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Signed};
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::jws::{self, Audience};
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::voucher::Voucher;
use serde::{Deserialize, Serialize};

use crate::checkers::Place;
use crate::checkers::conservation::Conservation;
use crate::engine::{Breach, NodeId};
use crate::people::hardware::{Call as ProverCallId, Desk};
use crate::world::event::{Envelope, Message, Timer};
use crate::world::scene::Scene;

mod challenges;
mod written_book;

/// Channels that one sweep ends at most.
const SWEPT_MAX: usize = 1_000;
/// Calls that wait for the disk at most; more are answered by nobody, as where a listen queue is full.
const WAITING_MAX: usize = 100_000;
const DAY_MS: u64 = 86_400_000;

/// A call that waits for the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    from: NodeId,
    came_us: u64,
    durable_us: u64,
    what: Asked,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Asked {
    Starter(u32),
    Open(OpenChannelRequest),
    HandIn(#[serde(with = "canonical")] Vec<Signed<Voucher>>),
}

/// Who keeps the ledger.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Coordinator {
    #[serde(with = "written_book")]
    pub(crate) book: Book,
    waiting: VecDeque<Call>,
    /// When the write that runs ends, and when the last one that is planned does.
    writing_until_us: u64,
    planned_until_us: u64,
    /// Since when it answers nobody.
    down_since_ms: Option<u64>,
    /// How many calls waited at most.
    pub(crate) waiting_most: usize,
    /// A second book, kept from the entries alone.
    second_book: Conservation,
    /// How many starter grants each address had, on which day.
    granted: BTreeMap<NodeId, (u64, u32)>,
    /// Where hardware is shown; none where nobody is challenged.
    pub(crate) desk: Option<Desk>,
    /// When something is due for a challenge, Unix milliseconds.
    desk_wakes_ms: u64,
}

impl Coordinator {
    /// Gives an account credits before the run begins.
    pub(crate) fn endow(
        &mut self,
        node: NodeId,
        account: AccountId,
        amount: Credits,
        at_ms: u64,
    ) -> Result<(), ApplyError> {
        if amount.is_zero() {
            return Ok(());
        }
        let grant = Grant {
            id: grant_id(node, 0),
            account,
            amount,
            kind: GrantKind::Operator,
            reason: String::new(),
            starter_daily_budget: Credits::ZERO,
        };
        let entry = Entry::Grant(grant);
        self.book.apply(&entry.clone().check()?, at_ms)?;
        // Both books begin alike; the first survey says where they do not.
        let _ = self
            .second_book
            .posted(&entry, &self.book, at_ms, Place { node: 0, at_us: 0 });
        Ok(())
    }

    /// How many calls wait for the disk.
    pub(crate) fn queue(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it answers, and a call that comes now within so many microseconds.
    pub(crate) const fn answers_within(&self, us: u64, now_us: u64) -> bool {
        self.down_since_ms.is_none() && self.planned_until_us <= now_us.saturating_add(us)
    }

    pub(crate) fn message(&mut self, envelope: Envelope, scene: &mut Scene<'_, '_>) {
        if self.down_since_ms.is_some() {
            scene.tally.lost += 1;
            return;
        }
        let what = match envelope.message {
            Message::AskStarter { account } => Asked::Starter(account),
            Message::OpenChannel(request) => Asked::Open(request),
            Message::HandIn { vouchers } => Asked::HandIn(vouchers),
            Message::ToDesk { number, call, .. } => {
                let node = envelope.from;
                return self.hear_prover(ProverCallId { node, number }, call, scene);
            }
            _ => return,
        };
        if self.waiting.len() >= WAITING_MAX {
            scene.tally.coordinator_refusals += 1;
            return;
        }
        let durable_us = self.durable_us(scene);
        self.waiting.push_back(Call {
            from: envelope.from,
            came_us: scene.now_us(),
            durable_us,
            what,
        });
        self.waiting_most = self.waiting_most.max(self.waiting.len());
        let now_us = scene.now_us();
        scene.after(durable_us - now_us, Timer::Synced);
    }

    /// When an entry that comes now is on the disk: with the next write.
    fn durable_us(&mut self, scene: &mut Scene<'_, '_>) -> u64 {
        let (now_us, config) = (scene.now_us(), &scene.world.config.coordinator);
        let write_us = match config.disk_us {
            Some(write_us) => write_us.get(),
            None => config.disk.sync_us(scene.random()).max(1),
        };
        if now_us >= self.planned_until_us {
            self.writing_until_us = now_us + write_us;
            self.planned_until_us = self.writing_until_us;
        } else if now_us >= self.writing_until_us {
            // The planned write runs now.
            self.writing_until_us = self.planned_until_us;
            self.planned_until_us += write_us;
        } else if self.planned_until_us == self.writing_until_us {
            self.planned_until_us += write_us;
        }
        self.planned_until_us
    }

    pub(crate) fn timer(&mut self, timer: Timer, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        match timer {
            Timer::Synced => self.synced(scene),
            Timer::Desk => {
                self.challenges_wake(scene);
                Ok(())
            }
            Timer::Sweep => {
                let every_us = scene.world.config.coordinator.sweep_every_s.get() * 1_000_000;
                scene.after(every_us, Timer::Sweep);
                self.sweep(scene)
            }
            _ => Ok(()),
        }
    }

    /// Everything that is on the disk by now takes effect, and its callers are told.
    fn synced(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        while self
            .waiting
            .front()
            .is_some_and(|call| call.durable_us <= scene.now_us())
        {
            let Some(call) = self.waiting.pop_front() else {
                break;
            };
            let waited_us = scene.now_us() - call.came_us;
            scene.tally.coordinator_wait_us.add(waited_us);
            let answer = match call.what {
                Asked::Starter(account) => self.starter(call.from, account, scene)?,
                Asked::Open(request) => self.open(call.from, &request, scene)?,
                Asked::HandIn(vouchers) => self.settle(vouchers, scene)?,
            };
            scene.send(call.from, answer);
        }
        Ok(())
    }

    /// Posts an entry; says why where it is refused.
    fn post(&mut self, entry: Entry, scene: &mut Scene<'_, '_>) -> Result<Result<Applied, Refusal>, Breach> {
        let checked = match entry.check() {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let now_ms = scene.now_ms().max(self.book.last_time_ms());
        match self.book.apply(&checked, now_ms) {
            Ok(applied) => {
                scene.trace(POSTED, self.book.sequence());
                if matches!(applied, Applied::New { .. }) {
                    self.second_book
                        .posted(checked.entry(), &self.book, now_ms, scene.place())?;
                }
                Ok(Ok(applied))
            }
            Err(ApplyError::Refused(refusal)) => {
                self.second_book
                    .refused(checked.entry(), &self.book, now_ms, scene.place())?;
                scene.tally.coordinator_refusals += 1;
                Ok(Err(refusal))
            }
            Err(ApplyError::Broken(broken)) => {
                Err(scene.breach("conservation of credits", broken.to_string()))
            }
        }
    }

    /// Whether an address may have one more starter grant today.
    fn counts_grant(&mut self, from: NodeId, scene: &Scene<'_, '_>) -> bool {
        let Some(most) = scene.world.config.defences.grants_per_address else {
            return true;
        };
        let day = scene.now_ms() / DAY_MS;
        let (counted_day, count) = self.granted.entry(from).or_default();
        if *counted_day != day {
            (*counted_day, *count) = (day, 0);
        }
        *count += 1;
        *count <= most
    }

    /// The whole books agree.
    pub(crate) fn survey(&self, place: Place) -> Result<(), Breach> {
        self.second_book.survey(&self.book, place)
    }

    fn starter(&mut self, from: NodeId, number: u32, scene: &mut Scene<'_, '_>) -> Result<Message, Breach> {
        let defences = &scene.world.config.defences;
        let amount = defences.starter_grant;
        if !self.counts_grant(from, scene) {
            let amount = Credits::ZERO;
            return Ok(Message::Granted { amount });
        }
        let grant = Grant {
            id: grant_id(from, 1 + u128::from(number)),
            account: scene.world.account_of(from, number),
            amount,
            kind: GrantKind::Starter,
            reason: String::new(),
            starter_daily_budget: defences.starter_daily_budget,
        };
        let posted = self.post(Entry::Grant(grant), scene)?;
        let amount = if posted.is_ok() { amount } else { Credits::ZERO };
        if number > 0 {
            scene.tally.farmed += amount.microcredits();
        }
        scene.tally.starter_given += amount.microcredits();
        Ok(Message::Granted { amount })
    }

    fn open(
        &mut self,
        from: NodeId,
        request: &OpenChannelRequest,
        scene: &mut Scene<'_, '_>,
    ) -> Result<Message, Breach> {
        let (config, consumer) = (&scene.world.config.coordinator, scene.world.account(from));
        let refused = |is_out_of_credits| Message::NoTicket {
            channel: request.channel,
            is_out_of_credits,
        };
        let life_max_ms = config.channel_life_max_s.get() * 1_000;
        if request.limit.microcredits() > config.channel_limit_max.get() || request.life_ms > life_max_ms {
            return Ok(refused(false));
        }
        let fee_basis_points = u16::try_from(config.fee_basis_points.get()).unwrap_or(0);
        let open = OpenChannel {
            channel: request.channel,
            consumer,
            provider: request.provider,
            limit: request.limit,
            fee_basis_points,
            redeem_by_ms: scene.now_ms() + request.life_ms,
            request_digest: request.digest(&consumer),
        };
        match self.post(Entry::OpenChannel(open), scene)? {
            Ok(_) => Ok(self
                .ticket(request.channel, scene)
                .unwrap_or_else(|| refused(false))),
            Err(Refusal::InsufficientCredits { .. }) => Ok(refused(true)),
            Err(_) => Ok(refused(false)),
        }
    }

    /// The ticket of a channel: the same bytes each time.
    fn ticket(&self, channel: ChannelId, scene: &Scene<'_, '_>) -> Option<Message> {
        let opened = self.book.channel(&channel)?;
        let claims = TicketClaims {
            iss: scene.account(),
            sub: opened.consumer,
            aud: Audience::One(opened.provider),
            jti: channel,
            iat: opened.opened_at_ms / 1_000,
            exp: opened.redeem_by_ms / 1_000,
            limit: opened.limit,
            fee_basis_points: opened.fee_basis_points,
            redeem_by_ms: opened.redeem_by_ms,
        };
        let token = jws::sign(&claims, &scene.keypair());
        Some(Message::Ticket { channel, token })
    }

    fn settle(
        &mut self,
        vouchers: Vec<Signed<Voucher>>,
        scene: &mut Scene<'_, '_>,
    ) -> Result<Message, Breach> {
        let mut paid = Vec::with_capacity(vouchers.len());
        for voucher in vouchers {
            let channel = voucher.content_unchecked().channel;
            let posted = self.post(Entry::Settle(Settle { channel, voucher }), scene)?;
            let settled = posted
                .ok()
                .and_then(|_| self.book.channel(&channel))
                .map(|channel| channel.settled);
            paid.push((channel, settled));
        }
        Ok(Message::Settled { paid })
    }

    fn sweep(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        if self.down_since_ms.is_some() {
            return Ok(());
        }
        for channel in self.book.expired_channels(scene.now_ms(), SWEPT_MAX) {
            let reason = CloseReason::Expired;
            let close = Entry::CloseChannel(CloseChannel { channel, reason });
            let _ = self.post(close.clone(), scene)?;
            // As a call that comes again because its answer was lost: it must change nothing.
            let _ = self.post(close, scene)?;
        }
        Ok(())
    }

    /// An outage begins: what is not on the disk is gone.
    pub(crate) fn goes_down(&mut self, scene: &mut Scene<'_, '_>) {
        if self.down_since_ms.is_none() {
            self.down_since_ms = Some(scene.now_ms());
            scene.tally.lost += self.waiting.len() as u64;
            self.waiting.clear();
            scene.tell(None, || "The coordinator answers nobody any more.".to_owned());
        }
    }

    /// It is back, and gives every open channel the time that it could not be redeemed in.
    pub(crate) fn comes_back(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let Some(since_ms) = self.down_since_ms.take() else {
            return Ok(());
        };
        let downtime_ms = scene.now_ms().saturating_sub(since_ms);
        let _ = self.post(Entry::Started(Started { downtime_ms }), scene)?;
        self.challenges_begin_anew(scene);
        scene.tell(None, || {
            format!("The coordinator is back after {} s.", downtime_ms / 1_000)
        });
        Ok(())
    }
}

/// What a trace says of an entry.
const POSTED: u64 = 2;

fn grant_id(node: NodeId, purpose: u128) -> GrantId {
    GrantId::from_bytes((u128::from(node) << 64 | purpose).to_be_bytes())
}

/// Scenarios bound amounts far below the largest one.
pub(crate) fn amount(microcredits: u64) -> Credits {
    Credits::from_microcredits(microcredits).unwrap_or(Credits::MAX)
}
