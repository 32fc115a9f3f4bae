//! What a completion request asks for, and the refusal of what this engine can't honour. Pure.

use serde_json::Value;

use super::fields::{self, Fields, present};
use super::options::{CHOICES_MAX, Options};
use crate::engine::EngineError;
use crate::engine::refusal::invalid_request;

/// Most tokens of an answer where the program does not say, as OpenAI has it.
const TOKENS_DEFAULT: u64 = 16;
/// Most alternatives to a token that a completion request may ask for, as OpenAI has it.
const LOGPROBS_MAX: u64 = 5;

/// What is to be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// Text for the model's tokenizer.
    Text(String),
    /// Tokens of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CompletionRequest {
    pub(super) prompts: Vec<Prompt>,
    pub(super) options: Options,
    pub(super) max_tokens: u64,
    /// How many alternatives to each token are wanted, where log-probabilities are.
    pub(super) logprobs: Option<usize>,
    /// Whether the prompt comes before the answer.
    pub(super) echo: bool,
    /// What follows the text to be written.
    pub(super) suffix: Option<String>,
    /// How much at the end of the prompt is an answer that was begun, in bytes (`continued_bytes`, our own field:
    /// another engine takes the whole for a prompt).
    pub(super) continued_bytes: usize,
}

impl CompletionRequest {
    /// Reads an OpenAI request body. Fields that change nothing about the answer are ignored.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(body: &Value) -> Result<Self, EngineError> {
        let fields = fields::of(body)?;
        let logprobs = fields::integer(fields, "logprobs", 0, LOGPROBS_MAX)?;
        let options = Options::parse(fields)?;
        // The best of several is found by whoever can see them all: it is asked for with `n`.
        fields::refuse_unsupported(fields, &["best_of"])?;
        let prompts = prompts(fields)?;
        if prompts.len() as u64 * u64::from(options.choices) > CHOICES_MAX {
            let message = format!("there would be more than {CHOICES_MAX} answers; ask in several requests");
            return Err(invalid_request("prompt", message));
        }
        let request = Self {
            prompts,
            options,
            max_tokens: fields::integer(fields, "max_tokens", 0, u64::MAX)?.unwrap_or(TOKENS_DEFAULT),
            logprobs: logprobs.map(|top| usize::try_from(top).unwrap_or(0)),
            echo: fields::flag(fields, "echo")?.unwrap_or(false),
            suffix: suffix(fields)?,
            continued_bytes: continued_bytes(fields)?,
        };
        request.check_continuation()?;
        if request.echo && request.suffix.is_some() {
            return Err(invalid_request(
                "suffix",
                "'suffix' and 'echo' can't be asked for together",
            ));
        }
        Ok(request)
    }

    /// Refuses what can't be continued.
    fn check_continuation(&self) -> Result<(), EngineError> {
        let refuse = |message: &str| Err(invalid_request("continued_bytes", message));
        if self.continued_bytes == 0 {
            return Ok(());
        }
        if self.echo || self.suffix.is_some() {
            return refuse("an answer with an 'echo' or a 'suffix' can't be continued");
        }
        match self.prompts.as_slice() {
            [Prompt::Text(text)] => match text.len().checked_sub(self.continued_bytes) {
                Some(start) if text.is_char_boundary(start) => Ok(()),
                _ => refuse("'continued_bytes' must count whole characters at the end of the prompt"),
            },
            _ => refuse("only one prompt that is a text can be continued"),
        }
    }
}

