//! The local page: its files, their headers, what it shows, and who may call for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::{Answer, Market, PATIENCE, STARTER, chat_body};
use crate::keys;
use crate::provider::{Setup, words};

const KEY: &str = "sk-0123456789abcdef";

async fn get(market: &Market, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = market.http.get(market.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::read(request.send().await.unwrap()).await
}

/// Every file of the page, found as a browser finds them: from the page on.
async fn crawl(market: &Market) -> BTreeMap<String, Answer> {
    let mut found = BTreeMap::new();
    let mut unread = BTreeSet::from(["/".to_owned()]);
    while let Some(path) = unread.pop_first() {
        let answer = market.get(&path).await;
        for name in answer.text.split(['"', '\'']) {
            let path = name.replacen("./", "/page/", 1);
            let is_file = path.starts_with("/page/") && !path.contains(char::is_whitespace);
            if is_file && !found.contains_key(&path) {
                unread.insert(path);
            }
        }
        found.insert(path, answer);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_served_with_the_headers_that_keep_others_out() {
    let market = Market::start().await;
    let files = crawl(&market).await;
    assert!(files.len() >= 8, "{:?}", files.keys());
    for (path, answer) in &files {
        assert_eq!(answer.status, 200, "{path}");
        let media_type = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some(_) => panic!("{path} has no media type"),
        };
        assert_eq!(answer.header("content-type"), media_type, "{path}");
    }
    let state = market.get("/v1/page/state").await;
    assert_eq!(state.status, 200);
    for (path, answer) in files.iter().chain([(&"state".to_owned(), &state)]) {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{name} of {path}");
        }
        let policy = answer.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(directive), "{directive} of {path}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(market.get("/page/nothing.js").await.error().0, 404);
    assert_eq!(market.post("/", &json!({})).await.error().0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_calls_from_its_own_origin_and_no_other_page_does() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Grain ", "in."])).await;
    let own = format!("http://{}", market.address());
    let chat = |origin: String, site: &'static str| {
        let request = market.http.post(market.url("/v1/chat/completions"));
        request
            .header("origin", origin)
            .header("sec-fetch-site", site)
            .json(&chat_body(json!({"stream": true})))
            .send()
    };
    let answer = Answer::read(chat(own.clone(), "same-origin").await.unwrap()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.events().len() > 2);
    assert!(answer.header("access-control-allow-origin").is_empty());
    for (origin, site) in [
        (own, "cross-site"),
        ("http://evil.example".to_owned(), "cross-site"),
        ("http://127.0.0.1:1".to_owned(), "same-site"),
        (format!("https://{}", market.address()), "cross-site"),
        ("null".to_owned(), "cross-site"),
    ] {
        let refused = Answer::read(chat(origin.clone(), site).await.unwrap()).await;
        assert_eq!(refused.error(), (403, "forbidden".to_owned()), "{origin} {site}");
    }
    for path in ["/", "/page/page.js", "/v1/page/state"] {
        for foreign in [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let refused = get(&market, path, &[foreign]).await;
            assert_eq!(refused.error().0, 403, "{path} {foreign:?}");
        }
        // A rebound name: for the browser it is the page's own origin.
        let rebound = [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(get(&market, path, &rebound).await.error().0, 403, "{path}");
        let opened = get(&market, path, &[("sec-fetch-site", "none")]).await;
        assert_eq!(opened.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_the_files_are_open_and_what_they_show_is_not() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.api_keys = vec![KEY.parse().unwrap()];
        settings
    })
    .await;
    for path in crawl(&market).await.keys() {
        assert_eq!(market.get(path).await.status, 200, "{path}");
    }
    let refused = market.get("/v1/page/state").await;
    assert_eq!(refused.error(), (401, "invalid_api_key".to_owned()));
    let bearer = format!("Bearer {KEY}");
    let state = get(&market, "/v1/page/state", &[("authorization", &bearer)]).await;
    assert_eq!(state.status, 200);
    assert!(!state.text.contains(KEY));
}

async fn state(market: &Market) -> Value {
    market.get("/v1/page/state").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_is_on_offer_and_who_answered() {
    let market = Market::start().await;
    let empty = state(&market).await;
    assert_eq!(
        (&empty["models"], &empty["providers"], &empty["models_on_offer"]),
        (&json!([]), &json!([]), &json!(0))
    );
    assert_eq!(empty["coordinator"]["state"], "joined");
    let provider = market
        .provider(Setup::default(), words(&["In", " ", "time."]))
        .await;
    let before = state(&market).await;
    assert_eq!(
        (&before["models_on_offer"], &before["providers_on_offer"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        before["models"][0]["first_output_ms"],
        Value::Null,
        "nothing was measured"
    );
    assert_eq!(before["providers"], json!([]), "nobody was asked");
    assert_eq!(market.chat(json!({})).await.status, 200);
    // The job is noted when its stream is closed, right after the answer.
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let after = state(&market).await;
        let is_noted = after["providers"].get(0).is_some();
        if is_noted && after["models"][0]["first_output_ms"].is_u64() {
            break after;
        }
        assert!(Instant::now() < deadline, "{after}");
        sleep(std::time::Duration::from_millis(20)).await;
    };
    let model = &after["models"][0];
    assert_eq!((&model["id"], &model["providers"]), (&json!("guide"), &json!(1)));
    assert_eq!(model["price"]["per_million"]["output_token"], 1_000_000);
    let record = &after["providers"][0];
    assert_eq!(record["account"], provider.account.to_string());
    assert_eq!(
        (&record["condition"], &record["requests"], &record["failed"]),
        (&json!("good"), &json!(1), &json!(0))
    );
    assert!(record["cost"].as_u64().unwrap() > 0, "{record}");
    assert!(record["first_output_ms"].is_u64());
    let text = after.to_string();
    assert!(!text.contains("What is Gristmill?") && !text.contains("time."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_shown_whom_it_asked_itself() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let (asks, idles) = (
        keys::create(&market, "asks", "").await,
        keys::create(&market, "idles", "").await,
    );
    assert_eq!(keys::chat(&market, &asks, json!({})).await.status, 200);
    let providers = async |key| keys::get(&market, key, "/v1/page/state").await.json()["providers"].take();
    let deadline = Instant::now() + PATIENCE;
    let shown = loop {
        let shown = providers(&asks).await;
        if shown != json!([]) {
            break shown;
        }
        assert!(Instant::now() < deadline, "the request is not noted");
        sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(shown[0]["account"], provider.account.to_string());
    assert_eq!(providers(&idles).await, json!([]));
}
