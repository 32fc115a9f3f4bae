//! A consumer: the protocol's own state machine over a real job stream, and one that misbehaves on request.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use gristmill_coordinator::RunningCoordinator;
use gristmill_node::RunningNode;
use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{
    ConsumerFrame, JobAccepted, JobFailed, JobKind, JobRefused, OpenJob, ProviderFrame, RequestId,
};
use gristmill_protocol::session::consumer::{
    ConsumerEffect, ConsumerEvent, ConsumerFailure, ConsumerOutcome, ConsumerSession, ConsumerTerms,
    ConsumerTimeouts,
};
use gristmill_protocol::trace::TraceParent;
use gristmill_protocol::usage::Price;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{ConsumerJobStream, CoordinatorClient, Mesh, MeshConfig, ReceiveError};
use serde_json::{Value, json};

use crate::market::{clock, price};
use crate::server::MODEL;

pub const PATIENCE: Duration = Duration::from_secs(30);

static REQUESTS: AtomicU8 = AtomicU8::new(0);

/// What became of a job.
pub struct Answer {
    pub accepted: Option<JobAccepted>,
    /// The messages read as JSON; null where they are none.
    pub messages: Vec<Value>,
    /// The messages as they came.
    pub raw: Vec<Vec<u8>>,
    pub outcome: ConsumerOutcome,
}

impl Answer {
    /// The text of all chunks.
    pub fn text(&self) -> String {
        let text = |message: &Value| {
            let choice = message.pointer("/choices/0")?;
            let text = choice.pointer("/delta/content").or_else(|| choice.get("text"))?;
            text.as_str().map(str::to_owned)
        };
        self.messages.iter().filter_map(text).collect()
    }

    pub fn failed(&self) -> &JobFailed {
        match &self.outcome.result {
            Err(ConsumerFailure::Failed(failed)) => failed,
            other => panic!("{other:?}"),
        }
    }
}

pub struct Consumer {
    pub keypair: Keypair,
    pub mesh: Mesh,
    pub client: CoordinatorClient,
}

/// A channel with the ticket that opened it.
pub struct Paid {
    pub ticket: String,
    pub channel: ConsumerChannel,
}

/// What is asked for.
#[derive(Clone)]
pub struct Ask {
    pub kind: JobKind,
    pub model: String,
    pub body: Vec<u8>,
    pub content_type: String,
    pub trace_parent: Option<TraceParent>,
    pub price_cap: Price,
}

impl Ask {
    pub fn script(script: &str) -> Self {
        let body = json!({"model": "ignored", "messages": [{"role": "user", "content": script}], "seed": 7});
        Self {
            kind: JobKind::ChatCompletions,
            model: MODEL.into(),
            body: body.to_string().into_bytes(),
            content_type: String::new(),
            trace_parent: None,
            price_cap: price(),
        }
    }
}

impl Consumer {
    pub async fn start(seed: u8, coordinator: &RunningCoordinator) -> Self {
        let keypair = Keypair::from_secret(&[seed; 32]);
        let bootstrap: Vec<Multiaddr> = coordinator
            .bootstrap_addresses()
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let config = MeshConfig {
            bootstrap,
            ..MeshConfig::default()
        };
        let (mesh, _) = Mesh::start(&keypair, config, clock()).await.unwrap();
        let client = CoordinatorClient::new(&coordinator.http_url(), None, keypair.clone(), clock()).unwrap();
        client.open_account().await.unwrap();
        Self {
            keypair,
            mesh,
            client,
        }
    }

    pub fn account(&self) -> AccountId {
        self.keypair.account()
    }

    pub async fn channel(&self, provider: AccountId, limit: Credits) -> Paid {
        self.channel_for(provider, limit, 3_600_000).await
    }

    pub async fn channel_for(&self, provider: AccountId, limit: Credits, life_ms: u64) -> Paid {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let mut id = [number; 16];
        id[0] = self.account().public_key()[0];
        let channel = ChannelId::from_bytes(id);
        let request = OpenChannelRequest {
            channel,
            provider,
            limit,
            life_ms,
        };
        let answer = self.client.open_channel(&request).await.unwrap();
        let channel = ConsumerChannel::new(self.keypair.clone(), channel, limit, Credits::ZERO);
        Paid {
            ticket: answer.ticket,
            channel,
        }
    }

