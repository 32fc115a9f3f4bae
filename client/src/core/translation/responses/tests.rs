use super::*;
use crate::core::translation::Translation;
use bytes::Bytes;

fn answer() -> ResponsesAnswer {
    let asked = json!({"model": "guide", "store": false})
        .as_object()
        .unwrap()
        .clone();
    ResponsesAnswer::new(asked).of_request(RequestId::from_random([7; 16]), 5)
}

fn events(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    let read = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(read).collect()
}

fn stream(chunks: &[Value]) -> Vec<Value> {
    let mut translation = Translation::Responses(Box::new(answer()));
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&translation.piece(format!("data: {chunk}\n\n").into()).bytes);
    }
    let end = translation.piece(Bytes::from_static(b"data: [DONE]\n\n"));
    assert!(end.is_end);
    out.extend_from_slice(&end.bytes);
    let events = events(&out);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    events
}

fn types(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn last(reason: &str) -> [Value; 2] {
    [
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            "gristmill": {"cost": 9}}),
    ]
}

#[test]
fn a_text_streams_in_openais_order() {
    let mut chunks = vec![
        delta(json!({"role": "assistant", "content": "Grist"})),
        delta(json!({"content": "mill"})),
    ];
    chunks.extend(last("stop"));
    let events = stream(&chunks);
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    assert_eq!(events[2]["item"]["content"], json!([]));
    assert_eq!(
        events[3]["part"],
        json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []})
    );
    assert_eq!(
        (&events[4]["delta"], &events[4]["content_index"]),
        (&json!("Grist"), &json!(0))
    );
    assert_eq!(events[6]["text"], "Gristmill");
    let response = &events[9]["response"];
    assert_eq!(response["id"], format!("resp_req_{}", "07".repeat(16)));
    assert_eq!(
        (
            &response["status"],
            &response["created_at"],
            &response["gristmill"]["cost"]
        ),
        (&json!("completed"), &json!(5), &json!(9))
    );
    assert_eq!(response["output"][0]["content"][0]["text"], "Gristmill");
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5})
    );
    assert_eq!(events[0]["response"]["usage"], Value::Null);
}

#[test]
fn reasoning_and_tool_calls_are_items_of_their_own() {
    let call = |index: u64, id: &str| {
        delta(
            json!({"tool_calls": [{"index": index, "id": id, "type": "function",
            "function": {"name": "f", "arguments": ""}}]}),
        )
    };
    let more = |index: u64, text: &str| {
        delta(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}))
    };
    let mut chunks = vec![
        delta(json!({"reasoning_content": "hm"})),
        call(0, "a"),
        more(0, "{\"x\""),
        more(0, ":1}"),
        call(1, "b"),
        more(1, "{}"),
    ];
    chunks.extend(last("tool_calls"));
    let events = stream(&chunks);
    assert_eq!(
        types(&events)[2..],
        [
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let output = &events.last().unwrap()["response"]["output"];
    assert_eq!(
        output[0]["content"][0],
        json!({"type": "reasoning_text", "text": "hm"})
    );
    assert_eq!(
        (
            &output[1]["call_id"],
            &output[1]["arguments"],
            &output[2]["call_id"]
        ),
        (&json!("a"), &json!("{\"x\":1}"), &json!("b"))
    );
}

#[test]
fn an_answer_that_was_cut_is_incomplete() {
    let mut chunks = vec![delta(json!({"content": "Gri"}))];
    chunks.extend(last("length"));
    let events = stream(&chunks);
    let end = events.last().unwrap();
    assert_eq!(end["type"], "response.incomplete");
    assert_eq!(
        end["response"]["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
}

#[test]
fn a_broken_stream_fails_where_sdks_look() {
    let failure = ApiFailure::provider_failed("gone");
    let error: Value = serde_json::from_str(&failure.to_json()).unwrap();
    let events = stream(&[delta(json!({"content": "Gri"})), error]);
    let types = types(&events);
    assert_eq!(types[types.len() - 2..], ["response.failed", "error"]);
    let failed = &events[events.len() - 2]["response"];
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("provider_failed"))
    );
    assert_eq!(failed["output"][0]["content"][0]["text"], "Gri");
    // The SDKs raise on a field 'error' that is an object with a message.
    assert_eq!(events.last().unwrap()["error"]["message"], "gone");
}

#[test]
fn mixed_arguments_are_a_failure_and_not_a_wrong_call() {
    let call = |index: u64| {
        delta(
            json!({"tool_calls": [{"index": index, "id": "x", "function": {"name": "f", "arguments": ""}}]}),
        )
    };
    let late = delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "1"}}]}));
    let events = stream(&[call(0), call(1), late]);
    assert_eq!(events.last().unwrap()["type"], "error");
}

#[test]
fn a_whole_answer_is_the_same_response() {
    let chat = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Gristmill"},
            "logprobs": {"content": [{"token": "Gristmill", "logprob": -0.5}]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, "gristmill": {"cost": 9}});
    let translation = Translation::Responses(Box::new(answer()));
    let whole = translation.whole(chat.to_string().into()).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(
        (&whole["status"], &whole["object"]),
        (&json!("completed"), &json!("response"))
    );
    let part = &whole["output"][0]["content"][0];
    assert_eq!(
        (&part["text"], &part["logprobs"][0]["logprob"]),
        (&json!("Gristmill"), &json!(-0.5))
    );
    assert!(whole["sequence_number"].is_null());
}
