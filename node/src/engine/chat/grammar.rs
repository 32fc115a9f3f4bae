//! Grammars that an answer must follow: JSON of a schema and calls of tools, compiled by llguidance.
//!
//! A schema comes from a stranger. Its size, the time its compiling takes and the work at each token are bounded, and
//! what llguidance says about it never repeats what was written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use thiserror::Error;

use super::vocabulary::Vocabulary;

/// Most bytes of the schemas of one request.
pub(super) const SCHEMA_MAX_BYTES: usize = 256 * 1024;
/// Most white space at once: without a bound, a model can write nothing else for ever.
const WHITE_SPACE: &str = r"[\x20\x0A]{1,40}";

/// What keeps a grammar from being used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum GrammarError {
    /// There is too much of it.
    #[error("it has {found_bytes} bytes, and at most {SCHEMA_MAX_BYTES} are allowed")]
    TooLarge {
        /// How large it is.
        found_bytes: usize,
    },
    /// It says what can't be said here, or nothing can be of it.
    #[error("{0}")]
    NotCompiled(String),
    /// The text so far is not of the grammar, or the grammar is too costly to follow.
    #[error("the answer could not be held to its grammar: {0}")]
    Broken(String),
}

/// Compiles grammars for one model.
pub(super) struct GrammarCompiler {
    factory: ParserFactory,
}

impl GrammarCompiler {
    /// A compiler for a model's tokens; none where llguidance can't work with them.
    pub(super) fn new(vocabulary: &Vocabulary) -> Option<Self> {
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let built = catch_unwind(AssertUnwindSafe(|| {
            ParserFactory::new(
                vocabulary.environment(),
                InferenceCapabilities::default(),
                &slices,
            )
        }));
        let mut factory = built.ok()?.ok()?;
        *factory.limits_mut() = ParserLimits {
            // A state takes one or two kilobytes.
            max_lexer_states: 50_000,
            // Its messages would carry the text of the answer.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        factory.quiet();
        Some(Self { factory })
    }

    /// A grammar for any JSON object.
    ///
    /// # Errors
    /// [`GrammarError`] where it can't be compiled.
    pub(super) fn json_object(&self) -> Result<Grammar, GrammarError> {
        self.json_schema(&json!({"type": "object"}), true)
    }

    /// A grammar for JSON of a schema. What is not strict may leave out what can't be held to.
    ///
    /// # Errors
    /// [`GrammarError`] where it can't be compiled.
    pub(super) fn json_schema(&self, schema: &Value, is_strict: bool) -> Result<Grammar, GrammarError> {
        let prepared = prepare(schema, is_strict)?;
        self.compile(TopLevelGrammar::from_json_schema(prepared))
    }

    /// A grammar in llguidance's own language, which holds schemas that were [prepared](prepare).
    ///
    /// # Errors
    /// [`GrammarError`] where it can't be compiled.
    pub(super) fn lark(&self, rules: String) -> Result<Grammar, GrammarError> {
        self.compile(TopLevelGrammar::from_lark(rules))
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Grammar, GrammarError> {
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            Matcher::new(self.factory.create_parser(grammar))
        }));
        let matcher = compiled.map_err(|_| GrammarError::NotCompiled("it makes no sense".to_owned()))?;
        if let Some(problem) = matcher.get_error() {
            return Err(GrammarError::NotCompiled(in_short(&problem)));
        }
        let mut grammar = Grammar { matcher };
        // Some grammars, such as a schema that refers to nothing but itself, turn out only here to have no beginning.
        match grammar.allowed() {
            Ok(_) => Ok(grammar),
            Err(_) => Err(GrammarError::NotCompiled(
                "nothing can be of it, or it is too costly to follow".to_owned(),
            )),
        }
    }
}

/// A schema as llguidance is to read it: with bounded white space, and strictly or not.
///
/// # Errors
/// [`GrammarError::TooLarge`].
pub(super) fn prepare(schema: &Value, is_strict: bool) -> Result<Value, GrammarError> {
    let found_bytes = schema.to_string().len();
    if found_bytes > SCHEMA_MAX_BYTES {
        return Err(GrammarError::TooLarge { found_bytes });
    }
    let mut prepared = schema.clone();
    if let Some(fields) = prepared.as_object_mut() {
        let guidance = json!({"whitespace_pattern": WHITE_SPACE, "lenient": !is_strict});
        fields.insert("x-guidance".to_owned(), guidance);
    }
    Ok(prepared)
}

/// The first line of a message, with the last one where the first only leads up to it, and not too much of them.
fn in_short(problem: &str) -> String {
    let first = problem.lines().next().unwrap_or_default();
    let last = problem.lines().last().unwrap_or_default().trim();
    let whole = if first.ends_with(':') {
        format!("{first} {last}")
    } else {
        first.to_owned()
    };
    whole.chars().take(300).collect()
}

