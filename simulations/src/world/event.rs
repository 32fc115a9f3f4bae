//! What happens in the market: timers, gossip, and messages between its people.

use gristmill_protocol::codec;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{ConsumerFrame, ProviderFrame};
use gristmill_protocol::voucher::Voucher;
use serde::{Deserialize, Serialize};

use crate::engine::NodeId;
use crate::gossip::{self, Ids, Link, MessageId, Payload};
use crate::people::hardware::{DeskAnswer, ProverCall};
use gristmill_protocol::codec::canonical;

/// What can happen to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Something came from a neighbour on the gossip mesh.
    Gossip(Gossip),
    /// The heartbeat of the gossip mesh: its number.
    Heartbeat(u32),
    /// The node joins the gossip mesh.
    Join,
    /// Something that the node waited for is due.
    Timer(Timer),
    /// A message arrived.
    Message(Box<Envelope>),
    /// A fault of the scenario begins or ends: its place in the list.
    Fault(u32),
}

/// What comes over a link of the gossip mesh, packed so that an event stays small.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Gossip {
    /// A message.
    Publish {
        /// Which.
        id: MessageId,
        /// Bytes of its content.
        bytes: u32,
        /// Over how many links it has come.
        hops: u8,
        /// Whether it was asked for.
        asked: bool,
        /// The link.
        link: Link,
    },
    /// "I hear the topic."
    Subscribe(Link),
    /// "These I have."
    IHave(Link, Box<Ids>),
    /// "Send me these."
    IWant(Link, Box<Ids>),
    /// "Do not send me this one."
    IDontWant(Link, MessageId),
    /// "You are in my mesh now."
    Graft(Link),
    /// "You are not in my mesh", and for how many seconds.
    Prune(Link, u16),
    /// The connection is gone.
    Gone(Link),
    /// The neighbour is back and connects anew; whether this node dials.
    Back(Link, bool),
}

impl Gossip {
    /// What travels over a link.
    #[must_use]
    pub fn new(link: Link, payload: Payload) -> Self {
        match payload {
            Payload::Publish { message, hops, asked } => Self::Publish {
                id: message.id,
                bytes: message.bytes,
                hops,
                asked,
                link,
            },
            Payload::Subscribe => Self::Subscribe(link),
            Payload::IHave(ids) => Self::IHave(link, ids),
            Payload::IWant(ids) => Self::IWant(link, ids),
            Payload::IDontWant(id) => Self::IDontWant(link, id),
            Payload::Graft => Self::Graft(link),
            Payload::Prune { backoff_s } => Self::Prune(link, backoff_s),
        }
    }

    /// The link and what came over it.
    ///
    /// # Errors
    /// This itself, where a connection came or went.
    pub fn unpack(self) -> Result<(Link, Payload), Self> {
        Ok(match self {
            Self::Publish {
                id,
                bytes,
                hops,
                asked,
                link,
            } => {
                let message = gossip::Message { id, bytes };
                (link, Payload::Publish { message, hops, asked })
            }
            Self::Subscribe(link) => (link, Payload::Subscribe),
            Self::IHave(link, ids) => (link, Payload::IHave(ids)),
            Self::IWant(link, ids) => (link, Payload::IWant(ids)),
            Self::IDontWant(link, id) => (link, Payload::IDontWant(id)),
            Self::Graft(link) => (link, Payload::Graft),
            Self::Prune(link, backoff_s) => (link, Payload::Prune { backoff_s }),
            connection @ (Self::Gone(_) | Self::Back(..)) => return Err(connection),
        })
    }
}

/// One job of a consumer: the consumer's number and its count of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// How many bits of a [`StreamId`] count the attempts of one job.
const ATTEMPT_BITS: u32 = 6;
/// Most attempts that one job can make.
pub const ATTEMPTS_MAX: u32 = 1 << ATTEMPT_BITS;

impl JobId {
    /// The so-manieth job of a consumer.
    #[must_use]
    pub const fn new(consumer: NodeId, count: u32) -> Self {
        Self((consumer as u64) << 32 | count as u64)
    }

    /// Who asked.
    #[must_use]
    pub const fn consumer(self) -> NodeId {
        (self.0 >> 32) as NodeId
    }

    /// The stream of one attempt, counted from 0.
    #[must_use]
    pub const fn stream(self, attempt: u32) -> StreamId {
        let count = (self.0 & 0xffff_ffff) << ATTEMPT_BITS;
        StreamId(self.0 >> 32 << 32 | (count | (attempt % ATTEMPTS_MAX) as u64) & 0xffff_ffff)
    }
}

/// The job stream of one attempt: a job may be asked of several providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The job that it carries.
    #[must_use]
    pub const fn job(self) -> JobId {
        JobId(self.0 >> 32 << 32 | (self.0 & 0xffff_ffff) >> ATTEMPT_BITS)
    }

    /// Who opened it.
    #[must_use]
    pub const fn consumer(self) -> NodeId {
        self.job().consumer()
    }
}

