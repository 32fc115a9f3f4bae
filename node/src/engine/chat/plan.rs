//! From a request to what is to be done: prompts as tokens, limits, sampling and grammar.

use serde_json::Value;

use super::answer::AnswerPlan;
use super::answer::continuation::Continued;
use super::completion_request::{CompletionRequest, Prompt};
use super::grammar::{Grammar, GrammarCompiler, GrammarError};
use super::messages::Message;
use super::model::LoadedModel;
use super::options::Options;
use super::request::{ChatRequest, PromptEnd, ResponseFormat};
use super::sampling::Sampling;
use super::template::Conversation;
use super::tool_calls::Certainty;
use super::tool_request::{ToolChoice, ToolRequest};
use super::tool_syntax::{CallGrammar, ToolSyntax};
use super::weights::first_line;
use crate::engine::EngineError;
use crate::engine::refusal::{
    context_length_exceeded, engine_failed, invalid_request, unsupported_parameter,
};

/// The temperature where neither program nor model says one, as OpenAI has it.
const TEMPERATURE_DEFAULT: f64 = 1.0;

/// A prompt and how much may follow it.
pub(super) struct PromptPlan {
    pub(super) tokens: Vec<u32>,
    /// The text that is to come before the answers.
    pub(super) echo: Option<String>,
    /// Most tokens of each answer.
    pub(super) tokens_max: usize,
}

/// The calls that an answer may hold.
pub(super) struct CallPlan {
    pub(super) syntax: ToolSyntax,
    pub(super) names: Vec<String>,
    pub(super) only_one: bool,
    pub(super) certainty: Certainty,
    /// What a call that the model began must be, where it is free to begin one.
    pub(super) grammar: Option<Grammar>,
}

/// What is to be done for one request.
pub(super) struct JobPlan {
    pub(super) prompts: Vec<PromptPlan>,
    /// How many answers to each prompt.
    pub(super) choices: u32,
    pub(super) logprobs: Option<usize>,
    pub(super) calls: Option<CallPlan>,
    /// The text with which every answer goes on.
    pub(super) continued: Option<Continued>,
    sampling: Sampling,
    seed: u64,
    is_repeatable: bool,
    stops: Vec<String>,
    grammar: Option<Grammar>,
}

impl JobPlan {
    /// One of the answers, by its place among all of the request.
    pub(super) fn answer(&self, prompt: &PromptPlan, index: u32) -> AnswerPlan {
        AnswerPlan {
            sampling: self.sampling.clone(),
            seed: self.seed.wrapping_add(u64::from(index)),
            is_repeatable: self.is_repeatable,
            stops: self.stops.clone(),
            tokens_max: prompt.tokens_max,
            logprobs: self.logprobs,
            grammar: self.grammar.as_ref().map(Grammar::fork),
        }
    }
}

