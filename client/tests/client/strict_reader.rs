//! A program that takes nothing in a stream for granted.

use serde_json::Value;

use crate::harness::events;

/// What a program makes of a stream.
#[derive(Debug, Default, PartialEq)]
pub struct Read {
    pub text: String,
    pub reasoning: String,
    pub finish: Vec<String>,
    pub usage: Value,
    pub gristmill: Value,
    pub error: Value,
}

/// Reads a stream as a strict program does: one id, one time, one model, one role.
pub fn understood(stream: &str) -> Read {
    let mut read = Read::default();
    let (mut heads, mut roles) = (Vec::new(), 0);
    for event in events(stream) {
        if event == "[DONE]" {
            break;
        }
        let event: Value = serde_json::from_str(&event).unwrap();
        if !event["error"].is_null() {
            read.error = event["error"].clone();
            continue;
        }
        heads.push((
            event["id"].clone(),
            event["created"].clone(),
            event["model"].clone(),
        ));
        for choice in event["choices"].as_array().unwrap() {
            let delta = &choice["delta"];
            roles += usize::from(!delta["role"].is_null());
            read.text.push_str(delta["content"].as_str().unwrap_or_default());
            read.text.push_str(choice["text"].as_str().unwrap_or_default());
            read.reasoning
                .push_str(delta["reasoning_content"].as_str().unwrap_or_default());
            read.finish
                .extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
        for (name, field) in [("usage", &mut read.usage), ("gristmill", &mut read.gristmill)] {
            if !event[name].is_null() {
                assert!(field.is_null(), "{name} comes once");
                *field = event[name].clone();
            }
        }
    }
    heads.dedup();
    assert!(
        heads.len() <= 1 && roles <= 1,
        "one answer: {heads:?}, {roles} roles"
    );
    read
}
