//! What is asked for beside chats: completions, embeddings, and a quote before a call.

use gristmill_protocol::job::{JobFailed, JobKind};
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use crate::harness::{Answer, Market, with};
use crate::provider::{Script, Setup, Step, words};

const COMPLETIONS: &str = "/v1/completions";

/// A chunk of a completion.
fn piece(index: u64, text: &str, finish: Option<&str>) -> String {
    json!({"choices": [{"index": index, "text": text, "finish_reason": finish}]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_completed_whole_and_streamed() {
    let market = Market::start().await;
    let script = Script::Run(vec![
        Step::Say(piece(0, "Once", None), 1),
        Step::Say(piece(0, " upon", Some("length")), 2),
    ]);
    let provider = market
        .provider(Setup::of_kind(JobKind::Completions), script)
        .await;
    let body = json!({"model": "guide", "prompt": "Tell", "max_tokens": 2});
    let answer = market.post(COMPLETIONS, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let whole = answer.json();
    assert_eq!(
        whole["choices"],
        json!([{"text": "Once upon", "index": 0, "logprobs": null, "finish_reason": "length"}])
    );
    assert_eq!(
        (
            &whole["object"],
            &whole["model"],
            &whole["usage"]["completion_tokens"]
        ),
        (&json!("text_completion"), &json!("guide"), &json!(2))
    );
    assert_eq!(whole["gristmill"]["cost"], 5);
    assert_eq!(provider.last_body(), body, "a limit that is set stays as it is");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = market.post(COMPLETIONS, &streamed).await.chunks();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk.pointer("/choices/0/text")?.as_str())
        .collect();
    assert_eq!(text, "Once upon");
    for chunk in &chunks {
        assert_eq!(chunk["object"], "text_completion");
        assert!(chunk["created"].is_u64() && chunk["id"] == chunks[0]["id"]);
    }
    let last = chunks.last().unwrap();
    assert_eq!(
        (
            &last["choices"],
            &last["usage"]["total_tokens"],
            &last["gristmill"]["cost"]
        ),
        (&json!([]), &json!(5), &json!(5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_without_a_limit_gets_openais() {
    let market = Market::start().await;
    let script = Script::Run(vec![Step::Say(piece(0, "a", Some("stop")), 1)]);
    let provider = market
        .provider(Setup::of_kind(JobKind::Completions), script)
        .await;
    let answer = market
        .post(COMPLETIONS, &json!({"model": "guide", "prompt": ""}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(provider.last_body()["max_tokens"], 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_prompts_and_choices_each_have_their_place() {
    let market = Market::start().await;
    let setup = Setup {
        capabilities: vec![Capability::ManyChoices],
        ..Setup::of_kind(JobKind::Completions)
    };
    let script = Script::Run(vec![
        Step::Say(piece(3, "d", Some("stop")), 1),
        Step::Say(piece(1, "b", None), 2),
        Step::Say(piece(0, "a", Some("stop")), 3),
        Step::Say(piece(2, "c", Some("stop")), 4),
        Step::Say(piece(1, "b", Some("stop")), 5),
    ]);
    let _provider = market.provider(setup, script).await;
    let answer = market
        .post(
            COMPLETIONS,
            &json!({"model": "guide", "prompt": ["x", "y"], "n": 2, "max_tokens": 5}),
        )
        .await;
    let texts: Vec<Value> = answer.json()["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].clone())
        .collect();
    assert_eq!(texts, ["a", "bb", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_completions_that_nobody_honours_are_named() {
    let market = Market::start().await;
    let ended = || Script::Run(vec![Step::Say(piece(0, "a", Some("stop")), 1)]);
    let plain = Setup {
        price: 1,
        ..Setup::of_kind(JobKind::Completions)
    };
    let _plain = market.provider(plain, ended()).await;
    let bodies = [
        ("prompt", json!([1, 2, 3])),
        ("prompt", json!([[1], [2, 3]])),
        ("echo", json!(true)),
        ("suffix", json!("end")),
        ("best_of", json!(2)),
        ("n", json!(2)),
        ("logprobs", json!(0)),
        ("logit_bias", json!({"7": 1})),
        ("seed", json!(1)),
    ]
    .map(|(field, value)| {
        let mut body = json!({"model": "guide", "prompt": "x", "max_tokens": 2});
        body[field] = value;
        (field, body)
    });
    for (field, body) in &bodies {
        let answer = market.post(COMPLETIONS, body).await;
        assert_eq!(
            answer.error(),
            (400, "unsupported_parameter".to_owned()),
            "{body}"
        );
        assert_eq!(answer.json()["error"]["param"], *field, "{body}");
    }
    let setup = Setup {
        capabilities: vec![
            Capability::TokenInput,
            Capability::Echo,
            Capability::Suffix,
            Capability::ManyChoices,
            Capability::Logprobs,
            Capability::LogitBias,
            Capability::Seed,
        ],
        ..Setup::of_kind(JobKind::Completions)
    };
    let able = market.provider(setup, ended()).await;
    for (_, body) in &bodies {
        let answer = market.post(COMPLETIONS, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(able.last_body(), *body, "it travels as it was written");
    }
    for (body, param) in [
        (json!({"model": "guide"}), "prompt"),
        (json!({"model": "guide", "prompt": []}), "prompt"),
        (json!({"model": "guide", "prompt": ["a", 1]}), "prompt"),
        (
            json!({"model": "guide", "prompt": "a", "max_tokens": "many"}),
            "max_tokens",
        ),
        (json!({"model": "guide", "prompt": "a", "n": 129}), "n"),
    ] {
        let answer = market.post(COMPLETIONS, &body).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()));
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_breaks_off_ends_with_a_nested_error() {
    let market = Market::start().await;
    for end in [
        Step::Die,
        Step::Fail(JobFailed::new(500, "server_error", "out of memory", None)),
    ] {
        let script = Script::Run(vec![Step::Say(piece(0, "Once", None), 1), end]);
        let provider = market
            .provider(Setup::of_kind(JobKind::Completions), script)
            .await;
        let body = json!({"model": "guide", "prompt": "Tell", "stream": true});
        let chunks = market.post(COMPLETIONS, &body).await.chunks();
        assert_eq!(chunks[0]["choices"][0]["text"], "Once");
        assert!(
            chunks.last().unwrap()["error"]["message"].is_string(),
            "{chunks:?}"
        );
        provider.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_come_as_they_were_asked_for() {
    let market = Market::start().await;
    let floats = json!({"data": [{"object": "embedding", "index": 0, "embedding": [0.5, -2.0]}]});
    let script = || Script::Run(vec![Step::Say(floats.to_string(), 0)]);
    let cheap = Setup {
        price: 1,
        ..Setup::of_kind(JobKind::Embeddings)
    };
    let plain = market.provider(cheap, script()).await;
    let ask = async |fields: Value| {
        let body = with(json!({"model": "guide", "input": "a"}), fields);
        market.post("/v1/embeddings", &body).await
    };
    let answer = ask(json!({})).await.json();
    assert_eq!(answer["data"][0]["embedding"], json!([0.5, -2.0]));
    // The server knows no base64; the official SDKs ask for it unless told otherwise.
    let answer = ask(json!({"encoding_format": "base64", "input": ["a", "b"]}))
        .await
        .json();
    assert_eq!(answer["data"][0]["embedding"], "AAAAPwAAAMA=");
    assert_eq!(plain.last_body()["input"], json!(["a", "b"]));
    for (fields, param) in [
        (json!({"input": [1, 2]}), "input"),
        (json!({"input": [[1], [2]]}), "input"),
        (json!({"dimensions": 2}), "dimensions"),
    ] {
        let answer = ask(fields).await;
        assert_eq!(answer.error(), (400, "unsupported_parameter".to_owned()));
        assert_eq!(answer.json()["error"]["param"], param);
    }
    let setup = Setup {
        capabilities: vec![Capability::TokenInput, Capability::Dimensions],
        ..Setup::of_kind(JobKind::Embeddings)
    };
    let able = market.provider(setup, script()).await;
    let answer = ask(json!({"input": [[1], [2]], "dimensions": 2})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(able.last_body()["dimensions"], 2);
    for (fields, param) in [
        (json!({"input": []}), "input"),
        (
            json!({"input": [""], "encoding_format": "int8"}),
            "encoding_format",
        ),
        (json!({"input": vec!["x"; 2_049]}), "input"),
        (json!({"dimensions": 0}), "dimensions"),
    ] {
        let answer = ask(fields).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()));
        assert_eq!(answer.json()["error"]["param"], param);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_costs_nothing_and_its_bound_holds() {
    const QUOTE: &str = "/v1/chat/completions/input_tokens";
    let market = Market::start().await;
    let body = json!({"model": "guide", "messages": [{"role": "user", "content": "What is Gristmill?"}], "max_tokens": 20});
    let nobody = market.post(QUOTE, &body).await;
    assert_eq!(nobody.error(), (503, "no_provider_available".to_owned()));
    let dear = Setup {
        price: 2_000_000,
        ..Setup::default()
    };
    let dear = market.provider(dear, words(&["Hi"])).await;
    let cheap = market.provider(Setup::default(), words(&["Hi"])).await;
    let before = market.balance().await;
    let answer = market.post(QUOTE, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let quote = answer.json();
    assert_eq!(quote["object"], "chat.completion.input_tokens");
    let count = |name: &str| quote[name].as_u64().unwrap();
    assert!(count("input_tokens") > 0 && count("input_tokens") <= count("input_tokens_max"));
    assert_eq!(count("output_tokens_likely"), 20);
    let providers: Vec<_> = quote["providers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|quote| quote["provider"].clone())
        .collect();
    assert_eq!(
        providers,
        [json!(cheap.account.to_string()), json!(dear.account.to_string())],
        "the cheapest first"
    );
    for provider in quote["providers"].as_array().unwrap() {
        let cost = |name: &str| provider["cost"][name].as_u64().unwrap();
        assert!(
            cost("min") <= cost("likely") && cost("likely") <= cost("max"),
            "{provider}"
        );
    }
    assert_eq!(
        (market.balance().await, cheap.jobs.borrow().len()),
        (before, 0),
        "nobody was asked"
    );
    let paid = market.post("/v1/chat/completions", &body).await.json();
    let max = quote["providers"][0]["cost"]["max"].as_u64().unwrap();
    assert!(paid["gristmill"]["cost"].as_u64().unwrap() <= max);
    // It fails as the request itself would, also where that is restricted.
    let capped = market.http.post(market.url(QUOTE)).json(&body);
    let capped = capped
        .header("x-gristmill-max-price", "1.5")
        .send()
        .await
        .unwrap();
    let capped = Answer::read(capped).await.json();
    assert_eq!(capped["providers"].as_array().unwrap().len(), 1, "{capped}");
    let mut elsewhere = body.clone();
    elsewhere["gristmill"] = json!({"region": "CH"});
    let answer = market.post(QUOTE, &elsewhere).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
    let mut impossible = body.clone();
    impossible["tools"] = json!([{"type": "function"}]);
    let answer = market.post(QUOTE, &impossible).await;
    assert_eq!(answer.error(), (400, "unsupported_parameter".to_owned()));
    assert_eq!(
        market.post(QUOTE, &json!({"model": "guide"})).await.error().0,
        400
    );
}
