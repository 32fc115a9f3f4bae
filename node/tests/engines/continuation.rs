//! An answer that was cut off goes on as if it had not been.

use gristmill_node::engine::chat::ChatEngine;
use gristmill_node::engine::guide;
use gristmill_node::engine::{EngineRequest, RequestBody};
use gristmill_protocol::job::JobKind;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::asking::{Answer, MODEL, ask, prompt, question, wordy_chat};
use crate::tiny_models::Family;

/// The text that a job was cut off after is handed to the next.
fn go_on(kind: JobKind, model: &str, content: &str, begun: &str, fields: &Value) -> EngineRequest {
    let mut request = match kind {
        JobKind::Completions => prompt(json!(format!("{content}{begun}")), fields.clone()),
        _ => question(content, fields.clone()),
    };
    model.clone_into(&mut request.model);
    let RequestBody::Json(body) = &mut request.body else {
        panic!("text is asked for in JSON");
    };
    if kind == JobKind::Completions {
        body["continued_bytes"] = json!(begun.len());
    } else if !begun.is_empty() {
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": begun}));
        body["continue_final_message"] = json!(true);
        body["add_generation_prompt"] = json!(false);
    }
    request
}

/// Cuts an answer after every `step`th character and lets each rest be written anew.
async fn cut_everywhere(
    engine: &ChatEngine,
    model: &str,
    kind: JobKind,
    content: &str,
    fields: Value,
    step: usize,
) -> Answer {
    let whole = ask(engine, go_on(kind, model, content, "", &fields))
        .await
        .unwrap();
    for (cut, _) in whole.text.char_indices().skip(1).step_by(step) {
        let (begun, rest) = whole.text.split_at(cut);
        let found = ask(engine, go_on(kind, model, content, begun, &fields))
            .await
            .unwrap();
        // Where the answer was cut by its limit, which counts from here on anew, more of it comes.
        let is_same = match whole.finish_reason.as_deref() {
            Some("length") => found.text.starts_with(rest),
            _ => found.text == rest && found.finish_reason == whole.finish_reason,
        };
        assert!(is_same, "{begun:?} went on with {:?}, not {rest:?}", found.text);
    }
    whole
}

#[tokio::test]
async fn an_answer_of_the_guide_goes_on_as_in_one_piece() {
    let engine = guide::load().unwrap();
    let content = "What is Gristmill?";
    let chat = JobKind::ChatCompletions;
    let fields = |most: usize| json!({"temperature": 0, "max_tokens": most});
    let model = guide::GUIDE_MODEL;
    cut_everywhere(&engine, model, chat, content, fields(14), 1).await;
    let whole = cut_everywhere(&engine, model, chat, content, fields(200), 23).await;
    assert_eq!(whole.finish_reason.as_deref(), Some("stop"));
    let raw = "<|im_start|>user\nWhat is Gristmill?<|im_end|>\n<|im_start|>assistant\n";
    let completed = cut_everywhere(&engine, model, JobKind::Completions, raw, fields(14), 1).await;
    assert!(!completed.text.is_empty() && whole.text.starts_with(&completed.text));
}

/// There is nothing to check a random answer against, but with so little chance it is the likeliest one.
#[tokio::test]
async fn a_random_answer_goes_on_within_its_last_word() {
    let engine = guide::load().unwrap();
    let ask_for = |begun: &str| {
        let fields = json!({"temperature": 0.01, "max_tokens": 12});
        let chat = JobKind::ChatCompletions;
        ask(
            &engine,
            go_on(chat, guide::GUIDE_MODEL, "What is Gristmill?", begun, &fields),
        )
    };
    let whole = ask_for("").await.unwrap().text;
    for (cut, _) in whole.char_indices().skip(1).step_by(2) {
        let found = ask_for(&whole[..cut]).await.unwrap().text;
        assert!(found.starts_with(&whole[cut..]), "{cut}: {found:?}");
    }
}

/// Keeps a random model to tokens of ASCII, so that no cut falls within a character that was never whole.
fn only_ascii() -> Value {
    let tokenizer = Tokenizer::from_bytes(include_bytes!("../../guide/tokenizer.json")).unwrap();
    let is_other = |token: &u32| {
        let text = tokenizer.decode(&[*token], true).unwrap();
        text.is_empty() || !text.is_ascii()
    };
    let tokens = 0..u32::try_from(tokenizer.get_vocab_size(true)).unwrap();
    let banned = tokens
        .filter(is_other)
        .map(|token| (token.to_string(), json!(-100)));
    Value::Object(banned.collect())
}

/// Random weights spell texts in ways that no tokenizer would.
#[tokio::test]
async fn what_a_random_model_writes_goes_on_at_every_cut_as_in_one_piece() {
    let bias = only_ascii();
    for family in Family::ALL {
        let engine = wordy_chat(family, None);
        let mut fields = json!({"temperature": 0, "logit_bias": bias, "max_tokens": 12});
        cut_everywhere(
            &engine,
            MODEL,
            JobKind::ChatCompletions,
            "Tell me.",
            fields.clone(),
            1,
        )
        .await;
        // Penalties count the tokens that were written before the cut.
        fields["presence_penalty"] = json!(1.5);
        fields["frequency_penalty"] = json!(0.5);
        cut_everywhere(&engine, MODEL, JobKind::Completions, "Tell me.", fields, 3).await;
    }
}
