//! The tools of a chat request, and whether and how they are to be called. Pure.

use serde_json::{Value, json};

use super::fields::{self, Fields, present};
use crate::engine::EngineError;
use crate::engine::refusal::{invalid_request, unsupported_parameter};

/// Most tools of a request, as OpenAI has it.
const TOOLS_MAX: usize = 128;
/// Most bytes of a function's name, as OpenAI has it.
const NAME_MAX_BYTES: usize = 64;

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    /// The whole definition, for the chat template.
    pub(super) definition: Value,
    /// The JSON schema of its arguments.
    pub(super) parameters: Value,
    /// Whether the arguments must be of the schema whatever it takes.
    pub(super) is_strict: bool,
}

/// Whether tools are to be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// As the model sees fit.
    #[default]
    Auto,
    /// Some tool must be called.
    Required,
    /// This one must be called.
    Named(String),
}

/// The tools that a request offers. Those that may not be called are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ToolRequest {
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    /// Whether an answer may call only one tool.
    pub(super) only_one: bool,
}

impl ToolRequest {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(fields: &Fields) -> Result<Self, EngineError> {
        let refuse = |message: String| invalid_request("tools", message);
        let tools = match present(fields, "tools") {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() <= TOOLS_MAX => list
                .iter()
                .enumerate()
                .map(read_tool)
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => {
                return Err(refuse(format!(
                    "'tools' must be a list of at most {TOOLS_MAX} tools"
                )));
            }
        };
        let only_one = fields::flag(fields, "parallel_tool_calls")? == Some(false);
        let Some(choice) = tool_choice(fields)? else {
            return Ok(Self::default());
        };
        let is_known = match &choice {
            ToolChoice::Auto => true,
            ToolChoice::Required => !tools.is_empty(),
            ToolChoice::Named(name) => tools.iter().any(|tool| &tool.name == name),
        };
        if !is_known {
            let message = "'tool_choice' asks for a tool that 'tools' does not have";
            return Err(invalid_request("tool_choice", message));
        }
        Ok(Self {
            tools,
            choice,
            only_one,
        })
    }

    /// The tools that may be called: with a named choice that one alone.
    pub(super) fn callable(&self) -> impl Iterator<Item = &Tool> {
        self.tools.iter().filter(|tool| match &self.choice {
            ToolChoice::Named(name) => &tool.name == name,
            ToolChoice::Auto | ToolChoice::Required => true,
        })
    }
}

/// The choice; none where no tool may be called.
fn tool_choice(fields: &Fields) -> Result<Option<ToolChoice>, EngineError> {
    let refuse = || {
        let message = "'tool_choice' must be 'none', 'auto', 'required' or name a function";
        Err(invalid_request("tool_choice", message))
    };
    match present(fields, "tool_choice") {
        None => Ok(Some(ToolChoice::Auto)),
        Some(Value::String(word)) => match word.as_str() {
            "none" => Ok(None),
            "auto" => Ok(Some(ToolChoice::Auto)),
            "required" => Ok(Some(ToolChoice::Required)),
            _ => refuse(),
        },
        Some(choice @ Value::Object(_)) if choice["type"] == "function" => {
            match choice["function"]["name"].as_str() {
                Some(name) => Ok(Some(ToolChoice::Named(name.to_owned()))),
                None => refuse(),
            }
        }
        Some(_) => refuse(),
    }
}

fn read_tool((index, tool): (usize, &Value)) -> Result<Tool, EngineError> {
    let field = |name: &str| format!("tools[{index}].{name}");
    if tool["type"] != "function" {
        return Err(unsupported_parameter(field("type")));
    }
    let function = &tool["function"];
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let name = function["name"]
        .as_str()
        .filter(|name| (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_name_byte))
        .ok_or_else(|| {
            let message =
                format!("a function's name must be 1 to {NAME_MAX_BYTES} letters, digits, '_' or '-'");
            invalid_request(field("function.name"), message)
        })?;
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        schema @ Value::Object(_) => schema.clone(),
        _ => {
            let message = "a function's 'parameters' must be a JSON schema";
            return Err(invalid_request(field("function.parameters"), message));
        }
    };
    Ok(Tool {
        name: name.to_owned(),
        definition: tool.clone(),
        parameters,
        is_strict: function["strict"] == true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<ToolRequest, EngineError> {
        ToolRequest::parse(body.as_object().unwrap())
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn all_choices_are_read() {
        let with =
            |choice: Value| read(json!({"tools": [tool("a"), tool("b")], "tool_choice": choice})).unwrap();
        assert_eq!(with(Value::Null).choice, ToolChoice::Auto);
        assert_eq!(with(json!("auto")).tools.len(), 2);
        assert_eq!(with(json!("required")).choice, ToolChoice::Required);
        let named = with(json!({"type": "function", "function": {"name": "b"}}));
        assert_eq!(
            named
                .callable()
                .map(|tool| tool.name.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
        assert_eq!(with(json!("none")), ToolRequest::default());
        assert!(
            read(json!({"tools": [tool("a")], "parallel_tool_calls": false}))
                .unwrap()
                .only_one
        );
        assert!(named.tools[0].is_strict);
    }

    #[test]
    fn what_can_not_be_read_is_refused_by_its_place() {
        let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
        for (body, param) in [
            (json!({"tools": "x"}), "tools"),
            (json!({"tools": vec![tool("a"); TOOLS_MAX + 1]}), "tools"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (function(json!({})), "tools[0].function.name"),
            (function(json!({"name": "a b"})), "tools[0].function.name"),
            (
                function(json!({"name": "a".repeat(65)})),
                "tools[0].function.name",
            ),
            (
                function(json!({"name": "a", "parameters": []})),
                "tools[0].function.parameters",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": "always"}),
                "tool_choice",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function"}}),
                "tool_choice",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "tool_choice",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (
                json!({"tools": [tool("a")], "parallel_tool_calls": 1}),
                "parallel_tool_calls",
            ),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!(
                (error.status, error.param.as_deref()),
                (400, Some(param)),
                "{body}"
            );
        }
    }
}
