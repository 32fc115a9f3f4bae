//! One answer as it is written: reads the prompt, then chooses token after token. Blocks the thread it is on.

use tokenizers::Tokenizer;

use super::chunk::FinishReason;
use super::decoder::{Decoder, Memory};
use super::detokenizer::Detokenizer;
use super::sampling::{Sampler, Sampling};
use super::stop::StopScanner;
use super::weights::first_line;
use crate::engine::EngineError;
use crate::engine::refusal::engine_failed;

/// How much of a prompt is read between two looks at whether the job was cancelled.
const PROMPT_TOKENS_AT_ONCE: usize = 128;

/// What an answer is to be.
pub(super) struct AnswerPlan {
    pub(super) prompt: Vec<u32>,
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
    pub(super) stops: Vec<String>,
    /// Most tokens of the answer; at least one.
    pub(super) tokens_max: usize,
}

/// What the next step of an answer brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some text, possibly none yet.
    Text(String),
    /// The last text, and why nothing follows.
    Finished(String, FinishReason),
    /// Nobody wants the rest.
    Abandoned,
}

/// An answer being written.
pub(super) struct Answer<'m> {
    decoder: &'m Decoder,
    end_tokens: &'m [u32],
    memory: Memory,
    sampler: Sampler,
    detokenizer: Detokenizer<'m>,
    stops: StopScanner,
    /// What the decoder has yet to read: the prompt at first, the last token later.
    unread: Vec<u32>,
    tokens_max: usize,
    written: usize,
}

impl<'m> Answer<'m> {
    /// An answer of which nothing is written yet.
    pub(super) fn new(
        decoder: &'m Decoder,
        tokenizer: &'m Tokenizer,
        end_tokens: &'m [u32],
        plan: AnswerPlan,
    ) -> Self {
        Self {
            decoder,
            end_tokens,
            memory: decoder.memory(),
            sampler: Sampler::new(plan.sampling, plan.seed),
            detokenizer: Detokenizer::new(tokenizer),
            stops: StopScanner::new(plan.stops),
            unread: plan.prompt,
            tokens_max: plan.tokens_max,
            written: 0,
        }
    }

    /// How many tokens were written, without the one that ends the answer.
    pub(super) const fn written(&self) -> usize {
        self.written
    }

    /// Writes one more token, unless `is_over` says that nobody wants it.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run.
    pub(super) fn step(&mut self, is_over: impl Fn() -> bool) -> Result<Step, EngineError> {
        let mut logits = Vec::new();
        let unread = std::mem::take(&mut self.unread);
        for part in unread.chunks(PROMPT_TOKENS_AT_ONCE) {
            if is_over() {
                return Ok(Step::Abandoned);
            }
            logits = self
                .decoder
                .read(part, &mut self.memory)
                .map_err(|error| engine_failed(first_line(&error)))?;
        }
        let token = self
            .sampler
            .choose(logits)
            .map_err(|_| engine_failed("it gave no numbers to choose from"))?;
        if self.end_tokens.contains(&token) {
            return self.finish(FinishReason::Stop, String::new());
        }
        self.written += 1;
        let piece = self
            .detokenizer
            .push(token)
            .map_err(|error| engine_failed(first_line(&error)))?;
        let scanned = self.stops.push(&piece);
        if scanned.stopped {
            return Ok(Step::Finished(scanned.text, FinishReason::Stop));
        }
        if self.written >= self.tokens_max {
            return self.finish(FinishReason::Length, scanned.text);
        }
        self.unread = vec![token];
        Ok(Step::Text(scanned.text))
    }

    /// Lets out what was held back.
    fn finish(&mut self, reason: FinishReason, mut text: String) -> Result<Step, EngineError> {
        let rest = self
            .detokenizer
            .finish()
            .map_err(|error| engine_failed(first_line(&error)))?;
        let scanned = self.stops.push(&rest);
        text.push_str(&scanned.text);
        if scanned.stopped {
            return Ok(Step::Finished(text, FinishReason::Stop));
        }
        text.push_str(&self.stops.finish());
        Ok(Step::Finished(text, reason))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::DType;

    use super::super::LoadedModel;
    use super::super::tiny_models::{self, Family};
    use super::*;
    use crate::engine::model_files::ModelFiles;

    fn model() -> LoadedModel {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), Family::Llama, 2, DType::F32, 1);
        LoadedModel::load(&ModelFiles::open(folder.path()).unwrap(), None).unwrap()
    }

    fn answer(model: &LoadedModel, prompt_tokens: usize) -> Answer<'_> {
        let plan = AnswerPlan {
            prompt: vec![1; prompt_tokens],
            sampling: Sampling {
                temperature: 0.0,
                top_p: 1.0,
                frequency_penalty: 0.0,
                presence_penalty: 0.0,
            },
            seed: 0,
            stops: Vec::new(),
            tokens_max: 5,
        };
        Answer::new(&model.decoder, &model.text.tokenizer, &[], plan)
    }

    #[test]
    fn a_long_prompt_can_be_given_up_within() {
        let model = model();
        let mut answer = answer(&model, 3 * PROMPT_TOKENS_AT_ONCE);
        let looks = Cell::new(0);
        let over_at_second_look = || {
            looks.set(looks.get() + 1);
            looks.get() == 2
        };
        assert_eq!(answer.step(over_at_second_look).unwrap(), Step::Abandoned);
        assert_eq!(
            (answer.memory.tokens(), answer.written()),
            (PROMPT_TOKENS_AT_ONCE, 0)
        );
    }

    #[test]
    fn each_step_writes_one_token_and_looks_before() {
        let model = model();
        let mut answer = answer(&model, 3);
        for written in 1..=4 {
            assert!(matches!(answer.step(|| false).unwrap(), Step::Text(_)));
            assert_eq!(answer.written(), written);
        }
        assert!(matches!(
            answer.step(|| false).unwrap(),
            Step::Finished(_, FinishReason::Length)
        ));
        let mut answer = self::answer(&model, 3);
        answer.step(|| false).unwrap();
        assert_eq!(answer.step(|| true).unwrap(), Step::Abandoned);
        assert_eq!(answer.written(), 1);
    }
}
