use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn chat(body: &str) -> Result<ProgramRequest, ApiFailure> {
    ProgramRequest::parse(JobKind::ChatCompletions, Bytes::copy_from_slice(body.as_bytes()))
}

fn chat_with(fields: Value) -> Result<ProgramRequest, ApiFailure> {
    let mut body = json!({"model": "guide", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    chat(&body.to_string())
}

#[test]
fn a_plain_request_needs_nothing() {
    let request =
        chat_with(json!({"temperature": 0.5, "tools": [], "n": 1, "logit_bias": {}, "stream": null}));
    let request = request.unwrap();
    assert_eq!(
        (request.model.as_str(), request.stream, request.choices),
        ("guide", false, 1)
    );
    assert!(request.needs.is_empty() && request.output_tokens_max.is_none());
}

#[test]
fn fields_ask_for_capabilities() {
    for (fields, capability, field) in [
        (json!({"tools": [{}]}), Capability::Tools, "tools"),
        (
            json!({"response_format": {"type": "json_object"}}),
            Capability::StructuredOutput,
            "response_format",
        ),
        (json!({"logprobs": true}), Capability::Logprobs, "logprobs"),
        (json!({"top_logprobs": 2}), Capability::Logprobs, "top_logprobs"),
        (
            json!({"logit_bias": {"5": 1}}),
            Capability::LogitBias,
            "logit_bias",
        ),
        (json!({"n": 2}), Capability::ManyChoices, "n"),
        (
            json!({"continue_final_message": true}),
            Capability::Continuation,
            "continue_final_message",
        ),
        (
            json!({"messages": [{"content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]}),
            Capability::ImageInput,
            "messages",
        ),
    ] {
        let needs = chat_with(fields.clone()).unwrap().needs;
        assert_eq!(needs, BTreeMap::from([(capability, field)]), "{fields}");
    }
    let plain = json!({"response_format": {"type": "text"}, "logprobs": false});
    assert!(chat_with(plain).unwrap().needs.is_empty());
}

#[test]
fn the_larger_token_limit_counts_and_negative_ones_are_none() {
    let limit = |fields| chat_with(fields).unwrap().output_tokens_max;
    assert_eq!(limit(json!({"max_tokens": 5})), Some(5));
    assert_eq!(
        limit(json!({"max_tokens": 5, "max_completion_tokens": 9})),
        Some(9)
    );
    assert_eq!(limit(json!({"max_tokens": -1})), None);
}

#[test]
fn what_can_t_be_understood_names_the_field() {
    for (body, param) in [
        ("", None),
        ("[]", None),
        ("{\"model\":", None),
        ("{\"model\":\"a\",\"model\":\"b\",\"messages\":[{}]}", None),
        ("{}", Some("model")),
        ("{\"model\":5}", Some("model")),
        ("{\"model\":\"\"}", Some("model")),
        ("{\"model\":\"a\"}", Some("messages")),
        ("{\"model\":\"a\",\"messages\":\"x\"}", Some("messages")),
        ("{\"model\":\"a\",\"messages\":[]}", Some("messages")),
    ] {
        let failure = chat(body).unwrap_err();
        assert_eq!((failure.status, failure.param.as_deref()), (400, param), "{body}");
    }
    for (fields, param) in [
        (json!({"stream": "yes"}), "stream"),
        (json!({"n": 0}), "n"),
        (json!({"n": 129}), "n"),
        (json!({"n": 1.5}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": "5"}), "max_completion_tokens"),
        (json!({"tools": {}}), "tools"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"stream_options": true}), "stream_options"),
    ] {
        let failure = chat_with(fields.clone()).unwrap_err();
        assert_eq!(
            (failure.status, failure.param.as_deref()),
            (400, Some(param)),
            "{fields}"
        );
    }
    let not_text = Bytes::from_static(b"{\"model\":\"\xff\"}");
    assert_eq!(
        ProgramRequest::parse(JobKind::ChatCompletions, not_text)
            .unwrap_err()
            .status,
        400
    );
}

#[test]
fn embeddings_take_texts_and_tokens() {
    let parse =
        |body: &str| ProgramRequest::parse(JobKind::Embeddings, Bytes::copy_from_slice(body.as_bytes()));
    for (input, is_tokens) in [
        ("\"a\"", false),
        ("[\"a\",\"b\"]", false),
        ("[1,2]", true),
        ("[[1],[2]]", true),
    ] {
        let request = parse(&format!("{{\"model\":\"e\",\"input\":{input}}}")).unwrap();
        assert_eq!(
            request.needs.contains_key(&Capability::TokenInput),
            is_tokens,
            "{input}"
        );
    }
    let encoding = |format: &str| {
        let body = format!("{{\"model\":\"e\",\"input\":\"a\",\"encoding_format\":\"{format}\"}}");
        parse(&body).map(|request| request.encoding)
    };
    assert_eq!(encoding("base64").unwrap(), VectorEncoding::Base64);
    assert_eq!(
        encoding("int8").unwrap_err().param.as_deref(),
        Some("encoding_format")
    );
    let request = parse("{\"model\":\"e\",\"input\":\"a\",\"dimensions\":64}").unwrap();
    assert_eq!(
        request.needs,
        BTreeMap::from([(Capability::Dimensions, "dimensions")])
    );
    for body in [
        "{\"model\":\"e\"}",
        "{\"model\":\"e\",\"input\":5}",
        "{\"model\":\"e\",\"input\":{}}",
    ] {
        assert_eq!(parse(body).unwrap_err().param.as_deref(), Some("input"), "{body}");
    }
}

#[test]
fn forced_tools_strict_schemas_and_seeds_are_needs_of_their_own() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (fields, capability, field) in [
        (
            json!({"tools": tools, "tool_choice": "required"}),
            Capability::ForcedTools,
            "tool_choice",
        ),
        (
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            Capability::ForcedTools,
            "tool_choice",
        ),
        (
            json!({"tools": tools, "parallel_tool_calls": false}),
            Capability::ForcedTools,
            "parallel_tool_calls",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true}}}),
            Capability::StrictSchema,
            "response_format",
        ),
        (json!({"seed": 7}), Capability::Seed, "seed"),
    ] {
        let needs = chat_with(fields.clone()).unwrap().needs;
        assert_eq!(needs.get(&capability), Some(&field), "{fields}");
    }
    let free = json!({"tools": tools, "tool_choice": "auto", "parallel_tool_calls": true, "seed": null});
    assert_eq!(
        chat_with(free).unwrap().needs,
        BTreeMap::from([(Capability::Tools, "tools")])
    );
    for (fields, param) in [
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"parallel_tool_calls": "no"}), "parallel_tool_calls"),
    ] {
        assert_eq!(chat_with(fields).unwrap_err().param.as_deref(), Some(param));
    }
}

