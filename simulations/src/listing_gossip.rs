//! The world of listings: providers publish, peers verify and forward, liars lie, consumers look at their boards.
//!
//! Each peer runs the shipped [`Board`](gristmill_protocol::board::Board) on really signed listings. Gossip is a
//! model: a message floods a random regular graph, each peer forwarding once what its board took as news. Peers here
//! neither score liars nor replace neighbours that lie or are gone, and lost messages are not asked for again. So
//! what is measured is what boards and redundant paths alone achieve, not the whole of the real mesh.

mod actors;
mod beginning;
mod checker;
mod peer;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::ListingError;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use self::actors::{Liar, MODEL, Provider, Terms};
pub use self::checker::Breach;
use self::checker::Checker;
use self::peer::{Forwarding, Message, Peer, Reception};
use self::report::Figures;
pub use self::report::{BreachReport, Report, Share, Times};
use crate::heap_engine::{self as engine, LimitError, Limits, Scheduler, Trace, World};
use crate::scenario::Scenario;
use crate::topology::NoGraph;

/// When virtual time begins, as Unix time in milliseconds (January 2027).
const EPOCH_MS: u64 = 1_800_000_000_000;
/// Within how much time a listing should be on every board, in microseconds.
const IN_TIME_US: u64 = 5_000_000;
const SECOND_US: u64 = 1_000_000;

/// Why a scenario could not be run to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunError {
    /// The peers cannot be connected as asked.
    #[error(transparent)]
    Graph(#[from] NoGraph),
    /// The run grew beyond its limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A provider or liar could not make its listing.
    #[error("the simulator made a listing that the protocol refuses: {0}")]
    Listing(#[from] ListingError),
}

/// Runs a scenario.
///
/// # Errors
/// [`RunError`] where it cannot be run to an answer. A broken rule is no error but stands in the report.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, RunError> {
    run_with(scenario, seed, Forwarding::default())
}

fn run_with(scenario: &Scenario, seed: u64, forwarding: Forwarding) -> Result<Report, RunError> {
    let mut scheduler = Scheduler::default();
    let mut world = ListingGossip::new(scenario, seed, forwarding, &mut scheduler)?;
    let limits = Limits::until_us(world.end_us());
    let outcome = engine::run(&mut world, &mut scheduler, limits)?;
    world.report(outcome)
}

/// What can happen. Peers are numbered: providers first, then liars, then consumers.
#[derive(Debug)]
enum Event {
    Publish {
        provider: usize,
    },
    Leave {
        provider: usize,
    },
    Crash {
        provider: usize,
    },
    Lie {
        liar: usize,
    },
    Ask {
        consumer: usize,
    },
    Deliver {
        to: usize,
        from: usize,
        message: Arc<Message>,
    },
}