/// How far one answer is in its grammar.
pub(super) struct Grammar {
    matcher: Matcher,
}

impl Grammar {
    /// The same grammar for another answer, as far as this one is.
    pub(super) fn fork(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
        }
    }

    /// The tokens that may come next, those that end the answer among them where it may end here.
    ///
    /// # Errors
    /// [`GrammarError::Broken`] where that takes too much work.
    pub(super) fn allowed(&mut self) -> Result<SimpleVob, GrammarError> {
        self.matcher
            .compute_mask_or_eos()
            .map_err(|error| broken(&error.to_string()))
    }

    /// Takes the next tokens in.
    ///
    /// # Errors
    /// [`GrammarError::Broken`] where they may not come here.
    pub(super) fn accept(&mut self, tokens: &[u32]) -> Result<(), GrammarError> {
        match self.matcher.try_consume_tokens(tokens) {
            Ok(taken) if taken == tokens.len() => Ok(()),
            Ok(_) => Err(broken("a token that may not come here")),
            Err(error) => Err(broken(&error.to_string())),
        }
    }

    /// Whether nothing may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn broken(problem: &str) -> GrammarError {
    GrammarError::Broken(in_short(problem))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::answer::ReadPrompt;
    use super::super::model::LoadedModel;
    use super::super::sampling::{Sampler, Sampling};
    use super::*;
    use crate::engine::guide;

    const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 40},
        "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
        "kind": {"enum": ["node", "client"]}}, "required": ["name", "ports", "kind"]}"#;

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    #[test]
    fn what_may_come_next_is_what_the_schema_says() {
        let model = LoadedModel::load(&guide::files(), None).unwrap();
        let (grammars, vocabulary) = (model.grammars.unwrap(), model.vocabulary.unwrap());
        let mut grammar = grammars
            .json_schema(&json!({"enum": ["ab", "ac"]}), true)
            .unwrap();
        let mut fork = grammar.fork();
        grammar.accept(&vocabulary.any_tokens(b"\"a")).unwrap();
        let next = grammar.allowed().unwrap();
        let texts = (0u32..).take(next.len()).filter(|token| next.is_allowed(*token));
        for token in texts {
            assert!(matches!(vocabulary.bytes(token), b"b" | b"c" | b"b\"" | b"c\""));
        }
        grammar.accept(&vocabulary.any_tokens(b"b\"")).unwrap();
        assert!(grammar.is_complete() && !fork.is_complete());
        fork.accept(&vocabulary.any_tokens(b"\"ac\"")).unwrap();
        let mut other = grammars.json_object().unwrap();
        assert!(other.accept(&vocabulary.any_tokens(b"[")).is_err());
    }

    /// Prints how much of the time of an answer its grammar takes. It asserts no time: machines differ.
    #[test]
    #[expect(clippy::print_stdout, reason = "the figures are for whoever runs it")]
    fn the_share_of_a_grammar_in_the_time_of_an_answer() {
        let model = LoadedModel::load(&guide::files(), None).unwrap();
        let begun = Instant::now();
        let compiled = model
            .grammars
            .as_ref()
            .unwrap()
            .json_schema(&schema(), true)
            .unwrap();
        let compiling = begun.elapsed();
        let (mut tokens, mut masks, mut whole) = (0u32, Duration::ZERO, Duration::ZERO);
        for seed in 0..4 {
            let mut grammar = compiled.fork();
            let (
                ReadPrompt {
                    mut memory,
                    mut logits,
                },
                mut sampler,
            ) = (
                ReadPrompt::read(&model.decoder, &[1, 2, 3], || false)
                    .unwrap()
                    .unwrap(),
                Sampler::new(
                    Sampling {
                        temperature: 1.0,
                        top_p: 1.0,
                        ..Sampling::default()
                    },
                    seed,
                ),
            );
            for _ in 0..60 {
                let start = Instant::now();
                let allowed = grammar.allowed().unwrap();
                masks += start.elapsed();
                for (token, logit) in (0u32..).zip(&mut logits) {
                    if !allowed.is_allowed(token) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
                let token = sampler.choose(logits).unwrap();
                sampler.record(token);
                grammar.accept(&[token]).unwrap();
                logits = model.decoder.read(&[token], &mut memory).unwrap();
                whole += start.elapsed();
                tokens += 1;
                if grammar.is_complete() {
                    break;
                }
            }
        }
        println!(
            "compiled in {compiling:?}; {tokens} tokens: masks {:?} of {:?} each, {:.1} %",
            masks / tokens,
            whole / tokens,
            100.0 * masks.as_secs_f64() / whole.as_secs_f64()
        );
        assert!(tokens > 4);
    }
}
