//! The peers, installed below the target folder and started as their manuals say.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use reqwest::header::{HeaderMap, HeaderValue};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::super::load::Target;
use super::super::roles::{free_port, until_ready};
use super::super::upstream::MODEL;
use crate::test::environment::Workplace;
use crate::test::packages::{Environments, NodePackages};

/// What a peer says, in the folder with its configuration.
const SAID: &str = "stderr";

/// A peer's proxy that runs. Dropping it kills it.
pub(super) struct Peer {
    pub(super) target: Target,
    process: Child,
    /// Its configuration.
    _state: TempDir,
}

/// What the peers need, installed.
pub(super) struct Installed {
    python: PathBuf,
    portkey: NodePackages,
}

/// Installs both where they are not there yet.
pub(super) fn install() -> anyhow::Result<Installed> {
    let workplace = Workplace::find()?;
    let definitions = workplace.root.join("xtask/bench_peers");
    let environments = Environments::at(&workplace, &definitions, "bench-peers")?;
    Ok(Installed {
        python: environments
            .python("litellm-proxy")
            .context("LiteLLM's proxy can't be installed")?,
        portkey: environments
            .node("portkey", "portkey")
            .context("Portkey's gateway can't be installed")?,
    })
}

impl Installed {
    /// LiteLLM's proxy with so many workers, no database and no logs.
    pub(super) async fn litellm(&self, upstream: &str, workers: usize) -> anyhow::Result<Peer> {
        let state = tempfile::tempdir()?;
        let configuration = state.path().join("config.yaml");
        let text = format!(
            "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n      api_base: \
             {upstream}/v1\n      api_key: none\nlitellm_settings:\n  telemetry: false\n  set_verbose: false\n"
        );
        std::fs::write(&configuration, text)?;
        let port = free_port()?;
        let mut command = Command::new(self.python.with_file_name("litellm"));
        command
            .arg("--config")
            .arg(&configuration)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--num_workers", &workers.to_string(), "--telemetry", "False"])
            // Otherwise it asks the network for its price list.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_MODE", "PRODUCTION")
            // Ours asks for no key on loopback; checking one would only slow it down.
            .env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true")
            .env("LITELLM_LOG", "ERROR");
        let mut process = spawn(&mut command, state.path())?;
        let base_url = format!("http://127.0.0.1:{port}");
        until_ready(&mut process, &format!("{base_url}/health/readiness"), |_| true)
            .await
            .with_context(|| format!("LiteLLM's proxy does not start; {}", last_words(state.path())))?;
        Ok(Peer {
            target: Target::new("litellm", &base_url),
            process,
            _state: state,
        })
    }

    /// Portkey's gateway without its page. `portkey.json` holds its HTTP library at a version with which streams work:
    /// with newer ones it answers them with 500 (Portkey-AI/gateway issue 1389).
    pub(super) async fn portkey(&self, upstream: &str) -> anyhow::Result<Peer> {
        let state = tempfile::tempdir()?;
        let port = free_port()?;
        let script = self
            .portkey
            .folder
            .join("node_modules/@portkey-ai/gateway/build/start-server.js");
        let mut command = Command::new(&self.portkey.program);
        command
            .arg(script)
            .args([format!("--port={port}"), "--headless".to_owned()])
            .env("NODE_ENV", "production")
            // It calls no loopback address unless that is named.
            .env("TRUSTED_CUSTOM_HOSTS", "127.0.0.1,localhost");
        let mut process = spawn(&mut command, state.path())?;
        let base_url = format!("http://127.0.0.1:{port}");
        // Its root answers with a line of text.
        until_ready(&mut process, &base_url, |_| true)
            .await
            .with_context(|| format!("Portkey's gateway does not start; {}", last_words(state.path())))?;
        let mut headers = HeaderMap::new();
        headers.insert("x-portkey-provider", HeaderValue::from_static("openai"));
        headers.insert(
            "x-portkey-custom-host",
            HeaderValue::from_str(&format!("{upstream}/v1"))?,
        );
        headers.insert("authorization", HeaderValue::from_static("Bearer none"));
        Ok(Peer {
            target: Target {
                headers,
                ..Target::new("portkey", &base_url)
            },
            process,
            _state: state,
        })
    }
}

impl Peer {
    /// The number of its first process.
    pub(super) fn process(&self) -> Option<u32> {
        self.process.id()
    }

    /// Kills it, with what it started, and waits.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let started: Vec<String> = self
            .process()
            .map(super::super::processes::tree)
            .unwrap_or_default()
            .iter()
            .skip(1)
            .map(ToString::to_string)
            .collect();
        self.process.kill().await.context("a peer can't be stopped")?;
        if !started.is_empty() {
            // They may have ended with their parent.
            let _ = Command::new("kill")
                .args(started)
                .stderr(Stdio::null())
                .status()
                .await;
        }
        Ok(())
    }
}

fn spawn(command: &mut Command, folder: &Path) -> anyhow::Result<Child> {
    command
        .current_dir(folder)
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join(SAID))?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{command:?} can't be started"))
}

/// The end of what a peer said that did not start.
fn last_words(folder: &Path) -> String {
    let said = std::fs::read_to_string(folder.join(SAID)).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    format!(
        "its last words:\n{}",
        lines[lines.len().saturating_sub(12)..].join("\n")
    )
}
