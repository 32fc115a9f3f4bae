//! Anthropic's `/v1/messages` and `/v1/messages/count_tokens`, as a translation to a chat.

use std::sync::Arc;

use gristmill_protocol::job::JobFailed;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Answer, Market, STARTER, names, with};
use crate::provider::{Script, Setup, Step, finish, text, words};

const MESSAGES: &str = "/v1/messages";

/// The type and the message of a failure, after checking its shape.
fn error(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(body["request_id"], answer.header("x-request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty());
    (answer.status, text("type"), text("param"))
}

/// The events of a stream; no comments stand in it.
fn events(answer: &Answer) -> Vec<Value> {
    answer.named_events("")
}

fn ask(fields: Value) -> Value {
    let messages = json!([{"role": "user", "content": "What is Gristmill?"}]);
    with(
        json!({"model": "guide", "max_tokens": 50, "messages": messages}),
        fields,
    )
}

fn calls_weather() -> Script {
    let part = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
    Script::Run(vec![
        Step::Say(part(json!({"content": "Let me see."})), 1),
        Step::Say(
            part(
                json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                "function": {"name": "weather", "arguments": "{\"ci"}}]}),
            ),
            2,
        ),
        Step::Say(
            part(json!({"tool_calls": [{"index": 0, "function": {"arguments": "ty\":\"Bern\"}"}}]})),
            3,
        ),
        Step::Say(
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}).to_string(),
            3,
        ),
    ])
}

