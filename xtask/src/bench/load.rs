//! A program that asks an OpenAI-compatible endpoint, and takes the time.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use reqwest::Client;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use super::upstream::{LONG_STREAM_CHUNKS, MODEL};

/// Waits no longer for any answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a connection is kept for the next request.
const CONNECTION_KEPT: Duration = Duration::from_secs(2);

/// An endpoint under load.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What it is called in the figures.
    pub(super) name: &'static str,
    /// Its chat completions.
    pub(super) url: String,
    /// What it wants in every request beside the usual.
    pub(super) headers: HeaderMap,
}

/// How an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As it is made.
    Streamed,
    /// When it is complete.
    Whole,
}

impl Mode {
    /// Its name in the figures.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::Whole => "whole",
        }
    }
}

impl Target {
    /// An endpoint that wants nothing special.
    pub(super) fn new(name: &'static str, base_url: &str) -> Self {
        Self {
            name,
            url: format!("{base_url}/v1/chat/completions"),
            headers: HeaderMap::new(),
        }
    }
}

/// A client that keeps its connections, for less long than servers do: uvicorn and Node end them after five seconds.
pub(super) fn client() -> anyhow::Result<Client> {
    let client = Client::builder().no_proxy().timeout(PATIENCE);
    Ok(client.pool_idle_timeout(CONNECTION_KEPT).build()?)
}

fn body(mode: Mode, max_tokens: usize) -> Value {
    json!({
        "model": MODEL,
        "stream": mode == Mode::Streamed,
        "max_tokens": max_tokens,
        "messages": [{ "role": "user", "content": "Say something short." }],
    })
}

async fn send(client: &Client, target: &Target, body: &Value) -> anyhow::Result<reqwest::Response> {
    let ask = || {
        client
            .post(&target.url)
            .headers(target.headers.clone())
            .json(body)
            .send()
    };
    let answer = match ask().await {
        // As SDKs do: the connection may have been ended at the very moment at which it was used.
        Err(error) if error.is_request() && !error.is_timeout() => ask().await,
        answer => answer,
    };
    let answer = answer.with_context(|| format!("{} can't be asked", target.name))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    anyhow::bail!("{} answered {status}: {}", target.name, answer.text().await?)
}

/// Milliseconds from sending a request to the first byte of text of its answer. The rest is read too.
pub(super) async fn first_token_ms(client: &Client, target: &Target) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut events = send(client, target, &body(Mode::Streamed, 16))
        .await?
        .bytes_stream();
    let mut first = None;
    let mut seen = Vec::new();
    while let Some(bytes) = events.next().await {
        seen.extend_from_slice(&bytes?);
        if first.is_none() && has_text(&seen) {
            first = Some(started.elapsed());
        }
    }
    ensure!(
        contains(&seen, b"[DONE]"),
        "the answer of {} broke off",
        target.name
    );
    Ok(first.context("there was no token")?.as_secs_f64() * 1_000.0)
}

/// Whether a chunk with some text has arrived. Peers differ in the spaces of their JSON.
fn has_text(seen: &[u8]) -> bool {
    contains(seen, br#""content":"M"#) || contains(seen, br#""content": "M"#)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

async fn whole(client: &Client, target: &Target) -> anyhow::Result<()> {
    let answer = send(client, target, &body(Mode::Whole, 16))
        .await?
        .bytes()
        .await?;
    ensure!(has_text(&answer), "the answer of {} has no text", target.name);
    Ok(())
}

/// How many requests are answered in a second with so many at once.
pub(super) async fn requests_per_second(
    client: &Client,
    target: &Target,
    mode: Mode,
    concurrency: usize,
    limit: Duration,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let workers = (0..concurrency).map(|_| async {
        let mut done = 0u32;
        while started.elapsed() < limit {
            match mode {
                Mode::Streamed => first_token_ms(client, target).await.map(drop)?,
                Mode::Whole => whole(client, target).await?,
            }
            done += 1;
        }
        anyhow::Ok(done)
    });
    let done = futures::future::try_join_all(workers).await?;
    let total: u32 = done.into_iter().sum();
    Ok(f64::from(total) / started.elapsed().as_secs_f64())
}

/// Reads long streams, so many at once, and checks that each is complete.
pub(super) async fn long_streams(client: &Client, target: &Target, at_once: usize) -> anyhow::Result<()> {
    let streams = (0..at_once).map(|_| async {
        let answer = send(client, target, &body(Mode::Streamed, LONG_STREAM_CHUNKS)).await?;
        let mut events = answer.bytes_stream();
        let (mut chunks, mut tail) = (0, Vec::new());
        while let Some(bytes) = events.next().await {
            tail.extend_from_slice(&bytes?);
            let until = tail.len().saturating_sub(5);
            let starts = tail.windows(6).filter(|window| window == b"data: ").count();
            chunks += starts;
            tail.drain(..until);
        }
        // With the one that ends it, and those that peers add or join.
        ensure!(
            chunks >= LONG_STREAM_CHUNKS / 2,
            "{} sent {chunks} chunks of {LONG_STREAM_CHUNKS}",
            target.name
        );
        anyhow::Ok(())
    });
    futures::future::try_join_all(streams).await.map(drop)
}
