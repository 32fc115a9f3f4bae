//! One question to the OpenAI endpoint, as any program would ask it.

use std::io::Write;

use anyhow::{Context, bail};
use futures::StreamExt;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use serde_json::{Value, json};

use super::market::MODEL;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    /// How many chunks carried text.
    pub(super) chunks: u64,
    pub(super) usage: Value,
    pub(super) provider: AccountId,
    /// What the client says that it promised to pay.
    pub(super) cost: Credits,
    pub(super) request_id: String,
}

/// Asks, and shows the tokens on stdout as they come where `visible`.
pub(super) async fn ask(endpoint: &str, question: &str, visible: bool) -> anyhow::Result<Answer> {
    let body = json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": question }],
        "temperature": 0,
        "max_tokens": 200,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let response = reqwest::Client::new()
        .post(format!("{endpoint}/chat/completions"))
        .json(&body)
        .send()
        .await
        .context("the demo's own proxy can't be reached")?;
    let status = response.status();
    if !status.is_success() {
        bail!(
            "the proxy answered {status}: {}",
            response.text().await.unwrap_or_default()
        );
    }
    let mut reading = Reading {
        visible,
        ..Reading::default()
    };
    let mut bytes = response.bytes_stream();
    let mut line = Vec::new();
    while let Some(part) = bytes.next().await {
        for byte in part.context("the answer broke off")? {
            if byte == b'\n' {
                reading.line(&line)?;
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    reading.finish()
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    visible: bool,
    text: String,
    chunks: u64,
    usage: Value,
    market: Value,
    is_whole: bool,
}

impl Reading {
    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let Some(data) = line.strip_prefix(b"data: ") else {
            return Ok(());
        };
        if data.trim_ascii() == b"[DONE]" {
            self.is_whole = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_slice(data).context("a chunk of the answer is no JSON")?;
        if let Some(error) = chunk.get("error") {
            bail!(
                "the answer broke off: {}",
                error["message"].as_str().unwrap_or("no reason given")
            );
        }
        if let Some(text) = chunk["choices"][0]["delta"]["content"]
            .as_str()
            .filter(|text| !text.is_empty())
        {
            self.chunks += 1;
            self.text.push_str(text);
            if self.visible {
                let mut stdout = std::io::stdout().lock();
                write!(stdout, "{text}")?;
                stdout.flush()?;
            }
        }
        for (name, place) in [("usage", &mut self.usage), ("gristmill", &mut self.market)] {
            if let Some(value) = chunk.get(name).filter(|value| !value.is_null()) {
                *place = value.clone();
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Answer> {
        if self.visible {
            writeln!(std::io::stdout())?;
        }
        if !self.is_whole {
            bail!("the answer broke off without [DONE]");
        }
        let told = |name: &str| {
            self.market[name]
                .as_str()
                .with_context(|| format!("the answer names no {name}"))
        };
        Ok(Answer {
            provider: told("provider")?.parse()?,
            cost: serde_json::from_value(self.market["cost"].clone()).context("the answer names no cost")?,
            request_id: told("request_id")?.to_owned(),
            text: self.text,
            chunks: self.chunks,
            usage: self.usage,
        })
    }
}
