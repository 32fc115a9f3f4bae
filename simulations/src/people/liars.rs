//! Who lies, and about what. One small file for each, which overrides one or two hooks of [`super::conduct`] and says in
//! its head who would do it, what it gains, and what stands against it: copy one to try a lie of your own.

mod eclipse;
mod fake_gpu;
mod listing_flood;
mod non_paying;
mod smaller_model;
mod starter_farm;
mod sybil;
mod token_inflation;

#[cfg(test)]
mod payoff;

use serde::{Deserialize, Serialize};

pub use eclipse::Eclipse;
pub use fake_gpu::FakeGpu;
pub use listing_flood::ListingFlood;
pub use non_paying::NonPaying;
pub use smaller_model::SmallerModel;
pub use starter_farm::StarterFarm;
pub use sybil::Sybil;
pub use token_inflation::TokenInflation;

use super::conduct::{ConsumerConduct, Honest, ProviderConduct};

/// The lies that scenarios name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lie", rename_all = "snake_case", deny_unknown_fields)]
pub enum Liar {
    /// A provider lists a device that it does not have.
    FakeGpu(FakeGpu),
    /// A provider answers with a smaller model than it lists.
    SmallerModel(SmallerModel),
    /// A provider claims more tokens than it wrote.
    TokenInflation(TokenInflation),
    /// A consumer reads and does not pay.
    NonPaying(NonPaying),
    /// A consumer opens accounts for their starter grants.
    StarterFarm(StarterFarm),
    /// A peer that takes in listings and passes on nothing.
    Sybil(Sybil),
    /// A peer that lets a victim hear of its accomplices alone.
    Eclipse(Eclipse),
    /// A provider sends more listings than the mesh should carry.
    ListingFlood(ListingFlood),
}

impl Liar {
    /// Its name in figures and stories.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::FakeGpu(_) => "fake_gpu",
            Self::SmallerModel(_) => "smaller_model",
            Self::TokenInflation(_) => "token_inflation",
            Self::NonPaying(_) => "non_paying",
            Self::StarterFarm(_) => "starter_farm",
            Self::Sybil(_) => "sybil",
            Self::Eclipse(_) => "eclipse",
            Self::ListingFlood(_) => "listing_flood",
        }
    }

    /// How it behaves as a provider; as it should where its lie is another one.
    #[must_use]
    pub fn provider(&self) -> &dyn ProviderConduct {
        match self {
            Self::FakeGpu(liar) => liar,
            Self::SmallerModel(liar) => liar,
            Self::TokenInflation(liar) => liar,
            Self::Sybil(liar) => liar,
            Self::Eclipse(liar) => liar,
            Self::ListingFlood(liar) => liar,
            Self::NonPaying(_) | Self::StarterFarm(_) => &Honest,
        }
    }

    /// How it behaves as a consumer; as it should where its lie is another one.
    #[must_use]
    pub fn consumer(&self) -> &dyn ConsumerConduct {
        match self {
            Self::NonPaying(liar) => liar,
            Self::StarterFarm(liar) => liar,
            _ => &Honest,
        }
    }

    /// Whether it takes part as a consumer; the others are providers.
    #[must_use]
    pub const fn is_consumer(&self) -> bool {
        matches!(self, Self::NonPaying(_) | Self::StarterFarm(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::conduct::{Flood, Forwarding, ProofPlay};
    use crate::people::devices::DeviceClass;
    use crate::people::popularity::ModelSize;

    fn read(text: &str) -> Liar {
        toml::from_str(text).unwrap()
    }

    fn all() -> Vec<Liar> {
        vec![
            read("lie = \"fake_gpu\"\nclaims = \"h100\""),
            read("lie = \"smaller_model\"\nserves = \"small\""),
            read("lie = \"token_inflation\"\npercent = 30"),
            read("lie = \"non_paying\"\nleaves_after_chunks = 3"),
            read("lie = \"starter_farm\"\naccounts_per_day = 100"),
            read("lie = \"sybil\""),
            read("lie = \"eclipse\"\naccomplices_from = 4\naccomplices_to = 9"),
            read("lie = \"listing_flood\"\nforged = 10"),
        ]
    }

    /// How many of a provider's hooks answer otherwise than they should.
    fn lies_of_provider(conduct: &dyn ProviderConduct) -> usize {
        let own = DeviceClass::Processor;
        [
            conduct.metered_tokens(100) != 100,
            conduct.claimed_device(own) != own,
            conduct.rents_for_s(0) > 0,
            conduct.lists_expired_certificates(),
            conduct.turn_s() > 0,
            conduct.is_at_one_address(),
            conduct.serves_model(ModelSize::Large) != ModelSize::Large,
            conduct.answers_challenge(own) != ProofPlay::ComputesAll,
            conduct.delivers(100).is_some(),
            conduct.forwards_gossip() != Forwarding::Honest,
            conduct.listings_to_flood() != Flood::default(),
        ]
        .into_iter()
        .filter(|is_lie| *is_lie)
        .count()
    }

    fn lies_of_consumer(conduct: &dyn ConsumerConduct) -> usize {
        [
            !conduct.pays_voucher(0),
            conduct.leaves_after_chunks().is_some(),
            conduct.farms_grants() > 0,
            conduct.moves_credits_to().is_some(),
        ]
        .into_iter()
        .filter(|is_lie| *is_lie)
        .count()
    }

    #[test]
    fn each_lies_about_one_or_two_things_and_in_one_role() {
        assert_eq!(lies_of_provider(&Honest), 0);
        assert_eq!(lies_of_consumer(&Honest), 0);
        for liar in all() {
            let (provider, consumer) = (
                lies_of_provider(liar.provider()),
                lies_of_consumer(liar.consumer()),
            );
            let name = liar.name();
            assert!(
                (1..=2).contains(&(provider + consumer)),
                "{name}: {provider} {consumer}"
            );
            assert_eq!(consumer > 0, liar.is_consumer(), "{name}");
        }
    }

    #[test]
    fn every_lie_can_be_written_down_and_read_again() {
        for liar in all() {
            let text = toml::to_string(&liar).unwrap();
            assert_eq!(read(&text), liar, "{text}");
        }
        assert!(toml::from_str::<Liar>("lie = \"sybil\"\npercent = 1").is_err());
    }
}
