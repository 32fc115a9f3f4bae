//! A small world whose people feed the checkers: with a breach planted in it, the run stops at that event, and again at
//! the same one when it is replayed.

use std::sync::atomic::AtomicBool;

use gristmill_ledger::book::Book;
use gristmill_ledger::entry::{CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;
use serde::{Deserialize, Serialize};

use super::bounds::{ConsumerBounds, ProviderBounds};
use super::conservation::Conservation;
use super::forwarding::{Forwarding, Passed};
use super::{Place, bounds, conservation, forwarding, liveness};
use crate::engine::{Breach, Context, Ended, Limits, NodeId, Simulation, Stop, World, shard_of};
use crate::people::popularity::ModelSize;

/// What is planted, at one event of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// A voucher is settled for which the book paid twice.
    PaidTwice,
    /// A good voucher is refused.
    Refused,
    /// A chunk is delivered beyond the window.
    OneMoreUnpaid,
    /// A voucher promises a microcredit for nothing.
    ForgedPromise,
    /// An invalid listing is passed on.
    PassedOn,
    /// A consumer's job is forgotten.
    Forgotten,
}

const NODES: NodeId = 32;
const GUILTY: NodeId = 21;
const GUILTY_AT_US: u64 = 7_300_000;
const EPOCH_MS: u64 = 1_800_000_000_000;

#[derive(Default, Serialize, Deserialize)]
struct Bench {
    conservation: Conservation,
    #[serde(skip)]
    book: Book,
    provider: ProviderBounds,
    consumer: ConsumerBounds,
    forwarding: Forwarding,
    turns: u32,
    forgotten: Option<u64>,
}

struct Toy {
    planted: Planted,
}

#[derive(Serialize, Deserialize)]
struct Turn;

impl World for Toy {
    type Event = Turn;
    type Shard = Bench;
    type Shared = ();

    fn lookahead_us(&self) -> u64 {
        1_000
    }

    fn handle(
        &self,
        bench: &mut Bench,
        node: NodeId,
        _turn: Turn,
        context: &mut Context<'_, Turn>,
    ) -> Result<(), Breach> {
        let place = Place {
            node,
            at_us: context.now_us(),
        };
        let planted = match node == GUILTY && place.at_us == GUILTY_AT_US {
            true => self.planted,
            false => Planted::Nothing,
        };
        bench.turns += 1;
        bench.settle(planted, place)?;
        bench.deliver(planted, place)?;
        bench.pass(planted, place)?;
        if planted == Planted::Forgotten {
            bench.forgotten = Some(place.at_us);
        }
        context.trace(1, u64::from(bench.turns));
        context.after(100_000, Turn);
        Ok(())
    }

    fn survey(&mut self, shards: &mut [&mut Bench], now_us: u64) -> Result<(), Breach> {
        for bench in shards.iter() {
            let place = Place {
                node: 0,
                at_us: now_us,
            };
            bench.conservation.survey(&bench.book, place)?;
        }
        for since_us in shards.iter().filter_map(|bench| bench.forgotten) {
            liveness::is_told(ModelSize::Small, since_us, 0, GUILTY, now_us)?;
        }
        Ok(())
    }

    fn shared(&self) {}

    fn restore(&mut self, (): ()) {}
}

impl Bench {
    /// Grants, opens, settles and closes a channel of its own.
    fn settle(&mut self, planted: Planted, place: Place) -> Result<(), Breach> {
        let (consumer, provider) = (Keypair::from_secret(&[1; 32]), Keypair::from_secret(&[2; 32]));
        let mut name = [0; 16];
        name[..4].copy_from_slice(&self.turns.to_le_bytes());
        let channel = ChannelId::from_bytes(name);
        let grant = Grant {
            id: GrantId::from_bytes(name),
            account: consumer.account(),
            amount: Credits::micro(1_000),
            kind: GrantKind::Operator,
            reason: "test".to_owned(),
            starter_daily_budget: Credits::ZERO,
        };
        let open = OpenChannel {
            channel,
            consumer: consumer.account(),
            provider: provider.account(),
            limit: Credits::micro(1_000),
            fee_basis_points: 333,
            redeem_by_ms: EPOCH_MS + 86_400_000,
            request_digest: [0; 32],
        };
        let voucher = Voucher {
            channel,
            cumulative: Credits::micro(777),
            request_id: RequestId::from_random(name),
            transcript: [0; 32],
        };
        let settle = Entry::Settle(Settle {
            channel,
            voucher: consumer.sign(voucher),
        });
        let close = CloseChannel {
            channel,
            reason: CloseReason::Provider,
        };
        self.post(Entry::Grant(grant), place)?;
        self.post(Entry::OpenChannel(open), place)?;
        if planted == Planted::Refused {
            let time_ms = EPOCH_MS + place.at_us / 1_000;
            self.conservation.refused(&settle, &self.book, time_ms, place)?;
        }
        self.post(settle.clone(), place)?;
        if planted == Planted::PaidTwice {
            let time_ms = EPOCH_MS + place.at_us / 1_000;
            self.conservation.posted(&settle, &self.book, time_ms, place)?;
        }
        self.post(Entry::CloseChannel(close), place)
    }

