//! Who may call: names, pages and keys.

use serde_json::json;

use crate::harness::{Answer, Market, STARTER};

const PAGES: &str = "http://localhost:5173";
const KEY: &str = "sk-0123456789abcdef";

async fn guarded() -> Market {
    Market::start_with(STARTER, |mut settings| {
        settings.allowed_hosts = vec!["mill.local".into()];
        settings.allowed_origins = vec![PAGES.into()];
        settings
    })
    .await
}

async fn call(market: &Market, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let method = method.parse().unwrap();
    let mut request = market.http.request(method, market.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rebound_names_and_foreign_pages_get_nothing_on_any_route() {
    let market = guarded().await;
    let routes = [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/guide"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/nowhere"),
    ];
    let foreign: [&[(&str, &str)]; 9] = [
        &[("host", "evil.example")],
        &[("host", "localhost.evil.example:7420")],
        &[("host", "127.0.0.2")],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:5174")],
        &[("origin", "http://127.0.0.1")],
        &[("sec-fetch-site", "cross-site")],
        &[("host", "evil.example"), ("origin", PAGES)],
    ];
    for (method, path) in routes {
        for headers in foreign {
            let answer = call(&market, method, path, headers).await;
            assert_eq!(
                answer.error(),
                (403, "forbidden".to_owned()),
                "{method} {path} {headers:?}"
            );
            assert!(answer.header("access-control-allow-origin").is_empty());
        }
    }
    let known: [&[(&str, &str)]; 6] = [
        &[],
        &[("host", "localhost")],
        &[("host", "MILL.local:80")],
        &[("host", "[::1]:7420")],
        &[("sec-fetch-site", "none")],
        &[("origin", PAGES), ("sec-fetch-site", "cross-site")],
    ];
    for headers in known {
        assert_eq!(
            call(&market, "GET", "/v1/models", headers).await.status,
            200,
            "{headers:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_pages_are_told_what_they_may_do() {
    let market = guarded().await;
    let asked = [("origin", PAGES), ("access-control-request-method", "POST")];
    let answer = call(&market, "OPTIONS", "/v1/chat/completions", &asked).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, PAGES)
    );
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(
        answer
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    let answer = call(&market, "GET", "/v1/models", &[("origin", PAGES)]).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, PAGES)
    );
    assert_eq!(answer.header("vary"), "origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_where_there_is_one() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.api_keys = vec!["another-key-that-is-long".parse().unwrap(), KEY.parse().unwrap()];
        settings
    })
    .await;
    let bearer = |key: &str| format!("Bearer {key}");
    for (authorization, status) in [
        (None, 401),
        (Some(bearer("sk-0123456789abcdee")), 401),
        (Some(bearer("")), 401),
        (Some(format!("Basic {KEY}")), 401),
        (Some(bearer(KEY)), 200),
    ] {
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        let answer = call(&market, "GET", "/v1/models", &headers).await;
        assert_eq!(answer.status, status, "{authorization:?}");
        if status == 401 {
            assert_eq!(answer.error().1, "invalid_api_key");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let chat = market.chat(json!({})).await;
    assert_eq!(chat.error(), (401, "invalid_api_key".to_owned()));
    assert_eq!(market.get("/healthz").await.status, 200);
}
