//! `gristmill client chat`: one question.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobKind;
use gristmill_service::cli::{INTERRUPTED, Signals, plain, wrong_configuration};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::is_configuration;
use super::running_proxy::RunningProxy;
use crate::core::models::ModelView;
use crate::server::{Client, RunningClient, StartError};
use crate::settings::{ApiKey, ConnectionArguments, Settings};
use crate::wallet::random_bytes;

/// Most bytes of a question from stdin.
const QUESTION_MAX_BYTES: u64 = 16 << 20;
/// How long a client that was started for the question waits for somebody to offer something.
const OFFER_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what is on offer.
const OFFER_PAUSE: Duration = Duration::from_millis(100);

/// The arguments of `gristmill client chat`.
#[derive(Clone, Debug, Args)]
pub struct ChatArguments {
    /// The question; '-' reads it from stdin
    prompt: String,
    /// The model [default: the cheapest on offer]
    #[arg(long, short)]
    model: Option<String>,
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of the answer
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u32>,
    /// How much chance there is in the answer, 0 to 2
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f32>,
    #[command(flatten)]
    pub(super) connection: ConnectionArguments,
}

/// An answer and what it came to.
#[derive(Default)]
struct Told {
    answer: String,
    finish_reason: Value,
    usage: Value,
    gristmill: Value,
}

pub(super) async fn ask(
    arguments: ChatArguments,
    settings: Settings,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch().context("signals can't be caught")?;
    let question = question(&arguments.prompt)?;
    let (proxy, own) = match RunningProxy::find(&settings, data_dir).await? {
        Some(proxy) => (proxy, None),
        None => match start(settings, data_dir).await {
            Ok((proxy, client)) => (proxy, Some(client)),
            Err(error) if is_configuration(&error) => return wrong_configuration(&error),
            Err(error) => return Err(error.into()),
        },
    };
    let told = tokio::select! {
        told = converse(&proxy, &arguments, question, own.is_some(), json) => Some(told),
        () = signals.next() => None,
    };
    if let Some(client) = own {
        // Pays for what was received, also where nobody waits for the rest.
        client.shutdown().await?;
    }
    match told {
        Some(told) => {
            told?;
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(ExitCode::from(INTERRUPTED)),
    }
}

fn question(prompt: &str) -> anyhow::Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(QUESTION_MAX_BYTES)
        .read_to_string(&mut text)
        .context("the question can't be read from stdin")?;
    Ok(text)
}

/// Starts a client for one question, on a free port and with a key that nobody else knows.
async fn start(settings: Settings, data_dir: &Path) -> Result<(RunningProxy, RunningClient), StartError> {
    let key = hex::encode(random_bytes());
    // 32 digits are a key.
    let api_keys: Vec<ApiKey> = key.parse().into_iter().collect();
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        api_keys,
        ..settings
    };
    let client = Client::start(settings, data_dir, CancellationToken::new()).await?;
    let proxy = RunningProxy::at(client.http_address(), Some(key)).map_err(|error| StartError::Listen {
        address: client.http_address(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok((proxy, client))
}

async fn converse(
    proxy: &RunningProxy,
    arguments: &ChatArguments,
    question: String,
    is_fresh: bool,
    json: bool,
) -> anyhow::Result<()> {
    let patience = if is_fresh { OFFER_PATIENCE } else { Duration::ZERO };
    let model = model(proxy, arguments.model.as_deref(), patience).await?;
    let began = Instant::now();
    let mut events = Events::new(proxy.chat(&body(arguments, &model, question)).await?);
    let mut told = Told::default();
    while let Some(chunk) = events.next().await? {
        let text = told.take(&chunk);
        if !json {
            show(text)?;
        }
    }
    if json {
        writeln!(io::stdout(), "{}", told.to_json(&model))?;
        return Ok(());
    }
    show("\n")?;
    let cost = Credits::from_microcredits(told.gristmill["cost"].as_u64().unwrap_or(0))?;
    writeln!(
        io::stderr(),
        "{model} by {} · {} tokens read, {} written in {:.1} s · {} credits",
        told.gristmill["provider"].as_str().unwrap_or("?"),
        told.usage["prompt_tokens"],
        told.usage["completion_tokens"],
        began.elapsed().as_secs_f64(),
        plain(cost),
    )?;
    Ok(())
}

/// The model that was named, once somebody offers it; otherwise the cheapest one for chats.
async fn model(proxy: &RunningProxy, named: Option<&str>, patience: Duration) -> anyhow::Result<String> {
    let deadline = Instant::now() + patience;
    loop {
        let models = proxy.models().await?.data;
        let chats = |model: &&ModelView| model.kinds.contains(&JobKind::ChatCompletions);
        let found = match named {
            Some(named) => models.iter().find(|model| model.id == named),
            None => models
                .iter()
                .filter(chats)
                .min_by_key(|model| model.reference_cost()),
        };
        match (found, named) {
            (Some(model), _) => return Ok(model.id.clone()),
            // The endpoint says best what is wrong with a name.
            (None, Some(named)) if Instant::now() >= deadline => return Ok(named.to_owned()),
            (None, None) if Instant::now() >= deadline => {
                bail!("nobody offers a model for chats now; 'gristmill node serve' would")
            }
            _ => sleep(OFFER_PAUSE).await,
        }
    }
}

fn body(arguments: &ChatArguments, model: &str, question: String) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = &arguments.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": question}));
    let mut body = json!({
        "model": model, "messages": messages, "stream": true, "stream_options": {"include_usage": true},
    });
    if let Some(tokens) = arguments.max_tokens {
        body["max_tokens"] = tokens.into();
    }
    if let Some(temperature) = arguments.temperature {
        body["temperature"] = temperature.into();
    }
    body
}

fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

impl Told {
    /// Takes a chunk over; gives the text in it.
    fn take(&mut self, chunk: &Value) -> &str {
        let begin = self.answer.len();
        let choice = &chunk["choices"][0];
        self.answer
            .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for (field, value) in [
            (&mut self.finish_reason, &choice["finish_reason"]),
            (&mut self.usage, &chunk["usage"]),
            (&mut self.gristmill, &chunk["gristmill"]),
        ] {
            if !value.is_null() {
                *field = value.clone();
            }
        }
        &self.answer[begin..]
    }

    fn to_json(&self, model: &str) -> Value {
        json!({
            "answer": self.answer,
            "model": model,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "gristmill": self.gristmill,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_from_chunks() {
        let mut told = Told::default();
        assert_eq!(
            told.take(&json!({"choices": [{"delta": {"content": "Grist"}, "finish_reason": null}]})),
            "Grist"
        );
        assert_eq!(
            told.take(&json!({"choices": [{"delta": {"content": "mill"}, "finish_reason": "stop"}]})),
            "mill"
        );
        assert_eq!(
            told.take(&json!({"choices": [], "usage": {"prompt_tokens": 3}, "gristmill": {"cost": 5}})),
            ""
        );
        assert_eq!(
            told.to_json("guide"),
            json!({"answer": "Gristmill", "model": "guide", "finish_reason": "stop",
                "usage": {"prompt_tokens": 3}, "gristmill": {"cost": 5}})
        );
    }
}
