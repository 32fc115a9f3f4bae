//! What programs written for OpenAI rely on without knowing it: the traps of streams, each of which broke a real
//! client once, the headers, and that nothing of a request is dropped. The errors are in `errors`.
//!
//! The traps of streams, and the tests that hold them off:
//! 1. Response headers come after a provider has accepted, so that failures still have a status:
//!    [`a_stream_that_fails_before_its_first_word_has_a_status`].
//! 2. A failure in the middle is a nested `{"error":{…}}`:
//!    `failures::a_stream_that_breaks_off_ends_with_a_nested_error`.
//! 3. A stream ends with a finish chunk or with an error, and no 200 is empty:
//!    `failures::an_answer_without_an_end_is_an_error`, [`a_choice_without_an_end_is_an_error`],
//!    [`an_answer_of_nothing_is_a_failure`].
//! 4. The chunk with the usage has `choices: []`, and no chunk has `"error": null`:
//!    `answers::usage_is_a_last_chunk_where_it_is_asked_for`, [`chunks_of_a_careless_server_are_whole`].
//! 5. The parts of a tool call carry `index`; later ones leave out id, type and name:
//!    [`parts_of_tool_calls_have_an_index_and_say_their_name_once`].
//! 6. A silent stream gets `: ping` and no blank line: [`silence_is_filled_with_comments`]; how often, with a clock
//!    that is moved by hand, in the unit tests of `proxy::answer`.
//! 7. Every chunk has the full schema: [`chunks_of_a_careless_server_are_whole`].
//! 8. Lines are shorter than 128 KiB, `[DONE]` is last, and what is ours is a field of the last chunk:
//!    `misbehaviour::a_line_is_never_too_long_for_clients`, `answers::a_stream_is_byte_for_byte_as_clients_expect`,
//!    and [`crate::harness::events`], which refuses named events everywhere.
//! 9. Where the program goes away, the job is cancelled: `misbehaviour::a_program_that_goes_away_ends_the_job_and_pays_for_what_was_made`,
//!    `messages::a_program_that_leaves_a_translated_stream_ends_the_job`.
//! 10. A repeated request is not paid twice: the tests of `idempotency`, and `errors::sdks_are_told_where_repeating_is_useless`.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::job::{JobFailed, RefusalCode};
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Answer, Market, STARTER, chat_body, events};
use crate::provider::{Script, Setup, Step, finish, text, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_before_its_first_word_has_a_status() {
    let market = Market::start().await;
    let told = Arc::new(Notify::new());
    let no = JobFailed::new(422, "invalid_value", "no such voice", Some("voice"));
    let script = Script::Run(vec![Step::WaitFor(told.clone()), Step::Fail(no)]);
    let provider = market.provider(Setup::default(), script).await;
    let failing = async {
        // It has accepted and reads the request; only then it finds that it can't.
        provider
            .seen(|jobs| !jobs.is_empty() && !jobs[0].body.is_empty())
            .await;
        told.notify_one();
    };
    let (answer, ()) = tokio::join!(market.chat(json!({"stream": true})), failing);
    assert_eq!(answer.error(), (422, "invalid_value".to_owned()));
    provider.set_script(Script::Refuse(RefusalCode::ModelNotFound, 0));
    let answer = market.chat(json!({"stream": true})).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_without_an_end_is_an_error() {
    let market = Market::start().await;
    let setup = Setup {
        capabilities: vec![Capability::ManyChoices],
        ..Setup::default()
    };
    let second = json!({"choices": [{"index": 1, "delta": {"content": "Ho"}}]}).to_string();
    let steps = vec![
        Step::Say(text("Hi"), 1),
        Step::Say(second, 2),
        Step::Say(finish(), 2),
    ];
    let provider = market.provider(setup, Script::Run(steps)).await;
    let chunks = market.chat(json!({"stream": true, "n": 2})).await.chunks();
    assert_eq!(
        chunks.last().unwrap()["error"]["code"],
        "provider_failed",
        "{chunks:?}"
    );
    let whole = market.chat(json!({"n": 2})).await;
    assert_eq!(whole.error(), (502, "provider_failed".to_owned()));
    assert_eq!(provider.jobs.borrow().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_nothing_is_a_failure() {
    for steps in [vec![], vec![Step::Say(json!({"choices": []}).to_string(), 0)]] {
        let market = Market::start().await;
        let _provider = market.provider(Setup::default(), Script::Run(steps)).await;
        for stream in [true, false] {
            let answer = market.chat(json!({"stream": stream})).await;
            assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_a_careless_server_are_whole() {
    let market = Market::start().await;
    let steps = vec![
        // No id, no object, no model, no index, nulls that openai-go takes for failures.
        Step::Say(
            json!({"choices": [{"delta": {"role": "assistant", "content": "", "tool_calls": null}}], "error": null})
                .to_string(),
            0,
        ),
        Step::Say(
            json!({"id": "", "created": 1.5, "choices": [{"delta": {"role": "assistant", "reasoning": "Hm"}, "finish_reason": ""}],
                "usage": null, "error": null, "model": "x.gguf"})
            .to_string(),
            1,
        ),
        Step::Say(
            json!({"object": "chat.completion", "created": null, "choices": [{"index": 0, "delta": {"content": "Hi"},
                "finish_reason": null}]})
            .to_string(),
            2,
        ),
        Step::Say(
            json!({"choices": [{"index": 0, "delta": null, "finish_reason": "eos"}], "usage": null}).to_string(),
            2,
        ),
    ];
    let _provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let answer = market
        .chat(json!({"stream": true, "stream_options": {"include_usage": true}}))
        .await;
    let chunks = answer.chunks();
    let id = chunks[0]["id"].clone();
    for chunk in &chunks {
        assert_eq!(
            (&chunk["id"], &chunk["object"], &chunk["model"]),
            (&id, &json!("chat.completion.chunk"), &json!("guide"))
        );
        assert!(chunk["created"].is_u64() && id.as_str().is_some_and(|id| !id.is_empty()));
        assert!(chunk.get("error").is_none() && chunk.get("usage") != Some(&Value::Null));
        for choice in chunk["choices"].as_array().unwrap() {
            assert!(
                choice["index"].is_u64() && choice["delta"].is_object(),
                "{choice}"
            );
            let finish = choice.get("finish_reason").unwrap();
            assert!(finish.is_null() || finish == "stop", "{choice}");
        }
    }
    let roles = chunks
        .iter()
        .filter(|chunk| chunk.pointer("/choices/0/delta/role").is_some());
    assert_eq!(roles.count(), 1, "clients append roles");
    // Programs look for reasoning under one of two names.
    let thought = chunks
        .iter()
        .find(|chunk| chunk.pointer("/choices/0/delta/reasoning").is_some())
        .unwrap();
    assert_eq!(thought["choices"][0]["delta"]["reasoning_content"], "Hm");
    let whole = market.chat(json!({})).await.json();
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (
            &message["reasoning"],
            &message["reasoning_content"],
            &message["content"]
        ),
        (&json!("Hm"), &json!("Hm"), &json!("Hi"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_tool_calls_have_an_index_and_say_their_name_once() {
    let market = Market::start().await;
    // As some servers do it: everything again in every part, no index, and later parts with nulls.
    let part = |call: Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]}).to_string();
    let steps = vec![
        Step::Say(
            part(
                json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}),
            ),
            1,
        ),
        Step::Say(
            part(
                json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\""}}),
            ),
            2,
        ),
        Step::Say(
            part(
                json!({"index": 0, "id": null, "type": null, "function": {"name": null, "arguments": ":1}"}}),
            ),
            3,
        ),
        Step::Say(
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}).to_string(),
            3,
        ),
    ];
    let setup = Setup {
        capabilities: vec![Capability::Tools],
        ..Setup::default()
    };
    let _provider = market.provider(setup, Script::Run(steps)).await;
    let answer = market
        .chat(json!({"stream": true, "tools": [{"type": "function", "function": {"name": "weather"}}]}))
        .await;
    let chunks = answer.chunks();
    let calls: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk.pointer("/choices/0/delta/tool_calls/0"))
        .collect();
    assert!(calls.iter().all(|call| call["index"] == 0), "{calls:?}");
    assert_eq!(
        (&calls[0]["id"], &calls[0]["type"], &calls[0]["function"]["name"]),
        (&json!("call_1"), &json!("function"), &json!("weather"))
    );
    for call in &calls[1..] {
        assert!(call.get("id").is_none() && call.get("type").is_none(), "{call}");
        assert!(call["function"].get("name").is_none(), "{call}");
    }
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, "{\"city\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_filled_with_comments() {
    let market = Market::start().await;
    let go_on = Arc::new(Notify::new());
    let steps = vec![
        Step::Say(text("Hi"), 1),
        Step::WaitFor(go_on.clone()),
        Step::Say(finish(), 1),
    ];
    let _provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let request = market.http.post(market.url("/v1/chat/completions"));
    let mut response = request
        .json(&chat_body(json!({"stream": true})))
        .send()
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        seen.extend_from_slice(&piece);
        if seen.ends_with(b"\n\n: ping\n") {
            go_on.notify_one();
        }
    }
    let text = String::from_utf8(seen).unwrap();
    assert!(text.contains("\n\n: ping\ndata: {"), "{text}");
    assert_eq!(events(&text).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_headers() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.body_max_bytes = 1_000;
        settings
    })
    .await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let chat = "/v1/chat/completions";
    let (hello, streamed) = (
        chat_body(json!({"max_tokens": 5})),
        chat_body(json!({"max_tokens": 5, "stream": true})),
    );
    let other = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]});
    let long = chat_body(json!({"pad": "x".repeat(1_000)}));
    for (method, path, body, status) in [
        ("POST", chat, &hello, 200),
        ("POST", chat, &streamed, 200),
        ("POST", chat, &json!([]), 400),
        ("POST", chat, &other("nobody"), 404),
        ("POST", chat, &long, 413),
        ("GET", chat, &json!({}), 405),
        ("POST", "/v1/chat/completions/input_tokens", &hello, 200),
        ("POST", "/v1/messages", &hello, 200),
        ("POST", "/v1/messages", &json!({}), 400),
        (
            "POST",
            "/v1/responses",
            &json!({"model": "guide", "input": "Hi"}),
            200,
        ),
        ("GET", "/v1/models", &json!({}), 200),
        ("GET", "/openapi.json", &json!({}), 200),
        ("GET", "/healthz", &json!({}), 200),
        ("GET", "/nowhere", &json!({}), 404),
    ] {
        let jobs = provider.jobs.borrow().len();
        let request = market
            .http
            .request(method.parse().unwrap(), market.url(path))
            .header("x-request-id", "my-request.7");
        let request = if method == "POST" {
            request.json(body)
        } else {
            request
        };
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert_eq!(answer.header("x-request-id"), "my-request.7", "{path}");
        assert!(
            answer.header("openai-processing-ms").parse::<u64>().is_ok(),
            "{path}"
        );
        // The same id at the provider, who signs it into the receipt, and beside the answer.
        if let Some(job) = provider.jobs.borrow().get(jobs) {
            assert_eq!(job.open.request_id.as_str(), "my-request.7", "{path}");
            assert!(
                answer.text.contains("\"request_id\":\"my-request.7\""),
                "{}",
                answer.text
            );
        }
    }
    assert_eq!(provider.jobs.borrow().len(), 4);
    let made_up = market.get("/v1/models").await;
    assert!(made_up.header("x-request-id").starts_with("req_"));
    let odd = market
        .http
        .get(market.url("/v1/models"))
        .header("x-request-id", "two words");
    let odd = Answer::read(odd.send().await.unwrap()).await;
    assert!(
        odd.header("x-request-id").starts_with("req_"),
        "no id that could not travel"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_request_is_dropped_or_written_anew() {
    let market = Market::start().await;
    let setup = Setup {
        capabilities: vec![Capability::Passthrough],
        ..Setup::default()
    };
    let provider = market.provider(setup, words(&["Hi"])).await;
    // Blanks, orders, numbers and escapes as no serialiser would write them.
    let body = concat!(
        "\n{ \"model\" : \"guide\", \"messages\":[{\"role\":\"user\",\"content\":\"H\\u0069 \\ud83c\\udf3e\"}],\n",
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"b\":{},\"a\":{}}}}],",
        "\"tool_choice\":\"required\",\"n\":1,\"logit_bias\":{\"50256\":-1e2},\"max_completion_tokens\":7,\"max_tokens\":5,",
        "\"parallel_tool_calls\":false,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":",
        "{\"name\":\"x\",\"strict\":true,\"schema\":{\"type\":\"object\"}}},\"logprobs\":true,\"top_logprobs\":2,",
        "\"seed\":-9223372036854775808,\"stop\":[\"\\n\",\"END\"],\"stream_options\":{\"include_usage\":true},",
        "\"temperature\":0.10000000000000000001,\"top_p\":1.0,\"of_tomorrow\":{\"deep\":[1.50,null,\"\\/\"]}, \"user\":\"\"\t}\n\n",
    );
    let request = market.http.post(market.url("/v1/chat/completions")).body(body);
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let jobs = provider.jobs.borrow().clone();
    assert_eq!(String::from_utf8(jobs[0].body.clone()).unwrap(), body);
    // A limit is added at the end where the program set none; what it wrote stays as it is.
    let open = "{\"model\":\"guide\",\"messages\":[{}],\"top_p\":1.0 } ";
    let request = market.http.post(market.url("/v1/chat/completions")).body(open);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let jobs = provider.jobs.borrow().clone();
    let sent = String::from_utf8(jobs[1].body.clone()).unwrap();
    let written = open.trim_end().strip_suffix('}').unwrap();
    assert!(
        sent.starts_with(written) && sent.ends_with(",\"max_tokens\":4096}"),
        "{sent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_no_offer_can_honour_is_named_and_an_offer_that_can_is_found() {
    use Capability::{
        AudioInput, Continuation, ForcedTools, ImageInput, LogitBias, Logprobs, ManyChoices, Seed,
        StrictSchema, StructuredOutput, Tools,
    };
    let market = Market::start().await;
    // The cheapest can do nothing but answer.
    let plain = Setup {
        price: 1,
        ..Setup::default()
    };
    let _plain = market.provider(plain, words(&["Hi"])).await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let schema = |strict: bool| json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": strict}});
    let with_part = |part: Value| json!([{"role": "user", "content": [part]}]);
    let mut providers = Vec::new();
    for (fields, param, capabilities) in [
        (json!({"n": 2}), "n", vec![ManyChoices]),
        (json!({"logit_bias": {"5": 1}}), "logit_bias", vec![LogitBias]),
        (json!({"logprobs": true}), "logprobs", vec![Logprobs]),
        (json!({"seed": 7}), "seed", vec![Seed]),
        (json!({"tools": tools}), "tools", vec![Tools]),
        (
            json!({"tools": tools, "tool_choice": "required"}),
            "tool_choice",
            vec![Tools, ForcedTools],
        ),
        (
            json!({"response_format": schema(false)}),
            "response_format",
            vec![StructuredOutput],
        ),
        (
            json!({"response_format": schema(true)}),
            "response_format",
            vec![StructuredOutput, StrictSchema],
        ),
        (
            json!({"continue_final_message": true, "add_generation_prompt": false}),
            "continue_final_message",
            vec![Continuation],
        ),
        (
            json!({"messages": with_part(json!({"type": "image_url", "image_url": {"url": "data:,"}}))}),
            "messages",
            vec![ImageInput],
        ),
        (
            json!({"messages": with_part(json!({"type": "input_audio", "input_audio": {"data": ""}}))}),
            "messages",
            vec![AudioInput],
        ),
    ] {
        let answer = market.chat(fields.clone()).await;
        assert_eq!(
            answer.error(),
            (400, "unsupported_parameter".to_owned()),
            "{fields}"
        );
        assert_eq!(answer.json()["error"]["param"], param, "{fields}");
        let setup = Setup {
            capabilities,
            ..Setup::default()
        };
        let two = json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}).to_string();
        let able = market
            .provider(
                setup,
                Script::Run(vec![
                    Step::Say(text("Hi"), 1),
                    Step::Say(two, 1),
                    Step::Say(finish(), 1),
                ]),
            )
            .await;
        let answer = market.chat(fields.clone()).await;
        assert_eq!(answer.status, 200, "{fields}: {}", answer.text);
        assert_eq!(
            answer.json()["gristmill"]["provider"],
            able.account.to_string(),
            "{fields}"
        );
        providers.push(able);
    }
    // `parallel_tool_calls: false` and a named function are kept by the same offers as `required`.
    for fields in [
        json!({"tools": tools, "parallel_tool_calls": false}),
        json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ] {
        let answer = market.chat(fields).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_in_is_read_to_its_end() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let body = chat_body(json!({"max_tokens": 5})).to_string();
    let pieces: Vec<_> = body.as_bytes().chunks(7).map(<[u8]>::to_vec).collect();
    let slow = futures::stream::unfold(pieces.into_iter(), |mut rest| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        rest.next().map(|piece| (Ok::<_, std::io::Error>(piece), rest))
    });
    let request = market.http.post(market.url("/v1/chat/completions"));
    let answer = Answer::read(
        request
            .body(reqwest::Body::wrap_stream(slow))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(provider.jobs.borrow()[0].body, body.as_bytes());
}
