use super::*;

fn chat(request: Value) -> Value {
    let translated = TranslatedRequest::of_responses(request.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&translated.chat).unwrap()
}

#[test]
fn a_text_is_a_question() {
    assert_eq!(
        chat(
            json!({"model": "guide", "input": "Hi", "instructions": "Be short.", "max_output_tokens": 9,
            "temperature": 0.5, "store": true, "odd": [1]})
        ),
        json!({"model": "guide", "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
            "stream": false, "max_tokens": 9, "temperature": 0.5, "odd": [1]})
    );
    let streamed = chat(json!({"model": "guide", "input": "Hi", "stream": true}));
    assert_eq!(streamed["stream_options"], json!({"include_usage": true}));
}

#[test]
fn a_tools_loop_is_a_conversation() {
    let request = json!({"model": "guide", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
        "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": true, "description": null}],
        "tool_choice": {"type": "function", "name": "weather"}, "parallel_tool_calls": false});
    let chat = chat(request);
    assert_eq!(
        chat["messages"][0]["content"],
        json!([{"type": "text", "text": "Weather?"}])
    );
    let turn = &chat["messages"][1];
    assert_eq!(
        (&turn["content"], turn["tool_calls"].as_array().unwrap().len()),
        (&json!("Let me see."), 2)
    );
    assert_eq!(
        chat["messages"][2],
        json!({"role": "tool", "tool_call_id": "c1", "content": "rain"})
    );
    assert_eq!(
        chat["tools"],
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": true}}])
    );
    assert_eq!(
        chat["tool_choice"],
        json!({"type": "function", "function": {"name": "weather"}})
    );
    assert_eq!(chat["parallel_tool_calls"], false);
}

#[test]
fn formats_reasoning_and_logprobs_are_fields_of_the_chat() {
    let chat = chat(
        json!({"model": "guide", "input": "Hi", "include": ["message.output_text.logprobs"], "top_logprobs": 2,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}}}),
    );
    assert_eq!(
        chat["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}})
    );
    assert_eq!(
        (
            &chat["reasoning_effort"],
            &chat["logprobs"],
            &chat["top_logprobs"]
        ),
        (&json!("low"), &json!(true), &json!(2))
    );
}

#[test]
fn what_needs_a_memory_is_a_400_that_names_the_field() {
    let with = |field: &str, value: Value| {
        let mut request = json!({"model": "guide", "input": "Hi"});
        request[field] = value;
        TranslatedRequest::of_responses(request.to_string().as_bytes()).unwrap_err()
    };
    for (field, value) in [
        ("previous_response_id", json!("resp_1")),
        ("conversation", json!("conv_1")),
        ("prompt", json!({"id": "p"})),
        ("background", json!(true)),
        ("truncation", json!("auto")),
        ("tools", json!([{"type": "web_search"}])),
        ("input", json!([{"type": "item_reference", "id": "x"}])),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]),
        ),
    ] {
        let failure = with(field, value);
        assert_eq!(
            (failure.status, failure.code.as_ref(), failure.param.as_deref()),
            (400, "unsupported_parameter", Some(field))
        );
    }
    for (field, value) in [
        ("input", json!(5)),
        ("input", json!([])),
        ("input", json!([{"type": "reasoning", "summary": []}])),
        ("text", json!("json")),
        ("instructions", json!([])),
    ] {
        assert_eq!(with(field, value).param.as_deref(), Some(field));
    }
    for body in ["", "[]", "{"] {
        assert_eq!(
            TranslatedRequest::of_responses(body.as_bytes())
                .unwrap_err()
                .status,
            400
        );
    }
}
