//! Programs and providers that use the client badly on purpose: crowds that read slowly or hang up, bodies at the
//! limit, bytes that are no text, engines that crawl. `cargo xtask test abuse` runs them with crowds of full size.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::ProviderFrame;
use gristmill_protocol::session::provider::ProviderEnd;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::{Answer, Market, PATIENCE, STARTER, chat_body, events};
use crate::provider::{Script, Setup, Step, TestProvider, finish, piece, text, words};

/// Set to anything, crowds have their full size, which needs more open files than systems usually allow a process.
const FULL_SIZE: &str = "GRISTMILL_FULL_SIZE_CROWDS";
/// How many programs read slowly at once: by default as many as 1,024 open files leave room for, with both ends of
/// each connection in this process and other tests beside.
const SLOW_READERS: [usize; 2] = [200, 10_000];
/// How many programs hang up.
const HANG_UPS: usize = 1_000;
/// How many of them are there at once: less than the streams that a provider allows a client.
const AT_ONCE: usize = 50;
/// How long a crowd may take: far longer than it does.
const CROWD_PATIENCE: Duration = Duration::from_secs(300);

fn slow_readers() -> usize {
    SLOW_READERS[usize::from(std::env::var_os(FULL_SIZE).is_some())]
}

/// Waits until no more tasks run than before: connections, streams and jobs are each one.
async fn until_no_more_tasks_than(before: usize) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let ended = timeout(PATIENCE, async {
        while alive() > before {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(ended.await.is_ok(), "{} tasks, {before} before", alive());
}

/// How many tasks run once none begins or ends any more.
async fn settled_tasks() -> usize {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let (mut last, mut since) = (alive(), 0);
    while since < 25 {
        sleep(Duration::from_millis(20)).await;
        since = if alive() == last { since + 1 } else { 0 };
        last = alive();
    }
    last
}

/// Asks for a stream, reads a little at a time, and gives all that came. Where the system's queue of connections is
/// full, it may end one that nobody has taken: asks again then, as a program would.
async fn read_slowly(address: SocketAddr) -> String {
    loop {
        match try_to_read_slowly(address).await {
            Ok(seen) => return String::from_utf8(seen).unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// # Errors
/// Where the connection ended before anything was answered.
async fn try_to_read_slowly(address: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    // What the system takes in for a program does not count as read.
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(address).await?;
    let body = chat_body(json!({"stream": true, "max_tokens": 100})).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        sleep(Duration::from_millis(5)).await;
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(seen),
            Ok(length) => seen.extend_from_slice(&buffer[..length]),
            Err(error) if seen.is_empty() => return Err(error),
            Err(error) => panic!("an answer broke off: {error}"),
        }
    }
}

/// Everybody is answered: with the whole stream, or at once with when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_slow_readers_is_served_or_told_to_come_again() {
    let market = Market::start().await;
    let long = "word ".repeat(800);
    let mut steps: Vec<Step> = (1..=20).map(|tokens| Step::Say(text(&long), tokens)).collect();
    steps.push(Step::Say(finish(), 20));
    let setup = Setup {
        price: 1_000,
        ..Setup::default()
    };
    let mut providers = Vec::new();
    for _ in 0..4 {
        providers.push(market.provider(setup.clone(), Script::Run(steps.clone())).await);
    }
    // Every provider is asked, so that the connections to them are there.
    read_slowly_together(&market, 50).await;
    let before = settled_tasks().await;
    let crowd = slow_readers();
    let answers = read_slowly_together(&market, crowd).await;
    let served = answers
        .iter()
        .filter(|answer| is_whole(answer, 20 * long.len()))
        .count();
    let sent_away = answers.iter().filter(|answer| is_sent_away(answer)).count();
    eprintln!("of {crowd} slow readers {served} were served and {sent_away} told to come again");
    let other = answers
        .iter()
        .find(|answer| !is_whole(answer, 20 * long.len()) && !is_sent_away(answer));
    assert_eq!(other, None);
    assert!(served >= crowd.min(64), "{served}");
    until_no_more_tasks_than(before).await;
    assert_eq!(
        market.chat(json!({})).await.status,
        200,
        "the endpoint serves as before"
    );
}

async fn read_slowly_together(market: &Market, crowd: usize) -> Vec<String> {
    let mut readers = JoinSet::new();
    for _ in 0..crowd {
        readers.spawn(read_slowly(market.address()));
    }
    let answers = timeout(CROWD_PATIENCE, readers.join_all()).await;
    answers.expect("nobody waits for ever")
}

/// Whether a raw HTTP answer is a stream with all of the text.
fn is_whole(answer: &str, text_bytes: usize) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let is_complete = body.contains("data: [DONE]\n\n") && body.ends_with("0\r\n\r\n");
    head.starts_with("HTTP/1.1 200") && is_complete && !body.contains("\"error\"") && body.len() > text_bytes
}

/// Whether a raw HTTP answer says that there is no place, and when to ask again.
fn is_sent_away(answer: &str) -> bool {
    let is_full = answer.starts_with("HTTP/1.1 429") || answer.starts_with("HTTP/1.1 503");
    is_full && answer.contains("\r\nretry-after: ") && answer.contains("\"error\"")
}

/// What a client sets aside for a provider unless told otherwise, in microcredits.
const CHANNEL_LIMIT: u64 = 1_000_000;
/// What a job of the crowd that hangs up may cost, in tokens, which are microcredits here.
const HANG_UP_TOKENS: u64 = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_programs_that_hang_up_leave_nothing_behind() {
    let market = Market::start().await;
    let setup = Setup {
        window: 1_000_000,
        context_length: 2_000_000,
        ..Setup::default()
    };
    let provider = market.provider(setup, words(&["Hi"])).await;
    // Connections that a program keeps would be tasks that stay.
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let ask = |fields: Value| {
        http.post(market.url("/v1/chat/completions"))
            .json(&chat_body(fields))
            .send()
    };
    assert_eq!(ask(json!({"max_tokens": 10})).await.unwrap().status(), 200);
    let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
    assert_eq!(jobs.len(), 1);
    let before = settled_tasks().await;
    let (_, held_before) = market.balance().await;

    // Half of the jobs are silent after a word, and half have more on its way. None of them ends by itself.
    let silent = Arc::new(Notify::new());
    for words in [1, 20] {
        let mut steps: Vec<Step> = (1..=words)
            .map(|tokens| Step::Say(text("word "), tokens))
            .collect();
        steps.push(Step::WaitFor(silent.clone()));
        provider.set_script(Script::Run(steps));
        let hang_up = |_| async {
            let mut response = ask(json!({"stream": true, "max_tokens": HANG_UP_TOKENS}))
                .await
                .unwrap();
            assert!(response.status() == 200, "{}", response.text().await.unwrap());
            response.chunk().await.unwrap().unwrap();
        };
        let all = stream::iter(0..HANG_UPS / 2).for_each_concurrent(AT_ONCE, hang_up);
        timeout(CROWD_PATIENCE, all).await.expect("everybody gets a word");
    }

    let jobs = provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    let ended = jobs.iter().skip(1).map(|job| job.end.as_ref().unwrap().reason);
    assert_eq!(
        ended.collect::<Vec<_>>(),
        vec![ProviderEnd::ConsumerLeft; HANG_UPS]
    );
    assert!(jobs.iter().skip(1).all(|job| job.was_cancelled));
    until_no_more_tasks_than(before).await;
    nothing_is_reserved(&market, &provider, held_before).await;
}

/// How many words a flooding provider has on its way when its program hangs up.
const FLOOD_WORDS: u64 = 400;

/// What a provider has sent and nobody has read when a program hangs up is paid all the same: otherwise it would fill
/// the channel, and requests would end in 502.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_hang_up_on_a_flood_leave_the_channel_free() {
    let market = Market::start().await;
    let setup = Setup {
        window: 60_000,
        ..Setup::default()
    };
    let mut steps: Vec<Step> = (1..=FLOOD_WORDS)
        .map(|tokens| Step::Say(text("word "), tokens))
        .collect();
    steps.push(Step::WaitFor(Arc::default()));
    let provider = market.provider(setup, Script::Run(steps)).await;
    let hang_up = |_| async {
        let body = chat_body(json!({"stream": true, "max_tokens": FLOOD_WORDS}));
        let ask = || market.http.post(market.url("/v1/chat/completions")).json(&body);
        let mut response = ask().send().await.unwrap();
        // Floods that are being read take the provider's credit window for a moment.
        while response.status() == 503 {
            assert!(response.headers().contains_key("retry-after"));
            response = ask().send().await.unwrap();
        }
        assert!(response.status() == 200, "{}", response.text().await.unwrap());
        response.chunk().await.unwrap().unwrap();
    };
    let all = stream::iter(0..3 * AT_ONCE).for_each_concurrent(AT_ONCE, hang_up);
    timeout(CROWD_PATIENCE, all).await.expect("everybody gets a word");

    let jobs = provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    let delivered = jobs.iter().map(|job| job.end.as_ref().unwrap().cost);
    let delivered = delivered.fold(Credits::ZERO, Credits::saturating_add);
    assert_eq!(provider.promised(), delivered.microcredits());
    assert_eq!(provider.vouchers().len(), 1, "one channel was enough");
    provider.set_script(words(&["Hi"]));
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    assert_eq!(provider.vouchers().len(), 1);
}

