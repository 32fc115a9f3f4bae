//! Where a liar can depart from what is agreed. Every hook has the honest answer as its default, so that a liar's file
//! holds its lie and nothing else.

use gristmill_protocol::credits::Credits;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::devices::DeviceClass;
use super::popularity::ModelSize;
use crate::engine::{NodeId, Random};

/// What a provider meant to do about a listing that reached it for forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarding {
    /// Forwards what is valid, drops what is not.
    #[default]
    Honest,
    /// Takes in everything and passes on nothing.
    Nothing,
    /// Passes on what comes from these accomplices alone: the numbers from the first to before the second.
    AccompliceOnly(NodeId, NodeId),
}

/// How a provider plays a proof of hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofPlay {
    /// Computes everything that is asked for, as fast as its device can.
    #[default]
    ComputesAll,
    /// Leaves out so many percent of each stage's units and commits to anything in their place.
    SkipsPercent(u32),
    /// Says nothing once it would have to compute.
    Silent,
}

/// What a provider may lie about. The defaults are what is agreed.
pub trait ProviderConduct {
    /// The output tokens that its meter claims, where it has written so many.
    fn metered_tokens(&self, written: u64) -> u64 {
        written
    }

    /// The device that its listing claims, where it has another one.
    fn claimed_device(&self, own: DeviceClass) -> DeviceClass {
        own
    }

    /// For how many seconds it rents what it claims, to be challenged with it, where it did so this many times before.
    fn rents_for_s(&self, _times_before: u32) -> u64 {
        0
    }

    /// For how many seconds in turn each of its group has the only device that all of them stand before; 0: each has its own.
    fn turn_s(&self) -> u64 {
        0
    }

    /// Whether all of its group call from one address.
    fn is_at_one_address(&self) -> bool {
        false
    }

    /// Whether it goes on listing a certificate that has expired.
    fn lists_expired_certificates(&self) -> bool {
        false
    }

    /// The model that answers, where its listing promises another one.
    fn serves_model(&self, listed: ModelSize) -> ModelSize {
        listed
    }

    /// How it plays a proof of hardware for a claim.
    fn answers_challenge(&self, _claimed: DeviceClass) -> ProofPlay {
        ProofPlay::ComputesAll
    }

    /// After how many of an answer's tokens it stops without a word; none: it delivers all of them.
    fn delivers(&self, _wanted: u64) -> Option<u64> {
        None
    }

    /// What it does with listings of others.
    fn forwards_gossip(&self) -> Forwarding {
        Forwarding::Honest
    }

    /// How many listings it sends beside its own at each publishing, and of what kind.
    fn listings_to_flood(&self) -> Flood {
        Flood::default()
    }
}

/// Listings that a liar sends beside its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    /// Well signed ones of its own key, newer than allowed by the least interval between two.
    pub hasty: u32,
    /// Farewells that are older than its listing: whoever took one would take the provider off the board.
    pub stale: u32,
    /// Ones with a signature that does not hold.
    pub forged: u32,
    /// Ones of new keys, each valid: what an interval per key does not stop.
    pub of_new_keys: u32,
}

/// What a consumer may lie about.
pub trait ConsumerConduct {
    /// Whether it signs the voucher that is due, after so many vouchers of the job.
    fn pays_voucher(&self, _vouchers_of_job: u32) -> bool {
        true
    }

    /// After how many chunks it leaves without a word; none: it reads to the end.
    fn leaves_after_chunks(&self) -> Option<u32> {
        None
    }

    /// How many accounts it opens in a day for their starter grants.
    fn farms_grants(&self) -> u32 {
        0
    }

    /// The provider to which it moves the credits of its accounts, where that is all that it wants of them.
    fn moves_credits_to(&self) -> Option<NodeId> {
        None
    }
}

/// Does what is agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Honest;

impl ProviderConduct for Honest {}
impl ConsumerConduct for Honest {}

