//! The messages of a job stream, `/gristmill/job/1`.
//!
//! ```text
//! consumer                                provider
//!   Open{ticket, kind, model, body} ───────▶
//!   BodyPart* ─────────────────────────────▶
//!        ◀──────────── Accepted{price, credit window, highest voucher}  or  Refused{code, reason}
//!        ◀──────────── Chunk{payload, meter}*
//!   Voucher{cumulative}* ──────────────────▶
//!        ◀──────────── Done{usage, transcript}   or  Failed{code, reason}
//!   last Voucher, then the stream ends; or Cancel at any time
//! ```

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::credits::Credits;
use crate::identity::Signed;
use crate::trace::TraceParent;
use crate::usage::{Price, Usage};
use crate::voucher::Voucher;

/// The libp2p protocol name of job streams.
pub const JOB_PROTOCOL: &str = "/gristmill/job/1";
/// Most bytes of a request id.
pub const REQUEST_ID_MAX_BYTES: usize = 64;
/// Most bytes of a reason for people.
pub const REASON_MAX_BYTES: usize = 2_048;
/// Most bytes of a ticket.
pub const TICKET_MAX_BYTES: usize = 4_096;

/// What a job asks for. The numbers are the wire format: never reuse one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// OpenAI's `/v1/chat/completions`, always streamed on the job stream.
    ChatCompletions,
    /// OpenAI's `/v1/embeddings`.
    Embeddings,
    /// OpenAI's `/v1/completions`: a raw prompt goes on, always streamed on the job stream.
    Completions,
    /// OpenAI's `/v1/audio/transcriptions`: a form with an audio file becomes text. Passed through.
    AudioTranscriptions,
    /// OpenAI's `/v1/audio/speech`: text becomes an audio file. Passed through.
    AudioSpeech,
    /// OpenAI's `/v1/images/generations`: a prompt becomes images. Passed through.
    ImageGenerations,
    /// `/v1/rerank` as of Jina and vLLM: documents are ordered by how well they fit a query. Passed through.
    Rerank,
}

impl JobKind {
    /// The path of the OpenAI endpoint, after `/v1`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Embeddings => "/embeddings",
            Self::Completions => "/completions",
            Self::AudioTranscriptions => "/audio/transcriptions",
            Self::AudioSpeech => "/audio/speech",
            Self::ImageGenerations => "/images/generations",
            Self::Rerank => "/rerank",
        }
    }

    /// Whether the body goes to an upstream server as it is and the answer comes back as it is. The first message
    /// of such an answer is an [`AnswerHead`] as JSON, each later message the next bytes of the body.
    #[must_use]
    pub const fn is_passed_through(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Embeddings => false,
            Self::AudioTranscriptions | Self::AudioSpeech | Self::ImageGenerations | Self::Rerank => true,
        }
    }

    /// Whether the answer is text that a model writes token by token.
    #[must_use]
    pub const fn is_generated_text(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}

/// The first message of an answer that is passed through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The media type of the body, as the upstream server says.
    pub content_type: String,
}

impl fmt::Display for JobKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::ChatCompletions => "chat",
            Self::Embeddings => "embeddings",
            Self::Completions => "completions",
            Self::AudioTranscriptions => "audio transcriptions",
            Self::AudioSpeech => "speech",
            Self::ImageGenerations => "images",
            Self::Rerank => "rerank",
        })
    }
}

/// The id of one request: the same in the program's `x-request-id`, in the logs of both sides and in receipts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[serde(try_from = "String")]
pub struct RequestId(String);

/// A text that can't be a request id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a request id has 1 to {REQUEST_ID_MAX_BYTES} letters, digits, '-', '_' or '.'")]
pub struct RequestIdError;

impl RequestId {
    /// A fresh id from 16 random bytes: `req_` and 32 hexadecimal digits.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("req_{}", hex::encode(bytes)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;

    fn try_from(text: String) -> Result<Self, RequestIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > REQUEST_ID_MAX_BYTES || !text.bytes().all(allowed) {
            return Err(RequestIdError);
        }
        Ok(Self(text))
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl<Context> Decode<Context> for RequestId {
    fn decode<D: bincode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::try_from(String::decode(decoder)?)
            .map_err(|_| bincode::error::DecodeError::Other("not a request id"))
    }
}
bincode::impl_borrow_decode!(RequestId);

/// What a consumer sends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub enum ConsumerFrame {
    /// Asks for a job. First, once.
    Open(OpenJob),
    /// The next part of the request body, at most [`crate::codec::PAYLOAD_MAX_BYTES`].
    BodyPart(Vec<u8>),
    /// Pays, cumulatively over the channel.
    Voucher(Signed<Voucher>),
    /// Wants no more output.
    Cancel,
}

