//! Buys the rest of an answer from another provider, where the first one broke off after output reached the
//! program: whether that can be done, what is asked for, and how the two parts are joined.
//!
//! Where the request gives the same text each time (temperature zero), the partial answer is cut back to the end of a
//! word, where tokens of any model end, and what comes again is compared: the whole is then the text that an unbroken
//! answer would have had. Otherwise, or where the comparison failed once, the continuation writes on where the text
//! stands.

use bytes::Bytes;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, Offer};
use thiserror::Error;

use crate::core::request::ProgramRequest;

mod anew;
mod body;
mod partial;
mod seam;

pub use anew::AnewWatch;
use body::{Fields, Written, continued};
pub use partial::PartialAnswer;
pub use seam::{Junction, OnDifference, REASONING_FIELDS, Seam, SeamError};

/// Most times that one answer is continued.
pub const CONTINUATIONS_MAX: u32 = 3;
/// So far back an end of a word is looked for, in bytes.
const CUT_MAX_BYTES: usize = 256;

/// Why an answer can't be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// Only text is continued.
    #[error("answers of this kind can't be continued")]
    Kind,
    /// Several answers at once.
    #[error("one of several choices can't be continued")]
    ManyChoices,
    /// Probabilities of tokens whose borders may differ.
    #[error("an answer with logprobs can't be continued")]
    Logprobs,
    /// A grammar whose state only its engine knows.
    #[error("an answer of a given structure can't be continued")]
    StructuredOutput,
    /// A tool call was begun, or is all that may come.
    #[error("a tool call can't be continued")]
    ToolCall,
    /// The prompt stands inside the answer, or text comes behind it.
    #[error("a completion with an echo or a suffix can't be continued")]
    EchoAndSuffix,
    /// The prompt is tokens or several texts.
    #[error("a prompt of tokens, or several prompts, can't be continued")]
    TokenPrompt,
    /// The program has something else than text.
    #[error("the answer has other output than text")]
    OtherOutput,
    /// More text than is kept.
    #[error("the answer is too long to be continued")]
    TooLong,
    /// The last message is an answer, and servers differ in what they make of it.
    #[error("the last message is the assistant's own")]
    EndsWithAssistant,
    /// The body is not what it seemed to be.
    #[error("the request can't be read again")]
    Unreadable,
}

/// How sure the join has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// What can be compared has to be the same.
    Compared,
    /// A comparison has failed before: other words are as good.
    AsItComes,
}

/// What is bought to complete an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// What the next provider is asked for.
    pub request: ProgramRequest,
    /// Where its output joins what the program has.
    pub junction: Junction,
    /// The tokens of the answer that earlier providers wrote.
    pub tokens_before: u64,
    /// Whether the provider has to write on a partial message.
    pub needs_continuation: bool,
}

impl Continuation {
    /// Whether an offer can serve it: it says itself that it can, since what an upstream makes of fields that it does
    /// not know is a new answer; and its weights are those of the offer that broke off, where both are known.
    #[must_use]
    pub fn suits(&self, offer: &Offer, before: &Offer) -> bool {
        let can = !self.needs_continuation
            || offer.kind == JobKind::Completions
            || offer.capabilities.contains(&Capability::Continuation);
        let same_weights = match (offer.weights_digest, before.weights_digest) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        can && same_weights && offer.model == before.model && offer.kind == before.kind
    }
}

/// Whether an answer to a request might be continued, so that it is worth keeping its text.
#[must_use]
pub fn may_continue(request: &ProgramRequest) -> bool {
    request_obstacle(request).is_none()
}

fn request_obstacle(request: &ProgramRequest) -> Option<Obstacle> {
    if !request.kind.is_generated_text() {
        return Some(Obstacle::Kind);
    }
    if request.choices != 1 {
        return Some(Obstacle::ManyChoices);
    }
    let of = |capability| match capability {
        Capability::Logprobs => Some(Obstacle::Logprobs),
        Capability::StructuredOutput | Capability::StrictSchema => Some(Obstacle::StructuredOutput),
        Capability::ForcedTools => Some(Obstacle::ToolCall),
        Capability::ManyChoices => Some(Obstacle::ManyChoices),
        Capability::Echo | Capability::Suffix => Some(Obstacle::EchoAndSuffix),
        _ => None,
    };
    request.needs.keys().copied().find_map(of)
}

/// What to buy to complete an answer. `output_limit` is the limit that was set where the program set none.
///
/// # Errors
/// [`Obstacle`] where no other provider could write on.
pub fn plan(
    request: &ProgramRequest,
    partial: &PartialAnswer,
    output_limit: Option<u64>,
    joining: Joining,
) -> Result<Continuation, Obstacle> {
    if let Some(obstacle) = partial.obstacle() {
        return Err(obstacle);
    }
    let has_text = !partial.content().is_empty() || partial.reasoning().iter().any(|text| !text.is_empty());
    if let Some(obstacle) = request_obstacle(request).filter(|_| has_text) {
        return Err(obstacle);
    }
    let body = std::str::from_utf8(&request.body).map_err(|_| Obstacle::Unreadable)?;
    let fields = Fields::read(body)?;
    if fields.has_several_candidates() {
        return Err(Obstacle::ManyChoices);
    }
    let is_compared = joining == Joining::Compared && fields.is_deterministic();
    let (prefix, overlap) = cut(partial.content(), is_compared);
    let on_difference = match is_compared {
        true => OnDifference::Refuse,
        false => OnDifference::PassOn,
    };
    let content = Seam::over(overlap, on_difference);
    if prefix.is_empty() {
        // The model thinks again; what it thinks otherwise this time is its own affair, as long as the answer fits.
        let again = |text: &String| Seam::over(text, OnDifference::LeaveOut);
        let reasoning = partial.reasoning().each_ref().map(again);
        return Ok(Continuation {
            request: request.clone(),
            junction: Junction {
                content,
                reasoning,
                anew: AnewWatch::default(),
            },
            tokens_before: 0,
            needs_continuation: false,
        });
    }
    let tokens_before = partial.tokens_at(prefix.len());
    let written = Written {
        prefix,
        reasoning: partial.reasoning(),
        tokens: tokens_before,
        output_limit,
    };
    let continued = continued(request.kind, body, &fields, written)?;
    let mut request = ProgramRequest {
        body: Bytes::from(continued.body),
        output_tokens_max: continued.output_tokens_max,
        ..request.clone()
    };
    if request.kind == JobKind::ChatCompletions {
        request
            .needs
            .insert(Capability::Continuation, "continue_final_message");
    }
    Ok(Continuation {
        request,
        junction: Junction {
            content,
            reasoning: [Seam::Ended, Seam::Ended],
            anew: AnewWatch::over(prefix),
        },
        tokens_before,
        needs_continuation: true,
    })
}

/// Cuts a text into what is sent along and what has to come again. Templates trim messages, so the first part never
/// ends with blanks. Where it is compared, it ends with a word: there tokens end in whatever way a text is split.
fn cut(text: &str, is_compared: bool) -> (&str, &str) {
    let trimmed = text.trim_end();
    if !is_compared || trimmed.len() < text.len() {
        return text.split_at(trimmed.len());
    }
    let far_back = text.floor_char_boundary(text.len().saturating_sub(CUT_MAX_BYTES));
    let last_word = text[far_back..].rfind(char::is_whitespace);
    let position = match last_word {
        Some(blank) => text[..far_back + blank].trim_end().len(),
        None if far_back == 0 => 0,
        // Scripts without blanks: what comes is compared with nothing.
        None => text.len(),
    };
    text.split_at(position)
}

#[cfg(test)]
mod tests;
