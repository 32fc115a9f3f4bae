//! One answer as it is written: chooses token after token. Blocks the thread it is on.

use std::collections::VecDeque;

use llguidance::toktrie::SimpleVob;

use super::chunk::FinishReason;
use super::decoder::{Decoder, Memory};
use super::detokenizer::Detokenizer;
use super::grammar::{Grammar, GrammarError};
use super::logprobs::{TokenLogprob, logprobs};
use super::model::LoadedModel;
use super::sampling::{Sampler, Sampling};
use super::stop::StopScanner;
use super::weights::first_line;
use crate::engine::EngineError;
use crate::engine::refusal::{engine_failed, invalid_request, schema_too_costly};

pub(super) mod continuation;

/// How much of a prompt is read between two looks at whether the job was cancelled.
const PROMPT_TOKENS_AT_ONCE: usize = 128;
/// The same where the logits after each token are wanted, which take much more memory.
const EACH_TOKENS_AT_ONCE: usize = 16;

/// What an answer is to be.
pub(super) struct AnswerPlan {
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
    /// Whether the same request gives the same answer.
    pub(super) is_repeatable: bool,
    pub(super) stops: Vec<String>,
    /// Most tokens of the answer.
    pub(super) tokens_max: usize,
    /// How many alternatives to each token are wanted, where log-probabilities are.
    pub(super) logprobs: Option<usize>,
    /// What the whole answer must be.
    pub(super) grammar: Option<Grammar>,
}

/// A prompt that was read.
pub(super) struct ReadPrompt {
    pub(super) memory: Memory,
    /// The logits of the first token of the answer.
    pub(super) logits: Vec<f32>,
}

impl ReadPrompt {
    /// Reads a prompt; none where `is_over` says that nobody wants the answer.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run.
    pub(super) fn read(
        decoder: &Decoder,
        prompt: &[u32],
        is_over: impl Fn() -> bool,
    ) -> Result<Option<Self>, EngineError> {
        let mut memory = decoder.memory();
        let mut logits = Vec::new();
        for part in prompt.chunks(PROMPT_TOKENS_AT_ONCE) {
            if is_over() {
                return Ok(None);
            }
            logits = decoder.read(part, &mut memory).map_err(|error| failed(&error))?;
        }
        Ok(Some(Self { memory, logits }))
    }

    /// Reads a prompt as [`ReadPrompt::read`] does, and how likely each of its tokens but the first was.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run.
    pub(super) fn judge(
        decoder: &Decoder,
        prompt: &[u32],
        top: usize,
        is_over: impl Fn() -> bool,
    ) -> Result<Option<(Self, Vec<TokenLogprob>)>, EngineError> {
        let mut memory = decoder.memory();
        let mut judged = Vec::with_capacity(prompt.len());
        let mut logits: Vec<f32> = Vec::new();
        for part in prompt.chunks(EACH_TOKENS_AT_ONCE) {
            if is_over() {
                return Ok(None);
            }
            let each = decoder
                .read_each(part, &mut memory)
                .map_err(|error| failed(&error))?;
            for (token, next) in part.iter().zip(each) {
                if !logits.is_empty() {
                    judged.push(logprobs(&logits, *token, top, 0));
                }
                logits = next;
            }
        }
        Ok(Some((Self { memory, logits }, judged)))
    }

    /// Another one, for another answer to the same prompt.
    ///
    /// # Errors
    /// [`EngineError`] where there is no memory for it.
    pub(super) fn copy(&self) -> Result<Self, EngineError> {
        let memory = self
            .memory
            .first(self.memory.tokens())
            .map_err(|error| failed(&error))?;
        Ok(Self {
            memory,
            logits: self.logits.clone(),
        })
    }
}

/// Some more of an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Written {
    /// Possibly nothing yet.
    pub(super) text: String,
    /// The tokens that the text is of, where they are wanted.
    pub(super) logprobs: Vec<TokenLogprob>,
    /// Why nothing follows, where that is so.
    pub(super) finish: Option<FinishReason>,
}

