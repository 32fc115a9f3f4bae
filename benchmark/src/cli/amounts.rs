//! Amounts as people type and read them.

use std::str::FromStr;

/// A number of bytes: `8GiB`, `500 MB`, `1073741824`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("'{text}' is no amount of memory; write it as 8GiB, 500MB or a number of bytes");
        let trimmed = text.trim();
        let digits = trimmed.find(|character: char| !character.is_ascii_digit());
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let unit = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
            .ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit.1).map(Self).ok_or_else(wrong)
    }
}

/// A whole number of watts as milliwatts.
pub(super) fn milliwatts(watts: &str) -> Result<u32, String> {
    let milliwatts = watts
        .trim()
        .parse::<u32>()
        .ok()
        .and_then(|watts| watts.checked_mul(1_000));
    milliwatts
        .filter(|milliwatts| *milliwatts > 0)
        .ok_or_else(|| format!("'{watts}' is no number of watts; write it as 250"))
}

/// Multiply-adds per second as people compare them: floating-point operations, two for each, in trillions.
pub(super) fn teraflops(multiply_adds_per_second: u64) -> String {
    let hundredths = multiply_adds_per_second / 5_000_000_000;
    format!("{}.{:02} TFLOP/s", hundredths / 100, hundredths % 100)
}

/// Bytes in GiB with two digits, rounded down.
pub(super) fn gibibytes(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100) >> 30;
    format!("{}.{:02} GiB", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_people_write_it() {
        for (text, bytes) in [
            ("8GiB", 8 << 30),
            (" 500 MB ", 500_000_000),
            ("64mib", 64 << 20),
            ("1073741824", 1 << 30),
            ("0B", 0),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for wrong in ["", "GiB", "-1GiB", "1.5GiB", "8 Gb/s", "99999999999TiB", "8GiB8"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn power_is_whole_watts() {
        assert_eq!(milliwatts("250"), Ok(250_000));
        for wrong in ["0", "-1", "1.5", "", "5000000"] {
            assert!(milliwatts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_never_show_more_than_there_is() {
        assert_eq!(teraflops(60_000_000_000), "0.12 TFLOP/s");
        assert_eq!(teraflops(4_999_999_999), "0.00 TFLOP/s");
        assert_eq!(gibibytes((1 << 30) - 1), "0.99 GiB");
        assert_eq!(gibibytes(u64::MAX), "17179869183.99 GiB");
    }
}
