//! Numbers for people: four digits that matter, a mean with its uncertainty.

use crate::results::statistics::Sample;

/// Between digits of large numbers and before units: narrow, and never at the end of a line.
const NARROW: char = '\u{202f}';
/// A space that no line ends at.
const FIXED: char = '\u{a0}';
/// A minus sign as wide as a plus sign.
const MINUS: char = '\u{2212}';

/// A number with at most four significant digits; whole ones below ten million in full.
#[must_use]
pub fn plain(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    let is_whole = size < 1e7 && size.fract() == 0.0;
    if is_whole {
        return with_decimals(value, 0);
    }
    let exponent = exponent(size);
    if !(-3..7).contains(&exponent) {
        let mantissa = trimmed(with_decimals(scaled(value, -exponent), 3));
        return format!("{mantissa}{NARROW}×{NARROW}10{}", superscript(exponent));
    }
    trimmed(with_decimals(value, decimals(3 - exponent)))
}

/// A change, with its sign.
#[must_use]
pub fn signed(change: f64) -> String {
    let sign = if change > 0.0 { "+" } else { "" };
    format!("{sign}{}", plain(change))
}

/// A mean with half its 95 % confidence interval, to the digits that are known: `12.34 ± 0.21`.
#[must_use]
pub fn sample(sample: &Sample) -> String {
    let Some((low, high)) = sample.interval else {
        return plain(sample.mean);
    };
    let half = (high - low) / 2.0;
    let digits = exponent(half);
    let is_plain = half > 0.0 && (-5..6).contains(&digits) && sample.mean.abs() < 1e7;
    if !is_plain {
        return format!("{}{FIXED}±{FIXED}{}", plain(sample.mean), plain(half));
    }
    // Two digits of what is not known, and the mean no further.
    let places = decimals(1 - digits);
    let coarse = 10f64.powi((digits - 1).max(0));
    let shown = |value: f64| {
        let is_coarse = coarse > 1.0;
        let rounded = if is_coarse {
            (value / coarse).round() * coarse
        } else {
            value
        };
        with_decimals(rounded, places)
    };
    format!("{}{FIXED}±{FIXED}{}", shown(sample.mean), shown(half))
}

/// The power of ten of a number's first digit; 0 of 0.
fn exponent(size: f64) -> i32 {
    // As the number is printed, so that 9.9996 that would be printed as 10.00 counts as 10.
    let text = format!("{size:.3e}");
    text.split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0)
}

fn scaled(value: f64, exponent: i32) -> f64 {
    // In two steps: 10 to the 308 is the largest there is.
    let half = exponent / 2;
    value * 10f64.powi(half) * 10f64.powi(exponent - half)
}

fn decimals(places: i32) -> usize {
    usize::try_from(places).unwrap_or(0)
}

fn with_decimals(value: f64, places: usize) -> String {
    let text = format!("{:.places$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    let is_zero = text.bytes().all(|byte| byte == b'0' || byte == b'.');
    if value < 0.0 && !is_zero {
        out.push(MINUS);
    }
    // Four digits read well without a gap.
    let gap_after = |place: usize| whole.len() > 4 && place > 0 && (whole.len() - place).is_multiple_of(3);
    for (place, digit) in whole.chars().enumerate() {
        if gap_after(place) {
            out.push(NARROW);
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn trimmed(text: String) -> String {
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn superscript(exponent: i32) -> String {
    let digit = |character: char| match character {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '⁰',
    };
    exponent.to_string().chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.5, "−0.5"),
            (0.123_456, "0.1235"),
            (12.345_67, "12.35"),
            (9_999.96, "10\u{202f}000"),
            (1_234.0, "1234"),
            (123_456.0, "123\u{202f}456"),
            (1_234_567.0, "1\u{202f}234\u{202f}567"),
            (12_345_678.0, "1.235\u{202f}×\u{202f}10⁷"),
            (0.000_012, "1.2\u{202f}×\u{202f}10⁻⁵"),
            (1e-300, "1\u{202f}×\u{202f}10⁻³⁰⁰"),
            (1e308, "1\u{202f}×\u{202f}10³⁰⁸"),
        ] {
            assert_eq!(plain(value), text, "{value}");
        }
        assert_eq!((signed(0.25), signed(-2.0)), ("+0.25".into(), "−2".into()));
    }

    #[test]
    fn a_mean_has_the_digits_that_are_known() {
        let of = |values: &[f64]| sample(&Sample::of(values).unwrap());
        assert_eq!(of(&[12.1, 12.5, 12.3, 12.2]), "12.28\u{a0}±\u{a0}0.27");
        assert_eq!(
            of(&[120_000.0, 130_000.0, 125_000.0]),
            "125\u{202f}000\u{a0}±\u{a0}12\u{202f}000"
        );
        assert_eq!(of(&[3.0]), "3");
        assert_eq!(of(&[3.0, 3.0]), "3\u{a0}±\u{a0}0");
    }
}
