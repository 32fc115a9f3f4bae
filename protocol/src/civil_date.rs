//! The calendar date of a Unix time, in UTC.

use std::fmt;

/// The days from the first of March of the year 0 to the first of January of 1970.
const DAYS_BEFORE_1970: u64 = 719_468;

/// A date of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilDate {
    /// The year, from 1970 on.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
}

impl CivilDate {
    /// The date so many days after the first of January 1970, counted in years that begin in March, so that the day of
    /// a leap year is the last.
    ///
    /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    #[must_use]
    pub const fn of_day(days: u64) -> Self {
        let shifted = days.saturating_add(DAYS_BEFORE_1970);
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
        Self { year, month, day }
    }

    /// How many days it is after the first of January 1970; `None` where it is before that, or no date.
    ///
    /// Source: the same, `days_from_civil`.
    #[must_use]
    pub fn to_day(self) -> Option<u64> {
        let Self { year, month, day } = self;
        if year < 1_970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let shifted_year = year - u64::from(month <= 2);
        let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era
            .checked_mul(146_097)?
            .checked_add(day_of_era)?
            .checked_sub(DAYS_BEFORE_1970)?;
        // The 31st of a month without one is none.
        (Self::of_day(days) == self).then_some(days)
    }
}

impl fmt::Display for CivilDate {
    /// As ISO 8601 writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_dates() {
        for (day, text) in [
            (0, "1970-01-01"),
            (11_015, "2000-02-28"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_453, "2025-12-31"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            let date = CivilDate::of_day(day);
            assert_eq!((date.to_string().as_str(), date.to_day()), (text, Some(day)));
        }
    }

    #[test]
    fn what_is_no_date_has_no_day() {
        for (year, month, day) in [
            (1969, 12, 31),
            (2026, 0, 1),
            (2026, 13, 1),
            (2026, 1, 0),
            (2026, 2, 29),
            (2026, 4, 31),
        ] {
            assert_eq!(
                CivilDate { year, month, day }.to_day(),
                None,
                "{year}-{month}-{day}"
            );
        }
        let never = CivilDate {
            year: u64::MAX,
            month: 1,
            day: 1,
        };
        assert_eq!(never.to_day(), None);
    }

    proptest! {
        #[test]
        fn every_day_has_its_date_and_follows_the_one_before(day in 0u64..4_000_000) {
            let (date, next) = (CivilDate::of_day(day), CivilDate::of_day(day + 1));
            prop_assert_eq!(date.to_day(), Some(day));
            prop_assert!((date.year, date.month, date.day) < (next.year, next.month, next.day));
        }

        #[test]
        fn no_day_panics(day: u64) {
            let _ = CivilDate::of_day(day);
        }
    }
}
