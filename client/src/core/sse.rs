//! Server-sent events as OpenAI's clients read them: `data:` lines, each its own event, and comments that keep a
//! silent connection alive.

use serde_json::{Map, Value, json};
use thiserror::Error;

/// Keeps a silent connection alive. No blank line follows: an empty event breaks real clients.
pub const KEEP_ALIVE: &[u8] = b": ping\n";
/// The last event of every stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";
/// Lines are shorter than this: some clients read with buffers of this size.
pub const LINE_LIMIT_BYTES: usize = 128 * 1024;
/// Most bytes of one piece of a text that is cut. JSON writes one byte as six at worst, so a piece fits a line.
const PIECE_MAX_BYTES: usize = 16 * 1024;
/// Fields of a delta that can be cut: clients append them.
const TEXT_FIELDS: [&str; 4] = ["content", "reasoning_content", "reasoning", "refusal"];

/// A chunk that doesn't fit a line, also when its texts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the provider sent a chunk that no line of a stream can carry")]
pub struct TooLong;

/// Appends one event with a JSON text, which must have no line breaks.
pub fn write_event(json: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Appends a chunk as an event, or as several where it is too long for one line.
///
/// # Errors
/// [`TooLong`] where it can't be cut so that it fits.
pub fn write_chunk(chunk: Map<String, Value>, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = out.len();
    write_value(&chunk, out);
    if out.len() - start < LINE_LIMIT_BYTES {
        return Ok(());
    }
    out.truncate(start);
    for part in cut_chunk(chunk) {
        let start = out.len();
        write_value(&part, out);
        if out.len() - start >= LINE_LIMIT_BYTES {
            return Err(TooLong);
        }
    }
    Ok(())
}

fn write_value(chunk: &Map<String, Value>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // Writing JSON values into memory does not fail.
    let _ = serde_json::to_writer(&mut *out, chunk);
    out.extend_from_slice(b"\n\n");
}

/// One chunk for each choice and each piece of its texts.
fn cut_chunk(mut chunk: Map<String, Value>) -> Vec<Map<String, Value>> {
    let Some(Value::Array(choices)) = chunk.insert("choices".into(), json!([])) else {
        return vec![chunk];
    };
    let mut parts = Vec::new();
    for choice in choices {
        match choice {
            Value::Object(choice) => parts.extend(cut_choice(choice)),
            other => parts.push(other),
        }
    }
    let in_chunk = |choice: Value| {
        let mut part = chunk.clone();
        part.insert("choices".into(), json!([choice]));
        part
    };
    parts.into_iter().map(in_chunk).collect()
}

/// The choice with the first piece of each text, then the other pieces; the end of the choice stands in the last.
fn cut_choice(mut choice: Map<String, Value>) -> Vec<Value> {
    let index = choice.get("index").cloned().unwrap_or(json!(0));
    let finish = choice
        .insert("finish_reason".into(), Value::Null)
        .unwrap_or_default();
    let mut rest = Vec::new();
    if let Some(Value::Object(delta)) = choice.get_mut("delta") {
        for field in TEXT_FIELDS {
            if let Some(Value::String(text)) = delta.get_mut(field) {
                rest.extend(cut_text(text).into_iter().map(|piece| json!({ field: piece })));
            }
        }
        for call in delta
            .get_mut("tool_calls")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let index = call.get("index").cloned().unwrap_or(json!(0));
            if let Some(Value::String(text)) = call.pointer_mut("/function/arguments") {
                rest.extend(cut_text(text).into_iter().map(
                    |piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
                ));
            }
        }
    }
    // Completions have a text where chats have a delta.
    let texts = match choice.get_mut("text") {
        Some(Value::String(text)) => cut_text(text),
        _ => Vec::new(),
    };
    let mut parts = vec![Value::Object(choice)];
    let later = |delta| json!({"index": index, "delta": delta, "finish_reason": null});
    parts.extend(rest.into_iter().map(later));
    let later = |text| json!({"text": text, "index": index, "logprobs": null, "finish_reason": null});
    parts.extend(texts.into_iter().map(later));
    if let Some(last) = parts.last_mut() {
        last["finish_reason"] = finish;
    }
    parts
}

/// Leaves the first piece of a text and returns the others.
fn cut_text(text: &mut String) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text.split_off(text.floor_char_boundary(PIECE_MAX_BYTES));
    while !rest.is_empty() {
        let next = rest.split_off(rest.floor_char_boundary(PIECE_MAX_BYTES));
        pieces.push(std::mem::replace(&mut rest, next));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(choices: Value) -> Map<String, Value> {
        let Value::Object(chunk) = json!({"id": "a", "choices": choices}) else {
            unreachable!()
        };
        chunk
    }

    fn written(choices: Value) -> Vec<Value> {
        let mut out = Vec::new();
        write_chunk(chunk(choices), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\n\n"));
        let events: Vec<&str> = text.trim_end().split("\n\n").collect();
        assert!(
            events
                .iter()
                .all(|event| event.len() < LINE_LIMIT_BYTES && !event.contains('\n'))
        );
        events
            .iter()
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn a_short_chunk_is_one_event() {
        let mut out = Vec::new();
        write_chunk(chunk(json!([])), &mut out).unwrap();
        assert_eq!(out, b"data: {\"id\":\"a\",\"choices\":[]}\n\n");
    }

    #[test]
    fn what_can_t_be_cut_is_an_error() {
        let mut out = Vec::new();
        let long = chunk(json!([{"index": 0, "delta": {}, "odd": "x".repeat(LINE_LIMIT_BYTES)}]));
        assert_eq!(write_chunk(long, &mut out), Err(TooLong));
    }

    #[test]
    fn the_end_of_a_choice_stands_in_its_last_piece() {
        let text = "\u{1}".repeat(40_000);
        let call = json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "y".repeat(20_000)}});
        let delta = json!({"role": "assistant", "content": text, "tool_calls": [call]});
        let events = written(json!([{"index": 2, "delta": delta, "finish_reason": "stop"}]));
        assert_eq!(events.len(), 4);
        for (position, event) in events.iter().enumerate() {
            let choice = &event["choices"][0];
            assert_eq!((&event["id"], &choice["index"]), (&json!("a"), &json!(2)));
            let finish = if position == 3 { json!("stop") } else { Value::Null };
            assert_eq!(choice["finish_reason"], finish);
        }
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(
            events[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"],
            "f"
        );
    }

    proptest! {
        /// Whatever is written, lines are short and the texts are the same when appended.
        #[test]
        fn long_texts_come_back(text in ".{0,2000}", times in 1usize..200) {
            let text = text.repeat(times);
            let events = written(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}]));
            let joined: String = events
                .iter()
                .map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap())
                .collect();
            prop_assert_eq!(joined, text);
        }
    }
}
