//! The fields of `/v1/completions`.

use gristmill_protocol::listing::Capability;

use crate::core::failure::ApiFailure;
use crate::core::request::input::Input;
use crate::core::request::read::{self, missing, optional};
use crate::core::request::{CHOICES_MAX, COMPLETIONS_MAX, Fields, ProgramRequest};

/// The output tokens of a completion that sets no limit: OpenAI's API reference, "Create completion", `max_tokens`.
pub(super) const OUTPUT_TOKENS_DEFAULT: u64 = 16;

impl ProgramRequest {
    pub(super) fn with_completions_fields(self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let expected = "a text, or a list of texts or of tokens";
        let prompt: Input = optional(fields.prompt, "prompt", expected)?.ok_or_else(|| missing("prompt"))?;
        let mut request = self.with_stream_fields(fields)?;
        let wanted = read::count(fields.n, "n", CHOICES_MAX)?;
        let made = read::count(fields.best_of, "best_of", CHOICES_MAX)?.max(wanted);
        request.choices = prompt.count.saturating_mul(made);
        if request.choices > COMPLETIONS_MAX {
            let message = format!(
                "'prompt' has {} prompts, which with 'n' and 'best_of' come to {} answers; ask for at most \
                 {COMPLETIONS_MAX}",
                prompt.count, request.choices
            );
            return Err(ApiFailure::invalid_request(message).at("prompt"));
        }
        // Zero asks for the logprobs of an echoed prompt alone.
        let limit = read::output_limit(fields.max_tokens, "max_tokens", 0)?;
        request.output_tokens_max = match fields.max_tokens {
            None => Some(OUTPUT_TOKENS_DEFAULT),
            Some(_) => limit,
        };
        request.need(prompt.is_tokens, Capability::TokenInput, "prompt");
        request.need(
            made > 1,
            Capability::ManyChoices,
            if wanted > 1 { "n" } else { "best_of" },
        );
        let echo = optional(fields.echo, "echo", "true or false")?.unwrap_or(false);
        request.need(echo, Capability::Echo, "echo");
        let suffix: Option<String> = optional(fields.suffix, "suffix", "a text")?;
        request.need(
            suffix.is_some_and(|suffix| !suffix.is_empty()),
            Capability::Suffix,
            "suffix",
        );
        let logprobs = read::whole(fields.logprobs, "logprobs")?;
        request.need(logprobs.is_some(), Capability::Logprobs, "logprobs");
        request.need_bias_and_seed(fields)?;
        Ok(request)
    }
}