/// Why an event could not go on: a rule was broken, or a listing of our own making is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Stop {
    #[error(transparent)]
    Breach(#[from] Breach),
    #[error(transparent)]
    Listing(#[from] ListingError),
}

#[derive(Clone, Copy, Debug)]
struct Link {
    to: usize,
    latency_us: u64,
}

/// A listing on its way to everyone who should have it.
#[derive(Clone, Copy, Debug)]
struct Publication {
    at_us: u64,
    publisher: usize,
    counts: bool,
}

#[derive(Debug)]
struct ListingGossip {
    scenario: Scenario,
    seed: u64,
    terms: Terms,
    peers: Vec<Peer>,
    links: Vec<Vec<Link>>,
    network_rngs: Vec<ChaCha8Rng>,
    /// When each peer stops running, in microseconds; never where it stays.
    stops_at_us: Vec<u64>,
    providers: Vec<Provider>,
    provider_indexes: BTreeMap<AccountId, usize>,
    liars: Vec<Liar>,
    publications: BTreeMap<(AccountId, u64), Publication>,
    checker: Checker,
    figures: Figures,
}

impl ListingGossip {
    const fn end_us(&self) -> u64 {
        self.scenario.duration_s.get() * SECOND_US
    }

    const fn publish_every_us(&self) -> u64 {
        self.scenario.providers.publish_every_s.get() * SECOND_US
    }

    const fn lie_every_us(&self) -> u64 {
        self.scenario.liars.lie_every_s.get() * SECOND_US
    }

    const fn ask_every_us(&self) -> u64 {
        self.scenario.consumers.ask_every_s.get() * SECOND_US
    }

    const fn first_consumer(&self) -> usize {
        self.providers.len() + self.liars.len()
    }

    fn is_liar(&self, peer: usize) -> bool {
        (self.providers.len()..self.first_consumer()).contains(&peer)
    }

    fn runs_at(&self, peer: usize, at_us: u64) -> bool {
        at_us < self.stops_at_us[peer]
    }

    fn publish(
        &mut self,
        provider: usize,
        leaves: bool,
        scheduler: &mut Scheduler<Event>,
    ) -> Result<(), Stop> {
        let now_us = scheduler.now_us();
        let (listing, message) = self.providers[provider].publish(self.terms, leaves, now_ms(now_us))?;
        self.figures.published += 1;
        let counts = now_us + IN_TIME_US <= self.end_us();
        if counts {
            let in_time_us = now_us + IN_TIME_US;
            let should_have =
                |peer: usize| peer != provider && !self.is_liar(peer) && self.runs_at(peer, in_time_us);
            self.figures.expected_deliveries +=
                (0..self.peers.len()).filter(|peer| should_have(*peer)).count() as u64;
        }
        let publication = Publication {
            at_us: now_us,
            publisher: provider,
            counts,
        };
        self.publications
            .insert((listing.provider, listing.sequence), publication);
        self.checker.record(listing, &message);
        let reception = self.peers[provider].receive(&message, now_ms(now_us));
        self.take(provider, &message, &reception, scheduler)?;
        self.send_to_all(provider, None, &message, scheduler);
        Ok(())
    }

    fn lie(&mut self, liar: usize, scheduler: &mut Scheduler<Event>, trace: &mut Trace) -> Result<(), Stop> {
        let teller = &mut self.liars[liar - self.providers.len()];
        let victim = teller.rng.random_range(0..self.providers.len());
        let victim = self.providers[victim].keypair.account();
        let (lie, message) = teller.lie(self.terms, victim, now_ms(scheduler.now_us()))?;
        trace.bytes(&message.digest);
        *self.figures.lies_sent.entry(lie).or_insert(0) += 1;
        self.send_to_all(liar, None, &message, scheduler);
        Ok(())
    }

    /// A consumer looks at its board: who can serve the model?
    fn ask(&mut self, consumer: usize, now_us: u64, trace: &mut Trace) -> Result<(), Stop> {
        let now_ms = now_ms(now_us);
        let peer = &mut self.peers[consumer];
        peer.board.expire(now_ms);
        let peer = &self.peers[consumer];
        self.checker.check_board(consumer, peer, now_ms)?;
        let (mut shown, mut running_known) = (0, 0);
        for candidate in
            peer.board
                .candidates(JobKind::ChatCompletions, MODEL, self.terms.coordinator, now_ms)
        {
            let provider = candidate.listing.provider;
            let index = self.provider_indexes.get(&provider).copied();
            let index = index.ok_or(Breach::InvalidShown {
                peer: consumer,
                provider,
            })?;
            let runs = now_us < self.stops_at_us[index];
            self.figures.age_ms.add(now_ms - candidate.listing.issued_at_ms);
            self.figures.gone.count(!runs);
            running_known += u64::from(runs);
            shown += 1;
        }
        let running = (0..self.providers.len())
            .filter(|provider| self.runs_at(*provider, now_us))
            .count();
        self.figures.known.whole += running as u64;
        self.figures.known.part += running_known;
        trace.number(shown).number(running_known);
        Ok(())
    }

    fn deliver(
        &mut self,
        (from, to): (usize, usize),
        message: &Arc<Message>,
        scheduler: &mut Scheduler<Event>,
        trace: &mut Trace,
    ) -> Result<(), Stop> {
        trace.actor(from).actor(to).bytes(&message.digest);
        if !self.runs_at(to, scheduler.now_us()) {
            return Ok(());
        }
        if self.is_liar(to) {
            self.liars[to - self.providers.len()].hear(message.clone());
            return Ok(());
        }
        let reception = self.peers[to].receive(message, now_ms(scheduler.now_us()));
        trace.bytes(format!("{reception:?}").as_bytes());
        self.take(to, message, &reception, scheduler)?;
        if self.peers[to].forwards(&reception) {
            self.checker.check_forwarded(to, message)?;
            self.send_to_all(to, Some(from), message, scheduler);
        }
        Ok(())
    }

    /// Checks and counts what a board made of a message.
    fn take(
        &mut self,
        peer: usize,
        message: &Message,
        reception: &Reception,
        scheduler: &Scheduler<Event>,
    ) -> Result<(), Breach> {
        match reception {
            Reception::Refused(_) => self.figures.refused += 1,
            Reception::Read(insertion) if insertion.is_news() => {
                let now_us = scheduler.now_us();
                let taken = self.checker.check_taken(peer, message)?;
                if let Some(publication) = self.publications.get(&taken).copied() {
                    self.count_delivery(peer, publication, now_us);
                }
            }
            Reception::Duplicate | Reception::Read(_) => {}
        }
        Ok(())
    }

    fn count_delivery(&mut self, peer: usize, publication: Publication, now_us: u64) {
        if peer == publication.publisher {
            return;
        }
        let took_us = now_us - publication.at_us;
        self.figures.delivery_ms.add(took_us / 1_000);
        let in_time = took_us <= IN_TIME_US && self.runs_at(peer, publication.at_us + IN_TIME_US);
        self.figures.deliveries_in_time += u64::from(publication.counts && in_time);
    }

    fn send_to_all(
        &mut self,
        from: usize,
        except: Option<usize>,
        message: &Arc<Message>,
        scheduler: &mut Scheduler<Event>,
    ) {
        let (jitter_us, loss) = (
            self.scenario.network.jitter_ms.get() * 1_000,
            self.scenario.network.loss.get(),
        );
        let rng = &mut self.network_rngs[from];
        for link in self.links[from].iter().filter(|link| Some(link.to) != except) {
            self.figures.messages_sent += 1;
            // Both are drawn for every message, so that another loss leaves the delays as they were.
            let (lost, delay_us) = (
                rng.random_bool(loss),
                link.latency_us + rng.random_range(0..=jitter_us),
            );
            if lost {
                self.figures.messages_lost += 1;
            } else {
                scheduler.schedule_after(
                    delay_us,
                    Event::Deliver {
                        to: link.to,
                        from,
                        message: message.clone(),
                    },
                );
            }
        }
    }
}

impl World for ListingGossip {
    type Event = Event;
    type Breach = Stop;

    fn handle(
        &mut self,
        event: Event,
        scheduler: &mut Scheduler<Event>,
        trace: &mut Trace,
    ) -> Result<(), Stop> {
        let now_us = scheduler.now_us();
        match event {
            Event::Publish { provider } => {
                trace.bytes(b"publish").actor(provider);
                if !self.runs_at(provider, now_us) {
                    return Ok(());
                }
                self.publish(provider, false, scheduler)?;
                self.peers[provider].board.expire(now_ms(now_us));
                // Without it all providers would keep the rhythm of the first round for ever.
                let drift_us = self.providers[provider].rng.random_range(0..SECOND_US);
                scheduler.schedule_after(self.publish_every_us() + drift_us, Event::Publish { provider });
            }
            Event::Leave { provider } => {
                trace.bytes(b"leave").actor(provider);
                self.publish(provider, true, scheduler)?;
            }
            Event::Crash { provider } => {
                trace.bytes(b"crash").actor(provider);
            }
            Event::Lie { liar } => {
                trace.bytes(b"lie").actor(liar);
                self.lie(liar, scheduler, trace)?;
                scheduler.schedule_after(self.lie_every_us(), Event::Lie { liar });
            }
            Event::Ask { consumer } => {
                trace.bytes(b"ask").actor(consumer);
                self.ask(consumer, now_us, trace)?;
                scheduler.schedule_after(self.ask_every_us(), Event::Ask { consumer });
            }
            Event::Deliver { to, from, message } => {
                trace.bytes(b"deliver");
                self.deliver((from, to), &message, scheduler, trace)?;
            }
        }
        Ok(())
    }
}

/// Scenarios bound every count far below what an index can hold.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

const fn now_ms(now_us: u64) -> u64 {
    EPOCH_MS + now_us / 1_000
}

#[cfg(test)]
mod tests;
