//! An engine that always writes the same text for the same request, and writes on where somebody else broke off.

use gristmill_protocol::job::JobFailed;
use serde_json::{Value, json};

use crate::provider::{Script, Step};

/// The prompt of every completion that it is asked for.
pub const PROMPT: &str = "What is Gristmill?";

/// How a model splits text into tokens.
#[derive(Clone, Copy)]
pub enum Tokens {
    /// Each word with what stands before it, as most tokenizers do.
    Words,
    /// So many letters, counted from where it begins to write: another model's tokens, or the same ones of another
    /// place.
    Letters(usize),
}

/// What it makes of a partial message.
#[derive(Clone, Copy, PartialEq)]
pub enum WithPartial {
    /// It writes on.
    GoOn,
    /// It does not look at it and starts anew.
    StartAnew,
    /// It writes on, and not what it would have written.
    SayElse(&'static str),
}

/// The engine.
#[derive(Clone)]
pub struct Writer {
    pub text: String,
    /// What it thinks before that.
    pub reasoning: String,
    pub tokens: Tokens,
    pub with_partial: WithPartial,
    /// What happens after so many tokens of its own.
    pub then: Option<(usize, Step)>,
}

impl Writer {
    pub fn of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            reasoning: String::new(),
            tokens: Tokens::Words,
            with_partial: WithPartial::GoOn,
            then: None,
        }
    }

    pub fn then(self, after_tokens: usize, step: Step) -> Self {
        Self {
            then: Some((after_tokens, step)),
            ..self
        }
    }

    pub fn script(self) -> Script {
        Script::Write(Box::new(self))
    }

    /// How many tokens it reads of a request, and what it then does. The last message of a chat, or the end of a
    /// prompt, is the part that it goes on from.
    pub fn run(&self, body: &[u8]) -> (u64, Vec<Step>) {
        let body: Value = serde_json::from_slice(body).unwrap();
        let prompt = body["prompt"].as_str().or_else(|| body["prompt"][0].as_str());
        let partial = match prompt {
            Some(prompt) => Some(prompt.strip_prefix(PROMPT).unwrap().to_owned()).filter(|it| !it.is_empty()),
            None => self.partial_message(&body),
        };
        let known = match self.with_partial {
            WithPartial::StartAnew => String::new(),
            _ => partial.clone().unwrap_or_default(),
        };
        let read = 4 + words(&partial.unwrap_or_default()).len() as u64;
        let Some(rest) = self.text.strip_prefix(&known) else {
            let lost = JobFailed::new(400, "no_continuation", "that is not how my answer begins", None);
            return (read, vec![Step::Fail(lost)]);
        };
        let rest = match self.with_partial {
            WithPartial::SayElse(other) if !known.is_empty() => other,
            _ => rest,
        };
        let limit = ["max_tokens", "max_completion_tokens"]
            .into_iter()
            .find_map(|name| body[name].as_u64())
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        let thought = match known.is_empty() {
            true => words(&self.reasoning),
            false => Vec::new(),
        };
        let thought = thought.into_iter().map(|word| (true, word));
        let said = self.split(rest).into_iter().map(|piece| (false, piece));
        let all: Vec<(bool, String)> = thought.chain(said).collect();
        let mut steps: Vec<Step> = all
            .iter()
            .take(limit)
            .zip(1..)
            .map(|((is_thought, piece), tokens)| {
                Step::Say(message(prompt.is_some(), *is_thought, piece), tokens)
            })
            .collect();
        let written = steps.len() as u64;
        let reason = if all.len() > limit { "length" } else { "stop" };
        steps.push(Step::Say(end(prompt.is_some(), reason), written));
        if let Some((after, step)) = &self.then {
            steps.truncate((*after).min(steps.len()));
            steps.push(step.clone());
        }
        (read, steps)
    }

    /// What stands in the assistant's partial message, where there is one to go on from.
    fn partial_message(&self, body: &Value) -> Option<String> {
        if body["continue_final_message"] != json!(true) {
            return None;
        }
        assert_eq!(body["add_generation_prompt"], json!(false));
        let last = body["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["role"], "assistant");
        if !self.reasoning.is_empty() {
            assert_eq!(
                last["reasoning_content"], self.reasoning,
                "what was thought goes along"
            );
        }
        Some(last["content"].as_str().unwrap().to_owned())
    }

    fn split(&self, text: &str) -> Vec<String> {
        match self.tokens {
            Tokens::Words => words(text),
            Tokens::Letters(count) => {
                let letters: Vec<char> = text.chars().collect();
                letters
                    .chunks(count)
                    .map(|piece| piece.iter().collect())
                    .collect()
            }
        }
    }
}

/// Each word with the blanks before it; blanks at the end are a token of their own.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut was_blank = true;
    for letter in text.chars() {
        let is_blank = letter.is_whitespace();
        match words.last_mut() {
            Some(word) if !is_blank || was_blank => word.push(letter),
            _ => words.push(letter.to_string()),
        }
        was_blank = is_blank;
    }
    words
}

fn message(is_completion: bool, is_thought: bool, piece: &str) -> String {
    let field = if is_thought {
        "reasoning_content"
    } else {
        "content"
    };
    let choice = match is_completion {
        true => json!({"index": 0, "text": piece}),
        false => json!({"index": 0, "delta": {field: piece}}),
    };
    json!({"choices": [choice]}).to_string()
}

fn end(is_completion: bool, reason: &str) -> String {
    let choice = match is_completion {
        true => json!({"index": 0, "text": "", "finish_reason": reason}),
        false => json!({"index": 0, "delta": {}, "finish_reason": reason}),
    };
    json!({"choices": [choice]}).to_string()
}