    fn post(&mut self, entry: Entry, place: Place) -> Result<(), Breach> {
        let time_ms = EPOCH_MS + place.at_us / 1_000;
        let checked = entry.clone().check().expect("a good entry");
        self.book.apply(&checked, time_ms).expect("an entry that applies");
        self.conservation.posted(&entry, &self.book, time_ms, place)
    }

    fn deliver(&mut self, planted: Planted, place: Place) -> Result<(), Breach> {
        let (channel, window) = (ChannelId::from_bytes([9; 16]), Credits::micro(500));
        let paid = |turns: u32| Credits::micro(turns * 500);
        self.consumer.opened(channel, Credits::micro(u32::MAX));
        self.provider.delivered(channel, window, window, place)?;
        self.consumer.received(channel, window);
        if planted == Planted::OneMoreUnpaid {
            self.provider
                .delivered(channel, Credits::micro(1), window, place)?;
        }
        let forged = match planted {
            Planted::ForgedPromise => Credits::micro(500 * self.turns + 501),
            _ => paid(self.turns),
        };
        self.consumer.vouchered(channel, forged, place)?;
        self.provider.vouchered(channel, paid(self.turns), place.at_us);
        Ok(())
    }

    fn pass(&mut self, planted: Planted, place: Place) -> Result<(), Breach> {
        let clock_ms = EPOCH_MS + place.at_us / 1_000;
        let listing = Passed {
            publisher: NODES + self.turns,
            sequence: 1,
            issued_at_ms: clock_ms,
            ttl_ms: 60_000,
            is_valid: planted != Planted::PassedOn,
        };
        self.forwarding.passed(&listing, clock_ms, place)
    }
}

fn run(planted: Planted, seed: u64, threads: usize) -> (Ended, u64, String) {
    let toy = Toy { planted };
    let mut simulation = Simulation::new(toy, seed, NODES, |_| Bench::default());
    for node in [3, 4, GUILTY] {
        assert_ne!(shard_of(3), shard_of(GUILTY));
        simulation.schedule(0, node, Turn);
    }
    let never = AtomicBool::new(false);
    let stop = Stop {
        requested: &never,
        threads,
        interest: None,
    };
    let ended = simulation
        .run(Limits::until_us(15_000_000), stop, |_, _| {})
        .expect("within limits");
    (ended, simulation.events(), simulation.digest())
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let (ended, events, _) = run(Planted::Nothing, 7, 1);
    assert_eq!((ended, events), (Ended::AtEnd, 450));
}

#[test]
fn what_is_planted_stops_the_run_at_its_event_and_replays() {
    let all = [
        (Planted::PaidTwice, conservation::RULE, GUILTY_AT_US),
        (Planted::Refused, conservation::RULE, GUILTY_AT_US),
        (Planted::OneMoreUnpaid, bounds::PROVIDER_RULE, GUILTY_AT_US),
        (Planted::ForgedPromise, bounds::CONSUMER_RULE, GUILTY_AT_US),
        (Planted::PassedOn, forwarding::RULE, GUILTY_AT_US),
        // Found by looking at everything, once it has waited for five seconds.
        (Planted::Forgotten, liveness::RULE, 13_000_000),
    ];
    for (planted, rule, at_us) in all {
        let first = run(planted, 7, 1);
        let Ended::Broken(breach) = &first.0 else {
            panic!("{planted:?} was not found: {:?}", first.0);
        };
        assert_eq!(
            (breach.rule.as_str(), breach.node, breach.at_us),
            (rule, GUILTY, at_us),
            "{planted:?}"
        );
        assert!(first.1 < 450, "{planted:?} at event {}", first.1);
        assert_eq!(run(planted, 7, 1), first, "{planted:?}");
        assert_eq!(run(planted, 7, 2).0, first.0, "{planted:?}");
    }
}