    pub async fn open(&self, node: &RunningNode) -> ConsumerJobStream {
        let addresses: Vec<_> = node
            .mesh()
            .listen_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        self.mesh.open_job(node.account(), &addresses).await.unwrap()
    }

    /// Opens a stream, and sends what a job begins with.
    pub async fn begin(&self, node: &RunningNode, ticket: &str, ask: &Ask) -> (ConsumerJobStream, RequestId) {
        let request_id = RequestId::from_random([REQUESTS.fetch_add(1, Ordering::Relaxed); 16]);
        let mut stream = self.open(node).await;
        let open = ConsumerFrame::Open(OpenJob {
            ticket: ticket.to_owned(),
            request_id: request_id.clone(),
            kind: ask.kind,
            model: ask.model.clone(),
            price_cap: ask.price_cap.clone(),
            body_bytes: ask.body.len() as u64,
            content_type: ask.content_type.clone(),
            trace_parent: ask.trace_parent,
        });
        stream.send(&open, PATIENCE).await.unwrap();
        // Two parts, so that bodies in parts are seen. A refusal may end the stream meanwhile.
        let half = ask.body.len() / 2;
        for part in [&ask.body[..half], &ask.body[half..]] {
            let _ = stream
                .send(&ConsumerFrame::BodyPart(part.to_vec()), PATIENCE)
                .await;
        }
        (stream, request_id)
    }

    /// Asks, pays and takes the whole answer.
    pub async fn ask(&self, node: &RunningNode, paid: &mut Paid, ask: &Ask) -> Answer {
        self.ask_until(node, paid, ask, usize::MAX).await
    }

    /// The same, but cancels after so many messages.
    pub async fn ask_until(
        &self,
        node: &RunningNode,
        paid: &mut Paid,
        ask: &Ask,
        cancel_after: usize,
    ) -> Answer {
        let (mut stream, request_id) = self.begin(node, &paid.ticket, ask).await;
        let cost_max = paid.channel.left();
        let terms = ConsumerTerms {
            request_id,
            kind: ask.kind,
            provider: node.account(),
            price_cap: ask.price_cap.clone(),
            body_bytes: ask.body.len() as u64,
            cost_max,
            message_max_bytes: 16 << 20,
        };
        let timeouts = ConsumerTimeouts {
            answer_ms: 30_000,
            ..ConsumerTimeouts::default()
        };
        let now = clock();
        let mut session = ConsumerSession::open(terms, timeouts, &mut paid.channel, now()).unwrap();
        let (mut messages, mut raw, mut accepted) = (Vec::new(), Vec::new(), None);
        loop {
            let event = if messages.len() >= cancel_after && !session.is_leaving() {
                ConsumerEvent::Cancel
            } else {
                match stream.receive(PATIENCE).await {
                    Ok(frame) => ConsumerEvent::Frame(Box::new(frame)),
                    Err(ReceiveError::Timeout(_)) => ConsumerEvent::Tick,
                    Err(_) => ConsumerEvent::StreamClosed,
                }
            };
            for effect in session.handle(event, &mut paid.channel, now()) {
                match effect {
                    ConsumerEffect::Send(frame) => stream.send(&frame, PATIENCE).await.unwrap(),
                    ConsumerEffect::Accepted(terms) => accepted = Some(*terms),
                    ConsumerEffect::Message(message) => {
                        messages.push(serde_json::from_slice(&message).unwrap_or_default());
                        raw.push(message);
                    }
                    ConsumerEffect::End(outcome) => {
                        // The last voucher arrives before the end of the stream does.
                        let _ = stream.close(PATIENCE).await;
                        while stream.receive(PATIENCE).await.is_ok() {}
                        return Answer {
                            accepted,
                            messages,
                            raw,
                            outcome: *outcome,
                        };
                    }
                }
            }
        }
    }

    /// Asks with a ticket as it is and gives the refusal.
    pub async fn refusal(&self, node: &RunningNode, ticket: &str, ask: &Ask) -> JobRefused {
        let (mut stream, _) = self.begin(node, ticket, ask).await;
        match stream.receive(PATIENCE).await.unwrap() {
            ProviderFrame::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }
}
