//! Which plots an experiment gets: figures over what was varied, then over time, then distributions.

use super::markup::{with_unit, words};
use super::plot::{Bars, Line, MAX_LINES, Plot, Point, Shape};
use crate::results::statistics::Sample;
use crate::results::summary::{Summary, Variant, label};
use crate::results::table::number;
use crate::results::{Experiment, RunResult, unit_of};

/// The most metrics that have a plot of their own.
const MAX_METRICS: usize = 6;
/// The most series, and the most distributions, that have a plot.
const MAX_KINDS: usize = 8;
/// The most points of a line.
const MAX_POINTS: usize = 400;
/// The most bars of a plot.
const MAX_BARS: usize = 24;

/// For how many seconds of virtual time what a run showed last still counts.
const LATE_S: f64 = 1.0;

const BAND: &str = "The band is the 95 % confidence interval of the mean over seeds.";

/// Every plot as HTML, in the order in which they are read.
#[must_use]
pub fn figures(experiment: &Experiment, summary: &Summary) -> Vec<String> {
    let mut figures = Vec::new();
    if summary.variants.len() > 1 {
        for metric in summary.foremost(MAX_METRICS) {
            let id = figures.len();
            figures.extend(over_variants(summary, metric, id));
        }
    }
    let shown = evenly(&summary.variants);
    for name in names(experiment, |run| {
        run.series.iter().map(|series| (&*series.name, &*series.unit))
    }) {
        let plot = over_time(experiment, summary, &shown, name);
        // What never happened in any variant, such as jobs where nobody asks, has nothing to show.
        let has_risen = plot
            .lines
            .iter()
            .flat_map(|line| &line.points)
            .any(|point| point.y != 0.0);
        if has_risen {
            figures.push(plot.figure(figures.len()));
        }
    }
    for name in names(experiment, |run| {
        run.distributions
            .iter()
            .map(|distribution| (&*distribution.name, &*distribution.unit))
    }) {
        let plot = cumulative(experiment, summary, &shown, name);
        // A value that never differs is in the table of all figures.
        if plot.lines.iter().any(|line| line.points.len() > 1) {
            figures.push(plot.figure(figures.len()));
        }
    }
    figures
}

/// The parameter along whose values plots run: of those with numbers only, the one with most.
#[must_use]
pub fn main_parameter(summary: &Summary) -> Option<&str> {
    let numeric = summary
        .varied
        .iter()
        .filter(|(_, values)| values.iter().all(|value| number(value).is_some()));
    // Of equally many the first in the alphabet, so that it does not depend on the order.
    let most = numeric.min_by_key(|(_, values)| usize::MAX - values.len());
    most.map(|(name, _)| name.as_str())
}

fn over_variants(summary: &Summary, metric: &str, id: usize) -> Option<String> {
    if !summary
        .variants
        .iter()
        .any(|variant| variant.metrics.contains_key(metric))
    {
        return None;
    }
    let measured = with_unit(&words(metric), unit_of(metric));
    let Some(parameter) = main_parameter(summary) else {
        return Some(bars(summary, metric, measured).figure(id));
    };
    let mut lines: Vec<Line> = Vec::new();
    for variant in &summary.variants {
        let value = variant.parameters.get(parameter).and_then(|value| number(value));
        if let (Some(x), Some(sample)) = (value, variant.metrics.get(metric)) {
            let label = others(summary, variant, parameter);
            let point = point(x, &possible(sample, metric));
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    label,
                    points: vec![point],
                }),
            }
        }
    }
    let all = lines.len();
    lines.truncate(MAX_LINES);
    for line in &mut lines {
        // The grid may have another order.
        line.points.sort_by(|one, other| one.x.total_cmp(&other.x));
    }
    let title = format!("{} over {}", sentence(&words(metric)), words(parameter));
    let plot = Plot {
        description: description(&lines, parameter),
        title,
        across: with_unit(&words(parameter), unit_of(parameter)),
        upward: measured,
        shape: Shape::Marked,
        note: note(all, has_band(&lines)),
        lines,
    };
    Some(plot.figure(id))
}

fn has_band(lines: &[Line]) -> bool {
    let mut points = lines.iter().flat_map(|line| &line.points);
    points.any(|point| point.interval.is_some())
}

