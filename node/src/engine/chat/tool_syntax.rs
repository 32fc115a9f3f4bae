//! How a model writes calls of tools, found out from its chat template.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::grammar::{Grammar, GrammarCompiler, GrammarError, SCHEMA_MAX_BYTES, prepare};
use super::messages::Message;
use super::request::ResponseFormat;
use super::template::{ChatTemplate, Conversation};
use super::tool_request::Tool;

/// What begins a call where calls stand between markers.
pub(super) const CALL_START: &str = "<tool_call>";
/// What ends it.
pub(super) const CALL_END: &str = "</tool_call>";
/// Most calls of one answer that must call tools.
const FORCED_CALLS_MAX: usize = 16;

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToolSyntax {
    /// `{"name": …, "arguments": …}` between `<tool_call>` and `</tool_call>`, as Hermes and Qwen do.
    Marked,
    /// The whole answer is `{"name": …, "parameters": …}`, as with Llama 3.
    Bare,
}

/// How much of the calls a grammar covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallGrammar {
    /// An answer that is one or more calls.
    WholeAnswer {
        /// Whether there may be only one.
        only_one: bool,
    },
    /// A call of which [`CALL_START`] is written.
    AfterStart,
}

impl ToolSyntax {
    /// The syntax that a template teaches; none where it knows no tools or teaches another one.
    pub(super) fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Option<Self> {
        let rendered = rehearse(template)?;
        if rendered.contains(CALL_START) {
            // Some models write XML between the same markers.
            let writes_json = rendered.contains("\"arguments\"") && !rendered.contains("<function=");
            return (writes_json && is_written_out(tokenizer, CALL_START)).then_some(Self::Marked);
        }
        rendered
            .contains("\"parameters\": {\"rehearsed\"")
            .then_some(Self::Bare)
    }

    /// Whether one answer can hold several calls.
    pub(super) const fn allows_several(self) -> bool {
        matches!(self, Self::Marked)
    }

    /// A grammar for calls of these tools, or for an answer of the other format. Schemas that can't be held to are an
    /// error where a tool is strict, and are read leniently where it is not.
    ///
    /// # Errors
    /// The place of the tool at fault and what is wrong with its schema.
    pub(super) fn grammar<'t>(
        self,
        compiler: &GrammarCompiler,
        tools: impl Iterator<Item = &'t Tool>,
        covers: CallGrammar,
        or: Option<&ResponseFormat>,
    ) -> Result<Grammar, (String, GrammarError)> {
        let mut rules = String::new();
        let mut names = Vec::new();
        let mut room = SCHEMA_MAX_BYTES;
        for tool in tools {
            let place = || tool.name.clone();
            // Alone first, so that an error is of this tool and not of all of them.
            compiler
                .json_schema(&tool.parameters, tool.is_strict)
                .map_err(|error| (place(), error))?;
            let schema = prepare(&tool.parameters, tool.is_strict).map_err(|error| (place(), error))?;
            let schema = schema.to_string();
            let Some(left) = room.checked_sub(schema.len()) else {
                let found_bytes = SCHEMA_MAX_BYTES - room + schema.len();
                return Err((place(), GrammarError::TooLarge { found_bytes }));
            };
            room = left;
            let head = match self {
                Self::Marked => format!("{{\"name\": \"{}\", \"arguments\": ", tool.name),
                Self::Bare => format!("{{\"name\": \"{}\", \"parameters\": ", tool.name),
            };
            let index = names.len();
            // Writing to a string can't fail.
            let _ = writeln!(rules, "call_{index}: {} arguments_{index} \"}}\"", quoted(&head));
            let _ = writeln!(rules, "arguments_{index}: %json {schema}");
            names.push(format!("call_{index}"));
        }
        let other = match or {
            None | Some(ResponseFormat::Text) => None,
            Some(ResponseFormat::JsonObject) => Some(prepare(&json!({"type": "object"}), true)),
            Some(ResponseFormat::JsonSchema { schema, is_strict }) => Some(prepare(schema, *is_strict)),
        };
        let other = other.transpose().map_err(|error| ("tools".to_owned(), error))?;
        let start_rule = if other.is_some() { "calls" } else { "start" };
        if let Some(schema) = other {
            let _ = writeln!(rules, "start: calls | other\nother: %json {schema}");
        }
        let calls = names.join(" | ");
        let (start, end) = (
            quoted(&format!("{CALL_START}\n")),
            quoted(&format!("\n{CALL_END}")),
        );
        let _ = match (self, covers) {
            (Self::Marked, CallGrammar::AfterStart) => {
                writeln!(rules, "{start_rule}: {} ({calls}) {end}", quoted("\n"))
            }
            (Self::Marked, CallGrammar::WholeAnswer { only_one: true }) => {
                writeln!(rules, "{start_rule}: {start} ({calls}) {end}")
            }
            (Self::Marked, CallGrammar::WholeAnswer { only_one: false }) => {
                let more = FORCED_CALLS_MAX - 1;
                let newline = quoted("\n");
                writeln!(rules, "{start_rule}: marked ({newline} marked){{0,{more}}}")
                    .and_then(|()| writeln!(rules, "marked: {start} ({calls}) {end}"))
            }
            (Self::Bare, _) => writeln!(rules, "{start_rule}: {calls}"),
        };
        compiler.lark(rules).map_err(|error| ("tools".to_owned(), error))
    }
}

/// A text as a string of llguidance's grammar language, which is one of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// What the template makes of a conversation with a tool, where it shows the tool, its call and its result.
fn rehearse(template: &ChatTemplate) -> Option<String> {
    let message = |role, content: &str| Message {
        role,
        content: content.to_owned(),
        ..Message::default()
    };
    let call = json!({"id": "call00000", "type": "function",
        "function": {"name": "tool_of_rehearsal", "arguments": {"rehearsed": "argument_of_rehearsal"}}});
    let calling = Message {
        tool_calls: Some(vec![call]),
        ..message("assistant", "")
    };
    let answering = Message {
        name: Some("tool_of_rehearsal".to_owned()),
        tool_call_id: Some("call00000".to_owned()),
        ..message("tool", "result_of_rehearsal")
    };
    let parameters = json!({"type": "object", "properties": {"rehearsed": {"type": "string"}}});
    let tool = json!({"type": "function", "function": {"name": "tool_of_rehearsal",
        "description": "description_of_rehearsal", "parameters": parameters}});
    let rendered = template.render(
        &Conversation {
            messages: &[message("user", "question"), calling, answering],
            tools: &[tool],
            arguments: &Map::new(),
            opens_turn: true,
        },
        0,
    );
    let shows = |rendered: &String| {
        [
            "description_of_rehearsal",
            "argument_of_rehearsal",
            "result_of_rehearsal",
        ]
        .iter()
        .all(|part| rendered.contains(part))
    };
    rendered.ok().filter(shows)
}

/// Whether a text survives being read and written as tokens: special tokens leave no text.
fn is_written_out(tokenizer: &Tokenizer, text: &str) -> bool {
    let encoding = tokenizer.encode_fast(text, false);
    encoding.is_ok_and(|encoding| {
        tokenizer
            .decode(encoding.get_ids(), true)
            .is_ok_and(|decoded| decoded.trim() == text)
    })
}