/// A job that may cost nearly everything that the channel has left runs on that channel: one reservation that was
/// forgotten would be in its way, and another channel would be opened.
async fn nothing_is_reserved(market: &Market, provider: &TestProvider, held: u64) {
    let promised = provider.vouchers()[0]
        .content_unchecked()
        .cumulative
        .microcredits();
    let left = CHANNEL_LIMIT - promised;
    provider.set_script(words(&["Hi"]));
    let all = json!({"max_tokens": left - HANG_UP_TOKENS / 2});
    assert_eq!(market.chat(all).await.status, 200);
    assert_eq!(
        market.balance().await.1,
        held,
        "{promised} of {held} were promised"
    );
}

/// As long as the specification's longest body, and a byte longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_sixteen_mebibytes_passes_and_one_byte_more_does_not() {
    const LIMIT: usize = 16 * 1024 * 1024;
    let market = Market::start().await;
    let setup = Setup {
        price: 1_000,
        context_length: u32::MAX,
        ..Setup::default()
    };
    let provider = market.provider(setup, words(&["Hi"])).await;
    let body = |length: usize| {
        let start = r#"{"model":"guide","max_tokens":10,"messages":[{"role":"user","content":""#;
        let end = r#""}]}"#;
        format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
    };
    for (length, status) in [(LIMIT, 200), (LIMIT + 1, 413)] {
        let request = market
            .http
            .post(market.url("/v1/chat/completions"))
            .body(body(length));
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{length}: {}", answer.text);
    }
    let jobs = provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    assert_eq!(jobs.len(), 1);
    assert!(
        jobs[0].body.len() >= LIMIT,
        "{} bytes arrived",
        jobs[0].body.len()
    );
}

