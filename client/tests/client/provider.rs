//! A provider on the real mesh that runs the protocol's own session, with an engine that does as it is told, and that
//! can misbehave where no session would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::channel::ProviderChannel;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{
    Chunk, ConsumerFrame, Delivery, JobAccepted, JobDone, JobFailed, JobRefused, OpenJob, ProviderFrame,
    RefusalCode,
};
use gristmill_protocol::session::provider::{
    ProviderEffect, ProviderEnd, ProviderEvent, ProviderOutcome, ProviderSession, ProviderTerms,
    ProviderTimeouts,
};
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::usage::{Price, Usage};
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::job_stream::{FrameReceiver, FrameSender};
use gristmill_transport::{Mesh, MeshConfig, ProviderJobStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::{PATIENCE, unix_ms};
pub use crate::setup::Setup;
use crate::writer::Writer;

mod said;

use said::meter;
pub use said::{finish, price, text, words};

/// What a provider does with a job.
#[derive(Clone)]
pub enum Script {
    /// Runs it: the engine goes through these steps.
    Run(Vec<Step>),
    /// Runs it: the engine does as the request makes it.
    Write(Box<Writer>),
    /// Refuses it.
    Refuse(RefusalCode, u32),
    /// Says nothing at all.
    Ignore,
    /// Says nothing and drops the stream when told.
    Drop(Arc<Notify>),
    /// Sends an honest chunk and signs a delivery that was changed before.
    LieAboutDelivery(fn(&mut Delivery)),
    /// Accepts and sends these frames, whatever they are.
    Send(Vec<ProviderFrame>),
    /// Sends a chunk without having accepted.
    Babble,
}

/// A step of an engine.
#[derive(Clone)]
pub enum Step {
    /// Makes a message; so many tokens have been written by then.
    Say(String, u64),
    /// Makes a message of any bytes; so many units have been made by then.
    Make(Vec<u8>, u64),
    /// Says the same again and again, a token each, as fast as it is taken.
    SayForever(String),
    /// Waits until told to go on.
    WaitFor(Arc<Notify>),
    /// Breaks off.
    Fail(JobFailed),
    /// The provider's process dies.
    Die,
}

/// What a provider saw of a job.
#[derive(Clone, Debug)]
pub struct JobRecord {
    pub open: OpenJob,
    pub body: Vec<u8>,
    pub was_cancelled: bool,
    pub chunks: usize,
    pub highest: Option<Signed<Voucher>>,
    pub end: Option<ProviderOutcome>,
}

pub struct TestProvider {
    pub account: AccountId,
    pub keypair: Keypair,
    pub mesh: Mesh,
    pub jobs: watch::Receiver<Vec<JobRecord>>,
    pub sealed: Vec<u8>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    keypair: Keypair,
    /// The coordinator's keys, the first one first.
    coordinators: Vec<AccountId>,
    price: Price,
    window: Credits,
    script: Mutex<Script>,
    channels: Mutex<BTreeMap<ChannelId, Arc<Mutex<ProviderChannel>>>>,
    jobs: watch::Sender<Vec<JobRecord>>,
}

impl Shared {
    /// What a ticket says, if one of the coordinator's keys signed it.
    fn ticket(&self, ticket: &str) -> Option<TicketClaims> {
        let verify = |key| TicketClaims::verify(ticket, key, &self.keypair.account(), unix_ms()).ok();
        self.coordinators.iter().find_map(verify)
    }
}

impl TestProvider {
    pub async fn start(setup: Setup, coordinator: AccountId, bootstrap: &[String], script: Script) -> Self {
        Self::start_with_keys(setup, vec![coordinator], bootstrap, script).await
    }

    /// A provider that takes the tickets of several keys of a coordinator.
    pub async fn start_with_keys(
        setup: Setup,
        coordinators: Vec<AccountId>,
        bootstrap: &[String],
        script: Script,
    ) -> Self {
        let shared = Arc::new(Shared {
            keypair: Keypair::from_secret(&rand::random()),
            coordinators,
            price: setup.price(),
            window: Credits::micro(setup.window),
            script: Mutex::new(script),
            channels: Mutex::new(BTreeMap::new()),
            jobs: watch::Sender::new(Vec::new()),
        });
        let keypair = shared.keypair.clone();
        let config = MeshConfig {
            bootstrap: bootstrap.iter().map(|address| address.parse().unwrap()).collect(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
            ..MeshConfig::default()
        };
        let (mesh, mut incoming) = Mesh::start(&keypair, config, Arc::new(unix_ms)).await.unwrap();
        let addresses = mesh.listen_addresses().iter().map(ToString::to_string).collect();
        let sealed = setup.listing(&keypair, addresses, &shared.coordinators);
        mesh.publish_listing(sealed.clone()).await.unwrap();
        let (jobs, serving) = (shared.jobs.subscribe(), shared.clone());
        let task = tokio::spawn(async move {
            while let Some((consumer, stream)) = incoming.next().await {
                tokio::spawn(serve(serving.clone(), consumer, stream));
            }
        });
        Self {
            account: keypair.account(),
            keypair,
            mesh,
            jobs,
            sealed,
            shared,
            task,
        }
    }

    pub fn set_script(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// Waits until what was seen of the jobs is as expected.
    pub async fn seen(&self, expected: impl Fn(&[JobRecord]) -> bool) -> Vec<JobRecord> {
        let mut jobs = self.jobs.clone();
        let seen = timeout(PATIENCE, jobs.wait_for(|jobs| expected(jobs))).await;
        seen.expect("the jobs went as expected in time").unwrap().clone()
    }

    /// The highest vouchers of all channels.
    pub fn vouchers(&self) -> Vec<Signed<Voucher>> {
        let channels = self.shared.channels.lock().unwrap();
        channels
            .values()
            .filter_map(|channel| channel.lock().unwrap().highest_voucher().cloned())
            .collect()
    }

    /// What all channels were promised in all, in microcredits.
    pub fn promised(&self) -> u64 {
        let vouchers = self.vouchers();
        let amounts = vouchers
            .iter()
            .map(|voucher| voucher.content_unchecked().cumulative);
        amounts.map(Credits::microcredits).sum()
    }

    /// Ends as a process does that is killed: without a word.
    pub async fn kill(self) {
        self.task.abort();
        self.mesh.shutdown().await;
    }
}

async fn serve(shared: Arc<Shared>, consumer: AccountId, mut stream: ProviderJobStream) {
    let Ok(ConsumerFrame::Open(open)) = stream.receive(PATIENCE).await else {
        return;
    };
    let script = shared.script.lock().unwrap().clone();
    let record = JobRecord {
        open: open.clone(),
        body: Vec::new(),
        was_cancelled: false,
        chunks: 0,
        highest: None,
        end: None,
    };
    let mut index = 0;
    shared.jobs.send_modify(|jobs| {
        index = jobs.len();
        jobs.push(record);
    });
    let job = Job { shared, index, open };
    let claims = job.shared.ticket(&job.open.ticket);
    let claims = claims.expect("the client sent a valid ticket");
    assert_eq!(claims.sub, consumer, "the ticket is the caller's");
    let (sender, receiver) = stream.split();
    match script {
        Script::Run(steps) => job.run(steps, None, &claims, sender, receiver).await,
        Script::Write(writer) => job.run(vec![], Some(*writer), &claims, sender, receiver).await,
        Script::Refuse(code, retry_after_ms) => {
            let mut sender = sender;
            let refused = JobRefused::new(code, retry_after_ms, "told to refuse");
            let _ = sender.send(&ProviderFrame::Refused(refused), PATIENCE).await;
            job.listen(receiver).await;
        }
        Script::Ignore => job.listen(receiver).await,
        Script::Drop(told) => told.notified().await,
        Script::LieAboutDelivery(change) => job.lie_about_delivery(change, sender, receiver).await,
        Script::Send(frames) => job.send(frames, sender, receiver).await,
        Script::Babble => {
            let mut sender = sender;
            let _ = sender.send(&chunk("{}", 0), PATIENCE).await;
            job.listen(receiver).await;
        }
    }
}

struct Job {
    shared: Arc<Shared>,
    index: usize,
    open: OpenJob,
}

/// What the driver of a session has to do next.
enum Next {
    Frame(ConsumerFrame),
    Closed,
    Step,
    Look,
}

impl Job {
    fn record(&self, change: impl FnOnce(&mut JobRecord)) {
        self.shared.jobs.send_modify(|jobs| change(&mut jobs[self.index]));
    }

    async fn run(
        &self,
        steps: Vec<Step>,
        writer: Option<Writer>,
        claims: &TicketClaims,
        mut sender: FrameSender<ProviderFrame>,
        mut receiver: FrameReceiver<ConsumerFrame>,
    ) {
        let channel = {
            let mut channels = self.shared.channels.lock().unwrap();
            let fresh = || Arc::new(Mutex::new(ProviderChannel::new(claims, self.shared.window, None)));
            channels.entry(claims.jti).or_insert_with(fresh).clone()
        };
        let terms = ProviderTerms {
            request_id: self.open.request_id.clone(),
            kind: self.open.kind,
            price: self.shared.price.clone(),
            body_bytes: self.open.body_bytes,
            position: 0,
        };
        let accepted = ProviderSession::accept(
            self.shared.keypair.clone(),
            terms,
            ProviderTimeouts::default(),
            &mut channel.lock().unwrap(),
            unix_ms(),
        );
        let (mut session, mut effects) = match accepted {
            Ok(accepted) => accepted,
            Err(refused) => {
                let _ = sender.send(&ProviderFrame::Refused(refused), PATIENCE).await;
                return self.listen(receiver).await;
            }
        };
        let (mut steps, mut said, mut engine_runs) = (steps.into_iter().peekable(), 0, false);
        let mut read = 3;
        loop {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    ProviderEffect::Send(frame) => {
                        let is_chunk = matches!(frame, ProviderFrame::Chunk(_));
                        // Where the consumer is gone, receiving tells.
                        let _ = sender.send(&frame, PATIENCE).await;
                        self.record(|job| job.chunks += usize::from(is_chunk));
                    }
                    ProviderEffect::StartEngine { body } => {
                        engine_runs = true;
                        if let Some(writer) = &writer {
                            let (tokens, written) = writer.run(&body);
                            (read, steps) = (tokens, written.into_iter().peekable());
                        }
                        self.record(|job| job.body = body);
                    }
                    ProviderEffect::StopEngine => engine_runs = false,
                    ProviderEffect::KeepVoucher(voucher) => self.record(|job| job.highest = Some(*voucher)),
                    ProviderEffect::End(outcome) => {
                        self.record(|job| job.end = Some(outcome));
                        let _ = sender.close(PATIENCE).await;
                        return;
                    }
                }
            }
            let may_step = engine_runs && session.wants_output();
            let next = tokio::select! {
                biased;
                received = receiver.receive(PATIENCE) => received.map_or(Next::Closed, Next::Frame),
                () = ready(steps.peek()), if may_step => Next::Step,
                // Another job of the channel may have been paid.
                () = sleep(Duration::from_millis(20)), if !may_step => Next::Look,
            };
            let event = match next {
                Next::Frame(ConsumerFrame::BodyPart(part)) => ProviderEvent::BodyPart(part),
                Next::Frame(ConsumerFrame::Voucher(voucher)) => ProviderEvent::Voucher(Box::new(voucher)),
                Next::Frame(ConsumerFrame::Cancel) => {
                    self.record(|job| job.was_cancelled = true);
                    ProviderEvent::Cancel
                }
                Next::Frame(ConsumerFrame::Open(_)) => panic!("opened twice"),
                Next::Closed => ProviderEvent::StreamClosed,
                Next::Look => ProviderEvent::ChannelPaid,
                Next::Step => match steps.next() {
                    Some(Step::Say(message, tokens)) => {
                        said = tokens;
                        ProviderEvent::EngineOutput {
                            message: message.into_bytes(),
                            meter: meter(self.open.kind, read, said),
                        }
                    }
                    Some(Step::Make(message, units)) => {
                        said = units;
                        ProviderEvent::EngineOutput {
                            message,
                            meter: meter(self.open.kind, read, said),
                        }
                    }
                    Some(Step::SayForever(message)) => {
                        said += 1;
                        let forever = std::iter::once(Step::SayForever(message.clone()));
                        steps = forever.collect::<Vec<_>>().into_iter().peekable();
                        ProviderEvent::EngineOutput {
                            message: message.into_bytes(),
                            meter: meter(self.open.kind, read, said),
                        }
                    }
                    Some(Step::WaitFor(_)) => continue,
                    Some(Step::Fail(failed)) => ProviderEvent::EngineFailed(failed),
                    Some(Step::Die) => return,
                    None => ProviderEvent::EngineFinished {
                        usage: meter(self.open.kind, read, said),
                    },
                },
            };
            effects = session.handle(event, &mut channel.lock().unwrap(), unix_ms());
        }
    }

    /// Takes note of what the consumer says until it ends the stream.
    async fn listen(&self, mut receiver: FrameReceiver<ConsumerFrame>) {
        while let Ok(frame) = receiver.receive(PATIENCE).await {
            match frame {
                ConsumerFrame::Cancel => self.record(|job| job.was_cancelled = true),
                ConsumerFrame::Voucher(voucher) => self.record(|job| job.highest = Some(voucher)),
                ConsumerFrame::BodyPart(part) => self.record(|job| job.body.extend_from_slice(&part)),
                ConsumerFrame::Open(_) => panic!("opened twice"),
            }
        }
        let outcome = ProviderOutcome {
            reason: ProviderEnd::ConsumerLeft,
            usage: Usage::new(),
            cost: Credits::ZERO,
        };
        self.record(|job| job.end = Some(outcome));
    }

    fn accepted(&self) -> ProviderFrame {
        ProviderFrame::Accepted(JobAccepted {
            price: self.shared.price.clone(),
            position: 0,
            credit_window: self.shared.window,
            highest_voucher: None,
        })
    }

    async fn lie_about_delivery(
        &self,
        change: fn(&mut Delivery),
        sender: FrameSender<ProviderFrame>,
        receiver: FrameReceiver<ConsumerFrame>,
    ) {
        let claims = self.shared.ticket(&self.open.ticket);
        let mut delivery = Delivery {
            channel: claims.unwrap().jti,
            request_id: self.open.request_id.clone(),
            usage: Usage::tokens(3, 1),
            cost: Credits::micro(4),
            transcript: *blake3::hash(finish().as_bytes()).as_bytes(),
        };
        change(&mut delivery);
        let usage = delivery.usage.clone();
        let delivery = self.shared.keypair.sign(delivery);
        let done = ProviderFrame::Done(JobDone { usage, delivery });
        self.send(vec![chunk(&finish(), 1), done], sender, receiver).await;
    }

    /// Accepts, sends some frames and listens.
    async fn send(
        &self,
        frames: Vec<ProviderFrame>,
        mut sender: FrameSender<ProviderFrame>,
        receiver: FrameReceiver<ConsumerFrame>,
    ) {
        let _ = sender.send(&self.accepted(), PATIENCE).await;
        for frame in frames {
            let _ = sender.send(&frame, PATIENCE).await;
        }
        self.listen(receiver).await;
    }
}

/// Ready when the next step may be taken.
async fn ready(step: Option<&Step>) {
    if let Some(Step::WaitFor(told)) = step {
        told.notified().await;
    }
}

fn chunk(message: &str, tokens: u64) -> ProviderFrame {
    piece(message.as_bytes(), true, tokens)
}

/// A part of a message, or its end, with the tokens that have been written by then.
pub fn piece(bytes: &[u8], ends_message: bool, tokens: u64) -> ProviderFrame {
    ProviderFrame::Chunk(Chunk {
        payload: bytes.to_vec(),
        ends_message,
        meter: Usage::tokens(3, tokens),
    })
}
