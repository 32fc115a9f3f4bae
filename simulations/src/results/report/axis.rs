//! Axes: from values to places on paper, with ticks at round numbers.

use super::number;

/// Largest over smallest from which on an axis of positive values is logarithmic.
const LOGARITHMIC_FROM: f64 = 50.0;
/// As many ticks as fit without touching.
const TICKS: f64 = 6.0;

/// From values to 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    from: f64,
    to: f64,
    is_logarithmic: bool,
}

/// Whether an axis may be logarithmic, and whether it begins at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Logarithmic where the values span much, otherwise as close as they are.
    Spread,
    /// Linear, with 0 unless all values lie far from it.
    Level,
    /// Linear and with 0, as lengths of bars need it.
    FromZero,
}

impl Axis {
    /// An axis that has room for all values.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>, range: Range) -> Self {
        let mut span: Option<(f64, f64)> = None;
        for value in values.filter(|value| value.is_finite()) {
            let (low, high) = span.unwrap_or((value, value));
            span = Some((low.min(value), high.max(value)));
        }
        let (mut low, mut high) = span.unwrap_or((0.0, 1.0));
        if range == Range::Spread && low > 0.0 && high / low >= LOGARITHMIC_FROM {
            return Self {
                from: low,
                to: high,
                is_logarithmic: true,
            };
        }
        if range == Range::FromZero || (range == Range::Level && low > 0.0 && low < 0.6 * high) {
            low = low.min(0.0);
            high = high.max(0.0);
        }
        if range == Range::Level && high < 0.0 && high > 0.6 * low {
            high = 0.0;
        }
        if low == 0.0 && high == 0.0 {
            high = 1.0;
        }
        if low == high && range == Range::Level && low > 0.0 {
            // A share that is always 1 has an axis up to 1.
            low = 0.0;
        }
        if low == high {
            let room = low.abs() / 2.0;
            (low, high) = (low - room, high + room);
        }
        let mut axis = Self {
            from: low,
            to: high,
            is_logarithmic: false,
        };
        if range != Range::Spread {
            // Out to the next tick, so that the highest line does not touch the edge.
            let step = axis.step();
            axis.from = (low / step).floor() * step;
            axis.to = (high / step).ceil() * step;
        }
        axis
    }

    /// Where a value lies, 0 at the beginning and 1 at the end of the axis.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            // Halves, since the whole span may be more than the largest number.
            (value / 2.0 - self.from / 2.0) / (self.to / 2.0 - self.from / 2.0)
        };
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Whether equal distances are equal factors.
    #[must_use]
    pub const fn is_logarithmic(&self) -> bool {
        self.is_logarithmic
    }

    /// Round values within the axis with their texts.
    #[must_use]
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values = if self.is_logarithmic {
            self.logarithmic_ticks()
        } else {
            self.linear_ticks()
        };
        values
            .into_iter()
            .map(|value| (value, number::plain(value)))
            .collect()
    }

    /// 1, 2 or 5 times a power of ten.
    fn step(&self) -> f64 {
        let rough = (self.to / TICKS - self.from / TICKS).max(f64::MIN_POSITIVE);
        let power = 10f64.powi(whole(rough.log10().floor()));
        let factors = [1.0, 2.0, 5.0, 10.0];
        let factor = factors.iter().find(|factor| power * **factor >= rough * 0.999);
        power * factor.unwrap_or(&10.0)
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let step = self.step();
        let first = (self.from / step - 1e-9).ceil();
        let ticks = (0..12).map(|count| (first + f64::from(count)) * step);
        // What is left of rounding must not be shown as 5.5e-17, nor 0 as -0.
        let clean = ticks.map(|tick| if tick.abs() < step * 1e-6 { 0.0 } else { tick });
        clean.filter(|tick| *tick <= self.to + step * 1e-6).collect()
    }

    fn logarithmic_ticks(&self) -> Vec<f64> {
        let (first, last) = (self.from.log10().floor(), self.to.log10().ceil());
        let inside = |tick: &f64| *tick >= self.from * 0.999 && *tick <= self.to * 1.001;
        let with = |factors: &[f64], every: f64| {
            let mut ticks = Vec::new();
            let mut exponent = first;
            while exponent <= last && ticks.len() < 24 {
                let power = 10f64.powi(whole(exponent));
                ticks.extend(factors.iter().map(|factor| factor * power).filter(inside));
                exponent += every;
            }
            ticks
        };
        let close = with(&[1.0, 2.0, 5.0], 1.0);
        if close.len() <= 8 {
            return close;
        }
        with(&[1.0], ((last - first) / TICKS).ceil().max(1.0))
    }

    /// The same axis out to the next 1, 2 or 5 times a power of ten, where it is logarithmic.
    #[must_use]
    pub fn rounded(self) -> Self {
        if !self.is_logarithmic {
            return self;
        }
        let power = |value: f64| 10f64.powi(whole(value.log10().floor()));
        let (low, high) = (power(self.from), power(self.to));
        let below = [5.0, 2.0, 1.0].iter().find(|factor| low * **factor <= self.from);
        let above = [1.0, 2.0, 5.0, 10.0]
            .iter()
            .find(|factor| high * **factor >= self.to);
        Self {
            from: below.map_or(self.from, |factor| low * factor),
            to: above.map_or(self.to, |factor| high * factor).min(f64::MAX),
            is_logarithmic: true,
        }
    }
}

