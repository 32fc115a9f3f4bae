//! Going on with raw text: `/v1/completions` through the engine.

use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::{Unit, Usage};
use serde_json::{Value, json};

use crate::asking::{Answer, ask, prompt, tiny_chat, wordy_chat};
use crate::tiny_models::Family;

/// The text of one of several choices.
fn text(answer: &Answer, index: u64) -> String {
    let choices = answer.chunks.iter().map(|chunk| &chunk["choices"][0]);
    let own = choices.filter(|choice| choice["index"] == index);
    own.map(|choice| choice["text"].as_str().unwrap()).collect()
}

/// The log-probabilities of one of several choices, joined from its chunks.
fn logprobs(answer: &Answer, index: u64, field: &str) -> Vec<Value> {
    let choices = answer.chunks.iter().map(|chunk| &chunk["choices"][0]);
    choices
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice["logprobs"][field].as_array().cloned())
        .flatten()
        .collect()
}

#[tokio::test]
async fn a_prompt_can_be_text_or_tokens_alone_or_many() {
    let engine = tiny_chat(Family::Llama);
    let run = async |value: Value| {
        let fields = json!({"temperature": 0, "max_tokens": 6});
        ask(&engine, prompt(value, fields)).await.unwrap()
    };
    let one = run(json!("ab")).await;
    assert_eq!(one.chunks[0]["object"], "text_completion");
    assert_eq!(one.chunks[0]["id"], "cmpl-req_1");
    assert_eq!(one.finish_reason.as_deref(), Some("length"));
    assert_eq!(one.usage, Usage::tokens(2, 6));
    // A byte each is a token of these models.
    for same in [json!(["ab"]), json!([97, 98]), json!([[97, 98]])] {
        let found = run(same).await;
        assert_eq!((found.text, found.usage), (one.text.clone(), one.usage.clone()));
    }
    let other = run(json!("xyz")).await;
    for two in [json!(["ab", "xyz"]), json!([[97, 98], [120, 121, 122]])] {
        let both = run(two).await;
        assert_eq!(
            (text(&both, 0), text(&both, 1)),
            (one.text.clone(), other.text.clone())
        );
        assert_eq!(both.usage, Usage::tokens(5, 12));
    }
}

#[tokio::test]
async fn an_echo_comes_before_each_answer_and_can_come_alone() {
    let engine = wordy_chat(Family::Qwen2, None);
    let fields = json!({"temperature": 0, "max_tokens": 5, "echo": true});
    let plain = json!({"temperature": 0, "max_tokens": 5});
    let with = ask(&engine, prompt(json!("Tell me"), fields.clone()))
        .await
        .unwrap();
    let without = ask(&engine, prompt(json!("Tell me"), plain)).await.unwrap();
    assert_eq!(with.text, format!("Tell me{}", without.text));
    assert_eq!(with.usage, without.usage);
    let tokens = ask(&engine, prompt(json!([60, 61]), fields)).await.unwrap();
    assert!(tokens.text.len() > 2);

    // Nothing but the prompt, and how likely it was: what is asked to judge a text.
    let judge = json!({"max_tokens": 0, "echo": true, "logprobs": 2});
    let judged = ask(&engine, prompt(json!("Tell me more"), judge)).await.unwrap();
    assert_eq!(
        (judged.text.as_str(), judged.usage.count(Unit::OutputToken)),
        ("Tell me more", 0)
    );
    let tokens = logprobs(&judged, 0, "tokens");
    let joined: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(joined, "Tell me more");
    let likelihoods = logprobs(&judged, 0, "token_logprobs");
    assert_eq!((likelihoods.len(), &likelihoods[0]), (tokens.len(), &Value::Null));
    assert!(
        likelihoods[1..]
            .iter()
            .all(|value| value.as_f64().is_some_and(|value| value < 0.0))
    );
    let top = logprobs(&judged, 0, "top_logprobs");
    assert!(
        top[1..]
            .iter()
            .all(|entries| entries.as_object().unwrap().len() <= 2)
    );
    assert_eq!(logprobs(&judged, 0, "text_offset")[0], 0);
}

