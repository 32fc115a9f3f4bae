//! What a request may cost, and which channel pays for it.

use gristmill_protocol::content::input_tokens_max;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::{Price, PriceError, Unit, Usage};

/// Bytes of an answer per output token, at most: a chunk of its own with its JSON around it.
const OUTPUT_BYTES_PER_TOKEN: u64 = 1_024;
/// Bytes of embeddings per byte of input, at most: a vector of 4,096 numbers for each three bytes.
const EMBEDDING_BYTES_PER_INPUT_BYTE: u64 = 16_384;
/// Bytes of speech per byte of text, at most: uncompressed sound of a slow speaker.
const SPEECH_BYTES_PER_INPUT_BYTE: u64 = 16_384;
/// Bytes of an image in JSON, at most.
const IMAGE_BYTES: u64 = 8 << 20;
/// Bytes of JSON around what is passed through, at most.
const ENVELOPE_BYTES: u64 = 64 << 10;
/// Milliseconds of a device for what is passed through, at most: so long an answer is waited for.
const GPU_MILLISECONDS_PASSED_THROUGH: u64 = 120_000;
/// Milliseconds of a device per token, at most.
const GPU_MILLISECONDS_PER_TOKEN: u64 = 100;
/// So many tokens beyond the limit are reckoned with: some servers count the token that ends a choice.
const OUTPUT_TOKENS_BEYOND: u64 = 16;
/// The fewest output tokens that an answer is worth having with.
const OUTPUT_TOKENS_MIN: u64 = 16;
/// A channel is not used in the last part of its life, so that its provider has time to redeem.
const LIFE_PARTS: u64 = 6;
/// Providers take no new job in the last half minute of a channel; with some time for the way.
const UNUSED_MIN_MS: u64 = 35_000;
/// Longest part of a channel's life in which it is not used, in milliseconds.
const UNUSED_MAX_MS: u64 = 10 * 60 * 1_000;

/// A request, as far as its cost goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What is asked for.
    pub kind: JobKind,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// The output tokens of one choice that the program allows.
    pub output_tokens_max: Option<u64>,
    /// How many choices are wanted.
    pub choices: u64,
    /// Most tokens that the offer's model can handle; zero where unknown.
    pub context_length: u32,
    /// The output tokens that are assumed where the program sets no limit.
    pub output_tokens_assumed: u32,
}

impl Scope {
    /// The output tokens of one choice that are reckoned with.
    #[must_use]
    pub fn output_tokens(&self) -> u64 {
        let wanted = self
            .output_tokens_max
            .unwrap_or(self.output_tokens_assumed.into());
        match (self.kind, self.context_length) {
            (kind, _) if !kind.is_generated_text() => 0,
            (_, 0) => wanted,
            (_, context) => wanted.min(context.into()),
        }
    }

    /// The same with a lower assumed limit, where `credits` are all that there is and don't pay for the usual one: a
    /// shorter answer is better than none. A program's own limit is not ours to lower.
    #[must_use]
    pub fn affordable_with(self, price: &Price, credits: Option<Credits>) -> Self {
        let tokens = credits.and_then(|credits| self.affordable_output_tokens(price, credits));
        let tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
        Self {
            output_tokens_assumed: tokens.unwrap_or(self.output_tokens_assumed),
            ..self
        }
    }

