//! What can be said of few runs: means with confidence intervals, whether two differ, and how a cost grows.

/// Two-sided 95 % critical values of Student's t distribution for 1 to 30 degrees of freedom: NIST/SEMATECH e-Handbook
/// of Statistical Methods, table 1.3.6.7.2, column 0.975.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The same table for more degrees of freedom; in between, one over these is interpolated.
const STUDENT_BEYOND: [(f64, f64); 5] = [
    (30.0, 2.042),
    (40.0, 2.021),
    (60.0, 2.000),
    (120.0, 1.980),
    (f64::INFINITY, 1.960),
];

/// What some independent measurements say together.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Sample {
    /// How many.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub smallest: f64,
    /// The largest.
    pub largest: f64,
    /// Standard deviation (with n - 1); 0 for a single measurement.
    pub deviation: f64,
    /// 95 % confidence interval of the mean by Student's t; `None` for a single measurement.
    pub interval: Option<(f64, f64)>,
}

impl Sample {
    /// Sums up measurements; `None` where there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (smallest, largest) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len();
        // Far from the mean of large numbers, a sum of squares would cancel: the mean is taken off first.
        let mean = smallest + sorted.iter().map(|value| value - smallest).sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|value| (value - mean) * (value - mean)).sum();
        let freedom = count as f64 - 1.0;
        let deviation = if count > 1 {
            (squares / freedom).sqrt()
        } else {
            0.0
        };
        let half = student(freedom) * deviation / (count as f64).sqrt();
        Some(Self {
            count,
            mean,
            median: quantile(&sorted, 0.5)?,
            smallest,
            largest,
            deviation,
            interval: (count > 1).then_some((mean - half, mean + half)),
        })
    }
}

/// The two-sided 95 % critical value of Student's t distribution. Infinite below 1 degree of freedom, where nothing
/// can be said.
#[must_use]
pub fn student(freedom: f64) -> f64 {
    if freedom < 1.0 || freedom.is_nan() {
        return f64::INFINITY;
    }
    if freedom < 30.0 {
        // Between two whole ones, the lower one is on the safe side by the most.
        let mut whole = 0;
        while (whole + 2) as f64 <= freedom {
            whole += 1;
        }
        return STUDENT[whole];
    }
    for pair in STUDENT_BEYOND.windows(2) {
        let [(below, high), (above, low)] = [pair[0], pair[1]];
        if freedom <= above {
            let share = (1.0 / freedom - 1.0 / above) / (1.0 / below - 1.0 / above);
            return low + share * (high - low);
        }
    }
    1.960
}

/// A quantile of sorted values, interpolated between neighbours (type 7 of Hyndman and Fan 1996, as NumPy and R do).
/// `None` where there are no values.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = share.clamp(0.0, 1.0) * last as f64;
    let mut below = 0;
    while below < last && ((below + 1) as f64) <= position {
        below += 1;
    }
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (high - low) * (position - below as f64))
}

/// How two samples differ.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Contrast {
    /// Mean of the second less mean of the first.
    pub change: f64,
    /// The change relative to the first mean; `None` where that is 0.
    pub relative: Option<f64>,
    /// 95 % confidence interval of the change; `None` where one of both is a single measurement.
    pub interval: Option<(f64, f64)>,
    /// Whether the change is beyond chance at 95 %; `None` where that can't be said.
    pub is_significant: Option<bool>,
}

/// Compares two samples by Welch's t test, which asks neither equal numbers nor equal variances.
#[must_use]
pub fn contrast(first: &Sample, second: &Sample) -> Contrast {
    let change = second.mean - first.mean;
    let relative = (first.mean != 0.0).then(|| change / first.mean.abs());
    if first.count < 2 || second.count < 2 {
        return Contrast {
            change,
            relative,
            interval: None,
            is_significant: (change == 0.0).then_some(false),
        };
    }
    let part = |sample: &Sample| sample.deviation * sample.deviation / sample.count as f64;
    let (one, other) = (part(first), part(second));
    let variance = one + other;
    // Welch and Satterthwaite. Without any variance every change is a change.
    let term = |part: f64, sample: &Sample| part * part / (sample.count as f64 - 1.0);
    let half = if variance > 0.0 {
        let freedom = variance * variance / (term(one, first) + term(other, second));
        student(freedom) * variance.sqrt()
    } else {
        0.0
    };
    Contrast {
        change,
        relative,
        interval: Some((change - half, change + half)),
        is_significant: Some(change.abs() > half),
    }
}

/// How a figure grows with a size: `figure ~ size ^ exponent`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Growth {
    /// The exponent: 1 grows as the size does.
    pub exponent: f64,
    /// 95 % confidence interval of the exponent; `None` of two points only.
    pub interval: Option<(f64, f64)>,
    /// The figure at size 1.
    pub factor: f64,
    /// Share of the variance (of the logarithms) that the fit explains, 0 to 1.
    pub explained: f64,
}

