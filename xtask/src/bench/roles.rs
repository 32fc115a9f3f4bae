//! Coordinator, node and client as processes of the same build as this program, with state in a temporary folder.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::report::resident_mebibytes;
use super::upstream::MODEL;

/// How long a process may take to start: LiteLLM's proxy takes minutes on a busy machine.
const STARTED_WITHIN: Duration = Duration::from_secs(240);

/// The running processes. Dropping them kills them.
pub(super) struct Roles {
    processes: Vec<(&'static str, Child)>,
    client_url: String,
    state: TempDir,
}

/// What is set otherwise than by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct More<'a> {
    pub(super) coordinator: &'a [&'a str],
    pub(super) node: &'a [&'a str],
    pub(super) client: &'a [&'a str],
}

impl Roles {
    /// Builds the program, starts the roles and waits until the upstream's model is on offer.
    pub(super) async fn start(upstream: &str, more: More<'_>) -> anyhow::Result<Self> {
        let program = build().await?;
        let state = tempfile::tempdir()?;
        let coordinator_url = format!("http://127.0.0.1:{}", free_port()?);
        let client_url = format!("http://127.0.0.1:{}", free_port()?);
        let mut roles = Self {
            processes: Vec::new(),
            client_url,
            state,
        };
        let listen = |url: &str| url.trim_start_matches("http://").to_owned();
        let mesh = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port()?);
        let arguments = [
            "serve",
            "--http-listen",
            &listen(&coordinator_url),
            "--mesh-listen",
            &mesh,
            "--starter-grant",
            "1000",
            "--starter-daily-budget",
            "2000",
            "--channel-limit-max",
            "1000",
        ];
        let coordinator = roles.spawn("coordinator", &program, &[&arguments, more.coordinator].concat())?;
        until_ready(coordinator, &format!("{coordinator_url}/healthz"), |_| true).await?;
        let arguments = [
            "serve",
            "--coordinator",
            &coordinator_url,
            "--upstream",
            upstream,
            "--slots",
            "128",
        ];
        roles.spawn("node", &program, &[&arguments, more.node].concat())?;
        let address = listen(&roles.client_url);
        let arguments = ["serve", "--coordinator", &coordinator_url, "--listen", &address];
        let models = format!("{}/v1/models", roles.client_url);
        let client = roles.spawn("client", &program, &[&arguments, more.client].concat())?;
        let offered = |models: &Value| {
            models["data"]
                .as_array()
                .is_some_and(|models| models.iter().any(|model| model["id"] == MODEL))
        };
        until_ready(client, &models, offered).await?;
        Ok(roles)
    }

    fn spawn(
        &mut self,
        role: &'static str,
        program: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<&mut Child> {
        let folder = self.state.path().join(role);
        std::fs::create_dir_all(&folder)?;
        let child = Command::new(program)
            .arg(role)
            .args(arguments)
            .arg("--data-dir")
            .arg(&folder)
            .env("XDG_CONFIG_HOME", &folder)
            .env("GRISTMILL_LOG", "error")
            .env("GRISTMILL_NODE_LOCAL_API", "none")
            // What is measured is the market, not a processor that is busy with something else.
            .env("GRISTMILL_NODE_HARDWARE_ENABLED", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{role} can't be started"))?;
        self.processes.push((role, child));
        let (_, child) = self.processes.last_mut().context("it was just put there")?;
        Ok(child)
    }

    /// Where the proxy is.
    pub(super) fn client_url(&self) -> &str {
        &self.client_url
    }

    /// Resident memory of each role.
    pub(super) fn resident_mebibytes(&self) -> Vec<(&'static str, f64)> {
        let of = |(role, child): &(&'static str, Child)| Some((*role, resident_mebibytes(child.id()?)?));
        self.processes.iter().filter_map(of).collect()
    }

    /// The number of a role's process.
    pub(super) fn process(&self, role: &str) -> Option<u32> {
        let (_, child) = self.processes.iter().find(|(name, _)| *name == role)?;
        child.id()
    }

    /// Kills the roles and waits for them.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for (role, child) in self.processes.iter_mut().rev() {
            child
                .kill()
                .await
                .with_context(|| format!("{role} can't be stopped"))?;
        }
        Ok(())
    }
}

async fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "gristmill"]);
    // A dev build of this program is for trying it, not for figures.
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    ensure!(build.status().await?.success(), "the build failed");
    // This program lies beside it.
    let here = std::env::current_exe()?;
    let folder = here.parent().context("this program has no folder")?;
    Ok(folder.join(format!("gristmill{}", std::env::consts::EXE_SUFFIX)))
}

pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until a process answers as it should.
///
/// # Errors
/// Where it ends before, or takes too long.
pub(super) async fn until_ready(
    process: &mut Child,
    url: &str,
    ready: impl Fn(&Value) -> bool,
) -> anyhow::Result<()> {
    let answers = async {
        loop {
            if let Ok(answer) = reqwest::get(url).await
                && answer.status().is_success()
                && ready(&answer.json().await.unwrap_or_default())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        ready = tokio::time::timeout(STARTED_WITHIN, answers) => {
            ready.map_err(|_| anyhow::anyhow!("{url} was not ready within {STARTED_WITHIN:?}"))
        }
        ended = process.wait() => bail!("what should serve {url} ended with {}", ended?),
    }
}