/// What consumers do against lies that the protocol's own rules do not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defences {
    /// The share of answers whose tokens a consumer counts again with the model's own tokenizer.
    #[serde(deserialize_with = "share")]
    pub audit_rate: f64,
    /// By how many percent a meter may be above the count before it is a lie: tokenizers of one model differ in how they
    /// count what leaves no text.
    pub audit_tolerance_percent: u32,
    /// The share of requests that are questions with known answers, asked to see which model answers.
    #[serde(deserialize_with = "share")]
    pub spot_check_rate: f64,
    /// The share of consumers who ask only providers with a certificate of their hardware.
    #[serde(deserialize_with = "share")]
    pub only_verified: f64,
    /// How many times a day at least a device that was shown is challenged again, at random times; 0: never. As shipped it is
    /// within 18 hours. Where this is not written nobody is challenged, and nobody has a certificate.
    #[serde(deserialize_with = "rate")]
    pub challenges_per_day: Option<f64>,
    /// What an account is given at its opening.
    pub starter_grant: Credits,
    /// Most that all starter grants of a day come to.
    pub starter_daily_budget: Credits,
    /// Most starter grants to accounts of one address in a day; none: the address does not count, as shipped.
    pub grants_per_address: Option<u32>,
}

/// A share from 0 to 1.
fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(D::Error::custom(format!(
            "{share} is out of bounds; a share must be from 0.0 to 1.0"
        ))),
    }
}

/// Most challenges of a device in a day: the shipped coordinator challenges nobody twice in ten minutes.
const CHALLENGES_PER_DAY_MAX: f64 = 144.0;

/// How often in a day.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let per_day = f64::deserialize(deserializer)?;
    match (0.0..=CHALLENGES_PER_DAY_MAX).contains(&per_day) {
        true => Ok(Some(per_day)),
        false => Err(D::Error::custom(format!(
            "{per_day} is out of bounds; it must be from 0 to {CHALLENGES_PER_DAY_MAX}"
        ))),
    }
}

impl Default for Defences {
    fn default() -> Self {
        Self {
            audit_rate: 0.0,
            audit_tolerance_percent: 5,
            spot_check_rate: 0.0,
            only_verified: 0.0,
            challenges_per_day: None,
            starter_grant: Credits::ZERO,
            starter_daily_budget: Credits::ZERO,
            grants_per_address: None,
        }
    }
}

impl Defences {
    /// Whether this answer's tokens are counted again.
    #[must_use]
    pub fn audits(&self, random: &mut Random) -> bool {
        random.chance(self.audit_rate)
    }

    /// Whether a count of the answer's text shows the meter to be a lie.
    #[must_use]
    pub const fn is_inflated(&self, metered: u64, counted: u64) -> bool {
        let allowed = counted as u128 * (100 + self.audit_tolerance_percent as u128);
        metered as u128 * 100 > allowed
    }

    /// Whether this request is a question with a known answer.
    #[must_use]
    pub fn spot_checks(&self, random: &mut Random) -> bool {
        random.chance(self.spot_check_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_a_lie_beyond_the_tolerance() {
        let defences = Defences::default();
        assert!(!defences.is_inflated(105, 100));
        assert!(defences.is_inflated(106, 100));
        assert!(defences.is_inflated(1, 0));
        assert!(!defences.is_inflated(0, 0));
        assert!(!defences.is_inflated(u64::MAX, u64::MAX));
    }

    #[test]
    fn shares_are_bounded_and_keys_known() {
        let defences: Defences = toml::from_str("audit_rate = 0.25\nstarter_grant = 1_000_000").unwrap();
        assert_eq!(
            (defences.audit_rate, defences.starter_grant),
            (0.25, Credits::micro(1_000_000))
        );
        for wrong in [
            "audit_rate = 1.5",
            "spot_check_rate = -0.1",
            "audit_rates = 0.1",
            "challenges_per_day = -1.0",
        ] {
            assert!(toml::from_str::<Defences>(wrong).is_err(), "{wrong}");
        }
        let mut random = Random::of_purpose(7, "audits", 0);
        let audited = (0..10_000).filter(|_| defences.audits(&mut random)).count();
        assert!(audited.abs_diff(2_500) < 200, "{audited}");
        assert!(!defences.spot_checks(&mut random));
    }
}
