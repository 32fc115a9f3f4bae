//! OpenAI's `/v1/responses`: stateless, as a translation to a chat.

use gristmill_protocol::job::JobFailed;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use crate::harness::{Answer, Market, names, with};
use crate::provider::{Script, Setup, Step, finish, text, words};

const RESPONSES: &str = "/v1/responses";

/// The events of a stream, whose places in the sequence are checked.
fn events(answer: &Answer) -> Vec<Value> {
    let events = answer.named_events(": ping\n");
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], place);
    }
    events
}

fn ask(fields: Value) -> Value {
    with(json!({"model": "guide", "input": "What is Gristmill?"}), fields)
}

fn able(capabilities: Vec<Capability>) -> Setup {
    Setup {
        capabilities,
        ..Setup::default()
    }
}

/// A call of a tool, in two parts.
fn calls_weather() -> Script {
    let part = |call: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).to_string();
    Script::Run(vec![
        Step::Say(
            part(
                json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"ci"}}),
            ),
            1,
        ),
        Step::Say(
            part(json!({"index": 0, "function": {"arguments": "ty\":\"Bern\"}"}})),
            2,
        ),
        Step::Say(
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}).to_string(),
            2,
        ),
    ])
}

fn weather() -> Value {
    json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": true}])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_gets_a_response() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["A ", "mill"])).await;
    let body = ask(
        json!({"instructions": "Be short.", "max_output_tokens": 9, "metadata": {"a": "b"}, "store": true}),
    );
    let answer = market.post(RESPONSES, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let response = answer.json();
    assert_eq!(
        response["id"],
        format!("resp_{}", answer.header("x-request-id")).as_str()
    );
    assert_eq!(
        (&response["object"], &response["status"], &response["error"]),
        (&json!("response"), &json!("completed"), &Value::Null)
    );
    let item = &response["output"][0];
    assert_eq!(
        (&item["type"], &item["role"], &item["status"]),
        (&json!("message"), &json!("assistant"), &json!("completed"))
    );
    assert_eq!(
        item["content"],
        json!([{"type": "output_text", "text": "A mill", "annotations": [], "logprobs": []}])
    );
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5})
    );
    assert_eq!(
        response["store"], false,
        "nothing is stored, and the response says so"
    );
    assert_eq!(
        (
            &response["metadata"],
            &response["instructions"],
            &response["max_output_tokens"]
        ),
        (&json!({"a": "b"}), &json!("Be short."), &json!(9))
    );
    assert_eq!(response["gristmill"]["cost"], 5);
    let chat = provider.body(0);
    assert_eq!(
        chat["messages"],
        json!([{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is Gristmill?"}])
    );
    assert_eq!((chat["max_tokens"].as_u64(), chat.get("store")), (Some(9), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_openais_events_in_openais_order() {
    let market = Market::start().await;
    let thought = json!({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}).to_string();
    let script = Script::Run(vec![
        Step::Say(thought, 1),
        Step::Say(text("A "), 2),
        Step::Say(text("mill"), 3),
        Step::Say(finish(), 3),
    ]);
    let _provider = market.provider(Setup::default(), script).await;
    let answer = market.post(RESPONSES, &ask(json!({"stream": true}))).await;
    let events = events(&answer);
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
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
    assert_eq!(
        (&events[10]["delta"], &events[11]["delta"], &events[12]["text"]),
        (&json!("A "), &json!("mill"), &json!("A mill"))
    );
    let ids: Vec<&Value> = events[8..14]
        .iter()
        .map(|event| event.get("item_id").unwrap_or(&event["item"]["id"]))
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let last = &events.last().unwrap()["response"];
    assert_eq!(
        (
            &last["status"],
            &last["usage"]["output_tokens"],
            &last["output"][1]["content"][0]["text"]
        ),
        (&json!("completed"), &json!(3), &json!("A mill"))
    );
    assert_eq!(last["gristmill"]["cost"], 6);
    assert!(
        !answer.text.contains("[DONE]"),
        "responses end with an event of their own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_is_incomplete() {
    let market = Market::start().await;
    let cut = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}).to_string();
    let script = Script::Run(vec![Step::Say(text("A"), 1), Step::Say(cut, 1)]);
    let _provider = market.provider(Setup::default(), script).await;
    let whole = market.post(RESPONSES, &ask(json!({}))).await.json();
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let streamed = market.post(RESPONSES, &ask(json!({"stream": true}))).await;
    assert_eq!(names(&events(&streamed)).last(), Some(&"response.incomplete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tools_loop_goes_both_ways() {
    let market = Market::start().await;
    let setup = able(vec![Capability::Tools, Capability::ForcedTools]);
    let provider = market.provider(setup, calls_weather()).await;
    let first = ask(json!({"tools": weather(), "tool_choice": "required"}));
    let answer = market.post(RESPONSES, &first).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let call = answer.json()["output"][0].clone();
    assert_eq!(
        (&call["type"], &call["call_id"], &call["name"], &call["arguments"]),
        (
            &json!("function_call"),
            &json!("call_1"),
            &json!("weather"),
            &json!("{\"city\":\"Bern\"}")
        )
    );
    let mut streamed = first.clone();
    streamed["stream"] = json!(true);
    let events = events(&market.post(RESPONSES, &streamed).await);
    assert_eq!(
        names(&events)[2..],
        [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    assert_eq!(events[5]["arguments"], "{\"city\":\"Bern\"}");
    // The program sends back what it got, and what its tool said.
    provider.set_script(words(&["Rain"]));
    let second = json!({"model": "guide", "tools": weather(), "input": [
        {"role": "user", "content": "Weather?"},
        call,
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]});
    let answer = market.post(RESPONSES, &second).await;
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], "Rain");
    let called = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}});
    assert_eq!(
        provider.body(2)["messages"],
        json!([
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": null, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ])
    );
    assert_eq!(provider.body(0)["tools"][0]["function"]["strict"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_to_fit_a_schema_needs_an_offer_that_can() {
    let market = Market::start().await;
    let plain = Setup {
        price: 1,
        ..Setup::default()
    };
    let _plain = market.provider(plain, words(&["{}"])).await;
    let format = json!({"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true});
    let body = ask(json!({"text": {"format": format}}));
    let answer = market.post(RESPONSES, &body).await;
    assert_eq!(answer.error(), (400, "unsupported_parameter".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "text.format");
    let setup = able(vec![Capability::StructuredOutput, Capability::StrictSchema]);
    let provider = market.provider(setup, words(&["{}"])).await;
    let answer = market.post(RESPONSES, &body).await;
    assert_eq!(answer.json()["text"]["format"], format, "{}", answer.text);
    assert_eq!(
        provider.body(0)["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_openais() {
    let market = Market::start().await;
    let no = JobFailed::new(400, "context_length_exceeded", "too long", Some("messages"));
    let provider = market
        .provider(Setup::default(), Script::Run(vec![Step::Fail(no)]))
        .await;
    for (body, code, param) in [
        (
            ask(json!({"previous_response_id": "resp_1"})),
            "unsupported_parameter",
            "previous_response_id",
        ),
        (
            ask(json!({"background": true})),
            "unsupported_parameter",
            "background",
        ),
        (
            ask(json!({"conversation": "conv_1"})),
            "unsupported_parameter",
            "conversation",
        ),
        (
            ask(json!({"tools": [{"type": "web_search"}]})),
            "unsupported_parameter",
            "tools",
        ),
        (ask(json!({"n": 2})), "unsupported_parameter", "n"),
        (ask(json!({"input": []})), "invalid_request", "input"),
        (
            ask(json!({"max_output_tokens": 0})),
            "invalid_request",
            "max_output_tokens",
        ),
        (json!({"input": "x"}), "invalid_request", "model"),
    ] {
        let answer = market.post(RESPONSES, &body).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
    for stream in [false, true] {
        // The server names its own field; the program knows it by another name.
        let answer = market.post(RESPONSES, &ask(json!({"stream": stream}))).await;
        assert_eq!(answer.error(), (400, "context_length_exceeded".to_owned()));
        assert_eq!(answer.json()["error"]["param"], "input");
    }
    assert_eq!(provider.jobs.borrow().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_with_a_failed_response() {
    let market = Market::start().await;
    let broken = JobFailed::new(500, "server_error", "out of memory", None);
    let script = Script::Run(vec![Step::Say(text("A"), 1), Step::Fail(broken)]);
    let _provider = market.provider(Setup::default(), script).await;
    let events = events(&market.post(RESPONSES, &ask(json!({"stream": true}))).await);
    let names = names(&events);
    assert_eq!(names[names.len() - 2..], ["response.failed", "error"]);
    assert_eq!(
        events[names.len() - 2]["response"]["error"],
        json!({"code": "server_error", "message": "out of memory"})
    );
    assert_eq!(events[names.len() - 1]["message"], "out of memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_response_is_given_again() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    for stream in [false, true] {
        let send = async || {
            let request = market
                .http
                .post(market.url(RESPONSES))
                .json(&ask(json!({"stream": stream})));
            let request = request.header("idempotency-key", format!("key-{stream}"));
            Answer::read(request.send().await.unwrap()).await
        };
        let (first, second) = (send().await, send().await);
        assert_eq!((first.status, &first.text), (200, &second.text));
        assert_eq!(second.header("idempotency-replayed"), "true");
    }
    assert_eq!(provider.jobs.borrow().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tokens_are_counted_without_a_provider() {
    let market = Market::start().await;
    let path = "/v1/responses/input_tokens";
    let answer = market
        .post(path, &ask(json!({"instructions": "Be short."})))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["object"], "response.input_tokens");
    assert!(answer.json()["input_tokens"].as_u64().unwrap() > 5);
    assert_eq!(market.post(path, &json!({"model": "guide"})).await.error().0, 400);
}
