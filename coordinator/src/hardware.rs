//! Challenges of hardware: the driver of the state machine in `gristmill_benchmark::session`.
//!
//! One task owns the machine. It is given what callers send with the time at which it came, reads the clock, brings
//! the operating system's randomness, and does what the machine says: calls are answered, proofs are verified on
//! other threads, certificates are signed and kept by a task that writes one after the other.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gristmill_benchmark::session::{
    Answer, CallId, CertifiedRecord, Challenges, Effect, Event, Policy, Problem, VerificationTask,
};
use gristmill_protocol::hardware::HardwareStatus;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChallengeId;
use gristmill_telemetry::Registry;
use gristmill_telemetry::exposition::exposition;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

mod metrics;
mod store;
mod writer;

use metrics::ChallengeMetrics;
pub(crate) use store::{CertificateStore, FileStore};
use writer::{Job, Written};

/// Most messages that wait for the machine; callers beyond are told to come back.
const QUEUE_MAX: usize = 1_024;
/// Most proofs that are verified at once. The others wait: each takes a processor for up to seconds.
const VERIFICATIONS_MAX: usize = 2;
/// How often time passes while challenges are open.
const TICK: Duration = Duration::from_millis(50);
/// How often time passes otherwise.
const IDLE_TICK: Duration = Duration::from_secs(10);

/// The outcome of a call.
pub(crate) type Outcome = Result<Answer, Problem>;

/// Makes the event of a call that has a name now.
type MakeEvent = Box<dyn FnOnce(CallId) -> Event + Send>;

/// What the machine's task is asked.
enum Message {
    Call {
        came_ms: u64,
        make: MakeEvent,
        reply: oneshot::Sender<Outcome>,
    },
    Status {
        account: AccountId,
        reply: oneshot::Sender<HardwareStatus>,
    },
    AwaitsProof {
        challenge: ChallengeId,
        reply: oneshot::Sender<bool>,
    },
    Certified {
        reply: oneshot::Sender<Vec<CertifiedRecord>>,
    },
}

/// Asks the machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hardware {
    messages: mpsc::Sender<Message>,
    clock: Clock,
    registry: Arc<Registry>,
}

/// The machine takes no questions now: it has too many, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

impl Hardware {
    /// Reads what is kept in `folder` and starts the task, which runs until `stopping` is cancelled.
    pub(crate) async fn start(
        folder: &Path,
        keypair: Keypair,
        clock: Clock,
        stopping: CancellationToken,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let store = FileStore::new(folder);
        let (store, kept) = tokio::task::spawn_blocking(move || store.load().map(|kept| (store, kept)))
            .await
            .map_err(io::Error::other)??;
        tracing::debug!(devices = kept.len(), "certified devices read");
        let (messages, inbox) = mpsc::channel(QUEUE_MAX);
        let challenges = Challenges::new(Policy::default(), keypair.account(), kept);
        let (jobs, written, writer) = writer::start(Arc::new(store), keypair);
        let mut registry = Registry::default();
        let metrics = ChallengeMetrics::register(&mut registry);
        metrics.show(challenges.counts());
        let driver = Driver {
            challenges,
            clock: clock.clone(),
            last_ms: 0,
            waiting: BTreeMap::new(),
            next_call: 0,
            jobs,
            metrics,
            turns: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            work: JoinSet::new(),
        };
        let task = tokio::spawn(async move {
            driver.run(inbox, written, stopping).await;
            if let Err(error) = writer.await {
                tracing::error!(%error, "the writer of certificates failed");
            }
        });
        let hardware = Self {
            messages,
            clock,
            registry: Arc::new(registry),
        };
        Ok((hardware, task))
    }

    /// Makes a call and waits for its answer.
    pub(crate) async fn call(
        &self,
        make: impl FnOnce(CallId) -> Event + Send + 'static,
    ) -> Result<Outcome, Overloaded> {
        let came_ms = self.clock.now_ms();
        let make = Box::new(make);
        self.ask(|reply| Message::Call { came_ms, make, reply }).await
    }

    /// How many challenges there were and how they ended, as Prometheus reads it: the content type and the text.
    pub(crate) fn metrics(&self) -> (&'static str, String) {
        exposition(&self.registry, None)
    }

    /// How an account's devices stand.
    pub(crate) async fn status(&self, account: AccountId) -> Result<HardwareStatus, Overloaded> {
        self.ask(|reply| Message::Status { account, reply }).await
    }

    /// Whether a proof for this challenge is awaited: nothing is read of any other.
    pub(crate) async fn awaits_proof(&self, challenge: ChallengeId) -> Result<bool, Overloaded> {
        self.ask(|reply| Message::AwaitsProof { challenge, reply }).await
    }

