//! The flags and variables of `gristmill node serve`.

use std::str::FromStr;

use clap::Args;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::PrivacyTier;
use gristmill_protocol::usage::Price;
use thiserror::Error;

use super::{HardwareArguments, ModelChoice, ModelSetting};

/// The flags of `gristmill node serve`.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ServeArguments {
    /// Where the coordinator's HTTP API is [default: http://127.0.0.1:7400]
    #[arg(long, env = "GRISTMILL_NODE_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// The coordinator's account; no other one is accepted [default: whoever answers first]
    #[arg(long, env = "GRISTMILL_NODE_COORDINATOR_ACCOUNT", value_name = "ACCOUNT")]
    pub coordinator_account: Option<AccountId>,
    /// Multiaddress on which job streams are accepted; repeat or separate by commas
    /// [default: /ip4/127.0.0.1/udp/7410/quic-v1,/ip4/127.0.0.1/tcp/7410, or free ports]
    #[arg(
        long,
        env = "GRISTMILL_NODE_MESH_LISTEN",
        value_name = "MULTIADDRESS",
        value_delimiter = ','
    )]
    pub mesh_listen: Option<Vec<String>>,
    /// Multiaddress at which others reach the node; repeat or separate by commas [default: those it listens on]
    #[arg(
        long = "public-address",
        env = "GRISTMILL_NODE_PUBLIC_ADDRESSES",
        value_name = "MULTIADDRESS",
        value_delimiter = ','
    )]
    pub public_addresses: Option<Vec<String>>,
    /// OpenAI-compatible server to sell: a URL, 'auto' (look for Ollama, vLLM, llama.cpp, LM Studio and SGLang) or
    /// 'none'; repeat or separate by commas [default: auto]
    #[arg(
        long = "upstream",
        env = "GRISTMILL_NODE_UPSTREAMS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub upstreams: Option<Vec<String>>,
    /// Host beyond loopback that an upstream may be on; repeat or separate by commas [default: none]
    #[arg(
        long = "allow-upstream-host",
        env = "GRISTMILL_NODE_ALLOWED_UPSTREAM_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allowed_upstream_hosts: Option<Vec<String>>,
    /// Model for the built-in engines: 'guide', a folder, a GGUF file, or a hub name such as
    /// Qwen/Qwen2.5-0.5B-Instruct; NAME=… offers it under another name; repeat or separate by commas
    /// [default: guide, as long as there is nothing else to offer]
    #[arg(
        long = "model",
        env = "GRISTMILL_NODE_MODELS",
        value_name = "[NAME=]SOURCE",
        value_delimiter = ','
    )]
    pub models: Option<Vec<ModelArgument>>,
    /// What a million tokens of prompt cost, in credits [default: 0.1]
    #[arg(long, env = "GRISTMILL_NODE_PRICE_INPUT", value_name = "CREDITS")]
    pub price_input: Option<Credits>,
    /// What a million tokens of answer cost, in credits [default: 0.4]
    #[arg(long, env = "GRISTMILL_NODE_PRICE_OUTPUT", value_name = "CREDITS")]
    pub price_output: Option<Credits>,
    /// What a million tokens cost with one model, in credits, such as llama3.2:3b=0.05/0.2; repeat or separate by
    /// commas
    #[arg(
        long = "price",
        env = "GRISTMILL_NODE_PRICES",
        value_name = "MODEL=INPUT/OUTPUT",
        value_delimiter = ','
    )]
    pub prices: Option<Vec<PriceArgument>>,
    /// How many jobs run at once [default: 4]
    #[arg(long, env = "GRISTMILL_NODE_SLOTS", value_name = "NUMBER")]
    pub slots: Option<u16>,
    /// How many jobs wait for a slot at most [default: 16]
    #[arg(long, env = "GRISTMILL_NODE_QUEUE_LENGTH", value_name = "NUMBER")]
    pub queue_length: Option<u16>,
    /// Most unpaid work on each channel, in credits [default: 0.2]
    #[arg(long, env = "GRISTMILL_NODE_CREDIT_WINDOW", value_name = "CREDITS")]
    pub credit_window: Option<Credits>,
    /// How long vouchers may wait before they are handed in [default: 30]
    #[arg(long, env = "GRISTMILL_NODE_REDEEM_INTERVAL_SECONDS", value_name = "SECONDS")]
    pub redeem_interval_seconds: Option<u64>,
    /// Where the node says it is, such as an ISO 3166 code [default: it does not say]
    #[arg(long, env = "GRISTMILL_NODE_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// What the node promises about prompts and answers: standard, nothing_kept or dedicated [default: standard]
    #[arg(long, env = "GRISTMILL_NODE_PRIVACY", value_name = "TIER")]
    pub privacy: Option<PrivacyTier>,
    /// Where your own view of the node listens, on loopback, or 'none' [default: 127.0.0.1:7430, or a free port]
    #[arg(long, env = "GRISTMILL_NODE_LOCAL_API", value_name = "ADDRESS:PORT")]
    pub local_api: Option<String>,
    /// Announce the node on the local network, and look for peers there [default: false]
    #[arg(
        long,
        env = "GRISTMILL_NODE_MDNS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub mdns: Option<bool>,
    /// Cosign the checkpoints of the coordinator's log that were found to be consistent [default: true]
    #[arg(
        long,
        env = "GRISTMILL_NODE_COSIGN",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub cosign: Option<bool>,
    /// Take no jobs on tickets of a coordinator whose log was caught lying [default: true]
    #[arg(
        long,
        env = "GRISTMILL_NODE_REFUSE_LYING_COORDINATOR",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub refuse_lying_coordinator: Option<bool>,
    /// How long a job waits for a voucher before it is given up [default: 30]
    #[arg(long, env = "GRISTMILL_NODE_VOUCHER_TIMEOUT_SECONDS", value_name = "SECONDS")]
    pub voucher_timeout_seconds: Option<u64>,
    /// How long a stopping node lets running jobs finish [default: 20]
    #[arg(long, env = "GRISTMILL_NODE_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
    /// What proofs of hardware may take.
    #[command(flatten)]
    pub hardware: HardwareArguments,
}

