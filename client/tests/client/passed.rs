//! What is passed on as it came: sound, images, rankings.

use std::sync::Arc;

use gristmill_protocol::job::{JobFailed, JobKind};
use serde_json::json;
use tokio::sync::Notify;

use crate::harness::{Answer, Market};
use crate::provider::{Script, Setup, Step, words};

/// An answer that is passed on: what it is, and its bytes.
fn passed(content_type: &str, parts: &[&[u8]]) -> Vec<Step> {
    let head = json!({"content_type": content_type}).to_string();
    let mut steps = vec![Step::Say(head, 0)];
    steps.extend(parts.iter().map(|part| Step::Make(part.to_vec(), 0)));
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_comes_as_it_was_made() {
    let market = Market::start().await;
    let sound: &[&[u8]] = &[b"ID3\0\xff\xfb", b"\r\n\0data: x\n\n", &[7; 100_000]];
    let provider = market
        .provider(
            Setup::of_kind(JobKind::AudioSpeech),
            Script::Run(passed("audio/mpeg", sound)),
        )
        .await;
    let body = json!({"model": "guide", "input": "Hello", "voice": "alloy", "response_format": "mp3"});
    let response = market.http.post(market.url("/v1/audio/speech")).json(&body);
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "audio/mpeg");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert!(response.headers().contains_key("x-request-id"));
    assert_eq!(response.bytes().await.unwrap(), sound.concat());
    assert_eq!(provider.last_body(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_that_breaks_off_breaks_the_connection_and_one_that_never_came_has_a_status() {
    let market = Market::start().await;
    let body = json!({"model": "guide", "input": "Hello", "voice": "alloy"});
    let failed = JobFailed::new(500, "server_error", "out of memory", None);
    let go_on = Arc::new(Notify::new());
    let mut steps = passed("audio/mpeg", &[b"ID3"]);
    steps.extend([Step::WaitFor(go_on.clone()), Step::Fail(failed.clone())]);
    let _provider = market
        .provider(Setup::of_kind(JobKind::AudioSpeech), Script::Run(steps))
        .await;
    let response = market.http.post(market.url("/v1/audio/speech")).json(&body);
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), 200);
    go_on.notify_one();
    assert!(response.bytes().await.is_err(), "half a sound is no sound");
    for (steps, status, code) in [
        (vec![Step::Fail(failed)], 500, "server_error"),
        (passed("audio/mpeg", &[]), 502, "provider_failed"),
    ] {
        // Another one each time: who fails again and again is left alone.
        let market = Market::start().await;
        let _provider = market
            .provider(Setup::of_kind(JobKind::AudioSpeech), Script::Run(steps))
            .await;
        let answer = market.post("/v1/audio/speech", &body).await;
        assert_eq!(answer.error(), (status, code.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_travels_as_the_form_that_it_came_in() {
    let market = Market::start().await;
    let script = Script::Run(passed("application/json", &[b"{\"text\":", b"\"Hello\"}"]));
    let provider = market
        .provider(Setup::of_kind(JobKind::AudioTranscriptions), script)
        .await;
    let content_type = "multipart/form-data; boundary=\"one two\"";
    let mut form = Vec::new();
    for (head, value) in [
        ("name=\"model\"", &b"guide"[..]),
        ("name=\"language\"", b"en"),
        (
            "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav",
            b"RIFF\0\xff\r\n--one tw\r\n",
        ),
    ] {
        form.extend_from_slice(
            format!("--one two\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(),
        );
        form.extend_from_slice(value);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(b"--one two--\r\n");
    let send = async |form: Vec<u8>| {
        let request = market.http.post(market.url("/v1/audio/transcriptions"));
        let request = request.header("content-type", content_type).body(form);
        Answer::read(request.send().await.unwrap()).await
    };
    let answer = send(form.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(
        (&body["text"], &body["gristmill"]["provider"]),
        (&json!("Hello"), &json!(provider.account.to_string()))
    );
    let jobs = provider.jobs.borrow().clone();
    assert_eq!(
        (jobs[0].open.content_type.as_str(), &jobs[0].body),
        (content_type, &form)
    );
    provider.set_script(Script::Run(passed(
        "text/plain; charset=utf-8",
        &["Grüezi\n".as_bytes()],
    )));
    let answer = send(form).await;
    assert_eq!(
        (answer.header("content-type"), answer.text.as_str()),
        ("text/plain; charset=utf-8", "Grüezi\n")
    );
    let answer = send(b"--one two--\r\n".to_vec()).await;
    assert_eq!(answer.error(), (400, "invalid_request".to_owned()));
    let answer = market
        .post(
            "/v1/audio/transcriptions",
            &json!({"model": "guide", "file": "x"}),
        )
        .await;
    assert_eq!(answer.error(), (400, "invalid_request".to_owned()));
    assert!(answer.text.contains("multipart/form-data"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_rankings_are_passed_on() {
    let image = json!({"created": 1, "data": [{"b64_json": "AAAA"}]});
    let ranks = json!({"results": [{"index": 1, "relevance_score": 0.5}]});
    for (kind, path, body, said) in [
        (
            JobKind::ImageGenerations,
            "/v1/images/generations",
            json!({"model": "guide", "prompt": "a mill", "n": 1, "size": "64x64"}),
            image,
        ),
        (
            JobKind::Rerank,
            "/v1/rerank",
            json!({"model": "guide", "query": "mill", "documents": ["a", "b"], "top_n": 1}),
            ranks,
        ),
    ] {
        let market = Market::start().await;
        // Where nobody offers the kind, the model is not there for this request.
        let _chat = market.provider(Setup::default(), words(&["Hi"])).await;
        let answer = market.post(path, &body).await;
        assert_eq!(answer.error(), (404, "model_not_found".to_owned()), "{path}");
        assert!(answer.text.contains("/v1/chat/completions"), "{}", answer.text);
        let steps = passed("application/json", &[said.to_string().as_bytes()]);
        // All the bytes that such an answer may have are set aside.
        let setup = Setup {
            price: 1_000,
            ..Setup::of_kind(kind)
        };
        let provider = market.provider(setup, Script::Run(steps)).await;
        let answer = market.post(path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let mut expected = said.clone();
        expected["gristmill"] = answer.json()["gristmill"].clone();
        assert_eq!(answer.json(), expected);
        assert_eq!(answer.json()["gristmill"]["cost"], 1);
        assert_eq!(provider.last_body(), body);
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_passes_on_is_a_404_with_the_reason() {
    let market = Market::start().await;
    let _chat = market.provider(Setup::default(), words(&["Hi"])).await;
    for (path, body) in [
        (
            "/v1/audio/speech",
            json!({"model": "guide", "input": "x", "voice": "v"}),
        ),
        ("/v1/completions", json!({"model": "guide", "prompt": "x"})),
        ("/v1/embeddings", json!({"model": "guide", "input": "x"})),
        (
            "/v1/rerank",
            json!({"model": "unheard-of", "query": "x", "documents": ["y"]}),
        ),
    ] {
        let answer = market.post(path, &body).await;
        assert_eq!(answer.error(), (404, "model_not_found".to_owned()), "{path}");
        assert_eq!(answer.json()["error"]["param"], "model");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_stranger_is_no_page() {
    let market = Market::start().await;
    let steps = passed("text/html", &[b"<script>"]);
    let _provider = market
        .provider(Setup::of_kind(JobKind::AudioSpeech), Script::Run(steps))
        .await;
    let answer = market
        .post(
            "/v1/audio/speech",
            &json!({"model": "guide", "input": "x", "voice": "v"}),
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/octet-stream")
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}
