//! A provider: slots, engines, sessions, channels and listings, as a node has them.

mod as_text;
mod engine;
mod jobs;
mod listings;
mod money;
mod prices;
mod showing;

use std::collections::{BTreeMap, VecDeque};

use gristmill_protocol::board::Board;
use gristmill_protocol::channel::ProviderChannel;
use gristmill_protocol::codec::canonical;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::session::provider::ProviderSession;
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::usage::Price;
use gristmill_protocol::voucher::Voucher;
use serde::{Deserialize, Serialize};

use super::coordinator::amount;
use super::job_text;
use super::popularity::ModelSize;
use super::pricing::Strategy;
use crate::checkers::bounds::ProviderBounds;
use crate::engine::{Breach, NodeId};
use crate::world::config::ProviderGroup;
use crate::world::event::{Envelope, Message, StreamId, Timer};
use crate::world::kept::Kept;
use crate::world::scene::Scene;

use self::engine::Engine;
use self::showing::Showing;

/// A provider.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Provider {
    /// The place of its group in the scenario.
    pub(crate) group: u16,
    jobs: BTreeMap<StreamId, Job>,
    /// Jobs whose engine has not begun, in the order in which they came.
    queue: VecDeque<StreamId>,
    /// How many engines run.
    running: u32,
    channels: BTreeMap<ChannelId, Channel>,
    is_persisting: bool,
    offers: Vec<Offered>,
    /// Hears of the others, where its prices depend on them.
    pub(crate) board: Option<Kept<Board>>,
    /// When it set its prices last, and how busy it had been by then, in microseconds.
    priced_us: u64,
    busy_when_priced_us: u64,
    bounds: ProviderBounds,
    published: u32,
    /// When the last listing was published, in microseconds, and whether it had a free slot.
    said_us: u64,
    said_free: bool,
    /// Whether nothing was published since it came online.
    is_fresh: bool,
    /// When it is published again at the latest, and when the next look is planned, in microseconds.
    renews_us: u64,
    looks_us: u64,
    /// When vouchers are handed in next, in microseconds.
    hands_in_us: u64,
    /// How its hardware stands with the coordinator.
    pub(crate) showing: Showing,
    /// Everything that the coordinator has paid, before fees, in microcredits.
    pub(crate) settled: u64,
    /// What it delivered in all, in microcredits.
    pub(crate) delivered: u64,
    /// Microseconds of its slots that engines used.
    pub(crate) busy_us: u64,
    /// When it last had no free slot, was away or asked a lower price, in microseconds.
    unable_us: u64,
}

/// A model on offer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Offered {
    model: ModelSize,
    /// Per million output tokens; nothing where it offers nothing now.
    price: Option<Credits>,
    /// What it asked when it last offered it.
    usual: Credits,
    #[serde(with = "as_text")]
    strategy: Option<Strategy>,
}

/// One job.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    session: Kept<ProviderSession>,
    channel: ChannelId,
    model: ModelSize,
    price: Price,
    /// What was delivered so far, as its meter says.
    cost: Credits,
    engine: Engine,
    input_tokens: u32,
    output_tokens: u32,
    /// When the last frame arrives at the consumer.
    arrives_us: u64,
    /// For when a look at the deadline is planned, Unix milliseconds.
    looks_at_ms: u64,
    /// When it was taken, and when anything last happened to its session, in microseconds.
    came_us: u64,
    moved_us: u64,
}

/// A channel, and what is known of its money.
#[derive(Debug, Serialize, Deserialize)]
struct Channel {
    account: ProviderChannel,
    #[serde(with = "as_text")]
    ticket: TicketClaims,
    token_digest: [u8; 32],
    /// The highest voucher on the own disk.
    #[serde(with = "canonical")]
    persisted: Option<Signed<Voucher>>,
    /// What the coordinator has paid so far.
    settled: Credits,
}

impl Offered {
    fn new(model: ModelSize, config: &ProviderGroup) -> Self {
        let usual = config
            .output_price
            .map_or(model.usual_price(), |price| amount(price.get()));
        Self {
            model,
            price: Some(usual),
            usual,
            strategy: config.pricing.clone(),
        }
    }
}

