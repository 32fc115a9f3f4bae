//! The `[node]` section of the configuration file.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, PrivacyTier};
use gristmill_protocol::usage::{Price, Unit};
use gristmill_service::amount::AmountSetting;
use serde::Deserialize;

use super::{HardwareTable, ModelChoice, ModelSetting, UpstreamModelSetting};
use crate::engine::model_files::ModelSource;

/// The `[node]` section of the configuration file. Every field is optional; unknown ones are errors.
///
/// ```
/// let section: gristmill_node::settings::FileSection = toml::from_str(r#"
///     models = ["guide", { source = "models/qwen.gguf", name = "qwen", price = { output = "0.6" } }]
///     upstreams = ["auto"]
///     slots = 2
///     price = { input = "0.1", output = "0.4" }
///     [prices]
///     "llama3.2:3b" = { input = "0.05", output = "0.2" }
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSection {
    /// Where the coordinator's HTTP API is. Default: `http://127.0.0.1:7400`.
    pub coordinator: Option<String>,
    /// The coordinator's account (`12D3Koo…`). Default: whoever answers first.
    pub coordinator_account: Option<AccountId>,
    /// Multiaddresses on which job streams are accepted. Default: `/ip4/127.0.0.1/udp/7410/quic-v1` and
    /// `/ip4/127.0.0.1/tcp/7410`, or free ports where these are taken.
    pub mesh_listen: Option<Vec<String>>,
    /// Multiaddresses at which others reach the node, where they differ from those it listens on. Default: those it
    /// listens on.
    pub public_addresses: Option<Vec<String>>,
    /// OpenAI-compatible servers to sell: `"auto"` looks for Ollama, vLLM, llama.cpp, LM Studio and SGLang on
    /// loopback,
    /// `"none"` is for none. Default: `["auto"]`.
    pub upstreams: Option<Vec<String>>,
    /// Hosts beyond loopback that an upstream may be on: names or IP addresses. Default: none.
    pub allowed_upstream_hosts: Option<Vec<String>>,
    /// What you know better about models of upstreams than the node finds out, by their names on offer, or `"*"` for
    /// all others. Default: nothing.
    #[serde(default)]
    pub upstream_models: BTreeMap<String, UpstreamModelTable>,
    /// Models for the built-in engines: `"guide"`, a folder, a GGUF file, or a name on the Hugging Face hub
    /// (`organisation/name` or `organisation/name:file.gguf`); or a table with `source`, `name` and `price`.
    /// Default: the guide model as long as there is nothing else to offer.
    pub models: Option<Vec<ModelEntry>>,
    /// What a million tokens cost, in credits, and, for what is not text, a thousand seconds. Default:
    /// `{ input = "0.1", output = "0.4", thousand_seconds = "0.02" }`.
    pub price: Option<PriceSetting>,
    /// The same for single models, by the names on offer. Parts left out are as in `price`.
    #[serde(default)]
    pub prices: BTreeMap<String, PriceSetting>,
    /// How many jobs run at once, 1 to 1024. Default: 4.
    pub slots: Option<u16>,
    /// How many jobs wait for a slot at most, 0 to 1024. Default: 16.
    pub queue_length: Option<u16>,
    /// Most unpaid work on each channel, in credits: what a consumer that leaves unpaid costs you at most. A quarter
    /// of it bounds what reading one prompt may cost. Default: `"0.2"`.
    pub credit_window: Option<AmountSetting>,
    /// How many seconds vouchers may wait before they are handed in, 1 to 3600. Default: 30.
    pub redeem_interval_seconds: Option<u64>,
    /// Where the node says it is, such as an ISO 3166 code. Default: empty, it does not say.
    pub region: Option<String>,
    /// What the node promises about prompts and answers: `"standard"` (nothing), `"nothing_kept"` (in memory only
    /// while the job runs, by everything behind the node too) or `"dedicated"` (and the machine does nothing else).
    /// Default: standard.
    pub privacy: Option<PrivacyTier>,
    /// Where your own view of the node listens, on loopback, or `"none"`. Default: `127.0.0.1:7430`, or a free port
    /// where that is taken.
    pub local_api: Option<String>,
    /// Whether to announce the node on the local network and look for peers there (mDNS). Default: false.
    pub mdns: Option<bool>,
    /// Whether to cosign the checkpoints of the coordinator's log that were found to be consistent. Default: true.
    pub cosign: Option<bool>,
    /// Whether to take no jobs on tickets of a coordinator whose log was caught lying. Default: true.
    pub refuse_lying_coordinator: Option<bool>,
    /// How many seconds a job waits for a voucher before it is given up, 1 to 600. Default: 30.
    pub voucher_timeout_seconds: Option<u64>,
    /// How many seconds a stopping node lets running jobs finish, at most 3600. Default: 20.
    pub drain_seconds: Option<u64>,
    /// What proofs of this machine's hardware to the coordinator may take.
    #[serde(default)]
    pub hardware: HardwareTable,
}

