//! The guide is part of the program and answers through the engine like every other model.

use gristmill_node::engine::Engine;
use gristmill_node::engine::guide;
use gristmill_protocol::job::JobKind;
use serde_json::json;

use crate::asking::{ask, question};

#[tokio::test]
async fn the_guide_answers_what_gristmill_is_in_words() {
    let engine = guide::load().unwrap();
    let [model, raw] = &engine.models()[..] else {
        panic!("one model, for two kinds of jobs")
    };
    assert_eq!(
        (model.name.as_str(), model.kind),
        (guide::GUIDE_MODEL, JobKind::ChatCompletions)
    );
    assert_eq!((&raw.name, raw.kind), (&model.name, JobKind::Completions));
    assert!(model.context_length >= 256 && model.weights_digest.is_some());
    let mut request = question("What is Gristmill?", json!({}));
    request.model = guide::GUIDE_MODEL.to_owned();
    let answer = ask(&engine, request).await.unwrap();
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"), "{}", answer.text);
    assert!(answer.text.contains("Gristmill"), "{}", answer.text);
    assert!(answer.text.split_whitespace().count() >= 5, "{}", answer.text);
    assert!(
        answer
            .text
            .chars()
            .all(|character| !character.is_control() || character == '\n'),
        "{}",
        answer.text
    );
}
