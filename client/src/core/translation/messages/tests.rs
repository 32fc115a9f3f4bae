use super::*;
use crate::core::translation::Translation;
use bytes::Bytes;

fn translation() -> Translation {
    let answer = MessagesAnswer::new("guide".into()).of_request(RequestId::from_random([7; 16]));
    Translation::Messages(Box::new(answer))
}

fn stream(chunks: &[Value]) -> Vec<Value> {
    let mut translation = translation();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&translation.piece(format!("data: {chunk}\n\n").into()).bytes);
    }
    out.extend_from_slice(&translation.piece(Bytes::from_static(b"data: [DONE]\n\n")).bytes);
    let text = String::from_utf8(out).unwrap();
    let read = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(read).collect()
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn last(choice: Value) -> [Value; 2] {
    [
        json!({"choices": [choice]}),
        json!({"choices": [], "gristmill": {"cost": 9}, "usage": {"prompt_tokens": 5, "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 2}}}),
    ]
}

#[test]
fn a_text_streams_in_anthropics_order() {
    let mut chunks = vec![
        delta(json!({"content": "Grist"})),
        delta(json!({"content": "mill"})),
    ];
    chunks.extend(last(json!({"delta": {}, "finish_reason": "stop"})));
    let events = stream(&chunks);
    let usage = json!({"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 2});
    assert_eq!(
        events[1..],
        [
            json!({"type": "ping"}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grist"}}),
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "mill"}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": usage,
                "gristmill": {"cost": 9}}),
            json!({"type": "message_stop"}),
        ]
    );
    let message = &events[0]["message"];
    assert_eq!(
        (&events[0]["type"], &message["role"], &message["content"]),
        (&json!("message_start"), &json!("assistant"), &json!([]))
    );
    assert_eq!(message["id"], format!("msg_req_{}", "07".repeat(16)));
}

#[test]
fn thinking_and_tools_are_blocks_of_their_own() {
    let call =
        json!({"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}});
    let mut chunks = vec![
        delta(json!({"reasoning": "hm"})),
        delta(json!({"tool_calls": [call]})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
    ];
    chunks.extend(last(json!({"delta": {}, "finish_reason": "tool_calls"})));
    let events = stream(&chunks);
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|event| event["delta"]["type"].as_str())
        .collect();
    assert_eq!(kinds, ["thinking_delta", "input_json_delta", "input_json_delta"]);
    let stop = events
        .iter()
        .find(|event| event["type"] == "message_delta")
        .unwrap();
    assert_eq!(stop["delta"]["stop_reason"], "tool_use");
}

#[test]
fn a_whole_answer_is_a_message() {
    let whole = |chat: Value| translation().whole(chat.to_string().into());
    let chat = |arguments: &str| {
        json!({"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "gristmill": {"cost": 9}})
    };
    let message: Value = serde_json::from_slice(&whole(chat("{\"a\":1}")).unwrap()).unwrap();
    assert_eq!(
        message["content"],
        json!([{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}])
    );
    assert_eq!(
        (&message["stop_reason"], &message["usage"]["input_tokens"]),
        (&json!("tool_use"), &json!(5))
    );
    assert_eq!(message["gristmill"]["cost"], 9);
    assert_eq!(whole(chat("{\"a\"")).unwrap_err().status, 502);
    let stopped =
        json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "###"}]});
    let message: Value = serde_json::from_slice(&whole(stopped).unwrap()).unwrap();
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("###"))
    );
}

#[test]
fn failures_have_anthropics_shape() {
    let error: Value = serde_json::from_str(&ApiFailure::provider_failed("gone").to_json()).unwrap();
    let events = stream(&[delta(json!({"content": "Gri"})), error]);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["error"]["type"], &last["error"]["message"]),
        (&json!("error"), &json!("api_error"), &json!("gone"))
    );
    let id = RequestId::from_random([7; 16]);
    let body: Value =
        serde_json::from_str(&failure_json(&ApiFailure::model_not_found("x", &[]), Some(&id))).unwrap();
    assert_eq!(
        (
            &body["type"],
            &body["error"]["type"],
            &body["error"]["param"],
            &body["request_id"]
        ),
        (
            &json!("error"),
            &json!("not_found_error"),
            &json!("model"),
            &json!(id)
        )
    );
}