    /// The devices that hold certificates.
    pub(crate) async fn certified(&self) -> Result<Vec<CertifiedRecord>, Overloaded> {
        self.ask(|reply| Message::Certified { reply }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Overloaded> {
        let (reply, answer) = oneshot::channel();
        self.messages.try_send(message(reply)).map_err(|_| Overloaded)?;
        answer.await.map_err(|_| Overloaded)
    }
}

/// The task that owns the machine.
struct Driver {
    challenges: Challenges,
    clock: Clock,
    /// Time never goes back for the machine, whatever the system's clock does.
    last_ms: u64,
    waiting: BTreeMap<CallId, oneshot::Sender<Outcome>>,
    next_call: u64,
    jobs: mpsc::Sender<Job>,
    metrics: ChallengeMetrics,
    turns: Arc<Semaphore>,
    work: JoinSet<Event>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut written: mpsc::Receiver<Written>,
        stopping: CancellationToken,
    ) {
        let mut tick_at = Instant::now();
        loop {
            // Kept from one message to the next: however many questions come, time passes.
            let tick = match self.challenges.counts().open {
                0 => IDLE_TICK,
                _ => TICK,
            };
            tick_at = tick_at.min(Instant::now() + tick);
            tokio::select! {
                () = stopping.cancelled() => return,
                message = inbox.recv() => match message {
                    Some(message) => self.hear(message),
                    None => return,
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(event) => {
                        self.catch_up(&mut inbox);
                        self.handle(event, None);
                    }
                    Err(error) => tracing::error!(%error, "the verifier failed"),
                },
                Some(written) = written.recv() => {
                    self.catch_up(&mut inbox);
                    self.handle(written.event(), None);
                }
                () = tokio::time::sleep_until(tick_at) => {
                    self.catch_up(&mut inbox);
                    self.handle(Event::Tick, None);
                    tick_at = Instant::now() + IDLE_TICK;
                }
            }
        }
    }

    /// Hears what waits already before time passes beyond when it came: a caller is not late because it waited in our queue.
    fn catch_up(&mut self, inbox: &mut mpsc::Receiver<Message>) {
        for _ in 0..QUEUE_MAX {
            match inbox.try_recv() {
                Ok(message) => self.hear(message),
                Err(_) => return,
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Call { came_ms, make, reply } => {
                self.next_call += 1;
                let call = CallId(self.next_call);
                self.waiting.insert(call, reply);
                self.handle(make(call), Some(came_ms));
            }
            // Whoever asked may be gone: there is nobody to tell.
            Message::Status { account, reply } => {
                let _ = reply.send(self.challenges.status(&account, self.clock.now_ms()));
            }
            Message::AwaitsProof { challenge, reply } => {
                let _ = reply.send(self.challenges.awaits_proof(&challenge));
            }
            Message::Certified { reply } => {
                let certified = self.challenges.certified(self.clock.now_ms());
                let _ = reply.send(certified.cloned().collect());
            }
        }
    }

    /// `came_ms` is when what happened came, where that was before now: a caller does not pay for our queue.
    fn handle(&mut self, event: Event, came_ms: Option<u64>) {
        let now_ms = came_ms.unwrap_or_else(|| self.clock.now_ms()).max(self.last_ms);
        self.last_ms = now_ms;
        let mut seed = [0; 32];
        if let Err(error) = getrandom::fill(&mut seed) {
            // Without secret randomness nobody is challenged; callers see their calls end.
            tracing::error!(%error, "the system gives no randomness");
            return;
        }
        let mut rng = ChaCha20Rng::from_seed(seed);
        let effects = self.challenges.handle(event, now_ms, &mut rng);
        // Before anybody hears of it.
        self.metrics.show(self.challenges.counts());
        for effect in effects {
            self.do_effect(effect);
        }
        // Callers that hung up are not waited for.
        self.waiting.retain(|_, reply| !reply.is_closed());
    }

    fn do_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { call, answer } => {
                if let Some(reply) = self.waiting.remove(&call) {
                    let _ = reply.send(*answer);
                }
            }
            Effect::Verify(task) => self.verify(task),
            Effect::Keep { record, renewal } => self.write(Job::Keep { record, renewal }),
            Effect::Update(record) => self.write(Job::Update(record)),
            Effect::Forget(device) => self.write(Job::Forget(device)),
            Effect::Over {
                challenge,
                account,
                outcome,
            } => match outcome {
                Ok(shown) => {
                    self.metrics.passed.inc();
                    tracing::info!(%challenge, %account, memory_bytes = shown.memory_bytes, score = shown.score,
                        "hardware certified");
                }
                Err(refusal) => {
                    self.metrics.refused(refusal.code());
                    tracing::info!(%challenge, %account, code = refusal.code(), reason = %refusal,
                        "hardware challenge refused");
                }
            },
        }
    }

    /// Never waits: time passes for challenges also while the disk is slow.
    fn write(&mut self, job: Job) {
        let Err(refused) = self.jobs.try_send(job) else {
            return;
        };
        match refused.into_inner() {
            Job::Keep { record, renewal } => {
                tracing::warn!("too many certificates wait to be written; one is not given out");
                let is_kept = false;
                self.work.spawn(async move {
                    Event::Kept {
                        record,
                        renewal,
                        is_kept,
                    }
                });
            }
            Job::Update(_) => {
                tracing::error!(
                    "too many certificates wait to be written; a device that failed its challenge is renewable again after a restart"
                );
            }
            // It is read and forgotten again after a restart.
            Job::Forget(_) => tracing::warn!("a certificate that expired long ago stays on the disk"),
        }
    }

    fn verify(&mut self, task: Box<VerificationTask>) {
        let turns = self.turns.clone();
        self.work.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire_owned().await.ok();
            let challenge = task.transcript.challenge;
            let verdict = tokio::task::spawn_blocking(move || task.run()).await;
            let verdict = verdict.unwrap_or_else(|error| {
                tracing::error!(%challenge, %error, "the verifier failed");
                Err(gristmill_benchmark::session::Refusal::Unavailable)
            });
            Event::Verified { challenge, verdict }
        });
    }
}