#[tokio::test]
async fn log_probabilities_belong_to_the_text_that_they_come_with() {
    let engine = wordy_chat(Family::Llama, None);
    let fields = json!({"temperature": 0, "max_tokens": 9, "logprobs": 3, "echo": true});
    let answer = ask(&engine, prompt(json!("hi"), fields)).await.unwrap();
    let offsets: Vec<_> = logprobs(&answer, 0, "text_offset");
    let tokens: Vec<_> = logprobs(&answer, 0, "tokens");
    let chosen: Vec<_> = logprobs(&answer, 0, "token_logprobs");
    let top: Vec<_> = logprobs(&answer, 0, "top_logprobs");
    assert_eq!(
        (offsets.len(), top.len(), chosen.len()),
        (tokens.len(), tokens.len(), tokens.len())
    );
    let written = tokens.len() - 9;
    for index in written..tokens.len() {
        let likeliest = top[index]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_f64)
            .fold(f64::MIN, f64::max);
        assert_eq!(chosen[index].as_f64(), Some(likeliest), "{index}");
    }
    let sorted = offsets
        .windows(2)
        .all(|pair| pair[0].as_u64() <= pair[1].as_u64());
    assert!(sorted, "{offsets:?}");
}

#[tokio::test]
async fn several_answers_differ_and_a_seed_repeats_all_of_them() {
    let engine = wordy_chat(Family::Qwen3, None);
    let run = async |seed: u64| {
        let fields = json!({"n": 3, "seed": seed, "max_tokens": 8, "temperature": 1.5});
        ask(&engine, prompt(json!(["a", "b"]), fields)).await.unwrap()
    };
    let first = run(3).await;
    let texts: Vec<String> = (0..6).map(|index| text(&first, index)).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    assert_ne!(texts[0], texts[1]);
    // Each prompt is read and paid once.
    assert_eq!(first.usage.count(Unit::InputToken), 2);
    assert_eq!(first.usage.count(Unit::OutputToken), 48);
    assert_eq!(run(3).await.chunks.len(), first.chunks.len());
    assert_eq!((0..6).map(|index| text(&first, index)).collect::<Vec<_>>(), texts);
    let again = run(3).await;
    assert_eq!((0..6).map(|index| text(&again, index)).collect::<Vec<_>>(), texts);
    let other = run(4).await;
    assert_ne!((0..6).map(|index| text(&other, index)).collect::<Vec<_>>(), texts);
}

#[tokio::test]
async fn a_stop_string_ends_a_text_but_is_not_looked_for_in_its_prompt() {
    let engine = tiny_chat(Family::Qwen2);
    let fields = |stop: Value| json!({"temperature": 0, "max_tokens": 30, "echo": true, "stop": stop});
    let whole = ask(&engine, prompt(json!("hi"), fields(Value::Null)))
        .await
        .unwrap();
    let answer = &whole.text[2..];
    let characters: Vec<(usize, char)> = answer.char_indices().collect();
    let stop = &answer[characters[6].0..characters[8].0];
    let stopped = ask(&engine, prompt(json!("hi"), fields(json!(["hi", stop]))))
        .await
        .unwrap();
    let until = [stop, "hi"]
        .iter()
        .filter_map(|stop| answer.find(stop))
        .min()
        .unwrap();
    assert_eq!(stopped.text, format!("hi{}", &answer[..until]));
    assert_eq!(stopped.finish_reason.as_deref(), Some("stop"));
}

#[tokio::test]
async fn what_can_not_be_honoured_is_refused_by_name() {
    let engine = tiny_chat(Family::Llama);
    for (field, value, code) in [
        ("suffix", json!("end"), "unsupported_parameter"),
        ("best_of", json!(2), "unsupported_parameter"),
        ("prompt", json!([900]), "invalid_request_error"),
        ("prompt", json!(""), "invalid_request_error"),
        ("prompt", json!(vec![1; 600]), "context_length_exceeded"),
        ("logprobs", json!(6), "invalid_request_error"),
        ("continued_bytes", json!(9), "invalid_request_error"),
    ] {
        let request = prompt(json!("hi"), json!({field: value}));
        let error = ask(&engine, request).await.unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str(), error.param.as_deref()),
            (400, code, Some(field)),
            "{}",
            error.message
        );
    }
    let mut other = prompt(json!("hi"), json!({}));
    other.kind = JobKind::Embeddings;
    assert_eq!(ask(&engine, other).await.unwrap_err().status, 404);
}