fn continued_bytes(fields: &Fields) -> Result<usize, EngineError> {
    let bytes = fields::integer(fields, "continued_bytes", 0, u64::MAX)?.unwrap_or(0);
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn suffix(fields: &Fields) -> Result<Option<String>, EngineError> {
    match present(fields, "suffix") {
        None => Ok(None),
        Some(Value::String(suffix)) => Ok(Some(suffix.clone()).filter(|suffix| !suffix.is_empty())),
        Some(_) => Err(invalid_request("suffix", "'suffix' must be a string")),
    }
}

fn prompts(fields: &Fields) -> Result<Vec<Prompt>, EngineError> {
    let refuse = || {
        let message = format!(
            "'prompt' must be a string, a list of 1 to {CHOICES_MAX} strings, or a list of tokens or token lists"
        );
        invalid_request("prompt", message)
    };
    let list = match present(fields, "prompt") {
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(list)) if !list.is_empty() => list,
        _ => return Err(refuse()),
    };
    if list.iter().all(Value::is_number) {
        return Ok(vec![Prompt::Tokens(tokens(list).ok_or_else(refuse)?)]);
    }
    if list.len() as u64 > CHOICES_MAX {
        return Err(refuse());
    }
    let read = |prompt: &Value| match prompt {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(list) if !list.is_empty() => Ok(Prompt::Tokens(tokens(list).ok_or_else(refuse)?)),
        _ => Err(refuse()),
    };
    list.iter().map(read).collect()
}

fn tokens(list: &[Value]) -> Option<Vec<u32>> {
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    list.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(field: &str, value: Value) -> Result<CompletionRequest, EngineError> {
        let mut body = json!({"prompt": "hi"});
        body[field] = value;
        CompletionRequest::parse(&body)
    }

    #[test]
    fn all_four_forms_of_a_prompt_are_read() {
        let prompts = |value: Value| with("prompt", value).unwrap().prompts;
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), [text("a")]);
        assert_eq!(prompts(json!(["a", ""])), [text("a"), text("")]);
        assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(
            prompts(json!([[1], [2, 3]])),
            [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]
        );
    }

    #[test]
    fn fields_have_openais_defaults() {
        let request = with("user", json!("u")).unwrap();
        assert_eq!(
            (request.max_tokens, request.logprobs, request.echo),
            (16, None, false)
        );
        assert_eq!(with("max_tokens", json!(0)).unwrap().max_tokens, 0);
        assert_eq!(with("logprobs", json!(0)).unwrap().logprobs, Some(0));
        assert_eq!(with("suffix", json!("")).unwrap().suffix, None);
        assert!(with("best_of", json!(1)).is_ok());
    }

    #[test]
    fn what_can_not_be_honoured_is_refused_by_name() {
        for (field, value) in [
            ("prompt", Value::Null),
            ("prompt", json!([])),
            ("prompt", json!([[]])),
            ("prompt", json!([1, "a"])),
            ("prompt", json!([1.5])),
            ("prompt", json!([-1])),
            ("prompt", json!(vec!["a"; 129])),
            ("logprobs", json!(6)),
            ("logprobs", json!(true)),
            ("best_of", json!(2)),
            ("echo", json!(1)),
            ("suffix", json!(1)),
            ("max_tokens", json!(-1)),
        ] {
            let error = with(field, value).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)));
        }
        let many = json!({"prompt": vec!["a"; 65], "n": 2});
        assert_eq!(
            CompletionRequest::parse(&many).unwrap_err().param.as_deref(),
            Some("prompt")
        );
        for body in [
            json!({"prompt": "hé", "continued_bytes": 1}),
            json!({"prompt": "hi", "continued_bytes": 3}),
            json!({"prompt": "hi", "continued_bytes": -1}),
            json!({"prompt": ["a", "b"], "continued_bytes": 1}),
            json!({"prompt": [1], "continued_bytes": 1}),
            json!({"prompt": "hi", "continued_bytes": 1, "echo": true}),
        ] {
            let error = CompletionRequest::parse(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("continued_bytes"), "{body}");
        }
        let both = json!({"prompt": "a", "echo": true, "suffix": "b"});
        assert_eq!(
            CompletionRequest::parse(&both).unwrap_err().param.as_deref(),
            Some("suffix")
        );
    }
}