/// What comes next for the decoder.
enum Next {
    /// The logits of the next token are known.
    Choose(Vec<f32>),
    /// This token is to be read first.
    Read(u32),
}

/// An answer being written.
pub(super) struct Answer<'m> {
    model: &'m LoadedModel,
    memory: Memory,
    next: Next,
    sampler: Sampler,
    is_repeatable: bool,
    grammar: Option<Grammar>,
    /// Whether the answer is over with its grammar.
    ends_with_grammar: bool,
    detokenizer: Detokenizer<'m>,
    stops: StopScanner,
    /// What the next tokens must begin with: the end of the text that is continued.
    forced: Vec<u8>,
    /// How many bytes of text to come are out already.
    skipped: usize,
    tokens_max: usize,
    written: usize,
    wanted_logprobs: Option<usize>,
    /// Tokens whose text is not out yet.
    pending: VecDeque<TokenLogprob>,
    /// How many bytes of text were written, and how many are out.
    text_bytes: usize,
    out_bytes: usize,
}

impl<'m> Answer<'m> {
    /// An answer of which nothing is written yet.
    pub(super) fn new(model: &'m LoadedModel, prompt: ReadPrompt, plan: AnswerPlan) -> Self {
        Self {
            model,
            memory: prompt.memory,
            next: Next::Choose(prompt.logits),
            sampler: Sampler::new(plan.sampling, plan.seed),
            is_repeatable: plan.is_repeatable,
            ends_with_grammar: plan.grammar.is_some(),
            grammar: plan.grammar,
            detokenizer: Detokenizer::new(&model.text.tokenizer),
            stops: StopScanner::new(plan.stops),
            forced: Vec::new(),
            skipped: 0,
            tokens_max: plan.tokens_max,
            written: 0,
            wanted_logprobs: plan.logprobs,
            pending: VecDeque::new(),
            text_bytes: 0,
            out_bytes: 0,
        }
    }

    /// How many tokens were written, without the one that ends the answer.
    pub(super) const fn written(&self) -> usize {
        self.written
    }

    /// Whether all text of the tokens so far is out.
    pub(super) fn is_all_out(&self) -> bool {
        self.stops.is_empty() && self.detokenizer.is_all_out() && self.forced.is_empty()
    }

    /// Holds what follows to a grammar, of which `begun` is written already. After it, the answer is free again.
    /// Where the beginning is not of the grammar, nothing changes.
    pub(super) fn hold_to(&mut self, mut grammar: Grammar, begun: &str) {
        let Some(vocabulary) = self.model.vocabulary.as_ref() else {
            return;
        };
        if self.grammar.is_none() && grammar.accept(&vocabulary.any_tokens(begun.as_bytes())).is_ok() {
            self.grammar = Some(grammar);
            self.ends_with_grammar = false;
        }
    }

    /// Writes one more token; none where `is_over` says that nobody wants it.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run.
    pub(super) fn step(&mut self, is_over: impl Fn() -> bool) -> Result<Option<Written>, EngineError> {
        if is_over() {
            return Ok(None);
        }
        if self.written >= self.tokens_max {
            return self.finish(FinishReason::Length, String::new()).map(Some);
        }
        let logits = match std::mem::replace(&mut self.next, Next::Choose(Vec::new())) {
            Next::Choose(logits) => logits,
            Next::Read(token) => {
                let read = self.model.decoder.read(&[token], &mut self.memory);
                read.map_err(|error| failed(&error))?
            }
        };
        let token = self.choose(&logits, true)?;
        self.sampler.record(token);
        if self.model.text.end_tokens.contains(&token) {
            return self.finish(FinishReason::Stop, String::new()).map(Some);
        }
        self.take(token, &logits).map(Some)
    }