/// Input tokens cost one part in so many of what output tokens do, as is usual for open models.
const INPUT_PRICE_PARTS: u64 = 4;

/// The price of a model's tokens.
pub(crate) fn price_of(output: Credits) -> Price {
    Price::per_million_tokens(amount(output.microcredits() / INPUT_PRICE_PARTS), output)
}

impl Provider {
    /// A provider of a group.
    pub(crate) fn new(group: u16, config: &ProviderGroup) -> Self {
        Self {
            group,
            jobs: BTreeMap::new(),
            queue: VecDeque::new(),
            running: 0,
            channels: BTreeMap::new(),
            is_persisting: false,
            offers: config
                .offered()
                .into_iter()
                .map(|model| Offered::new(model, config))
                .collect(),
            board: config.pricing.is_some().then(|| Kept::Awake(Board::default())),
            priced_us: 0,
            busy_when_priced_us: 0,
            bounds: ProviderBounds::default(),
            published: 0,
            said_us: 0,
            said_free: false,
            is_fresh: true,
            renews_us: 0,
            looks_us: 0,
            hands_in_us: 0,
            showing: Showing::default(),
            settled: 0,
            delivered: 0,
            busy_us: 0,
            unable_us: 0,
        }
    }

    fn config<'a>(&self, scene: &Scene<'a, '_>) -> &'a ProviderGroup {
        scene.world.provider_group(self.group)
    }