fn note(lines: usize, has_band: bool) -> String {
    let band = if has_band {
        BAND
    } else {
        "One seed each: how far chance goes is not known."
    };
    if lines > MAX_LINES {
        return format!("{band} {MAX_LINES} of {lines} lines are shown; metrics.csv has all.");
    }
    band.to_owned()
}

/// Without the part of an interval that no value can be in: below nothing for what was never below it, beyond all for a share.
fn possible(sample: &Sample, metric: &str) -> Sample {
    let mut sample = *sample;
    if let Some((low, high)) = &mut sample.interval {
        if sample.smallest >= 0.0 {
            *low = low.max(0.0);
        }
        if unit_of(metric) == "share" && sample.largest <= 1.0 {
            *high = high.min(1.0);
        }
    }
    sample
}

fn point(x: f64, sample: &Sample) -> Point {
    Point {
        x,
        y: sample.mean,
        interval: sample.interval,
    }
}

/// A variant's varied parameters other than one.
fn others(summary: &Summary, variant: &Variant, parameter: &str) -> String {
    let rest = variant.parameters.iter();
    let rest = rest.filter(|(name, _)| *name != parameter && summary.varied.contains_key(*name));
    label(&rest.map(|(name, value)| (words(name), value.clone())).collect())
}

/// A variant's varied parameters.
#[must_use]
pub fn varied_label(summary: &Summary, variant: &Variant) -> String {
    others(summary, variant, "")
}

fn bars(summary: &Summary, metric: &str, along: String) -> Bars {
    let only = summary.varied.keys().next().filter(|_| summary.varied.len() == 1);
    let bar = |variant: &Variant| {
        let sample = variant.metrics.get(metric)?;
        // Where but one thing is varied, the title names it once for all.
        let value = only.and_then(|name| variant.parameters.get(name).cloned());
        Some((
            value.unwrap_or_else(|| varied_label(summary, variant)),
            point(0.0, &possible(sample, metric)),
        ))
    };
    let all: Vec<(String, Point)> = summary.variants.iter().filter_map(bar).collect();
    let texts: Vec<String> = all
        .iter()
        .take(MAX_BARS)
        .map(|(name, point)| format!("{name}: {}", super::number::plain(point.y)))
        .collect();
    let more = if all.len() > MAX_BARS {
        format!(
            " {MAX_BARS} of {} bars are shown; metrics.csv has all.",
            all.len()
        )
    } else {
        String::new()
    };
    Bars {
        title: format!(
            "{} by {}",
            sentence(&words(metric)),
            only.map_or("variant".into(), |name| words(name))
        ),
        description: texts.join("; "),
        along,
        note: format!("Whiskers are 95 % confidence intervals of the mean over seeds.{more}"),
        bars: all.into_iter().take(MAX_BARS).collect(),
    }
}

