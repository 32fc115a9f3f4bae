//! The report of an experiment: one HTML file that needs nothing else, for a reader who wants the answer first and
//! everything to check it after. Without scripts and addresses; a policy in the page forbids both.

pub mod axis;
pub mod figures;
pub mod markup;
pub mod number;
pub mod plot;
mod sections;

use std::fmt::Write;

use self::figures::{main_parameter, sentence, varied_label};
use self::markup::{Text, words};
use super::summary::{Summary, Variant};
use super::{Experiment, unit_of};

const STYLE: &str = include_str!("report/style.css");

/// The page.
#[must_use]
pub fn page(experiment: &Experiment) -> String {
    let summary = Summary::of(experiment);
    let first = experiment.runs.first().map(|run| &run.manifest);
    let question = first.map_or(experiment.name.as_str(), |manifest| manifest.question.as_str());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"over\">Gristmill simulation: {1}</p>\n<h1>{0}</h1>\n<p class=\"answer\">{2}</p>\n",
        Text(question),
        Text(&experiment.name),
        Text(&answer(experiment, &summary))
    );
    sections::warnings(&mut page, experiment, &summary);
    sections::varied(&mut page, experiment, &summary);
    sections::headline(&mut page, &summary);
    let figures = figures::figures(experiment, &summary);
    if !figures.is_empty() {
        let _ = write!(
            page,
            "<h2>Plots</h2>\n<div class=\"figures\">\n{}</div>\n",
            figures.concat()
        );
    }
    sections::growth(&mut page, &summary);
    sections::tables(&mut page, experiment);
    sections::all_metrics(&mut page, &summary);
    sections::origin(&mut page, experiment, &summary);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// The answer that somebody gave, or a sentence of the first headline metric.
#[must_use]
pub fn answer(experiment: &Experiment, summary: &Summary) -> String {
    if let Some(answer) = &experiment.answer {
        return answer.clone();
    }
    let known = |metric: &&String| {
        summary
            .variants
            .iter()
            .all(|variant| variant.metrics.contains_key(*metric))
    };
    let (Some(metric), Some(first)) = (summary.metrics.iter().find(known), summary.variants.first()) else {
        return "The runs have no metric in common that could answer.".into();
    };
    let name = sentence(&words(metric));
    if summary.variants.len() == 1 {
        return format!("{name} is {}.", told(first, metric));
    }
    let ends = match main_parameter(summary) {
        Some(parameter) if summary.varied.len() == 1 => {
            let last = summary.variants.last().unwrap_or(first);
            let value = |variant: &Variant| variant.parameters.get(parameter).cloned().unwrap_or_default();
            return format!(
                "{name} goes from {} at {parameter} = {} to {} at {parameter} = {}.",
                told(first, metric),
                value(first),
                told(last, metric),
                value(last)
            );
        }
        _ => extremes(summary, metric),
    };
    let Some((lowest, highest)) = ends else {
        return format!("{name} is not known.");
    };
    format!(
        "{name} is lowest with {}, {}, and highest with {}, {}.",
        varied_label(summary, lowest),
        told(lowest, metric),
        varied_label(summary, highest),
        told(highest, metric)
    )
}

fn extremes<'a>(summary: &'a Summary, metric: &str) -> Option<(&'a Variant, &'a Variant)> {
    let mean = |variant: &&Variant| variant.metrics.get(metric).map_or(0.0, |sample| sample.mean);
    let by_mean = |one: &&Variant, other: &&Variant| mean(one).total_cmp(&mean(other));
    let variants = || summary.variants.iter();
    Some((variants().min_by(by_mean)?, variants().max_by(by_mean)?))
}

/// A metric with its unit and how sure it is.
fn told(variant: &Variant, metric: &str) -> String {
    let Some(sample) = variant.metrics.get(metric) else {
        return "unknown".into();
    };
    let unit = match unit_of(metric) {
        "" | "share" => String::new(),
        unit => format!("\u{202f}{unit}"),
    };
    let seeds = if sample.count == 1 { " (one seed)" } else { "" };
    format!("{}{unit}{seeds}", number::sample(sample))
}

#[cfg(test)]
mod tests;