/// Fits a power law by least squares on the logarithms. `None` for fewer than two different sizes; points that are
/// not above 0 are left out.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a fit is only read by people; it never reaches a run's trace"
)]
pub fn growth(points: &[(f64, f64)]) -> Option<Growth> {
    let usable = points
        .iter()
        .filter(|(size, figure)| *size > 0.0 && *figure > 0.0);
    let logs: Vec<(f64, f64)> = usable.map(|(size, figure)| (size.ln(), figure.ln())).collect();
    let count = logs.len() as f64;
    if logs.len() < 2 {
        return None;
    }
    let mean_x = logs.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = logs.iter().map(|point| point.1).sum::<f64>() / count;
    let sum =
        |term: fn(f64, f64) -> f64| -> f64 { logs.iter().map(|(x, y)| term(x - mean_x, y - mean_y)).sum() };
    let (xx, xy, yy) = (sum(|x, _| x * x), sum(|x, y| x * y), sum(|_, y| y * y));
    if xx <= 0.0 {
        return None;
    }
    let exponent = xy / xx;
    let residue = (yy - exponent * xy).max(0.0);
    let interval = (logs.len() > 2).then(|| {
        let half = student(count - 2.0) * (residue / (count - 2.0) / xx).sqrt();
        (exponent - half, exponent + half)
    });
    Some(Growth {
        exponent,
        interval,
        factor: (mean_y - exponent * mean_x).exp(),
        explained: if yy > 0.0 { 1.0 - residue / yy } else { 1.0 },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= 1e-3 * wanted.abs().max(1.0)
    }

    #[test]
    fn a_sample_is_what_textbooks_say() {
        // By hand: 6.2 and 2.776 times 1.9235 over the root of 5.
        let sample = Sample::of(&[9.0, 4.0, 6.0, 5.0, 7.0]).unwrap();
        assert!(near(sample.mean, 6.2) && near(sample.median, 6.0) && near(sample.deviation, 1.923_538));
        let (low, high) = sample.interval.unwrap();
        assert!(near(low, 3.811_6) && near(high, 8.588_4), "{low} {high}");
        assert_eq!(Sample::of(&[]), None);
        assert_eq!(Sample::of(&[3.0]).unwrap().interval, None);
    }

    #[test]
    fn critical_values_come_from_the_table_and_fall() {
        assert!(near(student(1.0), 12.706) && near(student(29.0), 2.045) && near(student(30.0), 2.042));
        assert!(near(student(120.0), 1.980) && near(student(1e9), 1.960));
        // Tables with a row for 50 have 2.009.
        assert!(near(student(50.0), 2.009));
        assert!(student(0.5).is_infinite() && student(f64::NAN).is_infinite());
        let mut last = f64::INFINITY;
        for tenth in 10..3_000 {
            let value = student(f64::from(tenth) / 10.0);
            assert!(value <= last && value > 1.96);
            last = value;
        }
    }

    #[test]
    fn quantiles_are_numpys() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&sorted, 0.5), Some(3.0));
        assert!(near(quantile(&sorted, 0.9).unwrap(), 6.8));
        assert_eq!(
            (quantile(&sorted, 0.0), quantile(&sorted, 1.0)),
            (Some(1.0), Some(8.0))
        );
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn welch_tells_a_change_from_chance() {
        // By hand: variances 0.053 and 0.025, so t = 6.89 at 7.09 degrees of freedom.
        let first = Sample::of(&[10.1, 9.8, 10.4, 10.0, 9.9]).unwrap();
        let second = Sample::of(&[11.0, 10.8, 11.1, 10.7, 10.9]).unwrap();
        let seen = contrast(&first, &second);
        assert!(near(seen.change, 0.86) && seen.is_significant == Some(true));
        assert!(
            seen.interval
                .is_some_and(|(low, high)| near(low, 0.564_6) && near(high, 1.155_4))
        );
        let again = contrast(&first, &Sample::of(&[10.0, 10.3, 9.7, 10.2, 9.9]).unwrap());
        assert_eq!(again.is_significant, Some(false));
        let single = contrast(&Sample::of(&[1.0]).unwrap(), &Sample::of(&[2.0]).unwrap());
        assert_eq!((single.interval, single.is_significant), (None, None));
        let exact = contrast(
            &Sample::of(&[1.0, 1.0]).unwrap(),
            &Sample::of(&[2.0, 2.0]).unwrap(),
        );
        assert_eq!(exact.is_significant, Some(true));
    }

    #[test]
    fn growth_finds_the_exponent() {
        let points: Vec<(f64, f64)> = [1e4, 1e5, 1e6].map(|n: f64| (n, 3.0 * n * n.sqrt())).to_vec();
        let fit = growth(&points).unwrap();
        assert!(near(fit.exponent, 1.5) && near(fit.factor, 3.0) && near(fit.explained, 1.0));
        assert!(
            fit.interval
                .is_some_and(|(low, high)| low <= 1.500_1 && high >= 1.499_9)
        );
        assert_eq!(growth(&[(5.0, 1.0), (5.0, 2.0)]), None);
        assert_eq!(growth(&[(5.0, 1.0), (-1.0, 2.0)]), None);
    }

    proptest! {
        #[test]
        fn means_and_quantiles_lie_inside(values in prop::collection::vec(-1e9..1e9f64, 1..40), share in 0.0..=1.0f64) {
            let sample = Sample::of(&values).unwrap();
            let slack = 1e-6;
            prop_assert!(sample.mean >= sample.smallest - slack && sample.mean <= sample.largest + slack);
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let found = quantile(&sorted, share).unwrap();
            prop_assert!(found >= sample.smallest - slack && found <= sample.largest + slack);
        }
    }
}
