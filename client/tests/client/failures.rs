//! Requests that can't be served, and what programs are told.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{JobFailed, JobKind};
use gristmill_protocol::listing::Capability;
use serde_json::json;

use crate::harness::{Answer, Market, STARTER, client_settings, start_client, start_coordinator};
use crate::provider::{Script, Setup, Step, text, words};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_name_the_field() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    for (path, body, param) in [
        ("/v1/chat/completions", "", None),
        ("/v1/chat/completions", "{\"model\":", None),
        ("/v1/chat/completions", "[]", None),
        ("/v1/chat/completions", "{}", Some("model")),
        ("/v1/chat/completions", "{\"model\":\"guide\"}", Some("messages")),
        (
            "/v1/chat/completions",
            "{\"model\":\"guide\",\"messages\":[{}],\"n\":0}",
            Some("n"),
        ),
        (
            "/v1/chat/completions",
            "{\"model\":\"guide\",\"messages\":[{}],\"stream\":1}",
            Some("stream"),
        ),
        ("/v1/embeddings", "{\"model\":\"mini\"}", Some("input")),
    ] {
        let response = market
            .http
            .post(market.url(path))
            .body(body)
            .send()
            .await
            .unwrap();
        let answer = Answer::read(response).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"].as_str(), param, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_methods_and_models_are_told_apart() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let answer = market.chat(json!({"model": "guid"})).await;
    assert_eq!(answer.error(), (404, "model_not_found".to_owned()));
    assert!(answer.text.contains("did you mean guide?"), "{}", answer.text);
    let answer = market
        .post("/v1/embeddings", &json!({"model": "guide", "input": "x"}))
        .await;
    assert_eq!(answer.error(), (404, "model_not_found".to_owned()));
    assert!(answer.text.contains("/v1/chat/completions"), "{}", answer.text);
    let answer = market.post("/chat/completions", &json!({})).await;
    assert_eq!(answer.error(), (404, "unknown_url".to_owned()));
    let answer = market.get("/v1/chat/completions").await;
    assert_eq!(answer.error(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.header("allow"), "POST");
    assert_eq!(market.post("/healthz", &json!({})).await.error().0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_and_one_at_the_limit_is_not() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.body_max_bytes = 1_000;
        settings
    })
    .await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let body = |length: usize| {
        let start = "{\"model\":\"guide\",\"messages\":[\"";
        format!("{start}{}\"]}}", "x".repeat(length - start.len() - 3))
    };
    for (length, status) in [(1_000, 200), (1_001, 413), (20_000_000, 413)] {
        let request = market
            .http
            .post(market.url("/v1/chat/completions"))
            .body(body(length));
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_offer_can_honour_names_the_field_and_who_can_is_found() {
    let market = Market::start().await;
    let _plain = market
        .provider(
            Setup {
                price: 1,
                ..Setup::default()
            },
            words(&["Hi"]),
        )
        .await;
    let tools = json!({"tools": [{"type": "function"}]});
    let answer = market.chat(tools.clone()).await;
    assert_eq!(answer.error(), (400, "unsupported_parameter".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "tools");
    let setup = Setup {
        capabilities: vec![Capability::Passthrough],
        ..Setup::default()
    };
    let able = market.provider(setup, words(&["Hi"])).await;
    let answer = market.chat(tools).await;
    assert_eq!(answer.json()["gristmill"]["provider"], able.account.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_nobody_cheap_enough_are_told_apart() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.max_price_per_million = Some(Credits::micro(999_999));
        settings
    })
    .await;
    let nobody = market.chat(json!({})).await;
    assert_eq!(nobody.error(), (503, "no_provider_available".to_owned()));
    assert!((1..=120).contains(&nobody.header("retry-after").parse::<u32>().unwrap()));
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let dear = market.chat(json!({})).await;
    assert_eq!(dear.error(), (503, "budget_exhausted".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credits_it_is_402() {
    let market = Market::start_with(Credits::ZERO, |settings| settings).await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    for stream in [false, true] {
        let answer = market.chat(json!({"stream": stream})).await;
        assert_eq!(answer.error(), (402, "insufficient_credits".to_owned()));
        assert_eq!(answer.json()["error"]["type"], "insufficient_quota");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_credits_shorten_an_answer_whose_length_was_left_open() {
    let market = Market::start_with(Credits::micro(2_000), |settings| settings).await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let too_long = market.chat(json!({"max_tokens": 4_000})).await;
    assert_eq!(too_long.error(), (402, "insufficient_credits".to_owned()));
    let answer = market.chat(json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body: serde_json::Value = serde_json::from_slice(&provider.jobs.borrow()[0].body).unwrap();
    let limit = body["max_tokens"].as_u64().unwrap();
    assert!((1_000..2_000).contains(&limit), "{limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_ended_request_is_limited_and_a_limited_one_is_left_alone() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    for (fields, expected) in [
        (json!({}), Some(4_096)),
        (json!({"max_completion_tokens": 7}), None),
    ] {
        market.chat(fields).await;
        let jobs = provider.jobs.borrow().clone();
        let body: serde_json::Value = serde_json::from_slice(&jobs.last().unwrap().body).unwrap();
        assert_eq!(
            body.get("max_tokens").and_then(serde_json::Value::as_u64),
            expected
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engines_no_reaches_the_program_in_its_own_words() {
    let market = Market::start().await;
    let no = JobFailed::new(
        400,
        "invalid_value",
        "temperature is too high",
        Some("temperature"),
    );
    let first = market
        .provider(
            Setup {
                price: 1,
                ..Setup::default()
            },
            Script::Run(vec![Step::Fail(no)]),
        )
        .await;
    let second = market.provider(Setup::default(), words(&["Hi"])).await;
    for stream in [true, false] {
        let answer = market.chat(json!({"stream": stream})).await;
        assert_eq!(answer.error(), (400, "invalid_value".to_owned()));
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["message"], &error["param"]),
            (&json!("temperature is too high"), &json!("temperature"))
        );
    }
    assert_eq!(
        (first.jobs.borrow().len(), second.jobs.borrow().len()),
        (2, 0),
        "nobody else was asked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_too_long_for_one_goes_to_one_with_a_longer_context() {
    let market = Market::start().await;
    let long = JobFailed::new(
        400,
        "context_length_exceeded",
        "the prompt is too long",
        Some("messages"),
    );
    let small = Setup {
        price: 1,
        ..Setup::default()
    };
    let _small = market
        .provider(small.clone(), Script::Run(vec![Step::Fail(long)]))
        .await;
    let answer = market.chat(json!({})).await;
    assert_eq!(answer.error(), (400, "context_length_exceeded".to_owned()));
    let large = Setup {
        context_length: 100_000,
        ..Setup::default()
    };
    let large = market.provider(large, words(&["Hi"])).await;
    assert_eq!(
        market.chat(json!({})).await.json()["gristmill"]["provider"],
        large.account.to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_with_a_nested_error() {
    let market = Market::start().await;
    let broken = JobFailed::new(500, "server_error", "out of memory", None);
    for (step, code) in [
        (Step::Fail(broken), "server_error"),
        (Step::Die, "provider_failed"),
    ] {
        let script = Script::Run(vec![Step::Say(text("Hi"), 1), step]);
        let provider = market.provider(Setup::default(), script).await;
        let answer = market.chat(json!({"stream": true})).await;
        assert_eq!(answer.status, 200);
        let events = answer.events();
        assert_eq!(events.len(), 3, "{events:?}");
        assert!(events[0].contains("\"Hi\""));
        let error: serde_json::Value = serde_json::from_str(&events[1]).unwrap();
        assert_eq!(error["error"]["code"], code);
        assert!(error["error"]["message"].is_string());
        provider.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_is_an_error() {
    let market = Market::start().await;
    let _provider = market
        .provider(Setup::default(), Script::Run(vec![Step::Say(text("Hi"), 1)]))
        .await;
    let events = market.chat(json!({"stream": true})).await.events();
    assert!(events[1].contains("provider_failed"), "{events:?}");
    assert_eq!(
        market.chat(json!({})).await.error(),
        (502, "provider_failed".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_coordinator_is_away_the_reason_is_told_and_it_is_found_when_it_is_back() {
    let (coordinator_directory, client_directory) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let coordinator = start_coordinator(STARTER, coordinator_directory.path()).await;
    let (address, url) = (coordinator.http_address(), coordinator.http_url());
    coordinator.shutdown().await.unwrap();
    let client = start_client(client_settings(&url), client_directory.path()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let endpoint = format!("{}/chat/completions", client.base_url());
    let body = crate::harness::chat_body(json!({}));
    let answer = Answer::read(http.post(&endpoint).json(&body).send().await.unwrap()).await;
    assert_eq!(answer.error(), (503, "coordinator_unavailable".to_owned()));
    assert!(!answer.header("retry-after").is_empty());
    let settings = gristmill_coordinator::Settings {
        http_listen: address,
        ..crate::harness::coordinator_settings(STARTER)
    };
    let back = gristmill_coordinator::Coordinator::start(
        settings,
        coordinator_directory.path(),
        tokio_util::sync::CancellationToken::new(),
    );
    let _back = back.await.unwrap();
    let joined = async {
        while !client.is_joined() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, joined)
        .await
        .unwrap();
    let answer = Answer::read(http.post(&endpoint).json(&body).send().await.unwrap()).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_that_are_none_are_a_failure() {
    let market = Market::start().await;
    let setup = Setup {
        kind: JobKind::Embeddings,
        model: "mini",
        ..Setup::default()
    };
    let _provider = market
        .provider(setup, Script::Run(vec![Step::Say("{\"odd\":1}".into(), 0)]))
        .await;
    let answer = market
        .post("/v1/embeddings", &json!({"model": "mini", "input": "a"}))
        .await;
    assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
}
