//! One run: a coordinator, one device, and the listings that claim it, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use gristmill_protocol::hardware::{NextStep, PROOF_MAX_BYTES};
use gristmill_protocol::identity::Keypair;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::device::{Device, Way};
use super::liar::Liar;
use super::provider::{HELD_RESULTS, Message, Provider};
use crate::challenge::dimension::Dimension;
use crate::challenge::proof::check_length;
use crate::session::{Answer, CallId, Challenges, Effect, Event, Policy};

/// When a run begins, Unix milliseconds.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// Most events of a run: it ends long before.
const EVENTS_MAX: u32 = 100_000;

/// Whether a run ended with the prover caught: without a certificate for anything that it lied about.
pub(super) fn play(liar: Liar, run: u32) -> bool {
    let mut world = World::new(liar, run);
    world.play();
    let honest_bytes = HELD_RESULTS * Dimension::SMALLEST.resident_bytes();
    match liar {
        // Refused, or shown with less than four fifths of its memory.
        Liar::Honest => world.shown_bytes.iter().all(|shown| shown * 5 < honest_bytes * 4),
        // One device is there to be certified, once.
        Liar::HundredListings => world.shown_bytes.len() <= 1,
        // It may have a certificate for what it has.
        Liar::TwiceTheMemory | Liar::TwiceTheMemoryComputedAnew | Liar::TwiceTheMemoryByHiddenUnits(_) => {
            world.shown_bytes.iter().all(|&shown| shown <= honest_bytes)
        }
        _ => world.shown_bytes.is_empty(),
    }
}

/// Something on its way to the coordinator.
#[derive(Debug)]
enum Call {
    Open,
    Message(Message),
}

struct World {
    challenges: Challenges,
    coordinator: Keypair,
    owner: Keypair,
    now_ms: u64,
    rng: ChaCha8Rng,
    device: Device,
    providers: Vec<(Provider, Way)>,
    /// By arrival; the number tells apart what arrives at once.
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    calls: BTreeMap<u64, (usize, Call)>,
    next_call: u64,
    callers: BTreeMap<CallId, usize>,
    shown_bytes: Vec<u64>,
    open: usize,
}

impl World {
    fn new(liar: Liar, run: u32) -> Self {
        let name = liar.name();
        let seed = |part: &str| {
            let mut hasher = blake3::Hasher::new_derive_key("gristmill hardware self-test 1");
            hasher
                .update(name.as_bytes())
                .update(&[0])
                .update(part.as_bytes())
                .update(&run.to_le_bytes());
            ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
        };
        let coordinator = Keypair::from_secret(&[1; 32]);
        let mut world = Self {
            challenges: Challenges::new(Policy::default(), coordinator.account(), []),
            coordinator,
            owner: Keypair::from_secret(&[2; 32]),
            now_ms: BEGIN_MS,
            rng: seed("coordinator"),
            device: Device::new(liar.real_rate()),
            providers: Vec::new(),
            arrivals: BinaryHeap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            callers: BTreeMap::new(),
            shown_bytes: Vec::new(),
            open: usize::from(liar.listings()),
        };
        for listing in 0..liar.listings() {
            let mut rng = seed(&format!("provider {listing}"));
            let way = Way::draw(&mut rng);
            world.providers.push((Provider::new(liar, rng), way));
            world.send(usize::from(listing), BEGIN_MS, Call::Open);
        }
        world
    }

    fn send(&mut self, provider: usize, at_ms: u64, call: Call) {
        let (sender, way) = &mut self.providers[provider];
        let arrives_ms = at_ms + way.takes_ms(sender.rng());
        self.arrivals.push(Reverse((arrives_ms, self.next_call)));
        self.calls.insert(self.next_call, (provider, call));
        self.next_call += 1;
    }