const NO_TEXT: &[u8] = b"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xfe\"}}]}";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_never_reach_a_program() {
    let market = Market::start().await;
    let hi = || piece(text("Hi").as_bytes(), true, 1);
    let frames: [Vec<ProviderFrame>; 2] =
        [vec![piece(NO_TEXT, true, 2)], vec![hi(), piece(NO_TEXT, true, 3)]];
    for frames in frames {
        // One for each way of asking: who sent such bytes is not asked again.
        let has_text_before = frames.len() > 1;
        let _whole = market
            .provider(Setup::default(), Script::Send(frames.clone()))
            .await;
        let answer = market.chat(json!({})).await;
        assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
        let streaming = market.provider(Setup::default(), Script::Send(frames)).await;
        let answer = market.chat(json!({"stream": true})).await;
        if has_text_before {
            let events = answer.events();
            assert!(events[0].contains("\"Hi\""), "{events:?}");
            let error: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
            assert_eq!(error["error"]["code"], "provider_failed", "{events:?}");
        } else {
            assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
        }
        assert!(!answer.text.contains('\u{fffd}'), "{}", answer.text);
        let jobs = streaming
            .seen(|jobs| !jobs.is_empty() && jobs[0].end.is_some())
            .await;
        assert!(jobs[0].was_cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_that_comes_in_two_frames_arrives_whole() {
    let market = Market::start().await;
    let message = text("Mühle");
    let at = message.find('ü').unwrap() + 1;
    let (first, second) = message.as_bytes().split_at(at);
    let frames = vec![
        piece(first, false, 1),
        piece(second, true, 2),
        piece(finish().as_bytes(), true, 2),
    ];
    let _provider = market.provider(Setup::default(), Script::Send(frames)).await;
    let body = chat_body(json!({"stream": true}));
    let request = market.http.post(market.url("/v1/chat/completions")).json(&body);
    let mut response = request.send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8(first.to_vec()).unwrap().contains("Mühle"));
}

/// A chunk a minute is slower than the limit between two chunks; here both are a hundred times as fast.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_crawls_is_left_and_paid_for_what_it_said() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.job_timeouts.next_chunk_ms = 600;
        settings
    })
    .await;
    let never = Arc::new(Notify::new());
    let crawls = Script::Run(vec![Step::Say(text("Hi"), 1), Step::WaitFor(never)]);
    let provider = market.provider(Setup::default(), crawls.clone()).await;
    let answer = market.chat(json!({"stream": true})).await;
    let told = answer.events();
    assert!(told[0].contains("\"Hi\""), "{told:?}");
    let error: Value = serde_json::from_str(&told[told.len() - 2]).unwrap();
    assert_eq!(error["error"]["code"], "provider_timeout", "{told:?}");
    let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
    assert!(jobs[0].was_cancelled);
    let promised = jobs[0].highest.as_ref().unwrap().content_unchecked().cumulative;
    assert_eq!(promised, Credits::micro(4), "three tokens read and one written");
    // Asked for the whole, the program gets it from somebody else.
    let other = market.provider(Setup::default(), words(&["Hi", " there"])).await;
    let answer = market.chat(json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    other.seen(|jobs| jobs.iter().any(|job| job.end.is_some())).await;
    assert_eq!(events(&market.chat(json!({"stream": true})).await.text).len(), 4);
}
