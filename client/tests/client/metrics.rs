//! What monitoring is told: the text for Prometheus, and spans for an OpenTelemetry collector.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use gristmill_protocol::job::JobFailed;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{Answer, Market, PATIENCE, STARTER, chat_body};
use crate::provider::{Script, Setup, Step, words};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn dear() -> Setup {
    Setup {
        price: 100_000_000,
        window: 1_000_000,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_durations_tokens_cost_and_breakers() {
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a", "b"])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    assert_eq!(market.chat(json!({"model": "nobody's"})).await.status, 404);
    let answer = market.get("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let labels =
        "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"gristmill\",gen_ai_request_model=\"guide\"";
    for line in [
        format!("gen_ai_client_operation_duration_seconds_count{{{labels},error_type=\"\"}} 1"),
        format!("gen_ai_server_time_to_first_token_seconds_count{{{labels}}} 1"),
        format!("gen_ai_server_time_per_output_token_seconds_count{{{labels}}} 1"),
        format!("gen_ai_client_token_usage_sum{{{labels},gen_ai_token_type=\"output\"}} 2.0"),
        "gristmill_cost_microcredits_total{gen_ai_request_model=\"guide\"} 500".to_owned(),
        "gristmill_spent_today_microcredits 500".to_owned(),
        "gristmill_circuit_breakers{state=\"closed\"} 1".to_owned(),
        "gristmill_circuit_breakers{state=\"open\"} 0".to_owned(),
        "gristmill_witness_alarms 0".to_owned(),
        "gristmill_budget_alarm 0".to_owned(),
        "gristmill_running_requests 0".to_owned(),
        "gristmill_providers_on_offer{hardware=\"verified\"} 0".to_owned(),
        "gristmill_providers_on_offer{hardware=\"unverified\"} 1".to_owned(),
        "gristmill_verified_devices 0".to_owned(),
    ] {
        assert!(
            answer.text.lines().any(|found| found == line),
            "{line}\n{}",
            answer.text
        );
    }
    for hidden in [
        "nobody",
        &provider.account.to_string(),
        &market.client.account().to_string(),
    ] {
        assert!(!answer.text.contains(hidden), "{hidden}\n{}", answer.text);
    }
    let request = market.http.get(market.url("/metrics"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open_metrics = Answer::read(request.header("accept", accept).send().await.unwrap()).await;
    assert!(
        open_metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(open_metrics.text.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_opens_is_seen() {
    let market = Market::start().await;
    let failing = Script::Run(vec![Step::Fail(JobFailed::new(502, "oom", "no memory", None))]);
    let provider = market.provider(dear(), failing).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !market
        .get("/metrics")
        .await
        .text
        .contains("gristmill_circuit_breakers{state=\"open\"} 1\n")
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{} jobs",
            provider.jobs.borrow().len()
        );
        assert!(market.chat(json!({"max_tokens": 10})).await.status >= 500);
    }
}

/// A collector that hands on what it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<Value>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let take = |State(sender): State<Arc<mpsc::UnboundedSender<Value>>>, body: String| async move {
        sender.send(serde_json::from_str(&body).unwrap()).unwrap();
    };
    let router = Router::new()
        .route("/v1/traces", post(take))
        .with_state(Arc::new(sender));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, receiver)
}

async fn spans(received: &mut mpsc::UnboundedReceiver<Value>, count: usize) -> Vec<Value> {
    let mut spans = Vec::new();
    while spans.len() < count {
        let request = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
        let resource = &request["resourceSpans"][0];
        assert!(resource["resource"].to_string().contains("gristmill-client"));
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().clone());
    }
    spans
}

async fn traced_chat(market: &Market, flags: &str) -> Answer {
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header("traceparent", parent);
    Answer::read(
        request
            .json(&chat_body(json!({"max_tokens": 10})))
            .send()
            .await
            .unwrap(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_program_through_the_client_to_the_provider() {
    let (url, mut received) = collector().await;
    let market = Market::start_with(STARTER, |mut settings| {
        settings.otlp_endpoint = Some(url);
        settings
    })
    .await;
    let provider = market.provider(dear(), words(&["Grain", " in."])).await;
    assert_eq!(traced_chat(&market, "01").await.status, 200);
    let spans = spans(&mut received, 2).await;
    let [server, client] = spans.as_slice() else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (&server["traceId"], &client["traceId"]),
        (&json!(TRACE), &json!(TRACE))
    );
    assert_eq!(
        (&server["parentSpanId"], &server["kind"]),
        (&json!(PARENT), &json!(2))
    );
    assert_eq!(
        (&client["parentSpanId"], &client["kind"]),
        (&server["spanId"], &json!(3))
    );
    assert_eq!(server["name"], "chat guide");
    let told = provider.jobs.borrow()[0].open.trace_parent.unwrap();
    assert_eq!(
        told.to_string(),
        format!("00-{TRACE}-{}-01", client["spanId"].as_str().unwrap())
    );
    let attributes = server["attributes"].to_string();
    for known in [
        "gen_ai.usage.output_tokens",
        "gristmill.cost_microcredits",
        "http.response.status_code",
    ] {
        assert!(attributes.contains(known), "{attributes}");
    }
    let all = json!(spans).to_string();
    assert!(
        !all.contains("Grain") && !all.contains("What is Gristmill?"),
        "{all}"
    );
    // The rest goes out when the client ends.
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    assert_eq!(traced_chat(&market, "00").await.status, 200);
    market.client.shutdown().await.unwrap();
    let mut last = Vec::new();
    while let Ok(request) = received.try_recv() {
        last.extend(
            request["resourceSpans"][0]["scopeSpans"][0]["spans"]
                .as_array()
                .unwrap()
                .clone(),
        );
    }
    assert_eq!(
        last.len(),
        2,
        "a trace of its own, and none where the program records none: {last:?}"
    );
    assert!(last[0]["traceId"] != TRACE && last[0].get("parentSpanId").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_programs_own_position_goes_on() {
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a"])).await;
    assert_eq!(traced_chat(&market, "01").await.status, 200);
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    let jobs = provider.jobs.borrow().clone();
    assert_eq!(
        jobs[0].open.trace_parent.unwrap().to_string(),
        format!("00-{TRACE}-{PARENT}-01")
    );
    assert_eq!(jobs[1].open.trace_parent, None);
}

/// Neither requests nor the end of the client wait for a collector that is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing_but_its_spans() {
    let market = Market::start_with(STARTER, |mut settings| {
        // Nobody listens at port 9.
        settings.otlp_endpoint = Some("http://127.0.0.1:9".to_owned());
        settings
    })
    .await;
    let _provider = market.provider(dear(), words(&["a"])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    timeout(PATIENCE, market.client.shutdown())
        .await
        .unwrap()
        .unwrap();
}