fn weather() -> Value {
    json!([{"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object"}}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_gets_a_message() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["A ", "mill"])).await;
    let body = ask(json!({"system": "Be short.", "stop_sequences": ["###"], "temperature": 0.5, "top_k": 5}));
    let answer = market.post(MESSAGES, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    let mut message = answer.json();
    assert_eq!(message["gristmill"]["cost"], 5);
    message.as_object_mut().unwrap().remove("gristmill");
    assert_eq!(
        message,
        json!({"id": format!("msg_{}", answer.header("x-request-id")), "type": "message", "role": "assistant",
            "model": "guide", "content": [{"type": "text", "text": "A mill"}], "stop_reason": "end_turn",
            "stop_sequence": null, "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 2}})
    );
    assert_eq!(
        provider.body(0),
        json!({"model": "guide", "messages": [{"role": "system", "content": "Be short."},
            {"role": "user", "content": "What is Gristmill?"}], "stop": ["###"], "stream": false, "max_tokens": 50,
            "temperature": 0.5, "top_k": 5})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_anthropics_events_in_anthropics_order() {
    let market = Market::start().await;
    let thought = json!({"choices": [{"index": 0, "delta": {"reasoning": "Hm"}}]}).to_string();
    let script = Script::Run(vec![
        Step::Say(thought, 1),
        Step::Say(text("A "), 2),
        Step::Say(text("mill"), 3),
        Step::Say(finish(), 3),
    ]);
    let _provider = market.provider(Setup::default(), script).await;
    let answer = market.post(MESSAGES, &ask(json!({"stream": true}))).await;
    let events = events(&answer);
    assert_eq!(
        names(&events),
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(
        (&events[0]["message"]["role"], &events[0]["message"]["content"]),
        (&json!("assistant"), &json!([]))
    );
    assert_eq!(
        events[3]["delta"],
        json!({"type": "thinking_delta", "thinking": "Hm"})
    );
    assert_eq!(
        (&events[6]["index"], &events[6]["delta"]),
        (&json!(1), &json!({"type": "text_delta", "text": "A "}))
    );
    assert_eq!(
        (
            &events[9]["delta"]["stop_reason"],
            &events[9]["usage"]["output_tokens"]
        ),
        (&json!("end_turn"), &json!(3))
    );
    assert_eq!(events[9]["gristmill"]["cost"], 6);
    assert!(!answer.text.contains("[DONE]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tools_loop_goes_both_ways() {
    let market = Market::start().await;
    let setup = Setup {
        capabilities: vec![Capability::Tools, Capability::ForcedTools],
        ..Setup::default()
    };
    let provider = market.provider(setup, calls_weather()).await;
    let first = ask(json!({"tools": weather(), "tool_choice": {"type": "tool", "name": "weather"}}));
    let answer = market.post(MESSAGES, &first).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let message = answer.json();
    assert_eq!(message["stop_reason"], "tool_use");
    let call = json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bern"}});
    assert_eq!(
        message["content"],
        json!([{"type": "text", "text": "Let me see."}, call])
    );
    let mut streamed = first.clone();
    streamed["stream"] = json!(true);
    let events = events(&market.post(MESSAGES, &streamed).await);
    assert_eq!(
        names(&events)[2..],
        [
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[5]["content_block"]["input"], json!({}));
    let arguments: String = events[6..8]
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(arguments, "{\"city\":\"Bern\"}");
    provider.set_script(words(&["Rain"]));
    let second = ask(json!({"tools": weather(), "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]},
    ]}));
    let answer = market.post(MESSAGES, &second).await;
    assert_eq!(answer.json()["content"][0]["text"], "Rain", "{}", answer.text);
    let called = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}});
    assert_eq!(
        provider.body(2)["messages"],
        json!([
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ])
    );
    assert_eq!(
        provider.body(0)["tool_choice"],
        json!({"type": "function", "function": {"name": "weather"}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_to_an_offer_that_sees() {
    let market = Market::start().await;
    let plain = Setup {
        price: 1,
        ..Setup::default()
    };
    let _plain = market.provider(plain, words(&["?"])).await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let content = json!([{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]);
    let body = ask(json!({"messages": [{"role": "user", "content": content}]}));
    let answer = market.post(MESSAGES, &body).await;
    assert_eq!(
        error(&answer),
        (400, "invalid_request_error".into(), "messages".into())
    );
    let setup = Setup {
        capabilities: vec![Capability::ImageInput],
        ..Setup::default()
    };
    let provider = market.provider(setup, words(&["A mill"])).await;
    assert_eq!(market.post(MESSAGES, &body).await.status, 200);
    assert_eq!(
        provider.body(0)["messages"][0]["content"][0],
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_has_anthropics_words() {
    let market = Market::start().await;
    for (finish, more, reason, sequence) in [
        ("length", json!({}), "max_tokens", Value::Null),
        ("content_filter", json!({}), "refusal", Value::Null),
        (
            "stop",
            json!({"stop_reason": "###"}),
            "stop_sequence",
            json!("###"),
        ),
    ] {
        let choice = with(json!({"index": 0, "delta": {}, "finish_reason": finish}), more);
        let steps = vec![
            Step::Say(text("A"), 1),
            Step::Say(json!({"choices": [choice]}).to_string(), 1),
        ];
        let provider = market.provider(Setup::default(), Script::Run(steps)).await;
        let message = market
            .post(MESSAGES, &ask(json!({"stop_sequences": ["###"]})))
            .await
            .json();
        assert_eq!(
            (&message["stop_reason"], &message["stop_sequence"]),
            (&json!(reason), &sequence)
        );
        provider.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_anthropics_shape() {
    let market = Market::start().await;
    let invalid = "invalid_request_error";
    for (body, status, kind, param) in [
        (ask(json!({})), 503, "overloaded_error", ""),
        (ask(json!({"max_tokens": null})), 400, invalid, "max_tokens"),
        (ask(json!({"messages": []})), 400, invalid, "messages"),
        (ask(json!({"system": 5})), 400, invalid, "system"),
        (ask(json!({"mcp_servers": [{}]})), 400, invalid, "mcp_servers"),
        (ask(json!({"n": 2})), 400, invalid, "n"),
        (json!([]), 400, invalid, ""),
    ] {
        let answer = market.post(MESSAGES, &body).await;
        assert_eq!(error(&answer), (status, kind.into(), param.into()), "{body}");
        assert_eq!(answer.header("retry-after").is_empty(), status != 503);
    }
    let no = JobFailed::new(400, "invalid_value", "no such stop", Some("stop"));
    let provider = market
        .provider(Setup::default(), Script::Run(vec![Step::Fail(no)]))
        .await;
    let answer = market.post(MESSAGES, &ask(json!({"model": "guid"}))).await;
    assert_eq!(error(&answer), (404, "not_found_error".into(), "model".into()));
    for stream in [false, true] {
        let answer = market.post(MESSAGES, &ask(json!({"stream": stream}))).await;
        assert_eq!(error(&answer), (400, invalid.into(), "stop_sequences".into()));
        assert!(answer.text.contains("no such stop"));
    }
    let answer = market.get(MESSAGES).await;
    assert_eq!(error(&answer).0, 405);
    let broken = JobFailed::new(500, "server_error", "out of memory", None);
    provider.set_script(Script::Run(vec![Step::Say(text("A"), 1), Step::Fail(broken)]));
    let events = events(&market.post(MESSAGES, &ask(json!({"stream": true}))).await);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["error"]["type"], &last["error"]["message"]),
        (&json!("error"), &json!("api_error"), &json!("out of memory"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_come_as_anthropics_clients_send_it() {
    const KEY: &str = "sk-0123456789abcdef";
    let market = Market::start_with(STARTER, |mut settings| {
        settings.api_keys = vec![KEY.parse().unwrap()];
        settings
    })
    .await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let send = async |key: &str| {
        let request = market.http.post(market.url(MESSAGES)).json(&ask(json!({})));
        Answer::read(request.header("x-api-key", key).send().await.unwrap()).await
    };
    assert_eq!(send(KEY).await.status, 200);
    let wrong = send("sk-0123456789abcdee").await;
    assert_eq!(error(&wrong), (401, "authentication_error".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_leaves_a_translated_stream_ends_the_job() {
    let market = Market::start().await;
    for (path, body) in [
        (MESSAGES, ask(json!({"stream": true}))),
        (
            "/v1/responses",
            json!({"model": "guide", "input": "x", "stream": true}),
        ),
    ] {
        let steps = vec![Step::Say(text("A"), 1), Step::WaitFor(Arc::new(Notify::new()))];
        let provider = market.provider(Setup::default(), Script::Run(steps)).await;
        let request = market.http.post(market.url(path)).json(&body);
        let mut response = request.send().await.unwrap();
        assert!(response.chunk().await.unwrap().is_some());
        drop(response);
        let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
        assert!(jobs[0].was_cancelled, "{path}");
        provider.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_without_a_provider() {
    let market = Market::start().await;
    let path = "/v1/messages/count_tokens";
    let mut body = ask(json!({"system": "Be short.", "tools": weather()}));
    body.as_object_mut().unwrap().remove("max_tokens");
    let answer = market.post(path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let count = |answer: &Answer| answer.json()["input_tokens"].as_u64().unwrap();
    let with_tools = count(&answer);
    body.as_object_mut().unwrap().remove("tools");
    assert!(count(&market.post(path, &body).await) < with_tools);
    assert_eq!(error(&market.post(path, &json!({})).await).0, 400);
}