/// A logarithm's whole part.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the logarithm of a finite number lies between -324 and 309"
)]
fn whole(logarithm: f64) -> i32 {
    logarithm.clamp(-320.0, 309.0) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticks(values: &[f64], range: Range) -> Vec<String> {
        let axis = Axis::of(values.iter().copied(), range);
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            ticks(&[0.03, 0.97], Range::Level),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(
            ticks(&[95.0, 100.0], Range::Level),
            ["95", "96", "97", "98", "99", "100"]
        );
        assert_eq!(
            ticks(&[1e3, 1e6], Range::Spread),
            [
                "1000",
                "10\u{202f}000",
                "100\u{202f}000",
                "1\u{202f}000\u{202f}000"
            ]
        );
        assert_eq!(
            ticks(&[0.1, 8.0], Range::Spread),
            ["0.1", "0.2", "0.5", "1", "2", "5"]
        );
        assert_eq!(ticks(&[-1.0, 1.0], Range::Level), ["−1", "−0.5", "0", "0.5", "1"]);
        assert_eq!(
            ticks(&[1.0, 1.0], Range::Level),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(ticks(&[], Range::Level), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn a_logarithmic_axis_can_be_rounded_out() {
        let axis = Axis::of([7_204.0, 729_065.0].into_iter(), Range::Spread).rounded();
        let ends = |axis: Axis| (axis.from, axis.to);
        assert_eq!(ends(axis), (5e3, 1e6));
        assert_eq!(axis.ticks().len(), 8);
        let level = Axis::of([1.0, 2.0].into_iter(), Range::Spread);
        assert_eq!(ends(level.rounded()), ends(level));
    }

    proptest! {
        #[test]
        fn every_value_has_a_place_and_every_axis_ticks(
            values in prop::collection::vec(prop::num::f64::NORMAL, 1..20),
            range in prop::sample::select(vec![Range::Spread, Range::Level, Range::FromZero]),
        ) {
            let axis = Axis::of(values.iter().copied(), range);
            for value in &values {
                prop_assert!((0.0..=1.0).contains(&axis.place(*value)));
            }
            let ticks = axis.ticks();
            prop_assert!(ticks.len() <= 24);
            for pair in ticks.windows(2) {
                prop_assert!(axis.place(pair[0].0) <= axis.place(pair[1].0));
            }
        }

        #[test]
        fn usual_axes_have_some_ticks(low in -1e6..1e6f64, span in 1e-3..1e6f64) {
            let axis = Axis::of([low, low + span].into_iter(), Range::Level);
            let ticks = axis.ticks().len();
            prop_assert!((3..=10).contains(&ticks), "{} {:?}", ticks, axis);
        }
    }
}
