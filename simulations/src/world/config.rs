//! What a market is made of, as a scenario says it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::gossip::GossipConfig;
use crate::network::{ChurnConfig, Disk, Network, NetworkConfig};
use crate::people::conduct::{ConsumerConduct, Defences, Honest, ProviderConduct};
use crate::people::demand::DemandConfig;
use crate::people::devices::DeviceClass;
use crate::people::liars::Liar;
use crate::people::popularity::ModelSize;
use crate::people::pricing::Strategy;
use crate::scenario::{Bounded, Fraction};

/// An amount of microcredits.
pub type Micro = Bounded<0, 1_000_000_000_000>;

/// A market and how long it is watched.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketConfig {
    /// How long the run takes, in seconds of virtual time.
    pub duration_s: Bounded<1, 31_536_000>,
    /// How messages travel.
    #[serde(default, deserialize_with = "checked")]
    pub network: NetworkConfig,
    /// How many connections each node keeps, its neighbours on the gossip mesh among them. Nodes look on until they have
    /// found so many whom they can connect to.
    #[serde(default = "bounded::<1, 64, 20>")]
    pub connections: Bounded<1, 64>,
    /// The parameters of the gossip mesh.
    #[serde(default)]
    pub gossip: GossipConfig,
    /// Who keeps the ledger.
    #[serde(default)]
    pub coordinator: CoordinatorConfig,
    /// Who serves.
    #[serde(default)]
    pub providers: Vec<ProviderGroup>,
    /// Who asks.
    #[serde(default)]
    pub consumers: Vec<ConsumerGroup>,
    /// What is done against lies.
    #[serde(default)]
    pub defences: Defences,
    /// Who publishes listings and does nothing else.
    #[serde(default)]
    pub publishers: PublisherConfig,
    /// How many relay gossip and do nothing else.
    #[serde(default = "bounded::<0, 10_000_000, 0>")]
    pub bystanders: Bounded<0, 10_000_000>,
    /// Who keeps the listings that it hears.
    #[serde(default)]
    pub boards: Boards,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<FaultConfig>,
}

/// Who keeps the listings that it hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boards {
    /// Those who need them.
    #[default]
    Consumers,
    /// Bystanders too, as real nodes do.
    Everyone,
}

/// Who keeps the ledger, and by which rules.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Its share of what is settled, in 1/10,000.
    pub fee_basis_points: Bounded<0, 10_000>,
    /// What it writes to.
    pub disk: Disk,
    /// How long a write takes to be on disk, in microseconds, instead of the disk's own times.
    pub disk_us: Option<Bounded<1, 10_000_000>>,
    /// The largest limit of a channel, in microcredits.
    pub channel_limit_max: Micro,
    /// The longest life of a channel, in seconds.
    pub channel_life_max_s: Bounded<60, 31_536_000>,
    /// Seconds between two looks for channels whose time is over.
    pub sweep_every_s: Bounded<1, 3_600>,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            fee_basis_points: Bounded::nearest(250),
            disk: Disk::default(),
            disk_us: None,
            channel_limit_max: Bounded::nearest(100_000_000),
            channel_life_max_s: Bounded::nearest(86_400),
            sweep_every_s: Bounded::nearest(10),
        }
    }
}

/// Providers that are alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderGroup {
    /// The name in results.
    pub name: String,
    /// How many.
    pub count: Bounded<0, 100_000>,
    /// What it computes with: speed and slots follow from it where they are not written.
    #[serde(default = "usual_device")]
    pub device: DeviceClass,
    /// The models on offer; where none is named, the largest one that fits the device.
    #[serde(default)]
    pub models: Vec<ModelSize>,
    /// How many jobs run at once.
    pub slots: Option<Bounded<1, 1_000>>,
    /// How many jobs wait for a slot at most.
    #[serde(default = "bounded::<0, 1_000, 4>")]
    pub queue: Bounded<0, 1_000>,
    /// Input tokens that one slot reads in a second, whatever the model.
    pub input_tokens_per_s: Option<Bounded<1, 1_000_000>>,
    /// Output tokens that one slot writes in a second, whatever the model.
    pub output_tokens_per_s: Option<Bounded<1, 100_000>>,
    /// How many output tokens come in one message: more of them cost fewer events.
    #[serde(default = "bounded::<1, 4_096, 16>")]
    pub tokens_per_chunk: Bounded<1, 4_096>,
    /// Microcredits per million output tokens at the beginning; what is usual for the model where it is not written.
    /// Input tokens cost a quarter.
    pub output_price: Option<Micro>,
    /// How it changes its prices; never where it is not written.
    pub pricing: Option<Strategy>,
    /// What it pays for a kilowatt-hour, in microcredits.
    #[serde(default = "bounded::<0, 100_000_000, 300_000>")]
    pub power_price: Bounded<0, 100_000_000>,
    /// What it lies about.
    pub lie: Option<Liar>,
    /// How far its clock is ahead of UTC, in minutes.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// Most unpaid work that is extended on a channel, in microcredits.
    #[serde(default = "bounded::<0, 1_000_000_000_000, 50_000>")]
    pub credit_window: Micro,
    /// Seconds between two listings.
    #[serde(default = "bounded::<5, 600, 60>")]
    pub publish_every_s: Bounded<5, 600>,
    /// Seconds between two hand-ins of vouchers.
    #[serde(default = "bounded::<1, 86_400, 60>")]
    pub hand_in_every_s: Bounded<1, 86_400>,
    /// Mean seconds that it stays online; 0: for ever. Each stay is as likely to end at any moment.
    #[serde(default = "bounded::<0, 31_536_000, 0>")]
    pub online_s: Bounded<0, 31_536_000>,
    /// Mean seconds that it is away then.
    #[serde(default = "bounded::<1, 31_536_000, 600>")]
    pub offline_s: Bounded<1, 31_536_000>,
    /// The share of departures without a word.
    #[serde(default = "none")]
    pub crashes: Fraction,
    /// How it comes and goes by day and night, instead of those three.
    pub churn: Option<ChurnConfig>,
    /// Whether only those reach it who can get through its NAT. Otherwise it has opened a port.
    #[serde(default)]
    pub behind_nat: bool,
}

