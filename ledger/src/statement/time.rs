//! Times as people and spreadsheets write them: RFC 3339 in UTC.

use gristmill_protocol::civil_date::CivilDate;
use thiserror::Error;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no time; write a day such as 2026-11-30 or a time in UTC such as 2026-11-30T08:00:00Z")]
pub struct TimeError(String);

/// A Unix time in milliseconds as RFC 3339 writes it, in UTC.
#[must_use]
pub fn time_text(time_ms: u64) -> String {
    let date = CivilDate::of_day(time_ms / DAY_MS);
    let rest = time_ms % DAY_MS;
    let (hours, minutes) = (rest / 3_600_000, rest / 60_000 % 60);
    let (seconds, milliseconds) = (rest / 1_000 % 60, rest % 1_000);
    format!("{date}T{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z")
}

/// Reads a day, which means its beginning in UTC, or a time in UTC. In Unix milliseconds.
///
/// # Errors
/// [`TimeError`] where the text is neither, or before 1970.
pub fn time_from_text(text: &str) -> Result<u64, TimeError> {
    read(text).ok_or_else(|| TimeError(text.chars().take(40).collect()))
}

fn read(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let day_ms = days_of(date)?.checked_mul(DAY_MS)?;
    let Some(time) = time else {
        return Some(day_ms);
    };
    let time = time.strip_suffix('Z')?;
    let (time, milliseconds) = match time.split_once('.') {
        Some((time, fraction)) => (time, milliseconds(fraction)?),
        None => (time, 0),
    };
    let [hours, minutes, seconds] = numbers(time, ':', [2, 2, 2])?;
    let fits = hours < 24 && minutes < 60 && seconds < 60;
    fits.then(|| day_ms + ((hours * 60 + minutes) * 60 + seconds) * 1_000 + milliseconds)
}

fn milliseconds(fraction: &str) -> Option<u64> {
    let fits = (1..=3).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| format!("{fraction:0<3}").parse().ok())?
}

/// Numbers of exactly so many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let fits = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = fits.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

/// The days from 1970 to a date.
fn days_of(date: &str) -> Option<u64> {
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    CivilDate { year, month, day }.to_day()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time_text(time_ms), text);
            assert_eq!(time_from_text(text), Ok(time_ms));
        }
        assert_eq!(time_from_text("2000-02-29"), Ok(951_782_400_000));
        assert_eq!(time_from_text("2000-02-29 00:00:00Z"), Ok(951_782_400_000));
        assert_eq!(time_from_text("2000-02-29T00:00:00.5Z"), Ok(951_782_400_500));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "1969-12-31",
            "2001-02-29",
            "2000-13-01",
            "2000-00-01",
            "2000-04-31",
            "2000-1-1",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00+01:00",
            "2000-01-01T00:00:00.1234Z",
            "2000-01-01-01",
            "+2000-01-01",
        ] {
            assert!(time_from_text(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn texts_come_back(time_ms in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(time_from_text(&time_text(time_ms)), Ok(time_ms));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            let _ = time_from_text(&text);
        }
    }
}
