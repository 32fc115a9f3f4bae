//! Calls of tools by models whose templates teach them.

use std::collections::BTreeMap;

use gristmill_node::engine::Engine;
use gristmill_node::engine::chat::ChatEngine;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use crate::asking::{Answer, ask, question, wordy_chat};
use crate::tiny_models::{Family, WORDS};

/// Tools as Hermes and Qwen are shown them.
const MARKED: &str = "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }}: {{ tool.function.description }}\n{% endfor %}\
    Answer with <tool_call>\n{\"name\": <name>, \"arguments\": <object>}\n</tool_call><|im_end|>\n{% endif %}\
    {%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
    {%- for call in message.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ call.function.name }}\", \
    \"arguments\": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// Tools as Llama 3 is shown them.
const BARE: &str = "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }}: {{ tool.function.description }}\n{% endfor %}\
    <|im_end|>\n{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
    {%- for call in message.tool_calls or [] %}{\"name\": \"{{ call.function.name }}\", \
    \"parameters\": {{ call.function.arguments | tojson }}}{% endfor %}<|im_end|>\n{% endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn parameters() -> BTreeMap<&'static str, Value> {
    let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let day = json!({"type": "string", "format": "date"});
    BTreeMap::from([
        (
            "weather",
            object(
                json!({"city": {"type": "string", "maxLength": 8}, "day": day}),
                json!(["city"]),
            ),
        ),
        (
            "add",
            object(
                json!({"terms": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 4}}),
                json!(["terms"]),
            ),
        ),
        ("now", object(json!({}), json!([]))),
    ])
}

fn tools() -> Value {
    let tool = |(name, parameters)| {
        json!({"type": "function", "function": {"name": name, "description": "Do it.",
            "parameters": parameters, "strict": true}})
    };
    parameters().into_iter().map(tool).collect()
}

async fn call(engine: &ChatEngine, fields: Value) -> Answer {
    let mut fields = fields;
    fields["tools"] = tools();
    fields["temperature"] = json!(1.3);
    ask(engine, question("hi", fields)).await.unwrap()
}

/// The calls of an answer, joined from its chunks as clients join them.
fn calls(answer: &Answer) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    let mut calls: Vec<(String, String)> = Vec::new();
    for chunk in &answer.chunks {
        let Some(deltas) = chunk["choices"][0]["delta"]["tool_calls"].as_array() else {
            continue;
        };
        for delta in deltas {
            let index = usize::try_from(delta["index"].as_u64().unwrap()).unwrap();
            if index == calls.len() {
                assert_eq!(delta["type"], "function");
                ids.push(delta["id"].as_str().unwrap().to_owned());
                calls.push((
                    delta["function"]["name"].as_str().unwrap().to_owned(),
                    String::new(),
                ));
            }
            calls[index]
                .1
                .push_str(delta["function"]["arguments"].as_str().unwrap());
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "each call has an id of its own");
    calls
}

fn assert_valid((name, arguments): &(String, String)) {
    let schema = &parameters()[name.as_str()];
    let arguments: Value =
        serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
    assert!(jsonschema::is_valid(schema, &arguments), "{name}({arguments})");
}

#[tokio::test]
async fn what_the_template_teaches_is_offered() {
    let capabilities = |engine: &ChatEngine| engine.models()[0].capabilities.clone();
    for template in [MARKED, BARE] {
        let offered = capabilities(&wordy_chat(Family::Llama, Some(template)));
        assert!(offered.contains(&Capability::Tools) && offered.contains(&Capability::ForcedTools));
    }
    let offered = capabilities(&wordy_chat(Family::Llama, None));
    assert!(!offered.contains(&Capability::Tools) && !offered.contains(&Capability::ForcedTools));
}

#[tokio::test]
async fn a_forced_call_is_a_call_of_what_there_is() {
    for (family, template) in [(Family::Qwen2, MARKED), (Family::Llama, BARE)] {
        let engine = wordy_chat(family, Some(template));
        let (mut whole, mut several) = (0, 0);
        for seed in 0..12 {
            // Half of them would rather not end.
            let end = if seed % 2 == 0 { 0 } else { -3 };
            let fields = json!({"tool_choice": "required", "seed": seed, "max_tokens": 200,
                "logit_bias": {"0": end, "2": end}});
            let answer = call(&engine, fields).await;
            let mut calls = calls(&answer);
            assert_eq!(answer.text, "");
            several += usize::from(calls.len() > 1);
            if answer.finish_reason.as_deref() == Some("tool_calls") {
                whole += 1;
                assert!(!calls.is_empty());
            } else {
                assert_eq!(answer.finish_reason.as_deref(), Some("length"));
                calls.pop();
            }
            calls.iter().for_each(assert_valid);
        }
        assert!(whole > 0, "{family:?}");
        assert_eq!(several > 0, template == MARKED, "{several}");
    }
}

