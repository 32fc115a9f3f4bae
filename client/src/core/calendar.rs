//! Days and months in UTC, by which spending is counted and shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::Date;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The Julian day of the first of January 1970.
const JULIAN_1970: i32 = 2_440_588;
/// The last day that four digits of a year write: the 31st of December 9999.
const DAYS_MAX: u32 = 2_932_896;

/// A day in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(u32);

/// A month in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i32,
    /// 1 to 12.
    month: u8,
}

/// A text that is no day.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no day; write it like 2026-11-30")]
pub struct DayError(String);

/// A text that is no month.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no month; write it like 2026-11")]
pub struct MonthError(String);

impl Day {
    /// The day of a Unix time in milliseconds.
    #[must_use]
    pub fn of(time_ms: u64) -> Self {
        let days = u32::try_from(time_ms / DAY_MS).unwrap_or(DAYS_MAX);
        Self(days.min(DAYS_MAX))
    }

    /// Its first moment, Unix milliseconds.
    #[must_use]
    pub const fn begin_ms(self) -> u64 {
        self.0 as u64 * DAY_MS
    }

    /// The day after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1).min(DAYS_MAX))
    }

    /// The month that it is in.
    #[must_use]
    pub fn month(self) -> Month {
        let date = self.date();
        Month {
            year: date.year(),
            month: date.month().into(),
        }
    }

    fn date(self) -> Date {
        let days = i32::try_from(self.0).unwrap_or_default();
        // Within the bounds of both types.
        Date::from_julian_day(JULIAN_1970 + days).unwrap_or(Date::MIN)
    }
}

impl Month {
    /// The first moment of the month after it, Unix milliseconds.
    #[must_use]
    pub fn end_ms(self) -> u64 {
        let (year, month) = match self.month {
            12 => (self.year + 1, 1),
            month => (self.year, month + 1),
        };
        day(year, month, 1).map_or(u64::MAX, Day::begin_ms)
    }
}

fn day(year: i32, month: u8, day: u8) -> Option<Day> {
    let date = Date::from_calendar_date(year, month.try_into().ok()?, day).ok()?;
    let days = u32::try_from(date.to_julian_day() - JULIAN_1970).ok()?;
    (days <= DAYS_MAX).then_some(Day(days))
}

/// A number of exactly so many digits.
fn number<T: FromStr>(text: &str, digits: usize) -> Option<T> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let read = || {
            let mut parts = text.splitn(3, '-');
            let year = number(parts.next()?, 4)?;
            let month = number(parts.next()?, 2)?;
            day(year, month, number(parts.next()?, 2)?)
        };
        read().ok_or_else(|| DayError(text.chars().take(32).collect()))
    }
}

impl TryFrom<String> for Day {
    type Error = DayError;

    fn try_from(text: String) -> Result<Self, DayError> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let read = || {
            let (year, month) = text.split_once('-')?;
            day(number(year, 4)?, number(month, 2)?, 1)
        };
        let first = read().ok_or_else(|| MonthError(text.chars().take(32).collect()))?;
        Ok(first.month())
    }
}

impl TryFrom<String> for Month {
    type Error = MonthError;

    fn try_from(text: String) -> Result<Self, MonthError> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.date();
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for Month {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        for (time_ms, day, month, month_ends) in [
            (0, "1970-01-01", "1970-01", "1970-02-01"),
            (951_782_399_999, "2000-02-28", "2000-02", "2000-03-01"),
            (951_782_400_000, "2000-02-29", "2000-02", "2000-03-01"),
            (1_798_675_200_000, "2026-12-31", "2026-12", "2027-01-01"),
        ] {
            let found = Day::of(time_ms);
            assert_eq!(
                (found.to_string(), found.month().to_string()),
                (day.into(), month.into())
            );
            assert_eq!(
                found.month().end_ms(),
                month_ends.parse::<Day>().unwrap().begin_ms()
            );
        }
        assert_eq!(Day::of(u64::MAX).to_string(), "9999-12-31");
        assert_eq!(Day::of(u64::MAX).next(), Day::of(u64::MAX));
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "26-01-01",
            "2026-1-01",
            "1969-12-31",
            "2026-01-01-",
            "+026-01-01",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
        for text in ["", "2026", "2026-13", "2026-1", "2026-01-01", "1969-12"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_day_is_read_as_it_is_written(days in 0..=DAYS_MAX) {
            let day = Day(days);
            prop_assert_eq!(day.to_string().parse(), Ok(day));
            prop_assert_eq!(day.month().to_string().parse(), Ok(day.month()));
            prop_assert_eq!(Day::of(day.begin_ms()), day);
            prop_assert!(day == Day(DAYS_MAX) || Day::of(day.next().begin_ms() - 1) == day);
        }
    }
}
