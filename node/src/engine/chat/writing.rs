//! Writes the answers to one request, and meters them.

use gristmill_protocol::content::OUTPUT_TOKENS_WITHOUT_TEXT_MAX;
use gristmill_protocol::usage::Usage;

use super::Delivery;
use super::answer::{Answer, ReadPrompt, Written};
use super::chunk::{ChunkKind, ChunkWriter, FinishReason};
use super::grammar::Grammar;
use super::logprobs::TokenLogprob;
use super::model::LoadedModel;
use super::plan::{JobPlan, PromptPlan};
use super::tool_calls::{CallReader, Part};
use crate::engine::EngineError;

/// What was used so far.
#[derive(Default)]
struct Meter {
    input_tokens: u64,
    output_tokens: u64,
    text_bytes: u64,
}

impl Meter {
    /// Tokens that leave no text, such as the markup of calls, count only as far as a consumer takes them on trust.
    fn usage(&self) -> Usage {
        if self.input_tokens == 0 {
            return Usage::new();
        }
        let most = self.text_bytes.saturating_add(OUTPUT_TOKENS_WITHOUT_TEXT_MAX);
        Usage::tokens(self.input_tokens, self.output_tokens.min(most))
    }
}

/// Writes the answers to one request.
pub(super) struct Writing<'a> {
    model: &'a LoadedModel,
    plan: &'a JobPlan,
    chunks: &'a ChunkWriter,
    delivery: &'a Delivery,
    meter: Meter,
}

/// A choice as it is written.
struct Choice<'m> {
    index: u32,
    answer: Answer<'m>,
    calls: Option<CallReader>,
    /// Whether its first chunk is out.
    is_begun: bool,
    /// How many characters of text are out.
    characters: usize,
    /// How many of its tokens are in the meter.
    metered: usize,
}

impl<'a> Writing<'a> {
    pub(super) fn new(
        model: &'a LoadedModel,
        plan: &'a JobPlan,
        chunks: &'a ChunkWriter,
        delivery: &'a Delivery,
    ) -> Self {
        Self {
            model,
            plan,
            chunks,
            delivery,
            meter: Meter::default(),
        }
    }

    /// Writes all answers to their ends, or until nobody wants them, and returns what was used.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run.
    pub(super) fn run(mut self) -> Result<Usage, EngineError> {
        let mut index = 0;
        for prompt in &self.plan.prompts {
            if !self.write_choices(prompt, &mut index)? {
                break;
            }
        }
        Ok(self.meter.usage())
    }