/// What a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timer {
    /// The next listing, or a look whether one is due.
    Listing,
    /// The next request of a consumer.
    Ask,
    /// Somebody who has nobody left to ask may ask again.
    Retry(JobId),
    /// The first output may be late.
    Hedge(JobId),
    /// The program has waited long enough.
    GiveUp(JobId),
    /// The deadline of a consumer's session may have come.
    ConsumerDeadline(StreamId),
    /// The coordinator may not have answered.
    Opening(u32),
    /// A consumer asks for its starter credits.
    Starter,
    /// The engine made the next part of an answer.
    Engine(StreamId),
    /// The deadline of a provider's session may have come.
    ProviderDeadline(StreamId),
    /// Vouchers that came lately are on disk.
    Persist,
    /// Vouchers are handed in.
    HandIn,
    /// A write of the coordinator is on its disk.
    Synced,
    /// The coordinator ends channels whose time is over.
    Sweep,
    /// A challenge of the coordinator may be due for something.
    Desk,
    /// A provider looks after the certificate of its hardware.
    Hardware,
    /// A device is done with what a call of its proof takes.
    Worked(u32),
    /// The coordinator may not have answered a call of a proof.
    Unanswered(u32),
    /// The node goes offline: without a word, or taking leave.
    Down {
        /// Whether it crashes.
        crash: bool,
    },
    /// The node is back.
    Up,
}

/// A message and who sent it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who sent it.
    pub from: NodeId,
    /// What it says.
    pub message: Message,
}

/// What people say to each other. Calls to the coordinator stand for its HTTP interface; frames are those of job
/// streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Somebody wants the starter credits of an account: 0 is its own, others it has made up.
    AskStarter {
        /// Which.
        account: u32,
    },
    /// What it was given; nothing where it was refused.
    Granted {
        /// How much.
        amount: Credits,
    },
    /// A consumer wants credits held for a provider.
    OpenChannel(OpenChannelRequest),
    /// They are held.
    Ticket {
        /// The channel.
        channel: ChannelId,
        /// The coordinator's signed word, a compact JWS.
        token: String,
    },
    /// They are not.
    NoTicket {
        /// The channel.
        channel: ChannelId,
        /// Whether the consumer has too few credits.
        is_out_of_credits: bool,
    },
    /// A provider hands vouchers in.
    HandIn {
        /// At most one a channel.
        #[serde(with = "canonical")]
        vouchers: Vec<Signed<Voucher>>,
    },
    /// What each channel has paid so far.
    Settled {
        /// In the order of the hand-in; nothing where a voucher was refused.
        paid: Vec<(ChannelId, Option<Credits>)>,
    },
    /// A provider calls about its hardware.
    ToDesk {
        /// Its count of such calls.
        number: u32,
        /// How many roots of a commitment are in it.
        roots: u32,
        /// What it says.
        call: ProverCall,
    },
    /// The answer.
    FromDesk {
        /// Which call it is to.
        number: u32,
        /// What it says.
        answer: DeskAnswer,
    },
    /// From a consumer, on a job stream.
    ToProvider {
        /// Which stream.
        stream: StreamId,
        /// What.
        #[serde(with = "canonical")]
        frame: ConsumerFrame,
    },
    /// From a provider, on a job stream.
    ToConsumer {
        /// Which stream.
        stream: StreamId,
        /// What.
        #[serde(with = "canonical")]
        frame: ProviderFrame,
    },
    /// The stream is closed or broken.
    StreamClosed {
        /// Which stream.
        stream: StreamId,
    },
}

/// Bytes of an HTTP call beside its body: method, path, headers and the caller's token.
const CALL_BYTES: usize = 800;
/// Bytes of a packet with nothing in it.
const PACKET_BYTES: usize = 60;

impl Message {
    /// Bytes on the wire, headers of packets apart.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::AskStarter { .. } | Self::Granted { .. } | Self::NoTicket { .. } => CALL_BYTES,
            Self::OpenChannel(_) => CALL_BYTES + 150,
            Self::Ticket { token, .. } => CALL_BYTES + token.len(),
            Self::HandIn { vouchers } => {
                CALL_BYTES
                    + vouchers
                        .iter()
                        .map(|voucher| codec::encode(voucher).len())
                        .sum::<usize>()
            }
            Self::Settled { paid } => CALL_BYTES + 60 * paid.len(),
            Self::ToDesk { roots, call, .. } => call.bytes(*roots) as usize,
            Self::FromDesk { answer, .. } => answer.bytes() as usize,
            Self::ToProvider { frame, .. } => codec::encode(frame).len(),
            Self::ToConsumer { frame, .. } => codec::encode(frame).len(),
            Self::StreamClosed { .. } => PACKET_BYTES,
        };
        bytes as u64
    }

    /// The stream that it belongs to.
    #[must_use]
    pub const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::ToProvider { stream, .. }
            | Self::ToConsumer { stream, .. }
            | Self::StreamClosed { stream } => Some(*stream),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_small_and_numbers_come_back() {
        assert!(size_of::<Event>() <= 24, "{}", size_of::<Event>());
        let job = JobId::new(7, 9_000);
        let stream = job.stream(63);
        assert_eq!((stream.job(), stream.consumer(), job.consumer()), (job, 7, 7));
        assert!(job.stream(1) != job.stream(2));
    }
}