impl LoadedModel {
    /// Plans a chat. `now_s` is Unix time, for templates that tell the date; `seed` is for programs that give none.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn plan_chat(&self, body: &Value, now_s: u64, seed: u64) -> Result<JobPlan, EngineError> {
        let request = ChatRequest::parse(body)?;
        self.check_tools(&request)?;
        let prompt = self.encode(&self.render(&request, now_s)?)?;
        if prompt.is_empty() {
            return Err(invalid_request("messages", "the messages are empty"));
        }
        let continued = self.continued(&request)?;
        let known_tokens = continued.as_ref().map_or(0, Continued::tokens_max);
        let prompt = self.prompt(prompt, known_tokens, "messages", request.max_tokens)?;
        let calls = self.calls(&request)?;
        let grammar = self.grammar(&request)?;
        let mut plan = self.job(vec![prompt], &request.options, seed)?;
        plan.logprobs = request.logprobs;
        plan.calls = calls;
        plan.continued = continued;
        plan.grammar = grammar;
        Ok(plan)
    }

    /// Plans the going on with raw text.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn plan_completion(&self, body: &Value, seed: u64) -> Result<JobPlan, EngineError> {
        let request = CompletionRequest::parse(body)?;
        if request.continued_bytes > 0 {
            return self.plan_continued_completion(&request, seed);
        }
        let mut prompts = Vec::with_capacity(request.prompts.len());
        for prompt in &request.prompts {
            let tokens = self.completion_tokens(prompt, request.suffix.as_deref())?;
            let echo = match (request.echo, prompt) {
                (false, _) => None,
                (true, Prompt::Text(text)) => Some(text.clone()),
                (true, Prompt::Tokens(tokens)) => Some(self.decode(tokens)?),
            };
            let mut planned = self.prompt(tokens, 0, "prompt", Some(request.max_tokens))?;
            planned.echo = echo;
            prompts.push(planned);
        }
        let mut plan = self.job(prompts, &request.options, seed)?;
        plan.logprobs = request.logprobs;
        Ok(plan)
    }

    /// Plans the going on with an answer that stands at the end of its prompt.
    fn plan_continued_completion(
        &self,
        request: &CompletionRequest,
        seed: u64,
    ) -> Result<JobPlan, EngineError> {
        let Some(Prompt::Text(text)) = request.prompts.first() else {
            return Err(unsupported_parameter("continued_bytes"));
        };
        let (prompt, begun) = text.split_at(text.len() - request.continued_bytes);
        let continued = self.continued_text(begun, "continued_bytes")?;
        let tokens = self.completion_tokens(&Prompt::Text(prompt.to_owned()), None)?;
        let planned = self.prompt(tokens, continued.tokens_max(), "prompt", Some(request.max_tokens))?;
        let mut plan = self.job(vec![planned], &request.options, seed)?;
        plan.logprobs = request.logprobs;
        plan.continued = Some(continued);
        Ok(plan)
    }

    fn job(&self, prompts: Vec<PromptPlan>, options: &Options, seed: u64) -> Result<JobPlan, EngineError> {
        let is_token = |(token, _): &(u32, f32)| (*token as usize) < self.decoder.vocabulary();
        if !options.logit_bias.iter().all(is_token) {
            let message = "a token of 'logit_bias' is not in this model's vocabulary";
            return Err(invalid_request("logit_bias", message));
        }
        let defaults = self.text.sampling;
        let sampling = Sampling {
            temperature: options
                .temperature
                .or(defaults.temperature)
                .unwrap_or(TEMPERATURE_DEFAULT),
            top_p: options.top_p.or(defaults.top_p).unwrap_or(1.0),
            frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
            presence_penalty: options.presence_penalty.unwrap_or(0.0),
            bias: options.logit_bias.clone(),
        };
        Ok(JobPlan {
            prompts,
            choices: options.choices,
            logprobs: None,
            calls: None,
            continued: None,
            is_repeatable: sampling.temperature <= 0.0 || options.seed.is_some(),
            sampling,
            seed: options.seed.unwrap_or(seed),
            stops: options.stops.clone(),
            grammar: None,
        })
    }

    /// A prompt, where it leaves room for a token. An answer that would not fit is cut.
    fn prompt(
        &self,
        tokens: Vec<u32>,
        known_tokens: usize,
        field: &str,
        asked: Option<u64>,
    ) -> Result<PromptPlan, EngineError> {
        let vocabulary = self.decoder.vocabulary();
        if tokens.iter().any(|token| *token as usize >= vocabulary) {
            return Err(engine_failed("its tokenizer has tokens that its weights do not"));
        }
        let length = tokens.len() + known_tokens;
        let room = self.context_length.saturating_sub(length);
        if room == 0 {
            return Err(context_length_exceeded(field, self.context_length - 1, length));
        }
        let asked = asked.map_or(room, |limit| usize::try_from(limit).unwrap_or(room));
        Ok(PromptPlan {
            tokens,
            echo: None,
            tokens_max: asked.min(room),
        })
    }

    fn check_tools(&self, request: &ChatRequest) -> Result<(), EngineError> {
        if self.tools.is_some() {
            return Ok(());
        }
        if !request.tools.tools.is_empty() {
            return Err(unsupported_parameter("tools"));
        }
        match request.messages.iter().position(Message::is_about_tools) {
            Some(index) => Err(unsupported_parameter(format!("messages[{index}].tool_calls"))),
            None => Ok(()),
        }
    }

    fn render(&self, request: &ChatRequest, now_s: u64) -> Result<String, EngineError> {
        let (mut messages, mut opens_turn) = (request.messages.as_slice(), true);
        match request.end {
            PromptEnd::Turn => {}
            PromptEnd::LastMessage => opens_turn = false,
            // The same prompt as before the text was begun: how templates write past answers may differ from that.
            PromptEnd::WithinLastMessage => messages = &messages[..messages.len() - 1],
        }
        let tools: Vec<Value> = request
            .tools
            .tools
            .iter()
            .map(|tool| tool.definition.clone())
            .collect();
        let conversation = Conversation {
            messages,
            tools: &tools,
            arguments: &request.template_arguments,
            opens_turn,
        };
        self.text.template.render(&conversation, now_s)
    }

    fn continued(&self, request: &ChatRequest) -> Result<Option<Continued>, EngineError> {
        let text = match (request.end, request.messages.last()) {
            (PromptEnd::WithinLastMessage, Some(last)) if !last.content.is_empty() => &last.content,
            _ => return Ok(None),
        };
        self.continued_text(text, "continue_final_message").map(Some)
    }

    fn continued_text(&self, text: &str, field: &str) -> Result<Continued, EngineError> {
        let vocabulary = self.vocabulary.as_ref();
        let vocabulary = vocabulary.ok_or_else(|| unsupported_parameter(field))?;
        Ok(Continued::new(text, &self.text.tokenizer, vocabulary))
    }

    fn calls(&self, request: &ChatRequest) -> Result<Option<CallPlan>, EngineError> {
        let tools = &request.tools;
        let (Some(syntax), false) = (self.tools, tools.tools.is_empty()) else {
            return Ok(None);
        };
        let is_free = tools.choice == ToolChoice::Auto;
        let grammar = match &self.grammars {
            Some(grammars) if is_free && syntax.allows_several() => {
                let compiled = syntax.grammar(grammars, tools.callable(), CallGrammar::AfterStart, None);
                match compiled {
                    Ok(grammar) => Some(grammar),
                    // Without it, the model is trusted to write the calls that it was shown.
                    Err(_) if !tools.callable().any(|tool| tool.is_strict) => None,
                    Err((name, error)) => return Err(refuse_tool(tools, &name, &error)),
                }
            }
            _ => None,
        };
        let has_format = request.format != ResponseFormat::Text;
        let certainty = match syntax {
            _ if !is_free => Certainty::WholeAnswer,
            ToolSyntax::Marked if grammar.is_some() || has_format => Certainty::Marked,
            ToolSyntax::Marked | ToolSyntax::Bare => Certainty::Open,
        };
        Ok(Some(CallPlan {
            certainty,
            syntax,
            names: tools.callable().map(|tool| tool.name.clone()).collect(),
            only_one: tools.only_one || !syntax.allows_several(),
            grammar,
        }))
    }

    /// What the whole answer must be.
    fn grammar(&self, request: &ChatRequest) -> Result<Option<Grammar>, EngineError> {
        let tools = &request.tools;
        let is_forced = tools.choice != ToolChoice::Auto;
        if !is_forced && request.format == ResponseFormat::Text {
            return Ok(None);
        }
        let Some(grammars) = &self.grammars else {
            let field = if is_forced {
                "tool_choice"
            } else {
                "response_format"
            };
            return Err(unsupported_parameter(field));
        };
        let covers = CallGrammar::WholeAnswer {
            only_one: tools.only_one,
        };
        match self.tools {
            Some(syntax) if is_forced => syntax
                .grammar(grammars, tools.callable(), covers, None)
                .map(Some)
                .map_err(|(name, error)| refuse_tool(tools, &name, &error)),
            Some(syntax) if !tools.tools.is_empty() => {
                // Alone first, so that what is wrong with it is told of the right field.
                format_grammar(grammars, &request.format)?;
                let format = Some(&request.format);
                syntax
                    .grammar(grammars, tools.callable(), covers, format)
                    .map(Some)
                    .map_err(|(name, error)| refuse_tool(tools, &name, &error))
            }
            _ => format_grammar(grammars, &request.format).map(Some),
        }
    }

    fn completion_tokens(&self, prompt: &Prompt, suffix: Option<&str>) -> Result<Vec<u32>, EngineError> {
        let mut tokens = match prompt {
            Prompt::Text(text) => self.encode(text)?,
            Prompt::Tokens(tokens) => {
                let size = self
                    .decoder
                    .vocabulary()
                    .min(self.text.tokenizer.get_vocab_size(true));
                if tokens.iter().any(|token| *token as usize >= size) {
                    let message = "a token of 'prompt' is not in this model's vocabulary; send text instead";
                    return Err(invalid_request("prompt", message));
                }
                tokens.clone()
            }
        };
        if let Some(suffix) = suffix {
            let Some(fill) = self.fill else {
                return Err(unsupported_parameter("suffix"));
            };
            tokens.insert(0, fill.prefix);
            tokens.push(fill.suffix);
            tokens.extend(self.encode(suffix)?);
            tokens.push(fill.middle);
        }
        if tokens.is_empty() {
            // An empty prompt asks for a text from its beginning: the token that stands there begins it.
            tokens.extend(self.text.begin_token);
        }
        if tokens.is_empty() {
            return Err(invalid_request("prompt", "the prompt is empty"));
        }
        Ok(tokens)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EngineError> {
        let encoding = self
            .text
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| engine_failed(first_line(&error)))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, EngineError> {
        let decoded = self.text.tokenizer.decode(tokens, false);
        decoded.map_err(|error| engine_failed(first_line(&error)))
    }
}

fn format_grammar(grammars: &GrammarCompiler, format: &ResponseFormat) -> Result<Grammar, EngineError> {
    match format {
        ResponseFormat::JsonSchema { schema, is_strict } => {
            grammars.json_schema(schema, *is_strict).map_err(|error| {
                let message = format!("the schema can't be used: {error}");
                invalid_request("response_format.json_schema.schema", message)
            })
        }
        ResponseFormat::JsonObject | ResponseFormat::Text => grammars.json_object().map_err(engine_failed),
    }
}

fn refuse_tool(tools: &ToolRequest, name: &str, error: &GrammarError) -> EngineError {
    let place = tools.tools.iter().position(|tool| tool.name == name);
    let field = place.map_or_else(
        || "tools".to_owned(),
        |index| format!("tools[{index}].function.parameters"),
    );
    invalid_request(field, format!("the schema can't be used: {error}"))
}