    fn play(&mut self) {
        for _ in 0..EVENTS_MAX {
            if self.open == 0 {
                return;
            }
            let wakes_ms = self.challenges.wake_ms(self.now_ms);
            let arrives_ms = self.arrivals.peek().map(|Reverse((at_ms, _))| *at_ms);
            let event = match (arrives_ms, wakes_ms) {
                (Some(arrives_ms), wakes_ms) if wakes_ms.is_none_or(|wakes_ms| arrives_ms <= wakes_ms) => {
                    self.now_ms = self.now_ms.max(arrives_ms);
                    self.arrival()
                }
                (_, Some(wakes_ms)) => {
                    self.now_ms = self.now_ms.max(wakes_ms);
                    Some(Event::Tick)
                }
                _ => return,
            };
            if let Some(event) = event {
                self.handle(event);
            }
        }
    }

    /// What arrives first.
    fn arrival(&mut self) -> Option<Event> {
        let Reverse((_, number)) = self.arrivals.pop()?;
        let (provider, call) = self.calls.remove(&number)?;
        let (sender, _) = &self.providers[provider];
        let (caller, challenge, id) = (self.owner.account(), sender.challenge(), CallId(number));
        self.callers.insert(id, provider);
        match call {
            Call::Open => {
                let listing = u8::try_from(provider).unwrap_or(u8::MAX);
                let request = sender.request(listing);
                Some(Event::Open {
                    call: id,
                    caller,
                    address: None,
                    request,
                })
            }
            Call::Message(Message::Step(step)) => Some(Event::Step {
                call: id,
                caller,
                challenge,
                step,
            }),
            Call::Message(Message::Proof(proof)) => Some(Event::Proof {
                call: id,
                caller,
                challenge,
                proof,
            }),
            // As the HTTP interface does: refused by its length, before any of it is read.
            Call::Message(Message::AnnouncedProof(bytes)) => {
                check_length(bytes).is_ok().then(|| Event::Proof {
                    call: id,
                    caller,
                    challenge,
                    proof: vec![0; PROOF_MAX_BYTES],
                })
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.challenges.handle(event, self.now_ms, &mut self.rng) {
                match effect {
                    Effect::Answer { call, answer } => self.answered(call, *answer),
                    Effect::Verify(task) => {
                        let (challenge, verdict) = (task.transcript.challenge, task.run());
                        events.push(Event::Verified { challenge, verdict });
                    }
                    Effect::Keep { mut record, renewal } => {
                        record.text = record.certificate.sign(&self.coordinator);
                        events.push(Event::Kept {
                            record,
                            renewal,
                            is_kept: true,
                        });
                    }
                    Effect::Over { outcome, .. } => {
                        self.open = self.open.saturating_sub(1);
                        self.shown_bytes.extend(outcome.map(|shown| shown.memory_bytes));
                    }
                    Effect::Update(_) | Effect::Forget(_) => {}
                }
            }
        }
    }

    /// A provider hears an answer, works, and sends what follows.
    fn answered<P>(&mut self, call: CallId, answer: Result<Answer, P>) {
        let Some(provider) = self.callers.remove(&call) else {
            return;
        };
        let (hearer, way) = &mut self.providers[provider];
        let heard_ms = self.now_ms + way.takes_ms(hearer.rng());
        let next = match answer {
            Ok(Answer::Opened(opened)) => {
                let next = opened.next.clone();
                hearer.begin(opened);
                next
            }
            Ok(Answer::Next(next)) => next,
            // Turned away at the door: then there is no challenge that could end.
            Ok(Answer::Renewal(_)) | Err(_) => {
                let is_turned_away = !hearer.has_begun();
                self.open = self.open.saturating_sub(usize::from(is_turned_away));
                return;
            }
        };
        self.react(provider, next, heard_ms);
    }

    fn react(&mut self, provider: usize, next: NextStep, heard_ms: u64) {
        let (hearer, _) = &mut self.providers[provider];
        if let NextStep::Stage { within_ms, .. } = next
            && self.device.is_busy_until(heard_ms + 2 * within_ms)
        {
            hearer.give_up();
        }
        if let Some((work, message)) = hearer.hear(next) {
            let done_ms = self.device.done_ms(work, heard_ms, hearer.rng());
            self.send(provider, done_ms, Call::Message(message));
        }
    }
}
