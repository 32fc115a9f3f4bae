//! Turns messages into a prompt with the model's own chat template, as Hugging Face's `apply_chat_template` does.

use std::sync::Arc;

use minijinja::value::{Kwargs, Value as TemplateValue, ViaDeserialize};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;
use serde_json::{Map, Value};

use super::civil_time;
use super::messages::Message;
use crate::engine::EngineError;
use crate::engine::refusal::invalid_request;

/// What models without a template are asked in, where they know its two special tokens.
pub(super) const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A model's chat template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

/// What a template is to render.
#[derive(Clone, Copy)]
pub(super) struct Conversation<'a> {
    pub(super) messages: &'a [Message],
    /// The definitions of the tools that may be called.
    pub(super) tools: &'a [Value],
    /// Extra variables.
    pub(super) arguments: &'a Map<String, Value>,
    /// Whether the assistant's turn begins at the end.
    pub(super) opens_turn: bool,
}

impl ChatTemplate {
    /// Reads a template in Jinja's language.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub(super) fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned("chat", source)?;
        Ok(Self {
            environment,
            bos_token,
            eos_token,
        })
    }

    /// The prompt after which the model writes its answer.
    ///
    /// # Errors
    /// A 400 with the template's own words where it refuses the messages.
    pub(super) fn render(&self, conversation: &Conversation<'_>, now_s: u64) -> Result<String, EngineError> {
        let none: Option<Value> = None;
        // Templates ask whether there are tools at all, and an empty list is none.
        let tools = (!conversation.tools.is_empty()).then_some(conversation.tools);
        let own = context! {
            messages => conversation.messages,
            add_generation_prompt => conversation.opens_turn,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => tools,
            documents => none,
            strftime_now => TemplateValue::from_function(move |format: String| {
                civil_time::format(&format, now_s).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know '{format}'"))
                })
            }),
        };
        // What a program passes along never replaces what the engine says.
        let whole = context! { ..own, ..TemplateValue::from_serialize(conversation.arguments) };
        let rendered = self
            .environment
            .get_template("chat")
            .and_then(|template| template.render(whole));
        rendered.map_err(|error| {
            let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            invalid_request(
                "messages",
                format!("the model's chat template refuses these messages: {reason}"),
            )
        })
    }
}

fn raise_exception(message: String) -> Result<TemplateValue, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `json.dumps`, which templates were written for: spaces after separators, and nothing escaped for HTML.
fn to_json(value: ViaDeserialize<Value>, options: Kwargs) -> Result<TemplateValue, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _ignored: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            value.0.serialize(&mut serializer).map_err(failed)?;
        }
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter);
            value.0.serialize(&mut serializer).map_err(failed)?;
        }
    }
    let text: Arc<str> = String::from_utf8_lossy(&bytes).into();
    Ok(TemplateValue::from_safe_string(text.to_string()))
}

struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(role: &'static str, content: &str) -> Message {
        Message {
            role,
            content: content.to_owned(),
            ..Message::default()
        }
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.to_owned(), "<s>".into(), "</s>".into()).unwrap()
    }

    fn render_with(
        template: &ChatTemplate,
        messages: &[Message],
        arguments: &Map<String, Value>,
    ) -> Result<String, EngineError> {
        let conversation = Conversation {
            messages,
            tools: &[],
            arguments,
            opens_turn: true,
        };
        template.render(&conversation, 1_700_000_000)
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, EngineError> {
        render_with(&template(source), messages, &Map::new())
    }

    #[test]
    fn chatml_is_what_qwen_reads() {
        let messages = [message("system", "Be kind."), message("user", "hi")];
        let expected =
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(render(CHATML, &messages).unwrap(), expected);
    }

    #[test]
    fn what_templates_of_known_models_use_works() {
        // Fragments of the templates of Llama 2, Llama 3, Mistral and Qwen3.
        let source = "{{- bos_token }}\n{%- if not tools is defined or tools is none %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\
            {%- for message in loop_messages %}\n    {%- if message['role'] == 'user' %}\n        {{- '[INST] ' + message['content'].strip() + ' [/INST]' }}\n    {%- elif message.role == 'assistant' %}\n        {{- ' ' + message.content.split('</think>')[-1].lstrip('\\n') + eos_token }}\n    {%- endif %}\n{%- endfor %}\n\
            {%- set ns = namespace(found=false) %}{%- for m in messages[::-1] %}{%- if m.content.startswith('h') %}{%- set ns.found = true %}{%- endif %}{%- endfor %}{{- '|' ~ ns.found ~ '|' ~ (messages | length) }}";
        let messages = [
            message("user", " hi "),
            message("assistant", "<think>\nx</think>\n\nyes"),
            message("user", "how"),
        ];
        assert_eq!(
            render(source, &messages).unwrap(),
            "<s>[INST] hi [/INST] yes</s>[INST] how [/INST]|True|3"
        );
    }

    #[test]
    fn the_constructs_of_llama_and_qwen_templates_render_as_in_python() {
        let messages = [
            message("system", " Be kind.\n"),
            message("user", "hi <b>"),
            message("assistant", "<think>\nhmm\n</think>\n\nyes & no"),
            message("user", "how?"),
        ];
        let source = include_str!("../../../tests/engines/template.jinja").to_owned();
        let template = template(&source);
        let arguments = json!({"enable_thinking": false}).as_object().unwrap().clone();
        // What transformers' apply_chat_template (5.23, Jinja2 3.1) makes of it, but for the date.
        let expected = "<s><sys>Be kind.|14 Nov 2023|<|im_start|>user\nhi <b><|im_end|>\n[1:2:hmm]yes & no\
            <|im_start|>user\nhow?<|im_end|>\n2,1,0 2 HOW user/assistant/user<|im_start|>assistant\n\
            <think>\n\n</think>\n\n";
        assert_eq!(render_with(&template, &messages, &arguments).unwrap(), expected);
    }

    #[test]
    fn tools_and_their_calls_reach_the_template() {
        let source = "{%- if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
            {%- for m in messages %}{% for call in m.tool_calls %}[{{ call.function.name }}({{ call.function.arguments | tojson }})]{% endfor %}{{ m.content }}{% endfor %}\
            {%- if add_generation_prompt %}|{% endif %}";
        let call = json!({"function": {"name": "f", "arguments": {"a": 1}}});
        let messages = [
            Message {
                tool_calls: Some(vec![call]),
                ..message("assistant", "")
            },
            message("tool", "ok"),
        ];
        let conversation = Conversation {
            messages: &messages,
            tools: &[json!({"name": "f"})],
            arguments: &Map::new(),
            opens_turn: false,
        };
        let rendered = template(source).render(&conversation, 0).unwrap();
        assert_eq!(rendered, "{\"name\": \"f\"}[f({\"a\": 1})]ok");
    }

    #[test]
    fn the_date_can_be_told() {
        assert_eq!(
            render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap(),
            "14 Nov 2023"
        );
        assert!(render("{{ strftime_now('%Q') }}", &[]).is_err());
    }

    #[test]
    fn json_is_written_as_python_does() {
        let template = ChatTemplate::new(
            "{{ a | tojson }} {{ a.b | tojson(indent=2) }}".into(),
            String::new(),
            String::new(),
        );
        let arguments = json!({"a": {"b": [1, "<é&'>"]}}).as_object().unwrap().clone();
        let text = render_with(&template.unwrap(), &[], &arguments).unwrap();
        assert_eq!(text, "{\"b\": [1, \"<é&'>\"]} [\n  1,\n  \"<é&'>\"\n]");
    }

    #[test]
    fn a_template_that_refuses_is_a_400_in_its_own_words() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("messages")));
        assert!(
            error.message.ends_with("roles must alternate"),
            "{}",
            error.message
        );
    }

    #[test]
    fn arguments_reach_the_template_but_replace_nothing() {
        let template = ChatTemplate::new(
            "{{ enable_thinking }} {{ bos_token }}".into(),
            "<s>".into(),
            String::new(),
        );
        let arguments = json!({"enable_thinking": false, "bos_token": "x"})
            .as_object()
            .unwrap()
            .clone();
        let text = render_with(&template.unwrap(), &[], &arguments).unwrap();
        assert_eq!(text, "False <s>");
    }
}
