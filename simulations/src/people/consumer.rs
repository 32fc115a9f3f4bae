//! A consumer: a board, records of providers, channels, and jobs from the request to the last voucher, as the local
//! endpoint of the shipped client has them.

mod asking;
pub(crate) mod attempts;
pub(crate) mod funding;
mod outcomes;

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::Board;
use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::hardware::HardwareCertificate;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::listing::Listing;
use gristmill_protocol::routing::hedge::HedgePlan;
use gristmill_protocol::routing::records::ProviderRecords;
use gristmill_protocol::routing::retry::RetryPlan;
use gristmill_protocol::session::consumer::ConsumerSession;
use gristmill_protocol::usage::Price;
use serde::{Deserialize, Serialize};

use super::demand::Request;
use super::hardware::is_certified;
use super::job_text;
use super::popularity::ModelSize;
use super::provider::Wakening;
use super::quality::Evidence;
use super::whole;
use crate::checkers::bounds::ConsumerBounds;
use crate::checkers::forwarding::Forwarding;
use crate::checkers::liveness::History;
use crate::engine::{Breach, NodeId};
use crate::world::config::ConsumerGroup;
use crate::world::event::{Envelope, JobId, Message, StreamId, Timer};
use crate::world::kept::Kept;
use crate::world::node::board_bytes;
use crate::world::roster::Part;
use crate::world::scene::Scene;

const DAY_US: u64 = 86_400_000_000;
/// Within which time all should have heard the listing with a new certificate.
const HEARD_WITHIN_MS: u64 = 120_000;

/// A consumer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Consumer {
    /// The place of its group in the scenario.
    pub(crate) group: u16,
    pub(crate) board: Kept<Board>,
    records: ProviderRecords,
    jobs: BTreeMap<JobId, Job>,
    jobs_asked: u32,
    channels: BTreeMap<ChannelId, Channel>,
    /// Channels that the coordinator was asked for, by their count.
    openings: BTreeMap<u32, Opening>,
    channels_asked: u32,
    /// What it received and owes for, in microcredits.
    pub(crate) owed: u64,
    pub(crate) served: u64,
    pub(crate) forwarding: Forwarding,
    bounds: ConsumerBounds,
    /// What questions with known answers have shown of each provider.
    evidence: BTreeMap<AccountId, Evidence>,
    accounts_asked: u32,
    /// Whether it asks only providers with a certificate of their hardware.
    pub(crate) only_verified: bool,
    /// What it has lived through.
    pub(crate) history: History,
}

/// One request of a program.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    request: Request,
    asked_us: u64,
    retries: RetryPlan,
    /// Who is not asked again in this round, and who only had no room.
    tried: BTreeSet<AccountId>,
    busy: BTreeSet<AccountId>,
    /// Who failed before it had delivered anything, and may be asked in the next round.
    failed: BTreeSet<AccountId>,
    busy_wait_ms: Option<u64>,
    /// How many were asked in this round and did more than say that they have no room.
    attempts: u32,
    attempts_ever: u32,
    live: Vec<Attempt>,
    hedge: HedgePlan,
    /// Output tokens that came so far, from whomever.
    got: u32,
    first_us: Option<u64>,
    /// The most that was set aside for an attempt, in microcredits.
    cost_max: u64,
    /// Whether the program has its answer or was told that there is none. What was told to stop by then still runs to its
    /// last word: until then its reservation is kept, and what it sends is paid for.
    is_over: bool,
}

/// One provider that is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    stream: StreamId,
    provider: NodeId,
    account: AccountId,
    price: Price,
    /// What pays, or will once the coordinator has answered.
    channel: ChannelId,
    cost_max: Credits,
    /// What is asked of this one: tokens of the prompt and of the answer.
    input_tokens: u32,
    output_tokens: u32,
    /// Nothing while the channel is being opened.
    session: Option<Kept<ConsumerSession>>,
    sent_us: u64,
    first_us: Option<u64>,
    got: u32,
    chunks: u32,
    vouchers: u32,
    /// What came so far, as the provider's meter says.
    cost: Credits,
    arrives_us: u64,
    looks_at_ms: u64,
}

/// A channel that pays.
#[derive(Debug, Serialize, Deserialize)]
struct Channel {
    account: Kept<ConsumerChannel>,
    provider: AccountId,
    ticket: String,
    /// No new job after this, Unix milliseconds: its provider needs time to redeem.
    use_until_ms: u64,
}

/// A channel that the coordinator was asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    request: OpenChannelRequest,
    calls: u32,
}

impl Consumer {
    /// A consumer of a group that has heard and asked nothing yet.
    pub(crate) fn new(group: u16) -> Self {
        Self {
            group,
            board: Kept::Awake(Board::default()),
            records: ProviderRecords::default(),
            jobs: BTreeMap::new(),
            jobs_asked: 0,
            channels: BTreeMap::new(),
            openings: BTreeMap::new(),
            channels_asked: 0,
            owed: 0,
            served: 0,
            forwarding: Forwarding::default(),
            bounds: ConsumerBounds::default(),
            evidence: BTreeMap::new(),
            accounts_asked: 0,
            only_verified: false,
            history: History::default(),
        }
    }

