//! Challenges of a coordinator over HTTP, and the certificates that come of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use gristmill_protocol::hardware::HardwareCertificate;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_service::clock::unix_ms;
use gristmill_service::installation::identity_path;
use gristmill_transport::{CoordinatorClient, key_file};
use serde_json::{Value, json};

use super::amounts::{gibibytes, teraflops};
use crate::inventory::Device;

/// The coordinator at an address, which poses challenges to this installation's account. Certificates are for the
/// account that serves jobs; its key is made where there is none.
pub(super) fn coordinator(url: &str, data_dir: &Path) -> anyhow::Result<CoordinatorClient> {
    let keypair = key_file::load_or_create(&identity_path(data_dir))?;
    let client = CoordinatorClient::new(url, None, keypair, Arc::new(unix_ms))?;
    Ok(client.with_known_keys_in(data_dir)?)
}

/// What a certificate says, once it was checked: a row for people and an object for programs.
pub(super) fn told(device: &Device, text: &str, keys: &LogKeys) -> anyhow::Result<([String; 4], Value)> {
    let now_ms = unix_ms();
    let certificate = HardwareCertificate::open(text, keys, now_ms)
        .context("the coordinator's certificate does not pass the check that consumers make")?;
    let rates: Vec<String> = certificate
        .throughput
        .iter()
        .map(|one| format!("{} in {}", teraflops(one.multiply_adds_per_second), one.precision))
        .collect();
    let minutes = certificate.exp.saturating_sub(now_ms / 1_000) / 60;
    let row = [
        device.summary(),
        gibibytes(certificate.memory_bytes),
        rates.join(", "),
        format!("a certificate for {minutes} minutes, score {}", certificate.score),
    ];
    let value = json!({ "device": device, "certificate": text, "shown": certificate });
    Ok((row, value))
}