/// Consumers that are alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerGroup {
    /// The name in results.
    pub name: String,
    /// How many.
    pub count: Bounded<0, 100_000>,
    /// When each asks, and for what.
    #[serde(default)]
    pub demand: DemandConfig,
    /// How far its clock is ahead of UTC, in minutes.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// What it lies about.
    pub lie: Option<Liar>,
    /// Microcredits that each has at the beginning.
    #[serde(default = "bounded::<0, 1_000_000_000_000, 10_000_000>")]
    pub credits: Micro,
    /// Whether it asks for starter credits.
    #[serde(default)]
    pub starter: bool,
    /// What a channel usually holds, in microcredits.
    #[serde(default = "bounded::<0, 1_000_000_000_000, 1_000_000>")]
    pub channel_limit: Micro,
    /// How long a channel lives, in seconds.
    #[serde(default = "bounded::<60, 31_536_000, 3_600>")]
    pub channel_life_s: Bounded<60, 31_536_000>,
    /// The highest price per million of any token, in microcredits; 0: any.
    #[serde(default = "bounded::<0, 1_000_000_000_000, 0>")]
    pub max_price: Micro,
    /// How many providers are asked in a round.
    #[serde(default = "bounded::<1, 16, 3>")]
    pub attempts: Bounded<1, 16>,
    /// For how many seconds a program waits for its answer.
    #[serde(default = "bounded::<1, 3_600, 120>")]
    pub patience_s: Bounded<1, 3_600>,
    /// Whether a second provider is asked where the first one is late.
    #[serde(default = "yes")]
    pub hedging: bool,
    /// Whether the rest of an answer that broke off is bought elsewhere.
    #[serde(default = "yes")]
    pub continuation: bool,
}

/// Who publishes listings and does nothing else: the load of a large market on gossip.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublisherConfig {
    /// How many.
    pub count: Bounded<0, 1_000_000>,
    /// Seconds between two listings of one publisher.
    pub publish_every_s: Bounded<5, 600>,
    /// How many offers a listing has, which decides its size.
    pub offers: Bounded<1, 32>,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            count: Bounded::nearest(0),
            publish_every_s: Bounded::nearest(60),
            offers: Bounded::nearest(2),
        }
    }
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultConfig {
    /// What.
    pub kind: FaultKind,
    /// When it begins, in seconds.
    pub at_s: Bounded<0, 31_536_000>,
    /// For how many seconds.
    pub for_s: Bounded<1, 31_536_000>,
    /// Whose share it hits, where it hits many.
    #[serde(default = "all")]
    pub share: Fraction,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The coordinator answers nobody.
    Outage,
    /// A share of the providers crashes.
    Crash,
}

const fn bounded<const MIN: u64, const MAX: u64, const DEFAULT: u64>() -> Bounded<MIN, MAX> {
    Bounded::nearest(DEFAULT)
}

/// The network, where its parts make sense together.
fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NetworkConfig, D::Error> {
    let config = NetworkConfig::deserialize(deserializer)?;
    Network::new(config.clone(), 0).map_err(D::Error::custom)?;
    Ok(config)
}

const fn yes() -> bool {
    true
}

const fn none() -> Fraction {
    Fraction::percent(0)
}

const fn all() -> Fraction {
    Fraction::percent(100)
}

const fn usual_device() -> DeviceClass {
    DeviceClass::Rtx3090
}

impl ProviderGroup {
    /// The models on offer.
    #[must_use]
    pub fn offered(&self) -> Vec<ModelSize> {
        match self.models.as_slice() {
            [] => vec![self.device.largest_model()],
            models => models.to_vec(),
        }
    }

    /// How many jobs run at once.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.slots
            .map_or(u64::from(self.device.figures().slots), Bounded::get)
    }

    /// Microseconds for reading a prompt with the device that it has now.
    #[must_use]
    pub fn reading_us(&self, device: DeviceClass, model: ModelSize, tokens: u32) -> u64 {
        let tokens = u64::from(tokens);
        self.input_tokens_per_s.map_or_else(
            || device.input_us(model, tokens),
            |speed| tokens * 1_000_000 / speed.get(),
        )
    }

    /// Microseconds for writing so many tokens with the device that it has now.
    #[must_use]
    pub fn writing_us(&self, device: DeviceClass, model: ModelSize, tokens: u32) -> u64 {
        let tokens = u64::from(tokens);
        self.output_tokens_per_s.map_or_else(
            || device.output_token_us(model) * tokens,
            |speed| tokens * 1_000_000 / speed.get(),
        )
    }

    /// The device that it says it has.
    #[must_use]
    pub fn claimed_device(&self) -> DeviceClass {
        self.conduct().claimed_device(self.device)
    }

    /// How it behaves.
    #[must_use]
    pub fn conduct(&self) -> &dyn ProviderConduct {
        self.lie.as_ref().map_or(&Honest, Liar::provider)
    }
}

impl ConsumerGroup {
    /// How it behaves.
    #[must_use]
    pub fn conduct(&self) -> &dyn ConsumerConduct {
        self.lie.as_ref().map_or(&Honest, Liar::consumer)
    }
}
