//! What a job consumed, and what it costs: usage vectors and linear prices over the same units.
//!
//! A new kind of job brings new [`Unit`]s; the arithmetic of money stays as it is.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::credits::{Credits, CreditsError};

/// What can be counted about a job. The numbers are the wire format: never reuse one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A token of the prompt, as the model's own tokenizer counts.
    InputToken,
    /// A token of the answer, as the model's own tokenizer counts.
    OutputToken,
    /// A millisecond of one device, busy with this job.
    GpuMillisecond,
    /// A byte that the consumer sent.
    ByteIn,
    /// A byte that the provider sent.
    ByteOut,
}

/// A vector of counted units. Units that do not occur count as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Usage(BTreeMap<Unit, u64>);

impl Usage {
    /// No usage at all.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The usage of a language model: tokens read and tokens written.
    #[must_use]
    pub fn tokens(input: u64, output: u64) -> Self {
        Self::new()
            .with(Unit::InputToken, input)
            .with(Unit::OutputToken, output)
    }

    /// The same usage with one unit's count replaced.
    #[must_use]
    pub fn with(mut self, unit: Unit, count: u64) -> Self {
        if count == 0 {
            self.0.remove(&unit);
        } else {
            self.0.insert(unit, count);
        }
        self
    }

    /// How many of a unit were counted.
    #[must_use]
    pub fn count(&self, unit: Unit) -> u64 {
        self.0.get(&unit).copied().unwrap_or(0)
    }

    /// The counted units in order, without zeros.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, u64)> + '_ {
        self.0
            .iter()
            .map(|(unit, count)| (*unit, *count))
            .filter(|(_, count)| *count > 0)
    }

    /// Whether every count is at least as high as in `earlier`: a running meter may only grow.
    #[must_use]
    pub fn covers(&self, earlier: &Self) -> bool {
        earlier.iter().all(|(unit, count)| self.count(unit) >= count)
    }

    /// The larger count of each unit, for a final figure that must not undercut a running estimate.
    #[must_use]
    pub fn maximum(&self, other: &Self) -> Self {
        let mut counts = self.0.clone();
        for (unit, count) in other.iter() {
            let entry = counts.entry(unit).or_insert(0);
            *entry = (*entry).max(count);
        }
        Self(counts)
    }
}

/// How many units one coefficient of a [`Price`] is for.
pub const UNITS_PER_COEFFICIENT: u64 = 1_000_000;

/// A linear price: a constant per job plus a coefficient per million of each unit.
///
/// `{constant: 0, per_million: {output_token: 2_000_000}}` is two credits per million output tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Due for any job, whatever it consumes, in microcredits.
    #[serde(default)]
    pub constant: Credits,
    /// Due per million of each unit, in microcredits. Units that do not occur are free.
    #[serde(default)]
    pub per_million: BTreeMap<Unit, Credits>,
}

/// Why a price could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PriceError {
    /// The cost would be above the largest amount there is.
    #[error("the cost of this usage is above the largest possible amount: {0}")]
    TooLarge(#[from] CreditsError),
}

impl Price {
    /// A price per million input and per million output tokens, in microcredits.
    #[must_use]
    pub fn per_million_tokens(input: Credits, output: Credits) -> Self {
        let mut per_million = BTreeMap::new();
        per_million.insert(Unit::InputToken, input);
        per_million.insert(Unit::OutputToken, output);
        Self {
            constant: Credits::ZERO,
            per_million,
        }
    }

    /// What one million of a unit costs.
    #[must_use]
    pub fn coefficient(&self, unit: Unit) -> Credits {
        self.per_million.get(&unit).copied().unwrap_or(Credits::ZERO)
    }

    /// The cost of a usage, rounded up once to a whole microcredit.
    ///
    /// # Errors
    /// [`PriceError::TooLarge`] where the cost is above [`Credits::MAX`].
    pub fn cost(&self, usage: &Usage) -> Result<Credits, PriceError> {
        // Each product is below 2^117, and there are fewer than 2^10 units: the sum fits in 128 bits.
        let scaled: u128 = usage
            .iter()
            .map(|(unit, count)| u128::from(self.coefficient(unit).microcredits()) * u128::from(count))
            .sum();
        let variable = scaled.div_ceil(u128::from(UNITS_PER_COEFFICIENT));
        let variable = u64::try_from(variable).map_err(|_| CreditsError::TooLarge)?;
        Ok(self.constant.checked_add(Credits::from_microcredits(variable)?)?)
    }

    /// Whether no part of this price is above the same part of `cap`.
    #[must_use]
    pub fn within(&self, cap: &Self) -> bool {
        self.constant <= cap.constant
            && self
                .per_million
                .iter()
                .all(|(unit, coefficient)| *coefficient <= cap.coefficient(*unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn price(input: u32, output: u32) -> Price {
        Price::per_million_tokens(Credits::micro(input), Credits::micro(output))
    }

    #[test]
    fn cost_is_constant_plus_linear_part_rounded_up_once() {
        let mut price = price(100_000, 400_000);
        price.constant = Credits::micro(7);
        for (input, output, cost) in [
            (0, 0, 7),
            (1, 0, 8),
            (1, 1, 8),
            (10, 0, 8),
            (11, 0, 9),
            (1_000_000, 1_000_000, 500_007),
        ] {
            assert_eq!(
                price.cost(&Usage::tokens(input, output)).unwrap(),
                Credits::micro(cost)
            );
        }
    }

    #[test]
    fn absurd_usage_is_an_error_not_a_wrap() {
        let price = Price::per_million_tokens(Credits::MAX, Credits::MAX);
        assert!(price.cost(&Usage::tokens(u64::MAX, u64::MAX)).is_err());
    }

    #[test]
    fn unknown_units_and_fields_are_refused() {
        assert!(serde_json::from_str::<Price>(r#"{"per_million":{"sandwich":1}}"#).is_err());
        assert!(serde_json::from_str::<Price>(r#"{"constnat":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn more_usage_never_costs_less(i in 0u64..1 << 40, o in 0u64..1 << 40, di in 0u64..1 << 30, d in 0u64..1 << 30) {
            let price = price(150_000, 600_000);
            let less = price.cost(&Usage::tokens(i, o)).unwrap();
            let more = price.cost(&Usage::tokens(i + di, o + d)).unwrap();
            prop_assert!(less <= more);
        }

        #[test]
        fn a_dearer_price_is_never_within(i in 0u32..1000, o in 0u32..1000, extra in 1u32..1000) {
            prop_assert!(price(i, o).within(&price(i, o)));
            prop_assert!(!price(i + extra, o).within(&price(i, o)));
        }
    }
}
