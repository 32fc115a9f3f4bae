//! Answers that are held to a schema are of the schema, whatever the model would rather write.

use gristmill_node::engine::chat::ChatEngine;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::asking::{Answer, ask, question, tiny_chat, wordy_chat};
use crate::tiny_models::Family;

fn strict(schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

async fn ask_for(engine: &ChatEngine, schema: &Value, seed: u64, most: usize) -> Answer {
    let fields =
        json!({"response_format": strict(schema), "seed": seed, "max_tokens": most, "temperature": 1.2});
    ask(engine, question("hi", fields)).await.unwrap()
}

fn assert_valid(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap();
    let problem = validator
        .validate(&value)
        .err()
        .map(|problem| problem.to_string());
    assert_eq!(problem, None, "{text} against {schema}");
}

/// Schemas whose values a random model comes to the end of.
fn leaves() -> Vec<Value> {
    vec![
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"type": "integer", "minimum": -40, "maximum": 1_200}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        json!({"type": "string", "maxLength": 5}),
        json!({"type": "string", "minLength": 3, "maxLength": 9}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"enum": ["red", "gr\u{fc}n", 3, null, {"a": 1}]}),
        json!({"const": "only \"this\"\n"}),
        json!({"type": ["integer", "null"], "minimum": 0, "maximum": 9}),
    ]
}

/// A schema of a list, or one that combines some of them.
fn any_schema(random: &mut ChaCha12Rng, depth: usize) -> Value {
    let mut below = |count: usize| random.next_u32() as usize % count;
    let leaves = leaves();
    let kind = if depth == 0 { 0 } else { below(5) };
    match kind {
        0 | 1 => leaves[below(leaves.len())].clone(),
        2 => {
            let (least, more) = (below(2), below(3));
            let items = any_schema(random, depth - 1);
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
        }
        3 => {
            let (one, other) = (any_schema(random, depth - 1), any_schema(random, depth - 1));
            json!({"anyOf": [one, other]})
        }
        _ => {
            let (count, required) = (1 + below(3), below(4));
            let names = ["name", "\u{e4} b", "c"];
            let mut properties = serde_json::Map::new();
            for name in &names[..count] {
                properties.insert((*name).to_owned(), any_schema(random, depth - 1));
            }
            json!({"type": "object", "properties": properties, "required": names[..count.min(required)],
                "additionalProperties": false})
        }
    }
}

#[tokio::test]
async fn whatever_is_asked_for_what_comes_is_of_it() {
    let engines = [wordy_chat(Family::Llama, None), tiny_chat(Family::Qwen3)];
    let mut random = ChaCha12Rng::seed_from_u64(17);
    let (mut whole, mut cut) = (0, 0);
    for round in 0..60 {
        let schema = match leaves().get(round) {
            Some(leaf) => leaf.clone(),
            None => any_schema(&mut random, 2),
        };
        let answer = ask_for(&engines[round % 2], &schema, random.next_u64() >> 1, 120).await;
        match answer.finish_reason.as_deref() {
            Some("stop") => {
                whole += 1;
                assert_valid(&schema, &answer.text);
            }
            Some("length") => cut += 1,
            other => panic!("{other:?} for {schema}"),
        }
    }
    assert!(
        whole >= 45,
        "{whole} whole and {cut} cut: too few to show anything"
    );
}