    /// Bytes of the entries of its maps.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.jobs.len() * size_of::<(StreamId, Job)>()
            + self.channels.len() * (size_of::<(ChannelId, Channel)>() + 2 * size_of::<Signed<Voucher>>())
    }

    /// How many jobs run or wait.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Since when the job that came first of those that run or wait has been here, in microseconds.
    pub(crate) fn oldest_job_us(&self) -> Option<u64> {
        self.jobs.values().map(|job| job.came_us).min()
    }

    /// Where it has a free slot: when it last could not have served who came, in microseconds.
    pub(crate) fn has_room_since_us(&self, config: &ProviderGroup) -> Option<u64> {
        ((self.jobs.len() as u64) < config.slots()).then_some(self.unable_us)
    }

    /// What it asks now per million output tokens of a model; nothing where it does not offer it.
    pub(crate) fn price_of(&self, model: ModelSize) -> Option<Credits> {
        let offered = self.offers.iter().find(|offered| offered.model == model);
        offered.and_then(|offered| offered.price)
    }

    /// Since when it has held back output for which its consumer has paid, where a job is alone on its channel.
    pub(crate) fn holds_back_since_us(&self) -> Option<u64> {
        let is_paid = |job: &&Job| {
            let others = self.jobs.values().filter(|other| other.channel == job.channel);
            let is_blocked = matches!(job.engine, Engine::Runs { is_blocked: true, .. });
            let has_paid = |channel: &Channel| {
                // A slice is a quarter of the window at most.
                let unpaid = channel.account.unpaid().microcredits();
                unpaid <= channel.account.window().microcredits() / 2
            };
            is_blocked && self.channels.get(&job.channel).is_some_and(has_paid) && others.count() == 1
        };
        let jobs = self.jobs.values();
        jobs.filter(is_paid).map(|job| job.moved_us).min()
    }

    fn note_whether_full(&mut self, scene: &Scene<'_, '_>) {
        if self.jobs.len() as u64 >= self.config(scene).slots() {
            self.unable_us = scene.now_us();
        }
    }

    /// What was delivered on channels that live and is not promised.
    pub(crate) fn unpaid(&self) -> u64 {
        let unpaid = |channel: &Channel| channel.account.unpaid().microcredits();
        self.channels.values().map(unpaid).sum()
    }

    pub(crate) fn message(&mut self, envelope: Envelope, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let Envelope { from, message } = envelope;
        match message {
            Message::ToProvider { stream, frame } => self.frame(stream, from, frame, scene)?,
            Message::StreamClosed { stream } => self.stream_closed(stream, scene)?,
            Message::Settled { paid } => self.paid(paid),
            Message::FromDesk { number, answer } => self.hear_desk(number, answer, scene)?,
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn timer(&mut self, timer: Timer, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        match timer {
            Timer::Listing => self.look_at_listing(scene)?,
            Timer::Engine(stream) => self.engine_made(stream, scene)?,
            Timer::ProviderDeadline(stream) => self.deadline(stream, scene)?,
            Timer::Persist => self.persist(scene),
            Timer::HandIn => self.hand_in(scene),
            Timer::Hardware => self.look_at_hardware(scene),
            Timer::Worked(number) => self.device_is_done(number, scene),
            Timer::Unanswered(number) => self.desk_is_late(number, scene),
            _ => {}
        }
        Ok(())
    }

    /// It stops, and forgets everything that is not on its disk. A crash takes leave of nobody.
    pub(crate) fn goes_down(&mut self, crash: bool, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        scene.tally.departures += 1;
        self.unable_us = scene.now_us();
        scene.tell(None, || {
            if crash {
                "It crashes.".to_owned()
            } else {
                "It leaves.".to_owned()
            }
        });
        if !crash {
            self.take_leave(scene)?;
            self.persist(scene);
        }
        for (stream, job) in std::mem::take(&mut self.jobs) {
            let consumer = stream.consumer();
            if crash {
                scene.break_stream(consumer, stream);
            } else {
                let mut arrives_us = job.arrives_us;
                scene.send_after(consumer, Message::StreamClosed { stream }, &mut arrives_us);
            }
        }
        self.queue.clear();
        self.running = 0;
        self.showing.forget();
        let place = scene.place();
        for (id, channel) in &mut self.channels {
            let promised = channel.account.vouchered().microcredits();
            let kept = channel
                .persisted
                .as_ref()
                .map_or(0, |voucher| voucher.content_unchecked().cumulative.microcredits());
            scene.tally.lost_vouchers += promised - kept.min(promised);
            self.bounds.lost_power(*id, amount(kept), place.at_us, place)?;
            scene.tally.unpaid += channel.account.unpaid().microcredits();
            channel.account = ProviderChannel::new(
                &channel.ticket,
                channel.account.window(),
                channel.persisted.clone(),
            );
        }
        self.is_persisting = false;
        Ok(())
    }

    /// It is back, with what its disk has.
    pub(crate) fn comes_back(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        scene.tell(None, || "It is online.".to_owned());
        self.is_fresh = true;
        self.renews_us = 0;
        self.unable_us = scene.now_us();
        self.look_at_listing(scene)?;
        self.begin_hand_ins(scene);
        self.look_at_hardware(scene);
        Ok(())
    }

    /// Wakes what was read from a snapshot.
    pub(crate) fn wake(&mut self, scene: &Wakening<'_>) -> Result<(), String> {
        let part = scene.tokens_per_chunk(self.group);
        if let Some(board) = &mut self.board {
            let find = |digest: &[u8; 32]| scene.world.catalogue.by_digest(digest);
            board
                .wake(|snapshot| Board::restore(snapshot, find))
                .map_err(|error| error.to_string())?;
        }
        for job in self.jobs.values_mut() {
            let made = job.engine.handed_over();
            let output = job_text::answer(made, part);
            job.session
                .wake(|snapshot| ProviderSession::restore(snapshot, scene.keypair(), &[], &output))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// What waking a node takes.
pub(crate) struct Wakening<'a> {
    pub(crate) world: &'a crate::world::MarketWorld,
    pub(crate) node: NodeId,
}

impl Wakening<'_> {
    pub(crate) fn keypair(&self) -> gristmill_protocol::identity::Keypair {
        self.world.keys.keypair(self.node)
    }

    pub(crate) fn tokens_per_chunk(&self, group: u16) -> u32 {
        super::whole(self.world.provider_group(group).tokens_per_chunk.get())
    }
}
