//! An answer whose provider dies goes on with another one: the program reads one answer, and each provider is paid
//! for what it delivered.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use gristmill_transport::CoordinatorClient;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::harness::{Answer, Market, PATIENCE, chat_body, unix_ms, with};
use crate::provider::{JobRecord, Script, Setup, Step, TestProvider};
use crate::strict_reader::{Read, understood};
use crate::writer::{PROMPT, Tokens, WithPartial, Writer, words};

/// What everybody who is asked writes.
const TEXT: &str = "Gristmill is a market of GPUs:\n\n- owners offer  spare time – naïve or not –\n- programs buy tokens; \
                    each is paid by a voucher.\n\n```rust\nfn grind(grain: &str) -> String {\n    grain.to_owned()\n}\n```\n\
                    Müller 磨坊 says: \"grüezi 👩‍🌾, the mill   grinds\" and the stream drives its wheel, day and night, \
                    whoever owns it. No one miller is needed, which is why a mill that stops in the middle of a sack is \
                    no loss: the next one grinds on.";

/// More than any of these tests spends.
const PLENTY: Credits = Credits::micro(100_000_000);

async fn market() -> Market {
    Market::start_with(PLENTY, |mut settings| {
        // Nobody is late here; slow machines are.
        settings.hedging = None;
        settings
    })
    .await
}

/// An offer at so many microcredits a token, of somebody who can write on.
fn offer(model: &'static str, price: u32) -> Setup {
    Setup {
        model,
        price: price * 1_000_000,
        window: 10_000_000,
        capabilities: vec![Capability::Continuation],
        ..Setup::default()
    }
}

fn exact(model: &str) -> Value {
    chat_body(json!({
        "model": model, "temperature": 0, "max_tokens": 300, "stream": true, "stream_options": {"include_usage": true},
    }))
}

fn named(prefix: &str, number: usize) -> &'static str {
    Box::leak(format!("{prefix}-{number}").into_boxed_str())
}

async fn open(market: &Market, path: &str, body: &Value) -> Response {
    let response = market
        .http
        .post(market.url(path))
        .json(body)
        .send()
        .await
        .unwrap();
    if response.status().as_u16() != 200 {
        panic!("{}: {}", response.status(), response.text().await.unwrap());
    }
    response
}