#[tokio::test]
async fn an_answer_of_a_schema_that_is_cut_says_so() {
    let engine = wordy_chat(Family::Qwen2, None);
    let schema = json!({"type": "object", "properties": {"story": {"type": "string", "minLength": 200}},
        "required": ["story"], "additionalProperties": false});
    for most in [1, 2, 7, 30] {
        let answer = ask_for(&engine, &schema, 4, most).await;
        assert_eq!(answer.finish_reason.as_deref(), Some("length"), "{}", answer.text);
        assert!(answer.text.starts_with('{'), "{}", answer.text);
        assert!(
            serde_json::from_str::<Value>(&answer.text).is_err(),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_list_that_refers_to_itself_can_be_asked_for() {
    let engine = wordy_chat(Family::Llama, None);
    let node = json!({"type": "object", "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 9},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"],
        "additionalProperties": false});
    let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": node}});
    let mut whole = 0;
    for seed in 0..8 {
        let answer = ask_for(&engine, &schema, seed, 300).await;
        if answer.finish_reason.as_deref() == Some("stop") {
            whole += 1;
            assert_valid(&schema, &answer.text);
        }
    }
    assert!(whole > 0);
}

#[tokio::test]
async fn json_mode_gives_an_object() {
    let engine = wordy_chat(Family::Qwen3, None);
    for seed in 0..6 {
        let fields = json!({"response_format": {"type": "json_object"}, "seed": seed, "max_tokens": 200,
            "stop": ["never there"]});
        let answer = ask(&engine, question("hi", fields)).await.unwrap();
        assert!(answer.text.trim_start().starts_with('{'), "{}", answer.text);
        if answer.finish_reason.as_deref() == Some("stop") {
            assert!(serde_json::from_str::<Value>(&answer.text).unwrap().is_object());
        }
    }
}

#[tokio::test]
async fn schemas_that_can_not_be_held_to_are_refused_by_name() {
    let engine = wordy_chat(Family::Llama, None);
    let names = (0..20_000).map(|index| (format!("property_{index}"), json!({"type": "string"})));
    let many: serde_json::Map<String, Value> = names.collect();
    for (schema, why) in [
        (json!({"type": "nothing"}), "nothing"),
        (json!({"$ref": "#/$defs/none"}), "$defs"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
            "nothing can be of it",
        ),
        (
            json!({"type": "integer", "minimum": 5, "maximum": 1}),
            "Unsatisfiable",
        ),
        (json!({"not": {"type": "string"}}), "not"),
        (
            json!({"type": "string", "pattern": "(unclosed"}),
            "unclosed group",
        ),
        (json!({"type": "object", "properties": many}), "262144"),
    ] {
        let fields = json!({"response_format": strict(&schema), "max_tokens": 20});
        let error = ask(&engine, question("hi", fields)).await.unwrap_err();
        assert_eq!(
            (error.status, error.param.as_deref()),
            (400, Some("response_format.json_schema.schema")),
            "{}",
            error.message
        );
        assert!(error.message.contains(why), "{}", error.message);
    }
}

/// Each of these would take for ever, or all memory, without a bound. It may be followed or refused, but soon.
#[tokio::test]
async fn costly_schemas_cost_little() {
    let engine = wordy_chat(Family::Llama, None);
    let pattern = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let one_of_many = |index: usize| json!({"properties": {"a": {"const": index}}, "required": ["a"]});
    let two_of = |index: usize| {
        let property = |name: &str| json!({"properties": {format!("{name}{index}"): {"type": "string"}}});
        json!({"anyOf": [property("a"), property("b")]})
    };
    for schema in [
        pattern("^(a|b)*a(a|b){400}(c|d)*c(c|d){400}$"),
        pattern("^.*a.{1000}b.{1000}$"),
        pattern("(((a{1,100}){1,100}){1,100}){1,100}"),
        json!({"type": "string", "maxLength": 100_000_000}),
        json!({"type": "array", "items": {"type": "string"}, "minItems": 100_000, "maxItems": 100_000_000}),
        json!({"type": "object", "anyOf": (0..2_000).map(one_of_many).collect::<Vec<_>>()}),
        json!({"type": "object", "allOf": (0..20).map(two_of).collect::<Vec<_>>()}),
    ] {
        let fields = json!({"response_format": strict(&schema), "max_tokens": 40, "seed": 1});
        if let Err(error) = ask(&engine, question("hi", fields)).await {
            assert_eq!(error.status, 400, "{}", error.message);
        }
    }
}
