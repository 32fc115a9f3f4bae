//! What a caller restricts providers to: price, region, privacy, hardware certificate, or one by name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::credits::Credits;
use crate::identity::AccountId;
use crate::listing::PrivacyTier;

/// Most regions that one request may name.
pub const REGIONS_MAX: usize = 16;

/// A country or a part of one, by ISO 3166-1 alpha-2 and ISO 3166-2: `CH`, `CH-ZH`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region(String);

/// A text that names no region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no region; regions are ISO 3166 codes such as 'CH' or 'CH-ZH'")]
pub struct RegionError(String);

impl Region {
    /// The code in capitals.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a place that a listing names lies in it. A listing that names none lies nowhere.
    #[must_use]
    pub fn covers(&self, listed: &str) -> bool {
        let Some(same) = listed.get(..self.0.len()) else {
            return false;
        };
        let rest = &listed[self.0.len()..];
        same.eq_ignore_ascii_case(&self.0) && (rest.is_empty() || rest.starts_with('-'))
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let code = text.trim();
        let (country, part) = code.split_once('-').unwrap_or((code, "A"));
        let is_country = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_part = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_country && is_part {
            Ok(Self(code.to_ascii_uppercase()))
        } else {
            Err(RegionError(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// What can be restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// The price per million of any unit.
    MaxPrice,
    /// Where the provider says it is.
    Region,
    /// What it promises about prompts and answers.
    Privacy,
    /// Who it is.
    Provider,
    /// Whether its hardware has a certificate.
    OnlyVerified,
}

impl Constraint {
    /// The name of the field in requests.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::MaxPrice => "max_price",
            Self::Region => "region",
            Self::Privacy => "privacy",
            Self::Provider => "provider",
            Self::OnlyVerified => "only_verified",
        }
    }
}

/// Restrictions, all of which must hold. The default restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// The highest price per million of any unit, and the highest constant.
    pub max_price_per_million: Option<Credits>,
    /// The provider must say that it is in one of these; anywhere, where there are none.
    pub regions: Vec<Region>,
    /// At least this tier.
    pub privacy: PrivacyTier,
    /// Nobody else.
    pub provider: Option<AccountId>,
    /// Only those whose hardware has a certificate.
    pub only_verified: bool,
}

/// Two restrictions that no provider can meet together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("two different values of '{}' are given, and no provider can meet both", .0.field())]
pub struct Conflict(pub Constraint);

impl Constraints {
    /// What holds where both hold.
    ///
    /// # Errors
    /// [`Conflict`] where nobody could meet both, whoever is on offer.
    pub fn and(self, other: Self) -> Result<Self, Conflict> {
        if let (Some(one), Some(two)) = (self.provider, other.provider)
            && one != two
        {
            return Err(Conflict(Constraint::Provider));
        }
        Ok(Self {
            max_price_per_million: lower(self.max_price_per_million, other.max_price_per_million),
            regions: common(self.regions, other.regions)?,
            privacy: self.privacy.max(other.privacy),
            provider: self.provider.or(other.provider),
            only_verified: self.only_verified || other.only_verified,
        })
    }
}

/// The lower of two limits, of which each may be none.
pub(crate) fn lower<T: Ord>(one: Option<T>, two: Option<T>) -> Option<T> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

fn common(one: Vec<Region>, two: Vec<Region>) -> Result<Vec<Region>, Conflict> {
    if one.is_empty() || two.is_empty() {
        return Ok(if one.is_empty() { two } else { one });
    }
    let within = |inner: &Region, outer: &[Region]| outer.iter().any(|outer| outer.covers(inner.as_str()));
    let mut both: Vec<Region> = one
        .iter()
        .filter(|region| within(region, &two))
        .cloned()
        .collect();
    both.extend(two.iter().filter(|region| within(region, &one)).cloned());
    both.sort();
    both.dedup();
    if both.is_empty() {
        return Err(Conflict(Constraint::Region));
    }
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    #[test]
    fn regions_are_codes_and_cover_their_parts() {
        assert_eq!(region(" ch ").as_str(), "CH");
        assert!(region("CH").covers("CH") && region("CH").covers("ch-zh"));
        assert!(region("CH-ZH").covers("CH-ZH"));
        assert!(!region("CH-ZH").covers("CH") && !region("CH").covers("") && !region("CH").covers("CHX"));
        assert!(!region("CH").covers("é") && !region("CH").covers("Cé-x"));
        for text in [
            "", "C", "CHE", "CH-", "CH-ABCD", "C1", "CH ZH", "CH-ZH-1", "é", "anywhere",
        ] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_hold() {
        let one = Constraints {
            max_price_per_million: Some(Credits::micro(5)),
            regions: vec![region("CH"), region("DE-BY")],
            privacy: PrivacyTier::NothingKept,
            ..Constraints::default()
        };
        let two = Constraints {
            max_price_per_million: Some(Credits::micro(4)),
            regions: vec![region("DE"), region("FR")],
            only_verified: true,
            provider: Some(AccountId::from_public_key([1; 32])),
            ..Constraints::default()
        };
        let both = one.clone().and(two.clone()).unwrap();
        assert_eq!(both.max_price_per_million, Some(Credits::micro(4)));
        assert_eq!(both.regions, [region("DE-BY")]);
        assert_eq!(both.privacy, PrivacyTier::NothingKept);
        assert!(both.only_verified && both.provider == two.provider);
        assert_eq!(two.clone().and(one.clone()), Ok(both));
        assert_eq!(one.clone().and(Constraints::default()), Ok(one));
        let other = Constraints {
            provider: Some(AccountId::from_public_key([2; 32])),
            ..Constraints::default()
        };
        assert_eq!(two.clone().and(other), Err(Conflict(Constraint::Provider)));
        let elsewhere = Constraints {
            regions: vec![region("CH")],
            ..Constraints::default()
        };
        let conflict = two.and(elsewhere).unwrap_err();
        assert_eq!(conflict, Conflict(Constraint::Region));
        assert!(conflict.to_string().contains("'region'"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_region_or_an_error(text in any::<String>(), listed in any::<String>()) {
            if let Ok(region) = text.parse::<Region>() {
                prop_assert!(region.covers(region.as_str()));
                let _ = region.covers(&listed);
            }
        }

        /// Whoever meets both lists of regions meets the list of both, and the other way round.
        #[test]
        fn common_regions_cover_what_both_cover(
            one in proptest::collection::vec(0usize..5, 1..4),
            two in proptest::collection::vec(0usize..5, 1..4),
            place in 0usize..5,
        ) {
            const CODES: [&str; 5] = ["CH", "CH-ZH", "CH-BE", "DE", "DE-BY"];
            let list = |indexes: &[usize]| Constraints {
                regions: indexes.iter().map(|index| region(CODES[*index])).collect(),
                ..Constraints::default()
            };
            let meets = |regions: &[Region]| regions.iter().any(|region| region.covers(CODES[place]));
            let (one, two) = (list(&one), list(&two));
            let apart = meets(&one.regions) && meets(&two.regions);
            let together = one.and(two).is_ok_and(|both| meets(&both.regions));
            prop_assert_eq!(apart, together);
        }
    }
}
