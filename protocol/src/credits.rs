//! Amounts of money. Everything that prices, holds, pays or reports uses [`Credits`]; nothing uses floats.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// How many microcredits make one credit.
pub const MICROCREDITS_PER_CREDIT: u64 = 1_000_000;

/// An amount in whole microcredits, never negative and never above [`Credits::MAX`].
///
/// The upper bound is the largest integer that a JSON number carries exactly in every language
/// (2^53 - 1, RFC 8259 section 6), so that an amount read by a browser is the amount that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Credits(u64);

/// Why an amount could not be computed or read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CreditsError {
    /// The result would be above [`Credits::MAX`].
    #[error("the amount is above the largest possible amount of 9007199254740991 microcredits")]
    TooLarge,
    /// More was taken than was there.
    #[error("the amount would become negative: {available} is less than {wanted}")]
    Negative {
        /// What was there.
        available: Credits,
        /// What was to be taken.
        wanted: Credits,
    },
    /// The text is not a decimal number with at most six digits after the point.
    #[error("'{0}' is not an amount of credits; write for example 2, 0.25 or 1.000001")]
    Malformed(String),
}

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount there is: 2^53 - 1 microcredits.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// An amount from microcredits.
    ///
    /// # Errors
    /// [`CreditsError::TooLarge`] above [`Credits::MAX`].
    pub const fn from_microcredits(microcredits: u64) -> Result<Self, CreditsError> {
        if microcredits > Self::MAX.0 {
            Err(CreditsError::TooLarge)
        } else {
            Ok(Self(microcredits))
        }
    }

    /// An amount from microcredits that is known when the program is compiled.
    ///
    /// Any `u32` is far below [`Credits::MAX`], so this cannot fail.
    #[must_use]
    pub const fn micro(microcredits: u32) -> Self {
        Self(microcredits as u64)
    }

    /// The amount in microcredits.
    #[must_use]
    pub const fn microcredits(self) -> u64 {
        self.0
    }

    /// Whether this is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum of both.
    ///
    /// # Errors
    /// [`CreditsError::TooLarge`] where the sum is above [`Credits::MAX`].
    pub const fn checked_add(self, other: Self) -> Result<Self, CreditsError> {
        match self.0.checked_add(other.0) {
            Some(sum) => Self::from_microcredits(sum),
            None => Err(CreditsError::TooLarge),
        }
    }

    /// What is left after taking `other`.
    ///
    /// # Errors
    /// [`CreditsError::Negative`] where `other` is more than this amount.
    pub const fn checked_sub(self, other: Self) -> Result<Self, CreditsError> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Ok(Self(rest)),
            None => Err(CreditsError::Negative {
                available: self,
                wanted: other,
            }),
        }
    }

    /// What is left after taking `other`, or nothing where `other` is more.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum of both, or [`Credits::MAX`] where the sum is above it. Only for limits, never for balances.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        let sum = self.0.saturating_add(other.0);
        if sum > Self::MAX.0 { Self::MAX } else { Self(sum) }
    }

    /// The share of this amount in basis points (1/10,000), rounded down.
    ///
    /// Shares above the whole are the whole.
    #[must_use]
    pub fn basis_points(self, basis_points: u16) -> Self {
        let share = u128::from(self.0) * u128::from(basis_points.min(10_000)) / 10_000;
        // At most the whole, which fits.
        Self(u64::try_from(share).unwrap_or(self.0))
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{}.{:06}",
            self.0 / MICROCREDITS_PER_CREDIT,
            self.0 % MICROCREDITS_PER_CREDIT
        );
        formatter.pad(&text)
    }
}

impl FromStr for Credits {
    type Err = CreditsError;

    fn from_str(text: &str) -> Result<Self, CreditsError> {
        let malformed = || CreditsError::Malformed(text.chars().take(64).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return Err(malformed());
        }
        let whole: u64 = whole.parse().map_err(|_| CreditsError::TooLarge)?;
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| malformed())?;
        let microcredits = whole
            .checked_mul(MICROCREDITS_PER_CREDIT)
            .and_then(|micro| micro.checked_add(fraction))
            .ok_or(CreditsError::TooLarge)?;
        Self::from_microcredits(microcredits)
    }
}

impl Sum<Credits> for Result<Credits, CreditsError> {
    fn sum<I: Iterator<Item = Credits>>(mut amounts: I) -> Self {
        amounts.try_fold(Credits::ZERO, Credits::checked_add)
    }
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let microcredits = u64::deserialize(deserializer)?;
        Self::from_microcredits(microcredits).map_err(serde::de::Error::custom)
    }
}

impl<Context> Decode<Context> for Credits {
    fn decode<D: bincode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let microcredits = u64::decode(decoder)?;
        Self::from_microcredits(microcredits)
            .map_err(|_| bincode::error::DecodeError::Other("an amount is above 2^53 - 1 microcredits"))
    }
}
bincode::impl_borrow_decode!(Credits);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_exact() {
        for (text, micro) in [
            ("0", 0),
            ("1", 1_000_000),
            ("0.25", 250_000),
            ("1.000001", 1_000_001),
            ("12.5", 12_500_000),
        ] {
            assert_eq!(text.parse::<Credits>().unwrap().microcredits(), micro, "{text}");
        }
        assert_eq!(Credits::micro(1_234_567).to_string(), "1.234567");
        assert_eq!(Credits::MAX.to_string().parse::<Credits>().unwrap(), Credits::MAX);
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1.0000001",
            "1_000",
            " 1",
            "9007199255",
        ] {
            assert!(text.parse::<Credits>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_hold_at_the_edge() {
        assert_eq!(Credits::from_microcredits((1 << 53) - 1), Ok(Credits::MAX));
        assert_eq!(Credits::from_microcredits(1 << 53), Err(CreditsError::TooLarge));
        assert_eq!(
            Credits::MAX.checked_add(Credits::micro(1)),
            Err(CreditsError::TooLarge)
        );
        assert!(serde_json::from_str::<Credits>("9007199254740992").is_err());
        assert!(serde_json::from_str::<Credits>("1.5").is_err());
        assert!(serde_json::from_str::<Credits>("-1").is_err());
    }

    proptest! {
        #[test]
        fn adding_and_taking_is_the_identity(a in 0u64..1 << 52, b in 0u64..1 << 52) {
            let (a, b) = (Credits(a), Credits(b));
            prop_assert_eq!(a.checked_add(b).unwrap().checked_sub(b).unwrap(), a);
        }

        #[test]
        fn fees_never_exceed_the_amount(amount in 0u64..1 << 53, points: u16) {
            prop_assert!(Credits(amount).basis_points(points) <= Credits(amount));
        }
    }
}
