//! Answers that go well.

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use crate::harness::{Market, chat_body};
use crate::provider::{Script, Setup, Step, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_byte_for_byte_as_clients_expect() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Grist", "mill"])).await;
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header("x-request-id", "my-request.1");
    let response = request
        .json(&chat_body(json!({"stream": true})))
        .send()
        .await
        .unwrap();
    let answer = crate::harness::Answer::read(response).await;
    assert_eq!(
        (answer.status, answer.header("x-request-id")),
        (200, "my-request.1")
    );
    assert!(answer.header("openai-processing-ms").parse::<u64>().is_ok());
    let created = serde_json::from_str::<Value>(&answer.events()[0]).unwrap()["created"]
        .as_u64()
        .unwrap();
    provider.seen(|jobs| jobs[0].end.is_some()).await;
    let channel = provider.vouchers()[0].content_unchecked().channel;
    let head = format!(
        "data: {{\"id\":\"chatcmpl-my-request.1\",\"object\":\"chat.completion.chunk\",\"created\":{created},\
         \"model\":\"guide\",\"choices\":["
    );
    let gristmill = format!(
        "\"gristmill\":{{\"request_id\":\"my-request.1\",\"provider\":\"{}\",\"channel\":\"{channel}\",\
         \"cost\":5,\"currency\":\"microcredits\"}}",
        provider.account
    );
    let expected = [
        format!(
            "{head}{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"Grist\"}},\"finish_reason\":null}}]}}\n\n"
        ),
        format!("{head}{{\"index\":0,\"delta\":{{\"content\":\"mill\"}},\"finish_reason\":null}}]}}\n\n"),
        format!("{head}{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}],{gristmill}}}\n\n"),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(answer.text, expected.concat());
    assert_eq!(provider.jobs.borrow()[0].open.request_id.as_str(), "my-request.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_a_last_chunk_where_it_is_asked_for() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let answer = market
        .chat(json!({"stream": true, "stream_options": {"include_usage": true}}))
        .await;
    let events = answer.events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4})
    );
    assert_eq!(last["gristmill"]["cost"], 4);
    let others = &events[..events.len() - 2];
    assert!(
        others
            .iter()
            .all(|event| !event.contains("usage") && !event.contains("gristmill"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_is_a_chat_completion() {
    let market = Market::start().await;
    let provider = market
        .provider(Setup::default(), words(&["Grist", "mill", " 🌾"]))
        .await;
    let answer = market.chat(json!({"max_tokens": 9, "odd_field": [1.50]})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["object"], "chat.completion");
    let message = json!({"role": "assistant", "content": "Gristmill 🌾", "refusal": null});
    assert_eq!(
        body["choices"][0],
        json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"})
    );
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6})
    );
    assert_eq!(body["gristmill"]["request_id"], answer.header("x-request-id"));
    let sent = provider.jobs.borrow()[0].body.clone();
    let expected = chat_body(json!({"max_tokens": 9, "odd_field": [1.50]})).to_string();
    assert_eq!(
        String::from_utf8(sent).unwrap(),
        expected,
        "the body travels as it was written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_calls_survive_a_careless_server() {
    let market = Market::start().await;
    let call = |arguments: &str| {
        json!({"choices": [{"delta": {"role": "assistant", "content": null, "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        ]}, "finish_reason": null}]})
        .to_string()
    };
    let end = json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": null}).to_string();
    let script = Script::Run(vec![
        Step::Say(call("{\"a\""), 1),
        Step::Say(call(":1}"), 2),
        Step::Say(end, 2),
    ]);
    let setup = Setup {
        capabilities: vec![Capability::Tools],
        ..Setup::default()
    };
    let _provider = market.provider(setup, script).await;
    let body = market
        .chat(json!({"tools": [{"type": "function", "function": {"name": "f"}}]}))
        .await
        .json();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_come_in_their_envelope() {
    let market = Market::start().await;
    let vectors =
        json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]});
    let setup = Setup {
        kind: JobKind::Embeddings,
        model: "mini",
        ..Setup::default()
    };
    let _provider = market
        .provider(setup, Script::Run(vec![Step::Say(vectors.to_string(), 0)]))
        .await;
    let answer = market
        .post("/v1/embeddings", &json!({"model": "mini", "input": ["a"]}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["data"], vectors["data"]);
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("list"), &json!("mini"))
    );
    assert_eq!(body["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    assert_eq!(body["gristmill"]["cost"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_many_frames_arrives_whole() {
    let market = Market::start().await;
    let setup = Setup {
        window: 40_000_000,
        context_length: 10_000_000,
        ..Setup::default()
    };
    let provider = market.provider(setup, words(&["ok"])).await;
    let long = "x".repeat(3_000_000);
    let body = chat_body(json!({"max_tokens": 5, "messages": [{"role": "user", "content": long}]}));
    let answer = market.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(provider.jobs.borrow()[0].body, body.to_string().into_bytes());
}