#[tokio::test]
async fn a_named_tool_alone_is_called_and_only_once_where_that_is_asked() {
    for (family, template) in [(Family::Qwen3, MARKED), (Family::Llama, BARE)] {
        let engine = wordy_chat(family, Some(template));
        let mut whole = 0;
        for (seed, name) in [(1, "weather"), (2, "add"), (3, "now"), (4, "add"), (5, "now")] {
            let fields = json!({"tool_choice": {"type": "function", "function": {"name": name}}, "seed": seed,
                "parallel_tool_calls": false, "max_tokens": 200});
            let answer = call(&engine, fields).await;
            let calls = calls(&answer);
            assert_eq!((calls.len(), calls[0].0.as_str()), (1, name));
            match answer.finish_reason.as_deref() {
                Some("tool_calls") => {
                    whole += 1;
                    assert_valid(&calls[0]);
                }
                other => assert_eq!(other, Some("length")),
            }
        }
        assert!(whole > 0, "{family:?}");
    }
}

/// A model that begins a call by itself is held to the tools from there on, and is free again behind it.
#[tokio::test]
async fn a_call_that_the_model_began_is_held_to_the_tools() {
    let engine = wordy_chat(Family::Qwen3, Some(MARKED));
    let begins_calls = json!({WORDS.to_string(): 100});
    for (seed, only_one) in [(1, true), (2, true), (3, false), (4, false)] {
        let fields = json!({"seed": seed, "max_tokens": 150, "parallel_tool_calls": !only_one,
            "logit_bias": begins_calls});
        let answer = call(&engine, fields).await;
        let mut calls = calls(&answer);
        assert_eq!(answer.text, "");
        if only_one {
            assert_eq!(calls.len(), 1);
            if answer.finish_reason.as_deref() == Some("length") {
                calls.pop();
            }
        } else {
            // It never stops calling, so its last call is cut by the limit.
            assert_eq!(answer.finish_reason.as_deref(), Some("length"));
            assert!(calls.len() > 1, "{calls:?}");
            calls.pop();
        }
        calls.iter().for_each(assert_valid);
    }
}

#[tokio::test]
async fn a_call_that_is_cut_says_so() {
    let engine = wordy_chat(Family::Qwen2, Some(MARKED));
    for most in [1, 5, 12, 20] {
        let choice = json!({"type": "function", "function": {"name": "weather"}});
        let fields = json!({"tool_choice": choice, "seed": 1, "max_tokens": most});
        let answer = call(&engine, fields).await;
        assert_eq!(answer.finish_reason.as_deref(), Some("length"), "{most}");
        assert!(calls(&answer).len() <= 1);
    }
}

#[tokio::test]
async fn free_to_call_or_to_answer_in_json_a_model_does_one_of_both() {
    let engine = wordy_chat(Family::Llama, Some(MARKED));
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
        "additionalProperties": false});
    for seed in 0..8 {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
        let answer = call(
            &engine,
            json!({"seed": seed, "max_tokens": 120, "response_format": format}),
        )
        .await;
        match answer.finish_reason.as_deref() {
            Some("tool_calls") => calls(&answer).iter().for_each(assert_valid),
            Some("stop") => assert!(jsonschema::is_valid(
                &schema,
                &serde_json::from_str(&answer.text).unwrap()
            )),
            other => assert_eq!(other, Some("length")),
        }
    }
}

#[tokio::test]
async fn without_a_choice_no_tool_is_called_or_shown() {
    let engine = wordy_chat(Family::Llama, Some(MARKED));
    let plain = ask(&engine, question("hi", json!({"seed": 1, "max_tokens": 9})))
        .await
        .unwrap();
    let fields = json!({"tools": tools(), "tool_choice": "none", "seed": 1, "max_tokens": 9});
    let with = ask(&engine, question("hi", fields)).await.unwrap();
    assert_eq!((with.text, with.usage), (plain.text, plain.usage));
}

#[tokio::test]
async fn tools_that_can_not_be_held_to_are_refused_by_their_place() {
    let engine = wordy_chat(Family::Llama, Some(MARKED));
    let tool = |name: &str, parameters: &Value, is_strict: bool| json!({"type": "function", "function": {"name": name, "parameters": parameters, "strict": is_strict}});
    let good = json!({"type": "object"});
    let bad = json!({"type": "object", "properties": {"a": {"type": "nothing"}}});
    let large = json!({"type": "object", "properties": {"a": {"enum": ["x".repeat(150_000)]}}});
    for (list, choice, param) in [
        (
            json!([tool("f", &good, true), tool("g", &bad, true)]),
            "auto",
            "tools[1].function.parameters",
        ),
        (
            json!([tool("f", &good, true), tool("g", &bad, false)]),
            "required",
            "tools[1].function.parameters",
        ),
        // Each alone would do, together they are too much.
        (
            json!([tool("f", &large, true), tool("g", &large, true)]),
            "required",
            "tools[1].function.parameters",
        ),
    ] {
        let fields = json!({"tools": list, "tool_choice": choice, "max_tokens": 20});
        let error = ask(&engine, question("hi", fields)).await.unwrap_err();
        assert_eq!(
            (error.status, error.param.as_deref()),
            (400, Some(param)),
            "{}",
            error.message
        );
    }
}