/// Reads so many events.
async fn read(response: &mut Response, text: &mut String, count: usize) {
    let reading = async {
        while text.matches("data: ").count() < count {
            let chunk = response.chunk().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
}

async fn rest(response: Response, mut text: String) -> Read {
    text.push_str(&timeout(PATIENCE, response.text()).await.unwrap().unwrap());
    understood(&text)
}

/// The whole stream of a request.
async fn streamed(market: &Market, path: &str, body: &Value) -> Read {
    rest(open(market, path, body).await, String::new()).await
}

async fn chatted(market: &Market, body: &Value) -> Read {
    streamed(market, "/v1/chat/completions", body).await
}

/// What a request cost, and what each provider has of it, after checking that it is the price of what it delivered.
fn shares(read: &Read, providers: &[(AccountId, u64)]) -> Vec<u64> {
    let told = read.gristmill["providers"].as_array().unwrap();
    assert_eq!(told.len(), providers.len(), "{}", read.gristmill);
    let mut costs = Vec::new();
    for (share, (provider, price)) in told.iter().zip(providers) {
        assert_eq!(share["provider"], provider.to_string());
        let tokens = |unit: &str| share["usage"][unit].as_u64().unwrap();
        let cost = (tokens("input_token") + tokens("output_token")) * price;
        assert_eq!(share["cost"], cost, "{share}");
        costs.push(cost);
    }
    assert_eq!(read.gristmill["cost"], costs.iter().sum::<u64>());
    costs
}

fn all_ended(jobs: &[JobRecord], count: usize) -> bool {
    jobs.len() == count && jobs.iter().all(|job| job.end.is_some())
}

/// What the consumer's account has lost to settlements, in microcredits.
async fn settled(market: &Market) -> u64 {
    let (available, held) = market.balance().await;
    PLENTY.microcredits() - available - held
}

async fn wait_until_settled(market: &Market, expected: u64) {
    let paid = async {
        while settled(market).await < expected {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, paid).await.expect("it was handed in");
    assert_eq!(settled(market).await, expected);
}

/// A provider's account at the coordinator.
async fn till(market: &Market, provider: &TestProvider) -> CoordinatorClient {
    let (url, keypair) = (market.coordinator.http_url(), provider.keypair.clone());
    let till = CoordinatorClient::new(&url, None, keypair, Arc::new(unix_ms)).unwrap();
    till.open_account().await.unwrap();
    till
}

/// One answer whose provider is killed when the program has read so many chunks.
async fn killed_at(market: &Market, chunks: usize, unbroken: &Read) {
    let model = named("guide", chunks);
    let until_killed = Writer::of(TEXT).then(chunks, Step::WaitFor(Arc::default()));
    let first = market.provider(offer(model, 20), until_killed.script()).await;
    let second = market
        .provider(offer(model, 100), Writer::of(TEXT).script())
        .await;
    let (account, _first_till) = (first.account, till(market, &first).await);
    let second_till = till(market, &second).await;
    let before = settled(market).await;
    let (mut response, mut text) = (
        open(market, "/v1/chat/completions", &exact(model)).await,
        String::new(),
    );
    read(&mut response, &mut text, chunks).await;
    first.kill().await;
    let whole = rest(response, text).await;
    assert_eq!(whole.text, unbroken.text, "killed at chunk {chunks}");
    assert_eq!((&whole.finish, &whole.usage), (&unbroken.finish, &unbroken.usage));
    let costs = shares(&whole, &[(account, 20), (second.account, 100)]);
    assert_eq!(costs[0], 20 * (4 + chunks as u64), "what the program had read");
    // Nobody can tell the first one any more: its voucher is handed in for it.
    wait_until_settled(market, before + costs[0]).await;
    // The second one has its own.
    second.seen(|jobs| all_ended(jobs, 1)).await;
    assert_eq!(second.promised(), costs[1]);
    second_till.settle(&second.vouchers()).await.unwrap();
    assert_eq!(settled(market).await, before + costs[0] + costs[1]);
    second.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_of_twenty_random_chunks_the_text_is_that_of_an_unbroken_answer() {
    let market = market().await;
    let _whole = market
        .provider(offer("whole", 20), Writer::of(TEXT).script())
        .await;
    let unbroken = chatted(&market, &exact("whole")).await;
    let tokens = words(TEXT).len();
    assert_eq!(
        (unbroken.text.as_str(), unbroken.finish.as_slice()),
        (TEXT, &["stop".to_owned()][..])
    );
    assert_eq!(unbroken.usage["completion_tokens"], tokens);
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut chunks = std::collections::BTreeSet::new();
    while chunks.len() < 20 {
        chunks.insert(random.random_range(1..=tokens));
    }
    for chunks in chunks {
        killed_at(&market, chunks, &unbroken).await;
    }
}

/// A cheap provider that dies after so many tokens, and a dear one that goes on.
async fn two(dies_after: usize, dying: Writer, other: Writer) -> (Market, TestProvider, TestProvider) {
    let market = market().await;
    let dying = dying.then(dies_after, Step::Die).script();
    let first = market.provider(offer("guide", 20), dying).await;
    let second = market.provider(offer("guide", 100), other.script()).await;
    (market, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_be_told_what_is_owed_hears_it_with_the_next_job() {
    let (market, first, _second) = two(17, Writer::of(TEXT), Writer::of(TEXT)).await;
    let read = chatted(&market, &exact("guide")).await;
    assert_eq!(read.text, TEXT);
    let owed = read.gristmill["providers"][0]["cost"].as_u64().unwrap();
    first.set_script(Writer::of(TEXT).script());
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header("x-gristmill-provider", first.account.to_string())
        .json(&exact("guide"));
    let next = rest(request.send().await.unwrap(), String::new()).await;
    first.seen(|jobs| jobs.len() == 2 && jobs[1].end.is_some()).await;
    assert_eq!(first.promised(), owed + next.gristmill["cost"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_whole_goes_on_too() {
    let (market, first, second) = two(17, Writer::of(TEXT), Writer::of(TEXT)).await;
    let answer = market.chat(json!({"temperature": 0, "max_tokens": 300})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["choices"][0]["message"]["content"], TEXT);
    assert_eq!(body["usage"]["completion_tokens"], words(TEXT).len());
    let read = Read {
        gristmill: body["gristmill"].clone(),
        ..Read::default()
    };
    shares(&read, &[(first.account, 20), (second.account, 100)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_split_otherwise_at_the_seam_change_nothing() {
    for (ours, theirs) in [(4, 3), (3, 7), (1, 2), (5, 1)] {
        let writer = |count| Writer {
            tokens: Tokens::Letters(count),
            ..Writer::of(TEXT)
        };
        for dies_after in [1, 9, 26, 41] {
            let (market, _first, second) = two(dies_after, writer(ours), writer(theirs)).await;
            let mut body = exact("guide");
            body["max_tokens"] = json!(4_000);
            let read = chatted(&market, &body).await;
            assert_eq!(read.text, TEXT, "{ours} and {theirs} letters, after {dies_after}");
            assert_eq!(second.jobs.borrow().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_tokens_holds_for_the_whole_answer() {
    for (field, dies_after) in [
        ("max_tokens", 1),
        ("max_tokens", 7),
        ("max_completion_tokens", 20),
    ] {
        let (market, _first, second) = two(dies_after, Writer::of(TEXT), Writer::of(TEXT)).await;
        let mut body = exact("guide");
        body.as_object_mut().unwrap().remove("max_tokens");
        body[field] = json!(21);
        let read = chatted(&market, &body).await;
        assert_eq!(
            read.text,
            words(TEXT)[..21].concat(),
            "{field}, after {dies_after}"
        );
        assert_eq!(read.finish, ["length"]);
        assert_eq!(read.usage["completion_tokens"], 21);
        // What is left of it, with the word that is written once more.
        let sent: Value = serde_json::from_slice(&second.jobs.borrow()[0].body).unwrap();
        assert_eq!(sent[field], 21 - (dies_after - 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_thought_goes_along_and_is_not_read_twice() {
    let thinking = Writer {
        reasoning: "The user asks about mills. I shall be brief.".into(),
        ..Writer::of(TEXT)
    };
    let thoughts = words(&thinking.reasoning).len();
    for dies_after in [1, 4, thoughts, thoughts + 1, thoughts + 12] {
        let (market, _first, second) = two(dies_after, thinking.clone(), thinking.clone()).await;
        let read = chatted(&market, &exact("guide")).await;
        assert_eq!(
            (read.text.as_str(), &read.reasoning),
            (TEXT, &thinking.reasoning),
            "after {dies_after}"
        );
        assert_eq!(second.jobs.borrow().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_goes_on_behind_its_prompt() {
    let market = market().await;
    let completions = |price| Setup {
        kind: JobKind::Completions,
        capabilities: vec![],
        ..offer("guide", price)
    };
    let dying = Writer::of(TEXT).then(23, Step::Die).script();
    let first = market.provider(completions(20), dying).await;
    let second = market.provider(completions(100), Writer::of(TEXT).script()).await;
    let mut body = json!({"model": "guide", "prompt": PROMPT, "temperature": 0, "max_tokens": 300, "stream": true,
        "stream_options": {"include_usage": true}});
    let read = streamed(&market, "/v1/completions", &body).await;
    assert_eq!(
        (read.text.as_str(), read.finish.as_slice()),
        (TEXT, &["stop".to_owned()][..])
    );
    assert_eq!(read.usage["completion_tokens"], words(TEXT).len());
    shares(&read, &[(first.account, 20), (second.account, 100)]);
    // Whole, and with a list of one prompt.
    body["prompt"] = json!([PROMPT]);
    body["stream"] = json!(false);
    body.as_object_mut().unwrap().remove("stream_options");
    let answer = market.post("/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["text"], TEXT, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_continued_three_times_and_no_more() {
    let market = market().await;
    let mut providers = Vec::new();
    for price in [20, 60, 180, 540, 1_620] {
        let dying = Writer::of(TEXT).then(5, Step::Die).script();
        providers.push(market.provider(offer("guide", price), dying).await);
    }
    let mut body = exact("guide");
    body["max_tokens"] = json!(60);
    let read = chatted(&market, &body).await;
    let asked = providers
        .iter()
        .filter(|provider| !provider.jobs.borrow().is_empty());
    assert_eq!(asked.count(), 4);
    // Each one writes the last word once more.
    assert_eq!(read.text, words(TEXT)[..5 + 3 * 4].concat());
    assert_eq!(read.error["code"], "provider_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_anew_instead_of_writing_on_is_found_out() {
    for temperature in [json!(0), json!(0.8)] {
        for dies_after in [1, 4, 30] {
            let anew = Writer {
                with_partial: WithPartial::StartAnew,
                ..Writer::of(TEXT)
            };
            let (market, _first, second) = two(dies_after, Writer::of(TEXT), anew).await;
            let mut body = exact("guide");
            body["temperature"] = temperature.clone();
            let read = chatted(&market, &body).await;
            if dies_after == 1 && temperature == 0 {
                assert_eq!(read.text, TEXT, "there is nothing to write on yet");
                continue;
            }
            let had = words(TEXT)[..dies_after].concat();
            if had.len() >= 16 || temperature == 0 {
                assert_eq!(read.text, had, "after {dies_after} at {temperature}");
                assert_eq!(read.error["code"], "provider_failed");
                assert_eq!(second.jobs.borrow().len(), 1, "it is not asked again");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_words_than_expected_are_refused_once_and_taken_where_the_text_stands() {
    let other = Writer {
        with_partial: WithPartial::SayElse(" and so on."),
        ..Writer::of(TEXT)
    };
    let (market, _first, second) = two(12, Writer::of(TEXT), other).await;
    let read = chatted(&market, &exact("guide")).await;
    assert_eq!(read.text, format!("{} and so on.", words(TEXT)[..12].concat()));
    assert_eq!(
        (read.finish, second.jobs.borrow().len()),
        (vec!["stop".to_owned()], 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_write_on_ends_with_a_nested_error() {
    let call = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a", "type": "function",
        "function": {"name": "grind", "arguments": "{\"gr"}}]}}]});
    let hi = json!({"choices": [{"index": 0, "delta": {"content": "Hi there"}}]});
    let breaks = |message: &Value| Script::Run(vec![Step::Say(message.to_string(), 2), Step::Die]);
    let tools = json!([{"type": "function", "function": {"name": "grind"}}]);
    let mut can_all = vec![
        Capability::Continuation,
        Capability::Tools,
        Capability::ManyChoices,
        Capability::Logprobs,
    ];
    can_all.sort_unstable();
    for (what, script, fields, capabilities) in [
        (
            "a tool call",
            breaks(&call),
            json!({"tools": tools}),
            can_all.clone(),
        ),
        ("two choices", breaks(&hi), json!({"n": 2}), can_all.clone()),
        (
            "logprobs",
            breaks(&hi),
            json!({"logprobs": true}),
            can_all.clone(),
        ),
        (
            "an upstream",
            breaks(&hi),
            json!({}),
            vec![Capability::Passthrough],
        ),
        ("nobody who can", breaks(&hi), json!({}), vec![]),
    ] {
        let market = market().await;
        let setup = |price, capabilities: &Vec<Capability>| Setup {
            capabilities: capabilities.clone(),
            ..offer("guide", price)
        };
        let _first = market.provider(setup(20, &can_all), script).await;
        let second = market
            .provider(setup(100, &capabilities), Writer::of(TEXT).script())
            .await;
        let body = with(exact("guide"), fields);
        let read = chatted(&market, &body).await;
        assert_eq!(read.error["code"], "provider_failed", "{what}: {read:?}");
        assert!(
            read.error["message"].is_string() && read.finish.is_empty(),
            "{what}"
        );
        assert_eq!(second.jobs.borrow().len(), 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_weights_do_not_write_on() {
    let market = market().await;
    let with = |price, digest| Setup {
        weights_digest: Some([digest; 32]),
        ..offer("guide", price)
    };
    let dying = Writer::of(TEXT).then(9, Step::Die).script();
    let _first = market.provider(with(20, 1), dying).await;
    let other = market.provider(with(100, 2), Writer::of("other").script()).await;
    let same = market.provider(with(500, 1), Writer::of(TEXT).script()).await;
    assert_eq!(chatted(&market, &exact("guide")).await.text, TEXT);
    assert_eq!((other.jobs.borrow().len(), same.jobs.borrow().len()), (0, 1));
}

/// The program does not notice; who looks at the parts finds both.
#[tokio::test(flavor = "multi_thread")]
async fn responses_are_continued_as_well() {
    let (market, _first, second) = two(11, Writer::of(TEXT), Writer::of(TEXT)).await;
    let body = json!({"model": "guide", "input": PROMPT, "temperature": 0, "max_output_tokens": 300, "store": false});
    let answer: Answer = market.post("/v1/responses", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], TEXT);
    assert_eq!(second.jobs.borrow().len(), 1);
}