    /// The most that the request can cost with so many output tokens per choice. At least a microcredit: a channel
    /// with nothing left pays for nothing, not even what is free.
    ///
    /// # Errors
    /// [`PriceError`] where that is more than the largest amount.
    pub fn cost_max(&self, price: &Price, output_tokens: u64) -> Result<Credits, PriceError> {
        let bytes = |answer| {
            Usage::new()
                .with(Unit::ByteIn, self.body_bytes)
                .with(Unit::ByteOut, answer)
        };
        let usage = if self.kind.is_passed_through() {
            // What is passed through is not counted in tokens.
            let milliseconds = GPU_MILLISECONDS_PASSED_THROUGH.saturating_mul(self.choices);
            bytes(self.answer_bytes(0)).with(Unit::GpuMillisecond, milliseconds)
        } else {
            let beyond = if self.kind.is_generated_text() {
                OUTPUT_TOKENS_BEYOND
            } else {
                0
            };
            let input = input_tokens_max(self.body_bytes);
            let output = output_tokens.saturating_add(beyond).saturating_mul(self.choices);
            let tokens = input.saturating_add(output);
            bytes(self.answer_bytes(output))
                .with(Unit::InputToken, input)
                .with(Unit::OutputToken, output)
                .with(
                    Unit::GpuMillisecond,
                    tokens.saturating_mul(GPU_MILLISECONDS_PER_TOKEN),
                )
        };
        Ok(price.cost(&usage)?.max(Credits::micro(1)))
    }

    /// The most bytes that an answer with so many output tokens has.
    const fn answer_bytes(&self, output_tokens: u64) -> u64 {
        match self.kind {
            JobKind::ChatCompletions | JobKind::Completions => {
                output_tokens.saturating_mul(OUTPUT_BYTES_PER_TOKEN)
            }
            JobKind::Embeddings => self.body_bytes.saturating_mul(EMBEDDING_BYTES_PER_INPUT_BYTE),
            JobKind::AudioSpeech => self.body_bytes.saturating_mul(SPEECH_BYTES_PER_INPUT_BYTE),
            JobKind::ImageGenerations => self.choices.saturating_mul(IMAGE_BYTES),
            JobKind::AudioTranscriptions => self.body_bytes.saturating_add(ENVELOPE_BYTES),
            JobKind::Rerank => self.body_bytes.saturating_mul(4).saturating_add(ENVELOPE_BYTES),
        }
    }

    /// The most output tokens per choice that `credits` pay for, at least a few; only where the program set no
    /// limit, since its own is not ours to lower.
    #[must_use]
    pub fn affordable_output_tokens(&self, price: &Price, credits: Credits) -> Option<u64> {
        let affordable = |tokens| self.cost_max(price, tokens).is_ok_and(|cost| cost <= credits);
        if self.output_tokens_max.is_some() || !self.kind.is_generated_text() {
            return None;
        }
        let (mut least, mut most) = (OUTPUT_TOKENS_MIN, self.output_tokens());
        if most < least || !affordable(least) {
            return None;
        }
        // More tokens never cost less, so halving finds the edge.
        while least < most {
            let middle = least + (most - least).div_ceil(2);
            if affordable(middle) {
                least = middle;
            } else {
                most = middle - 1;
            }
        }
        Some(least)
    }
}

/// A channel, as far as choosing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// The channel.
    pub channel: ChannelId,
    /// What is neither owed nor reserved.
    pub left: Credits,
    /// Until when it is used for new jobs, Unix milliseconds.
    pub use_until_ms: u64,
}

/// Until when a channel is used for new jobs, Unix milliseconds.
#[must_use]
pub fn use_until_ms(redeem_by_ms: u64, life_ms: u64) -> u64 {
    let part_ms = (life_ms / LIFE_PARTS).clamp(UNUSED_MIN_MS, UNUSED_MAX_MS);
    redeem_by_ms.saturating_sub(part_ms.min(life_ms / 2))
}

/// The channel that pays for a job: of those with enough left the one that ends first, so that none goes unused.
pub fn paying_channel(
    channels: impl Iterator<Item = ChannelState>,
    needed: Credits,
    now_ms: u64,
) -> Option<ChannelId> {
    channels
        .filter(|channel| channel.left >= needed && now_ms < channel.use_until_ms)
        .min_by_key(|channel| (channel.use_until_ms, channel.channel))
        .map(|channel| channel.channel)
}