/// What an owner says about a model of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamModelTable {
    /// What it serves: `"chat_completions"`, `"completions"`, `"embeddings"`, `"audio_transcriptions"`,
    /// `"audio_speech"`, `"image_generations"` or `"rerank"`. Default: what was found out.
    pub kinds: Option<BTreeSet<JobKind>>,
    /// Capabilities that it has although the node does not find out, such as `"image_input"`. Default: none.
    #[serde(default)]
    pub add_capabilities: BTreeSet<Capability>,
    /// Capabilities that are not to be offered, such as `"continuation"`. Default: none.
    #[serde(default)]
    pub remove_capabilities: BTreeSet<Capability>,
}

impl From<UpstreamModelTable> for UpstreamModelSetting {
    fn from(table: UpstreamModelTable) -> Self {
        Self {
            kinds: table.kinds,
            added: table.add_capabilities,
            removed: table.remove_capabilities,
        }
    }
}

/// One of the models: its source alone, or a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a model's source, or a table with source, name and price"
)]
pub enum ModelEntry {
    /// The source.
    Source(String),
    /// The source, and what it is called or costs.
    Table(ModelTable),
}

/// A model with a name or a price of its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// `guide`, a folder, a GGUF file, or a name on the Hugging Face hub.
    pub source: String,
    /// The name on offer. Default: the model's own.
    pub name: Option<String>,
    /// What a million tokens cost, in credits. Default: as for every model.
    pub price: Option<PriceSetting>,
}

impl ModelEntry {
    pub(super) fn into_setting(self, default_price: &Price) -> ModelSetting {
        match self {
            Self::Source(source) => ModelSetting {
                source: ModelChoice::parse(&source),
                name: None,
                price: None,
            },
            Self::Table(table) => ModelSetting {
                source: ModelChoice::parse(&table.source),
                name: table.name,
                price: table.price.map(|price| price.or_default(default_price)),
            },
        }
    }
}

impl ModelChoice {
    /// `guide`, or whatever [`ModelSource::parse`] reads.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "guide" {
            Self::Guide
        } else {
            Self::Files(ModelSource::parse(text))
        }
    }
}

/// What jobs cost, in credits. Text is charged by tokens; speech, transcripts, images and rankings by bytes and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSetting {
    /// A million tokens of the prompt.
    pub input: Option<AmountSetting>,
    /// A million tokens of the answer.
    pub output: Option<AmountSetting>,
    /// Each job, whatever it uses.
    pub request: Option<AmountSetting>,
    /// A thousand seconds of the device, for what is charged by time.
    pub thousand_seconds: Option<AmountSetting>,
    /// A million bytes that the consumer sends, for what is charged by bytes.
    pub megabyte_in: Option<AmountSetting>,
    /// A million bytes that the consumer gets, for what is charged by bytes.
    pub megabyte_out: Option<AmountSetting>,
}

impl PriceSetting {
    pub(super) fn or_default(self, default: &Price) -> Price {
        let parts = [
            (Unit::InputToken, self.input),
            (Unit::OutputToken, self.output),
            (Unit::GpuMillisecond, self.thousand_seconds),
            (Unit::ByteIn, self.megabyte_in),
            (Unit::ByteOut, self.megabyte_out),
        ];
        let mut price = default.clone();
        price.per_million.extend(
            parts
                .into_iter()
                .filter_map(|(unit, amount)| Some((unit, amount?.0))),
        );
        price.constant = self.request.map_or(default.constant, |amount| amount.0);
        price
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;

    #[test]
    fn amounts_are_read_exactly_from_texts_and_numbers() {
        let read = |text: &str| toml::from_str::<FileSection>(&format!("credit_window = {text}"));
        for text in ["\"2.5\"", "2.5", "2.500000"] {
            assert_eq!(
                read(text).unwrap().credit_window,
                Some(AmountSetting(Credits::micro(2_500_000)))
            );
        }
        for text in ["\"x\"", "-1", "-0.5", "1e-9", "true", "nan", "9007199255"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