/// The first frame of a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct OpenJob {
    /// The coordinator's ticket, a compact JWS.
    pub ticket: String,
    /// The id of the request.
    pub request_id: RequestId,
    /// What is asked for.
    pub kind: JobKind,
    /// The model, as in the provider's offer.
    pub model: String,
    /// The highest price that the consumer accepts, coefficient by coefficient.
    pub price_cap: Price,
    /// How many bytes of body follow in [`ConsumerFrame::BodyPart`] frames.
    pub body_bytes: u64,
    /// The media type of the body: empty for JSON; forms name their boundary here.
    pub content_type: String,
    /// The position in the caller's trace, where it has one.
    pub trace_parent: Option<TraceParent>,
}

/// What a provider sends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub enum ProviderFrame {
    /// Will run the job.
    Accepted(JobAccepted),
    /// Will not run the job; nothing was used.
    Refused(JobRefused),
    /// A part of the answer.
    Chunk(Chunk),
    /// The answer is complete.
    Done(JobDone),
    /// The answer broke off.
    Failed(JobFailed),
}

/// The terms on which a job runs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct JobAccepted {
    /// The price, never above the consumer's cap.
    pub price: Price,
    /// How many jobs wait before this one; zero when it starts at once.
    pub position: u32,
    /// Most unpaid work that the provider extends on this channel.
    pub credit_window: Credits,
    /// The highest voucher of this channel that the provider holds, so that a consumer that lost its state finds
    /// it again, and one that is ahead sends its own.
    pub highest_voucher: Option<Signed<Voucher>>,
}

/// Why a provider refuses a job. The numbers are the wire format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// All slots are taken and the queue is full.
    Busy,
    /// The ticket is not valid here: signature, audience, issuer or expiry.
    InvalidTicket,
    /// The ticket is for somebody else's key than the one that opened the stream.
    NotTicketHolder,
    /// No such model here now.
    ModelNotFound,
    /// The offer's price is above the consumer's cap.
    PriceAboveCap,
    /// The channel has too little left for this job, or its unpaid work fills the credit window.
    ChannelExhausted,
    /// The body is too large, or reading the prompt alone could cost more than the credit window.
    BodyTooLarge,
    /// The body is not what this kind of job needs.
    InvalidRequest,
    /// The provider is stopping.
    ShuttingDown,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct JobRefused {
    /// For programs.
    pub code: RefusalCode,
    /// When it may be worth asking again, in milliseconds; zero: not soon.
    pub retry_after_ms: u32,
    /// For people.
    pub reason: String,
}

/// A part of the answer. The payloads of one message, in order, make up one JSON document; for kinds that
/// [are passed through](JobKind::is_passed_through) only those of the first message do.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Chunk {
    /// At most [`crate::codec::PAYLOAD_MAX_BYTES`].
    pub payload: Vec<u8>,
    /// Whether this payload ends a message.
    pub ends_message: bool,
    /// What the job has used so far. Never shrinks.
    pub meter: Usage,
}

/// The end of a complete answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct JobDone {
    /// What the job used in all.
    pub usage: Usage,
    /// The provider's signature over what it delivered; with the last voucher a receipt signed by both sides.
    pub delivery: Signed<Delivery>,
}

/// What a provider says it delivered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Delivery {
    /// The channel that pays.
    pub channel: crate::ids::ChannelId,
    /// The request.
    pub request_id: RequestId,
    /// What the job used in all.
    pub usage: Usage,
    /// What the job costs.
    pub cost: Credits,
    /// BLAKE3 over all payload bytes in order.
    pub transcript: [u8; 32],
}

impl crate::identity::SignedContent for Delivery {
    const NAME: &'static str = "delivery";
    const VERSION: u16 = 1;
}

/// An answer that broke off. What was delivered stays due.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct JobFailed {
    /// The HTTP status that a program should see where none was sent yet.
    pub status: u16,
    /// A stable word for programs.
    pub code: String,
    /// For people.
    pub reason: String,
    /// The request field at fault, where there is one.
    pub param: Option<String>,
}

impl JobFailed {
    /// A failure with its texts cut to [`REASON_MAX_BYTES`].
    #[must_use]
    pub fn new(status: u16, code: &str, reason: &str, param: Option<&str>) -> Self {
        Self {
            status,
            code: cut(code, 128),
            reason: cut(reason, REASON_MAX_BYTES),
            param: param.map(|param| cut(param, 128)),
        }
    }
}

impl JobRefused {
    /// A refusal with its text cut to [`REASON_MAX_BYTES`].
    #[must_use]
    pub fn new(code: RefusalCode, retry_after_ms: u32, reason: &str) -> Self {
        Self {
            code,
            retry_after_ms,
            reason: cut(reason, REASON_MAX_BYTES),
        }
    }
}

/// The longest prefix of at most `limit` bytes that ends at a character.
fn cut(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}