/// What to hold in a new channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Hold so much; the request fits as it is.
    Whole(Credits),
    /// Hold so much, and let the answer have at most so many output tokens per choice.
    Shortened {
        /// How much.
        limit: Credits,
        /// The limit.
        output_tokens: u64,
    },
    /// The request can't be paid for.
    Insufficient {
        /// What it needs.
        needed: Credits,
        /// What there is.
        available: Credits,
    },
}

/// What to hold where the account is said to have `available`, and a channel usually holds `usual` but never more
/// than `limit_max`.
#[must_use]
pub fn holding(
    scope: &Scope,
    price: &Price,
    usual: Credits,
    limit_max: Credits,
    available: Credits,
) -> Holding {
    let usable = available.min(limit_max);
    let needed = scope
        .cost_max(price, scope.output_tokens())
        .unwrap_or(Credits::MAX);
    if needed <= usable {
        // Not everything for one provider, so that another one can be asked when it fails.
        let half = Credits::from_microcredits(available.microcredits() / 2).unwrap_or(needed);
        return Holding::Whole(usual.min(half).min(usable).max(needed));
    }
    match scope.affordable_output_tokens(price, usable) {
        Some(output_tokens) => Holding::Shortened {
            limit: usable,
            output_tokens,
        },
        None => Holding::Insufficient { needed, available },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(body_bytes: u64, output_tokens_max: Option<u64>) -> Scope {
        Scope {
            kind: JobKind::ChatCompletions,
            body_bytes,
            output_tokens_max,
            choices: 1,
            context_length: 8_192,
            output_tokens_assumed: 4_096,
        }
    }

    fn price() -> Price {
        Price::per_million_tokens(Credits::micro(1_000_000), Credits::micro(1_000_000))
    }

    const fn micro(amount: u32) -> Credits {
        Credits::micro(amount)
    }

    #[test]
    fn the_worst_case_is_every_byte_a_token_and_every_choice_full() {
        assert_eq!(scope(744, Some(100)).cost_max(&price(), 100), Ok(micro(1_116)));
        let four = Scope {
            choices: 4,
            ..scope(744, Some(100))
        };
        assert_eq!(four.cost_max(&price(), 100), Ok(micro(1_464)));
        assert_eq!(scope(744, None).output_tokens(), 4_096);
        assert_eq!(
            scope(744, Some(100_000)).output_tokens(),
            8_192,
            "bounded by the context"
        );
        let embeddings = Scope {
            kind: JobKind::Embeddings,
            ..scope(744, None)
        };
        assert_eq!(
            embeddings.cost_max(&price(), embeddings.output_tokens()),
            Ok(micro(1_000))
        );
    }

    #[test]
    fn the_channel_that_ends_first_pays_if_it_can() {
        let state = |byte, left, use_until_ms| ChannelState {
            channel: ChannelId::from_bytes([byte; 16]),
            left: micro(left),
            use_until_ms,
        };
        let channels = [
            state(1, 100, 900),
            state(2, 50, 500),
            state(3, 5, 400),
            state(4, 500, 100),
        ];
        let pays = |needed, now_ms| {
            paying_channel(channels.into_iter(), micro(needed), now_ms).map(|channel| channel.bytes()[0])
        };
        assert_eq!(pays(50, 100), Some(2));
        assert_eq!(pays(51, 100), Some(1));
        assert_eq!(pays(50, 500), Some(1));
        assert_eq!(pays(101, 100), None);
        assert_eq!(use_until_ms(60_000, 6_000), 57_000);
        assert_eq!(use_until_ms(600_000, 120_000), 565_000);
        assert_eq!(use_until_ms(6_000_000, 600_000), 5_900_000);
        assert_eq!(use_until_ms(10_000_000, 7_200_000), 10_000_000 - 600_000);
    }

    #[test]
    fn what_is_held_follows_what_there_is() {
        let hold = |scope: Scope, available| {
            holding(
                &scope,
                &price(),
                micro(1_000_000),
                micro(100_000_000),
                micro(available),
            )
        };
        let request = scope(728, Some(1_000));
        assert_eq!(hold(request, 10_000_000), Holding::Whole(micro(1_000_000)));
        assert_eq!(hold(request, 1_000_000), Holding::Whole(micro(500_000)));
        assert_eq!(hold(request, 3_000), Holding::Whole(micro(2_000)));
        assert_eq!(hold(request, 2_000), Holding::Whole(micro(2_000)));
        let insufficient = Holding::Insufficient {
            needed: micro(2_000),
            available: micro(1_999),
        };
        assert_eq!(hold(request, 1_999), insufficient);
        let open_ended = scope(728, None);
        let shortened = Holding::Shortened {
            limit: micro(1_999),
            output_tokens: 999,
        };
        assert_eq!(hold(open_ended, 1_999), shortened);
        assert!(matches!(hold(open_ended, 1_015), Holding::Insufficient { .. }));
        assert!(matches!(
            hold(open_ended, 1_016),
            Holding::Shortened {
                output_tokens: 16,
                ..
            }
        ));
    }

    #[test]
    fn what_is_left_of_a_cap_shortens_an_answer_of_open_length() {
        let tokens = |scope: Scope, left| scope.affordable_with(&price(), left).output_tokens();
        let open_ended = scope(728, None);
        assert_eq!(tokens(open_ended, None), 4_096);
        assert_eq!(tokens(open_ended, Some(micro(1_000_000))), 4_096);
        assert_eq!(tokens(open_ended, Some(micro(1_999))), 999);
        assert_eq!(tokens(open_ended, Some(micro(1_000))), 4_096, "not worth having");
        assert_eq!(tokens(scope(728, Some(4_000)), Some(micro(1_999))), 4_000);
    }

    #[test]
    fn a_coordinators_limit_bounds_a_channel() {
        let hold = |scope| {
            holding(
                &scope,
                &price(),
                micro(1_000_000),
                micro(2_500),
                micro(10_000_000),
            )
        };
        assert_eq!(hold(scope(728, Some(1_000))), Holding::Whole(micro(2_500)));
        assert_eq!(
            hold(scope(728, None)),
            Holding::Shortened {
                limit: micro(2_500),
                output_tokens: 1_500
            }
        );
        assert!(matches!(
            hold(scope(728, Some(1_501))),
            Holding::Insufficient { .. }
        ));
    }

    proptest! {
        /// What is held always covers what the request can cost, and never exceeds what there is.
        #[test]
        fn holdings_cover_and_fit(
            body_bytes in 0u64..100_000,
            output in proptest::option::of(1u64..10_000),
            choices in 1u64..5,
            input_price in 0u32..2_000_000,
            output_price in 0u32..2_000_000,
            available in 0u32..2_000_000,
            limit_max in 1u32..2_000_000,
            usual in 1u32..2_000_000,
        ) {
            let scope = Scope { choices, ..scope(body_bytes, output) };
            let price = Price::per_million_tokens(micro(input_price), micro(output_price));
            let cost = |tokens| scope.cost_max(&price, tokens).unwrap();
            match holding(&scope, &price, micro(usual), micro(limit_max), micro(available)) {
                Holding::Whole(limit) => {
                    prop_assert!(cost(scope.output_tokens()) <= limit);
                    prop_assert!(limit <= micro(available).min(micro(limit_max)));
                }
                Holding::Shortened { limit, output_tokens } => {
                    prop_assert!(output.is_none() && output_tokens < scope.output_tokens());
                    prop_assert!(cost(output_tokens) <= limit && cost(output_tokens + 1) > limit);
                    prop_assert!(limit <= micro(available).min(micro(limit_max)));
                }
                Holding::Insufficient { needed, .. } => {
                    prop_assert!(needed > micro(available).min(micro(limit_max)));
                }
            }
        }
    }
}