    /// The next token, of those that grammar and forced text allow.
    fn choose(&mut self, logits: &[f32], is_forced: bool) -> Result<u32, EngineError> {
        let mut allowed = logits.to_vec();
        if let Some(grammar) = &mut self.grammar {
            keep_only(
                &mut allowed,
                &grammar.allowed().map_err(|error| off_grammar(&error))?,
            );
        }
        let is_forced = is_forced && !self.forced.is_empty();
        if is_forced && let Some(vocabulary) = &self.model.vocabulary {
            keep_only(&mut allowed, &vocabulary.fitting(&self.forced));
        }
        self.sampler.choose(allowed).map_err(|_| {
            if is_forced {
                let message = "the text that is to be continued can't be written with this model's tokens";
                invalid_request("messages", message)
            } else {
                engine_failed("it gave no numbers to choose from")
            }
        })
    }

    /// Takes a chosen token into the answer.
    fn take(&mut self, token: u32, logits: &[f32]) -> Result<Written, EngineError> {
        let is_new = self.reaches_beyond_forced(token);
        if is_new {
            self.written += 1;
            if let Some(top) = self.wanted_logprobs {
                self.pending
                    .push_back(logprobs(logits, token, top, self.text_bytes));
            }
        }
        let mut is_whole = false;
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(&[token]).map_err(|error| off_grammar(&error))?;
            is_whole = grammar.is_complete();
        }
        let piece = self
            .detokenizer
            .push(token)
            .map_err(|error| engine_failed(first_line(&error)))?;
        let scanned = self.scan(&piece);
        if scanned.1 {
            return Ok(self.let_out(scanned.0, Some(FinishReason::Stop)));
        }
        if is_whole {
            self.grammar = None;
            if self.ends_with_grammar {
                return self.finish(FinishReason::Stop, scanned.0);
            }
        }
        if self.written >= self.tokens_max {
            return self.finish(FinishReason::Length, scanned.0);
        }
        self.next = Next::Read(token);
        Ok(self.let_out(scanned.0, None))
    }

    /// Goes past forced text; whether the token brings more than that.
    fn reaches_beyond_forced(&mut self, token: u32) -> bool {
        if self.forced.is_empty() {
            return true;
        }
        let own = self
            .model
            .vocabulary
            .as_ref()
            .map_or(0, |vocabulary| vocabulary.bytes(token).len());
        let is_beyond = own > self.forced.len();
        self.forced.drain(..own.min(self.forced.len()));
        is_beyond
    }

    /// What of a piece of text may go out, and whether a stop string ends the answer.
    fn scan(&mut self, piece: &str) -> (String, bool) {
        let skipped = piece.floor_char_boundary(self.skipped.min(piece.len()));
        self.skipped -= skipped;
        let new = &piece[skipped..];
        self.text_bytes += new.len();
        let scanned = self.stops.push(new);
        (scanned.text, scanned.stopped)
    }

    /// Lets out what was held back.
    fn finish(&mut self, reason: FinishReason, mut text: String) -> Result<Written, EngineError> {
        let rest = self
            .detokenizer
            .finish()
            .map_err(|error| engine_failed(first_line(&error)))?;
        let (more, is_stopped) = self.scan(&rest);
        text.push_str(&more);
        if is_stopped {
            return Ok(self.let_out(text, Some(FinishReason::Stop)));
        }
        text.push_str(&self.stops.finish());
        let mut written = self.let_out(text, Some(reason));
        written.logprobs.extend(self.pending.drain(..));
        Ok(written)
    }

    fn let_out(&mut self, text: String, finish: Option<FinishReason>) -> Written {
        self.out_bytes += text.len();
        let is_out = |token: &TokenLogprob| token.start < self.out_bytes;
        let count = self.pending.iter().take_while(|token| is_out(token)).count();
        Written {
            text,
            logprobs: self.pending.drain(..count).collect(),
            finish,
        }
    }
}