/// What a line does in words: where it begins and ends.
fn description(lines: &[Line], parameter: &str) -> String {
    let texts = lines.iter().filter_map(|line| {
        let (first, last) = (line.points.first()?, line.points.last()?);
        let plain = super::number::plain;
        Some(format!(
            "{}: {} at {} {}, {} at {} {}",
            line.label,
            plain(first.y),
            words(parameter),
            plain(first.x),
            plain(last.y),
            words(parameter),
            plain(last.x)
        ))
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// At most as many variants as one plot can show, from the first to the last.
fn evenly(variants: &[Variant]) -> Vec<&Variant> {
    if variants.len() <= MAX_LINES {
        return variants.iter().collect();
    }
    let last = variants.len() - 1;
    (0..MAX_LINES)
        .map(|step| &variants[step * last / (MAX_LINES - 1)])
        .collect()
}

/// The names and units that any run has, each once, in the order of their first run.
fn names<'a, I>(experiment: &'a Experiment, of: fn(&'a RunResult) -> I) -> Vec<(&'a str, &'a str)>
where
    I: Iterator<Item = (&'a str, &'a str)>,
{
    let mut names: Vec<(&str, &str)> = Vec::new();
    for (name, unit) in experiment.runs.iter().flat_map(of) {
        if names.len() < MAX_KINDS && !names.iter().any(|(known, _)| *known == name) {
            names.push((name, unit));
        }
    }
    names
}

fn runs<'a>(experiment: &'a Experiment, variant: &Variant) -> Vec<&'a RunResult> {
    let places = variant.runs.iter();
    places.filter_map(|place| experiment.runs.get(*place)).collect()
}

/// A line for each variant that has points at all.
fn lines(summary: &Summary, shown: &[&Variant], points: impl Fn(&Variant) -> Vec<Point>) -> Vec<Line> {
    let line = |variant: &&Variant| Line {
        label: varied_label(summary, variant),
        points: thinned(points(variant)),
    };
    let all = shown.iter().map(line);
    all.filter(|line| !line.points.is_empty()).collect()
}

fn over_time(
    experiment: &Experiment,
    summary: &Summary,
    shown: &[&Variant],
    (name, unit): (&str, &str),
) -> Plot {
    let lines = lines(summary, shown, |variant| {
        mean_over_seeds(&runs(experiment, variant), name)
    });
    let has_band = has_band(&lines);
    Plot {
        title: format!("{} over time", sentence(&name.replace('_', " "))),
        description: description(&lines, "time"),
        across: "virtual time (s)".into(),
        upward: with_unit(&name.replace('_', " "), unit),
        shape: Shape::Smooth,
        note: shown_note(has_band.then_some(BAND), shown, summary),
        lines,
    }
}

fn shown_note(first: Option<&str>, shown: &[&Variant], summary: &Summary) -> String {
    let more = (shown.len() < summary.variants.len()).then(|| {
        format!(
            "{} of {} variants are shown.",
            shown.len(),
            summary.variants.len()
        )
    });
    let parts: Vec<&str> = first.into_iter().chain(more.as_deref()).collect();
    parts.join(" ")
}

/// The mean at the times of the first run, while every run lasts: of a run that was looked at at other times, what it
/// showed last.
fn mean_over_seeds(runs: &[&RunResult], name: &str) -> Vec<Point> {
    let found = runs
        .iter()
        .filter_map(|run| run.series.iter().find(|series| series.name == name));
    let all: Vec<&[(f64, f64)]> = found.map(|series| series.points.as_slice()).collect();
    let Some((first, rest)) = all.split_first() else {
        return Vec::new();
    };
    let at = |points: &&[(f64, f64)], at_s: f64| {
        let (last_s, _) = *points.last()?;
        let seen = points.partition_point(|point| point.0 <= at_s);
        // The ends of two runs may lie a little apart.
        (at_s <= last_s + LATE_S)
            .then(|| points.get(seen.checked_sub(1)?))?
            .map(|point| point.1)
    };
    let mean = |(at_s, value): &(f64, f64)| {
        let mut values = vec![*value];
        for points in rest {
            values.push(at(points, *at_s)?);
        }
        Some(point(*at_s, &possible(&Sample::of(&values)?, name)))
    };
    first.iter().filter_map(mean).collect()
}

/// As many points as a plot can show, the last always among them.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let (count, every) = (points.len(), points.len().div_ceil(MAX_POINTS).max(1));
    let kept = points.into_iter().enumerate();
    kept.filter(|(place, _)| place.is_multiple_of(every) || place + 1 == count)
        .map(|(_, point)| point)
        .collect()
}

fn cumulative(
    experiment: &Experiment,
    summary: &Summary,
    shown: &[&Variant],
    (name, unit): (&str, &str),
) -> Plot {
    let lines = lines(summary, shown, |variant| shares(&runs(experiment, variant), name));
    let measured = name.replace('_', " ");
    let middle = |line: &Line| {
        let middle = line.points.iter().find(|point| point.y >= 0.5)?;
        Some(format!(
            "{}: half is at most {}",
            line.label,
            super::number::plain(middle.x)
        ))
    };
    Plot {
        title: format!("{}: share that is at most so large", sentence(&measured)),
        description: lines.iter().filter_map(middle).collect::<Vec<_>>().join("; "),
        across: with_unit(&measured, unit),
        upward: "share of all".into(),
        shape: Shape::Stepped,
        note: shown_note(Some("All seeds of a variant together."), shown, summary),
        lines,
    }
}

/// The share of all values that is not above each bucket's limit.
fn shares(runs: &[&RunResult], name: &str) -> Vec<Point> {
    let found = runs.iter().filter_map(|run| {
        run.distributions
            .iter()
            .find(|distribution| distribution.name == name)
    });
    let mut buckets: Vec<(f64, u64)> = found
        .flat_map(|distribution| distribution.buckets.clone())
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let all: f64 = buckets.iter().map(|(_, count)| *count as f64).sum();
    let mut seen = 0.0;
    let mut points: Vec<Point> = Vec::new();
    for (upper, count) in buckets {
        seen += count as f64;
        let y = if all > 0.0 { seen / all } else { 0.0 };
        match points.last_mut() {
            Some(last) if last.x == upper => last.y = y,
            _ => points.push(Point {
                x: upper,
                y,
                interval: None,
            }),
        }
    }
    points
}

/// Words with a capital letter.
#[must_use]
pub fn sentence(words: &str) -> String {
    let mut characters = words.chars();
    let first = characters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run_of;

    fn places(points: &[Point]) -> Vec<(f64, f64)> {
        points.iter().map(|point| (point.x, point.y)).collect()
    }

    #[test]
    fn distributions_of_all_seeds_add_up_to_all() {
        let mut runs = [run_of(&[], 1), run_of(&[], 2)];
        runs[0].distributions[0].buckets = vec![(0.5, 1), (1.0, 2)];
        runs[1].distributions[0].buckets = vec![(0.5, 3), (4.0, 2)];
        let points = shares(&[&runs[0], &runs[1]], "delivery");
        assert_eq!(places(&points), [(0.5, 0.5), (1.0, 0.75), (4.0, 1.0)]);
        runs[0].distributions[0].buckets = vec![(0.5, 0)];
        assert_eq!(places(&shares(&[&runs[0]], "delivery")), [(0.5, 0.0)]);
        assert!(shares(&[&runs[0]], "another").is_empty());
    }

    #[test]
    fn a_mean_over_seeds_is_of_what_each_showed_last() {
        let mut runs = [run_of(&[], 1), run_of(&[], 2)];
        runs[0].series[0].points = vec![(0.0, 1.0), (10.0, 2.0), (20.0, 3.0), (40.0, 7.0)];
        runs[1].series[0].points = vec![(0.0, 3.0), (15.0, 9.0), (19.5, 5.0)];
        let points = mean_over_seeds(&[&runs[0], &runs[1]], "known_providers");
        // The second run ends before 40 s.
        assert_eq!(places(&points), [(0.0, 2.0), (10.0, 2.5), (20.0, 4.0)]);
        assert!(
            points[0]
                .interval
                .is_some_and(|(low, high)| low < 1.0 && high > 3.0)
        );
    }

    #[test]
    fn what_never_happened_has_no_plot() {
        let plots = |run: RunResult| {
            let experiment = Experiment::of_run(run);
            figures(&experiment, &Summary::of(&experiment)).len()
        };
        let mut run = run_of(&[], 1);
        assert_eq!(plots(run.clone()), 2);
        run.series[0].points = vec![(0.0, 0.0), (10.0, 0.0)];
        run.distributions[0].buckets.clear();
        assert_eq!(plots(run), 0);
    }

    #[test]
    fn long_lines_keep_their_ends() {
        let point = |x: u32| Point {
            x: f64::from(x),
            y: 0.0,
            interval: None,
        };
        let thin = thinned((0..10_000).map(point).collect());
        assert!(thin.len() <= MAX_POINTS + 1);
        assert_eq!((thin[0].x, thin[thin.len() - 1].x), (0.0, 9_999.0));
    }

    #[test]
    fn of_many_variants_the_first_and_the_last_are_shown() {
        let runs = (0..20).map(|churn| run_of(&[("churn", &churn.to_string())], 1));
        let experiment = Experiment {
            runs: runs.collect(),
            ..Experiment::of_run(run_of(&[], 1))
        };
        let summary = Summary::of(&experiment);
        let shown: Vec<String> = evenly(&summary.variants)
            .iter()
            .map(|variant| variant.label())
            .collect();
        assert_eq!(shown.len(), MAX_LINES);
        assert_eq!((&*shown[0], &*shown[MAX_LINES - 1]), ("churn = 0", "churn = 19"));
        assert!(
            figures(&experiment, &summary)
                .concat()
                .contains("6 of 20 variants are shown.")
        );
    }
}
