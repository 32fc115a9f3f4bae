//! What each server can honour beyond a plain request. The table stands in docs/guides/provider.md too.

use std::collections::BTreeSet;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;

use super::models::UpstreamKind;

/// Parts of the names of models that see. vLLM does not say.
const SIGHT_MARKS: [&str; 8] = [
    "-vl",
    "vision",
    "llava",
    "pixtral",
    "internvl",
    "minicpm-v",
    "gemma-3-",
    "omni",
];

/// What a server honours with every model. What depends on the model, or on how the server was started, is added by
/// [`super::models`] from what the server says and by [`super::trials`] from what it does.
pub(super) const fn of_software(kind: UpstreamKind) -> &'static [Capability] {
    use Capability as C;
    match kind {
        UpstreamKind::Vllm => &[
            C::StructuredOutput,
            C::StrictSchema,
            C::ForcedTools,
            C::Logprobs,
            C::ManyChoices,
            C::LogitBias,
            C::Seed,
            C::TokenInput,
            C::Echo,
        ],
        // A seed counts only where it was started with deterministic inference.
        UpstreamKind::SgLang => &[
            C::StructuredOutput,
            C::StrictSchema,
            C::ForcedTools,
            C::Logprobs,
            C::ManyChoices,
            C::LogitBias,
            C::TokenInput,
            C::Echo,
        ],
        // It reads a `tool_choice` that names a function as "auto", and most builds make one choice only.
        UpstreamKind::LlamaCpp => &[
            C::StructuredOutput,
            C::StrictSchema,
            C::Logprobs,
            C::LogitBias,
            C::Seed,
            C::TokenInput,
        ],
        // It ignores `tool_choice`, `n` and `logit_bias`, and takes texts only.
        UpstreamKind::Ollama => &[C::StructuredOutput, C::StrictSchema, C::Seed, C::Dimensions],
        // It forces no named function, makes one choice, and takes texts only.
        UpstreamKind::LmStudio => &[C::StructuredOutput, C::StrictSchema, C::LogitBias, C::Seed],
        UpstreamKind::Other => &[C::Passthrough],
    }
}

/// Whether a capability means something for a kind of job.
pub(super) const fn concerns(capability: Capability, kind: JobKind) -> bool {
    use Capability as C;
    if matches!(capability, C::Passthrough) {
        return true;
    }
    match kind {
        JobKind::ChatCompletions => {
            !matches!(capability, C::Dimensions | C::TokenInput | C::Echo | C::Suffix)
        }
        JobKind::Completions => matches!(
            capability,
            C::Logprobs | C::ManyChoices | C::LogitBias | C::Seed | C::TokenInput | C::Echo | C::Suffix
        ),
        JobKind::Embeddings => matches!(capability, C::Dimensions | C::TokenInput),
        JobKind::AudioTranscriptions | JobKind::AudioSpeech | JobKind::ImageGenerations | JobKind::Rerank => {
            false
        }
    }
}

/// What an offer of a kind says, of all that is known about its model.
pub(super) fn of_offer(known: &BTreeSet<Capability>, kind: JobKind) -> Vec<Capability> {
    // Every field of what is passed through reaches the server as it is.
    let passed = kind.is_passed_through().then_some(Capability::Passthrough);
    let said = known
        .iter()
        .copied()
        .filter(|capability| concerns(*capability, kind));
    said.chain(passed).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether a model of this name sees images, as far as its name tells.
pub(super) fn sees(id: &str) -> bool {
    let id = id.to_lowercase();
    SIGHT_MARKS.iter().any(|mark| id.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_say_what_concerns_their_kind() {
        let known: BTreeSet<_> = of_software(UpstreamKind::Vllm)
            .iter()
            .copied()
            .chain([Capability::ImageInput, Capability::Dimensions])
            .collect();
        let chat = of_offer(&known, JobKind::ChatCompletions);
        assert!(chat.contains(&Capability::ImageInput) && !chat.contains(&Capability::TokenInput));
        assert_eq!(
            of_offer(&known, JobKind::Embeddings),
            [Capability::Dimensions, Capability::TokenInput]
        );
        assert_eq!(
            of_offer(&known, JobKind::Completions),
            [
                Capability::Logprobs,
                Capability::ManyChoices,
                Capability::LogitBias,
                Capability::Seed,
                Capability::TokenInput,
                Capability::Echo
            ]
        );
        assert_eq!(of_offer(&known, JobKind::AudioSpeech), [Capability::Passthrough]);
    }

    #[test]
    fn only_unknown_servers_promise_everything() {
        for kind in [
            UpstreamKind::Ollama,
            UpstreamKind::Vllm,
            UpstreamKind::SgLang,
            UpstreamKind::LlamaCpp,
            UpstreamKind::LmStudio,
        ] {
            assert!(
                !of_software(kind).contains(&Capability::Passthrough),
                "{}",
                kind.name()
            );
            assert!(
                !of_software(kind).contains(&Capability::Continuation),
                "it is tried"
            );
        }
        assert_eq!(
            of_offer(
                &of_software(UpstreamKind::Other).iter().copied().collect(),
                JobKind::Completions
            ),
            [Capability::Passthrough]
        );
    }

    #[test]
    fn names_tell_who_sees() {
        assert!(sees("Qwen/Qwen2.5-VL-7B-Instruct") && sees("llava:7b"));
        assert!(!sees("Qwen/Qwen3-8B"));
    }
}