/// Makes every other token impossible.
fn keep_only(logits: &mut [f32], allowed: &SimpleVob) {
    for (token, logit) in (0u32..).zip(logits) {
        if token as usize >= allowed.len() || !allowed.is_allowed(token) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn failed(error: &candle_core::Error) -> EngineError {
    engine_failed(first_line(error))
}

fn off_grammar(error: &GrammarError) -> EngineError {
    schema_too_costly(error)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::DType;

    use super::super::tiny_models::{self, Family};
    use super::*;
    use crate::engine::model_files::ModelFiles;

    fn model() -> LoadedModel {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), Family::Llama, 2, DType::F32, 1);
        let mut model = LoadedModel::load(&ModelFiles::open(folder.path()).unwrap(), None).unwrap();
        model.text.end_tokens.clear();
        model
    }

    fn answer(model: &LoadedModel, plan: impl FnOnce(&mut AnswerPlan)) -> Answer<'_> {
        let mut planned = AnswerPlan {
            sampling: Sampling {
                top_p: 1.0,
                ..Sampling::default()
            },
            seed: 0,
            is_repeatable: true,
            stops: Vec::new(),
            tokens_max: 5,
            logprobs: None,
            grammar: None,
        };
        plan(&mut planned);
        let prompt = ReadPrompt::read(&model.decoder, &[1, 1, 1], || false)
            .unwrap()
            .unwrap();
        Answer::new(model, prompt, planned)
    }

    #[test]
    fn a_long_prompt_can_be_given_up_within() {
        let model = model();
        let looks = Cell::new(0);
        let over_at_second_look = || {
            looks.set(looks.get() + 1);
            looks.get() == 2
        };
        let prompt = vec![1; 3 * PROMPT_TOKENS_AT_ONCE];
        let read = ReadPrompt::read(&model.decoder, &prompt, over_at_second_look).unwrap();
        assert!(read.is_none() && looks.get() == 2);
        looks.set(0);
        let judged = ReadPrompt::judge(&model.decoder, &prompt, 0, over_at_second_look).unwrap();
        assert!(judged.is_none() && looks.get() == 2);
    }

    #[test]
    fn each_step_writes_one_token_and_looks_before() {
        let model = model();
        let mut whole = answer(&model, |_| {});
        for written in 1..=4 {
            assert_eq!(whole.step(|| false).unwrap().unwrap().finish, None);
            assert_eq!(whole.written(), written);
        }
        let last = whole.step(|| false).unwrap().unwrap();
        assert_eq!(last.finish, Some(FinishReason::Length));
        let mut abandoned = answer(&model, |_| {});
        abandoned.step(|| false).unwrap();
        assert_eq!(abandoned.step(|| true).unwrap(), None);
        assert_eq!(abandoned.written(), 1);
    }

    #[test]
    fn logprobs_come_with_the_text_of_their_tokens_and_none_for_what_a_stop_string_took() {
        let model = model();
        let run = |stops: Vec<String>| {
            let mut answer = answer(&model, |plan| {
                plan.tokens_max = 30;
                plan.logprobs = Some(1);
                plan.stops = stops;
            });
            let (mut text, mut tokens) = (String::new(), Vec::new());
            loop {
                let written = answer.step(|| false).unwrap().unwrap();
                text.push_str(&written.text);
                tokens.extend(written.logprobs);
                assert!(tokens.iter().all(|token| token.start <= text.len()));
                if written.finish.is_some() {
                    return (text, tokens);
                }
            }
        };
        let (text, tokens) = run(Vec::new());
        assert_eq!(tokens.len(), 30);
        // Temperature zero takes the likeliest token always.
        assert!(
            tokens
                .iter()
                .all(|token| token.top == [(token.token, token.logprob)])
        );
        let stop: String = text.chars().skip(5).take(3).collect();
        let (cut, before) = run(vec![stop]);
        assert!(cut.len() < text.len() && before.len() < 30);
        assert!(before.iter().all(|token| token.start < cut.len()));
    }

    #[test]
    fn a_prompts_own_tokens_can_be_judged() {
        let model = model();
        let (prompt, judged) = ReadPrompt::judge(&model.decoder, &[7; 40], 2, || false)
            .unwrap()
            .unwrap();
        assert_eq!((judged.len(), judged[0].token, judged[0].top.len()), (39, 7, 2));
        let plain = ReadPrompt::read(&model.decoder, &[7; 40], || false)
            .unwrap()
            .unwrap();
        let farthest = prompt
            .logits
            .iter()
            .zip(&plain.logits)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(farthest < 1e-3);
    }
}