#[test]
fn completions_count_what_is_paid_and_say_openais_limit() {
    let parse =
        |body: &str| ProgramRequest::parse(JobKind::Completions, Bytes::copy_from_slice(body.as_bytes()));
    let request = parse(r#"{"model":"b","prompt":["a","b"],"n":2,"best_of":3}"#).unwrap();
    assert_eq!((request.choices, request.output_tokens_max), (6, Some(16)));
    assert!(request.body.ends_with(b",\"max_tokens\":16}"));
    assert_eq!(request.needs, BTreeMap::from([(Capability::ManyChoices, "n")]));
    let open_ended = parse(r#"{"model":"b","prompt":"a","max_tokens":-1}"#).unwrap();
    assert_eq!(open_ended.output_tokens_max, None);
    let scored = parse(r#"{"model":"b","prompt":[1,2],"max_tokens":0,"echo":true,"logprobs":0}"#).unwrap();
    assert_eq!(scored.output_tokens_max, Some(0));
    let needs: Vec<_> = scored.needs.values().copied().collect();
    assert_eq!(needs, ["logprobs", "prompt", "echo"]);
    for (body, param) in [
        (r#"{"model":"b"}"#, "prompt"),
        (r#"{"model":"b","prompt":5}"#, "prompt"),
        (r#"{"model":"b","prompt":[]}"#, "prompt"),
        (r#"{"model":"b","prompt":"a","best_of":0}"#, "best_of"),
        (r#"{"model":"b","prompt":"a","echo":"yes"}"#, "echo"),
    ] {
        assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
    }
}

fn joined(request: &ProgramRequest, limit: Option<u64>) -> Vec<u8> {
    let parts: Vec<_> = request.body_parts(limit).collect();
    assert!(
        parts
            .iter()
            .all(|part| !part.is_empty() && part.len() <= PAYLOAD_MAX_BYTES)
    );
    let joined = parts.concat();
    assert_eq!(joined.len() as u64, request.body_bytes(limit));
    joined
}

#[test]
fn the_body_travels_verbatim_and_an_assumed_limit_stands_last() {
    let text = "{ \"model\":\"a\", \"messages\":[{}], \"max_tokens\":null, \"odd\" : 1.50 } \n";
    let request = chat(text).unwrap();
    assert_eq!(joined(&request, None), text.as_bytes());
    let limited = joined(&request, Some(7));
    assert_eq!(
        limited,
        b"{ \"model\":\"a\", \"messages\":[{}], \"max_tokens\":null, \"odd\" : 1.50 ,\"max_tokens\":7}"
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&limited).unwrap()["max_tokens"],
        7
    );
}

proptest! {
    #[test]
    fn bodies_of_any_size_come_in_frames(filler in 0usize..600_000, limit: Option<u32>) {
        let text = format!("{{\"model\":\"a\",\"messages\":[\"{}\"]}}", "x".repeat(filler));
        let request = chat(&text).unwrap();
        let body = joined(&request, limit.map(u64::from));
        let value: Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(value["messages"][0].as_str().unwrap().len(), filler);
        prop_assert_eq!(value.get("max_tokens").and_then(Value::as_u64), limit.map(u64::from));
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProgramRequest::parse(JobKind::ChatCompletions, Bytes::from(body));
    }
}