/// `[NAME=]SOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelArgument {
    /// The name on offer, where one was given.
    pub name: Option<String>,
    /// Where the model comes from.
    pub source: ModelChoice,
}

/// A model argument without a source.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it names no source; write guide, a folder, a GGUF file or a hub name, or NAME=SOURCE")]
pub struct ModelArgumentError;

impl FromStr for ModelArgument {
    type Err = ModelArgumentError;

    fn from_str(text: &str) -> Result<Self, ModelArgumentError> {
        // A path may have an equals sign in it, a name of a model has no folders in front.
        let named = text
            .split_once('=')
            .filter(|(name, _)| !name.contains(['/', '\\']));
        let (name, source) = match named {
            Some((name, source)) => (Some(name.to_owned()), source),
            None => (None, text),
        };
        if source.is_empty() || name.as_deref().is_some_and(str::is_empty) {
            return Err(ModelArgumentError);
        }
        Ok(Self {
            name,
            source: ModelChoice::parse(source),
        })
    }
}

impl From<ModelArgument> for ModelSetting {
    fn from(argument: ModelArgument) -> Self {
        Self {
            source: argument.source,
            name: argument.name,
            price: None,
        }
    }
}

/// `MODEL=INPUT/OUTPUT`, in credits per million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceArgument {
    /// The name on offer.
    pub model: String,
    /// Its price.
    pub price: Price,
}

impl PriceArgument {
    /// The price with this argument's part of it replaced.
    pub(super) fn over(self, default: &Price) -> Price {
        let mut price = default.clone();
        price.per_million.extend(self.price.per_million);
        price
    }
}

/// A price argument of another form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a price is MODEL=INPUT/OUTPUT in credits per million tokens, such as llama3.2:3b=0.05/0.2")]
pub struct PriceArgumentError;

impl FromStr for PriceArgument {
    type Err = PriceArgumentError;

    fn from_str(text: &str) -> Result<Self, PriceArgumentError> {
        let (model, amounts) = text.rsplit_once('=').ok_or(PriceArgumentError)?;
        let (input, output) = amounts.split_once('/').ok_or(PriceArgumentError)?;
        let amount = |text: &str| text.trim().parse::<Credits>().map_err(|_| PriceArgumentError);
        if model.is_empty() {
            return Err(PriceArgumentError);
        }
        let price = Price::per_million_tokens(amount(input)?, amount(output)?);
        Ok(Self {
            model: model.to_owned(),
            price,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_arguments_may_name_the_model() {
        let parse = |text: &str| text.parse::<ModelArgument>();
        let guide = ModelArgument {
            name: None,
            source: ModelChoice::Guide,
        };
        assert_eq!(parse("guide"), Ok(guide));
        let mine = parse("mine=guide").unwrap();
        assert_eq!(
            (mine.name.as_deref(), mine.source),
            (Some("mine"), ModelChoice::Guide)
        );
        assert_eq!(parse("models/a=b.gguf").unwrap().name, None);
        assert!(parse("=guide").is_err() && parse("mine=").is_err() && parse("").is_err());
    }

    #[test]
    fn price_arguments_have_two_amounts() {
        let price = "a=b=0.05/0.2".parse::<PriceArgument>().unwrap();
        assert_eq!(price.model, "a=b");
        let expected = Price::per_million_tokens(Credits::micro(50_000), Credits::micro(200_000));
        assert_eq!(price.price, expected);
        for text in ["a", "a=1", "=1/2", "a=x/2", "a=1/-2"] {
            assert!(text.parse::<PriceArgument>().is_err(), "{text}");
        }
    }
}