    /// Whether what the listing shows of the hardware is enough for it.
    pub(crate) fn would_ask(&self, listing: &Listing, coordinator: AccountId, now_ms: u64) -> bool {
        !self.only_verified || is_certified(listing, coordinator, now_ms)
    }

    /// Whether it would have asked this provider from some time on, by its certificate; Unix milliseconds.
    pub(crate) fn accepts_since(&self, provider: &AccountId, since_ms: u64, now_ms: u64) -> bool {
        let heard_ms = |certificate: &HardwareCertificate| certificate.shown_at * 1_000 + HEARD_WITHIN_MS;
        let board = self.board.awake();
        !self.only_verified
            || board.is_some_and(|board| {
                let mut certificates = board.certificates(provider, now_ms);
                certificates.any(|certificate| heard_ms(certificate) <= since_ms)
            })
    }

    fn config<'a>(&self, scene: &Scene<'a, '_>) -> &'a ConsumerGroup {
        scene.world.consumer_group(self.group)
    }

    /// Bytes of the entries of its maps.
    pub(crate) fn heap_bytes(&self) -> usize {
        board_bytes(&self.board)
            + self.jobs.len() * size_of::<(JobId, Job)>()
            + self.channels.len() * size_of::<(ChannelId, Channel)>()
    }

    /// The job that was asked first of those that wait: for which model, and when, in microseconds.
    pub(crate) fn longest_waiting(&self) -> Option<(ModelSize, u64)> {
        let jobs = self.jobs.values().filter(|job| !job.is_over);
        jobs.map(|job| (job.request.model, job.asked_us))
            .min_by_key(|(_, asked_us)| *asked_us)
    }

    /// What is received on all channels and not promised, in microcredits.
    pub(crate) fn unpromised(&self) -> u64 {
        let accounts = self
            .channels
            .values()
            .filter_map(|channel| channel.account.awake());
        let unpromised = accounts.map(|account| account.owed().saturating_sub(account.promised()));
        unpromised.map(Credits::microcredits).sum()
    }

    pub(crate) fn message(&mut self, envelope: Envelope, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        match envelope.message {
            Message::ToConsumer { stream, frame } => self.frame(stream, frame, scene),
            Message::StreamClosed { stream } => self.stream_closed(stream, scene),
            Message::Ticket { channel, token } => self.opened(channel, token, scene),
            Message::NoTicket {
                channel,
                is_out_of_credits,
            } => {
                self.not_opened(channel, is_out_of_credits, scene);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn timer(&mut self, timer: Timer, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        match timer {
            Timer::Ask => self.ask(scene),
            Timer::Retry(job) => self.route(job, scene),
            Timer::Hedge(job) => self.hedge(job, scene),
            Timer::GiveUp(job) => self.give_up(job, scene),
            Timer::ConsumerDeadline(stream) => self.deadline(stream, scene),
            Timer::Opening(count) => {
                self.opening_is_late(count, scene);
                Ok(())
            }
            Timer::Starter => {
                self.ask_starter(scene);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Asks for starter credits, once for its own account; who farms them goes on with made-up ones.
    fn ask_starter(&mut self, scene: &mut Scene<'_, '_>) {
        let farms = u64::from(self.config(scene).conduct().farms_grants());
        let account = self.accounts_asked;
        self.accounts_asked += 1;
        scene.send(0, Message::AskStarter { account });
        if let Some(every_us) = DAY_US.checked_div(farms) {
            scene.after(every_us, Timer::Starter);
        }
    }

    /// Wakes what was read from a snapshot.
    pub(crate) fn wake(&mut self, scene: &Wakening<'_>) -> Result<(), String> {
        let world = scene.world;
        self.board
            .wake(|snapshot| Board::restore(snapshot, |digest| world.catalogue.by_digest(digest)))
            .map_err(|error| error.to_string())?;
        for channel in self.channels.values_mut() {
            channel
                .account
                .wake(|snapshot| ConsumerChannel::restore(snapshot, scene.keypair()))
                .map_err(|error| error.to_string())?;
        }
        for attempt in self.jobs.values_mut().flat_map(|job| &mut job.live) {
            let Part::Provider(group) = world.roster.part(attempt.provider) else {
                continue;
            };
            let part = world
                .config
                .providers
                .get(group)
                .map_or(1, |group| whole(group.tokens_per_chunk.get()));
            let answer = job_text::answer(attempt.output_tokens, part);
            if let Some(session) = &mut attempt.session {
                session
                    .wake(|snapshot| ConsumerSession::restore(snapshot, &answer))
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
