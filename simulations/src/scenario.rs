//! Scenarios: TOML files in which a researcher says what world to run. The first line is the question it asks.

pub mod answer;
pub mod document;
pub mod faults;
pub mod library;
pub mod plan;

use serde::Deserialize;

/// A whole number that must lie from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u64")]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number in the bounds that is nearest to this one, for defaults.
    #[must_use]
    pub const fn nearest(number: u64) -> Self {
        Self(if number < MIN {
            MIN
        } else if number > MAX {
            MAX
        } else {
            number
        })
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Bounded<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!(
                "{number} is out of bounds; it must be from {MIN} to {MAX}"
            ))
        }
    }
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct Fraction(f64);

impl Fraction {
    /// The share.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// So many hundredths, at most all, for defaults.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self(if percent > 100 {
            1.0
        } else {
            percent as f64 / 100.0
        })
    }
}

impl TryFrom<f64> for Fraction {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(format!(
                "{share} is out of bounds; a share must be from 0.0 to 1.0"
            ))
        }
    }
}

/// The question that a scenario asks: its first line, a comment that ends in a question mark.
pub(crate) fn question(text: &str) -> Option<String> {
    let line = text.lines().next()?.strip_prefix('#')?.trim();
    line.ends_with('?').then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_hold_at_the_edge() {
        type Small = Bounded<2, 5>;
        assert_eq!(Small::try_from(2).map(Small::get), Ok(2));
        assert_eq!(Small::try_from(5).map(Small::get), Ok(5));
        for wrong in [1, 6] {
            assert!(
                Small::try_from(wrong).unwrap_err().contains("from 2 to 5"),
                "{wrong}"
            );
        }
        assert_eq!(Fraction::try_from(0.0).map(Fraction::get), Ok(0.0));
        assert_eq!(Fraction::try_from(1.0).map(Fraction::get), Ok(1.0));
        for wrong in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert!(
                Fraction::try_from(wrong).unwrap_err().contains("from 0.0 to 1.0"),
                "{wrong}"
            );
        }
    }
}