    /// The answers to one prompt, one after the other; false where nobody wants them.
    fn write_choices(&mut self, prompt: &PromptPlan, index: &mut u32) -> Result<bool, EngineError> {
        let Some((read, judged)) = self.read_prompt(prompt)? else {
            return Ok(false);
        };
        let continued = self.plan.continued.as_ref();
        let known = continued.map_or(0, super::answer::continuation::Continued::tokens_max);
        let input = (prompt.tokens.len() + known) as u64;
        let mut read = Some(read);
        for choice in 0..self.plan.choices {
            let is_last = choice + 1 == self.plan.choices;
            let start = match (&read, is_last) {
                (Some(_), true) => read.take(),
                (Some(read), false) => Some(read.copy()?),
                (None, _) => None,
            };
            let Some(start) = start else { break };
            let mut choice = self.choice(*index, start, prompt);
            *index += 1;
            if let Some(continued) = continued
                && !choice.answer.go_on_after(continued, || self.delivery.is_over())?
            {
                return Ok(false);
            }
            if is_first_of_prompt(choice.index, self.plan.choices) {
                self.meter.input_tokens += input;
            }
            if !self.echo(&mut choice, prompt, judged.as_deref())? || !self.write_choice(choice)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[expect(
        clippy::type_complexity,
        reason = "a prompt, and how likely its tokens were where that is asked"
    )]
    fn read_prompt(
        &self,
        prompt: &PromptPlan,
    ) -> Result<Option<(ReadPrompt, Option<Vec<TokenLogprob>>)>, EngineError> {
        let is_over = || self.delivery.is_over();
        let decoder = &self.model.decoder;
        match (self.plan.logprobs, &prompt.echo) {
            (Some(top), Some(_)) => {
                let judged = ReadPrompt::judge(decoder, &prompt.tokens, top, is_over)?;
                Ok(judged.map(|(read, tokens)| (read, Some(tokens))))
            }
            _ => Ok(ReadPrompt::read(decoder, &prompt.tokens, is_over)?.map(|read| (read, None))),
        }
    }

    fn choice(&self, index: u32, start: ReadPrompt, prompt: &PromptPlan) -> Choice<'a> {
        let answer = Answer::new(self.model, start, self.plan.answer(prompt, index));
        let calls = self.plan.calls.as_ref().map(|calls| {
            let mut reader = CallReader::new(calls.syntax, calls.names.clone(), calls.certainty);
            if self.plan.continued.is_some() {
                reader.go_on_after_text();
            }
            reader
        });
        Choice {
            index,
            answer,
            calls,
            is_begun: false,
            characters: 0,
            metered: 0,
        }
    }

    /// The prompt before its answer, where that is asked; false where nobody wants it.
    fn echo(
        &mut self,
        choice: &mut Choice<'_>,
        prompt: &PromptPlan,
        judged: Option<&[TokenLogprob]>,
    ) -> Result<bool, EngineError> {
        let Some(echo) = &prompt.echo else {
            return Ok(true);
        };
        let first = prompt.tokens.first().copied().unwrap_or_default();
        let logprobs = judged.map(|tokens| self.model.token_text().echoed(first, tokens));
        self.meter.text_bytes += echo.len() as u64;
        choice.characters += echo.chars().count();
        Ok(self.send(self.chunks.content(choice.index, echo, logprobs)))
    }

    /// One answer to its end; false where nobody wants it.
    fn write_choice(&mut self, mut choice: Choice<'_>) -> Result<bool, EngineError> {
        loop {
            let Some(written) = choice.answer.step(|| self.delivery.is_over())? else {
                return Ok(false);
            };
            self.meter.output_tokens += (choice.answer.written() - choice.metered) as u64;
            choice.metered = choice.answer.written();
            // The first chunk waits for the prompt to be read, so that a failure until then has a status.
            if !choice.is_begun {
                choice.is_begun = true;
                if let Some(role) = self.chunks.role(choice.index)
                    && !self.send(role)
                {
                    return Ok(false);
                }
            }
            let mut finish = written.finish;
            if !self.let_out(&mut choice, written, &mut finish) {
                return Ok(false);
            }
            if let Some(reason) = finish {
                return Ok(self.send(self.chunks.finish(choice.index, reason)));
            }
        }
    }

    /// Sends what was written, told into text and calls; false where nobody wants it.
    fn let_out(
        &mut self,
        choice: &mut Choice<'_>,
        written: Written,
        finish: &mut Option<FinishReason>,
    ) -> bool {
        let Some(mut reader) = choice.calls.take() else {
            return self.send_text(choice, &written.text, written.logprobs);
        };
        let mut parts = reader.push(&written.text);
        let only_one = self.plan.calls.as_ref().is_some_and(|calls| calls.only_one);
        if only_one && reader.complete() > 0 && finish.is_none() {
            *finish = Some(FinishReason::Stop);
        }
        if finish.is_some() {
            parts.extend(reader.finish());
        }
        if reader.calls() > 0 && *finish == Some(FinishReason::Stop) {
            *finish = Some(FinishReason::ToolCalls);
        }
        let first_call = reader.calls() - parts.iter().filter(|part| matches!(part, Part::Call(_))).count();
        self.hold_to_call(choice, &reader);
        choice.calls = Some(reader);
        self.send_parts(choice, parts, first_call, written.logprobs)
    }

    /// Holds a call that the model has just begun to the schemas of the tools.
    fn hold_to_call(&self, choice: &mut Choice<'_>, reader: &CallReader) {
        let grammar = self.plan.calls.as_ref().and_then(|calls| calls.grammar.as_ref());
        if let (Some(grammar), Some(begun), true) = (
            grammar.map(Grammar::fork),
            reader.begun_call(),
            choice.answer.is_all_out(),
        ) {
            choice.answer.hold_to(grammar, begun);
        }
    }

    fn send_parts(
        &mut self,
        choice: &mut Choice<'_>,
        parts: Vec<Part>,
        first_call: usize,
        logprobs: Vec<TokenLogprob>,
    ) -> bool {
        let mut calls = first_call;
        let mut logprobs = Some(logprobs);
        for part in parts {
            let is_wanted = match part {
                Part::Text(text) => {
                    let logprobs = logprobs.take().unwrap_or_default();
                    self.send_text(choice, &text, logprobs)
                }
                Part::Call(name) => {
                    calls += 1;
                    self.meter.text_bytes += name.len() as u64;
                    self.send(self.chunks.call(choice.index, calls - 1, &name))
                }
                Part::Arguments(text) => {
                    self.meter.text_bytes += text.len() as u64;
                    self.send(
                        self.chunks
                            .arguments(choice.index, calls.saturating_sub(1), &text),
                    )
                }
            };
            if !is_wanted {
                return false;
            }
        }
        true
    }

    fn send_text(&mut self, choice: &mut Choice<'_>, text: &str, logprobs: Vec<TokenLogprob>) -> bool {
        if text.is_empty() && logprobs.is_empty() {
            return true;
        }
        let tokens = self.model.token_text();
        let logprobs = self.plan.logprobs.is_some().then(|| match self.chunks.kind() {
            ChunkKind::Chat => tokens.chat(&logprobs),
            ChunkKind::Text => tokens.completion(&logprobs, choice.characters),
        });
        self.meter.text_bytes += text.len() as u64;
        choice.characters += text.chars().count();
        self.send(self.chunks.content(choice.index, text, logprobs))
    }

    fn send(&self, message: Vec<u8>) -> bool {
        self.delivery.send(message, self.meter.usage())
    }
}

/// Whether a choice is the first to its prompt: a prompt is read and paid once.
const fn is_first_of_prompt(index: u32, choices: u32) -> bool {
    index.is_multiple_of(choices)
}
