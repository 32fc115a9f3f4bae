//! The sentence that answers a scenario's question, made of the figures of its variants, and what is expected of them.
//!
//! In the sentence, `{metric}` stands for a figure: of the only variant, or of all of them in a row ("1, 2 and 3").
//! `{metric[first]}` and `{metric[last]}` are those of the first and the last variant, `{metric[2]}` that of the second.
//! A varied key in place of a metric gives its value. `{metric|percent}`, `|seconds`, `|bytes`, `|credits` say how a
//! number is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

/// The section `[answer]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The sentence with its figures in braces.
    #[serde(default)]
    pub sentence: String,
    /// The metrics that answer the question, the most important one first.
    #[serde(default)]
    pub headline: Vec<String>,
}

/// What must be true of a figure: a table of `[[expect]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Which figure.
    pub metric: String,
    /// It is not below this.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// It is not above this.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// Of which variants it is expected; of all where there is none.
    #[serde(default)]
    pub of: Option<Which>,
    /// Why one may expect it.
    pub because: String,
}

/// One of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The first one.
    First,
    /// The last one.
    Last,
}

/// The figures of a variant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figured {
    /// The varied keys with their values.
    pub parameters: BTreeMap<String, String>,
    /// The figures by name, over several seeds their means.
    pub metrics: BTreeMap<String, f64>,
}

/// Why a sentence cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// A name that is neither a metric nor a varied key.
    #[error("the answer names {{{name}}}, which is no metric of this run; there are {known}")]
    Unknown {
        /// What is named.
        name: String,
        /// What could be.
        known: String,
    },
    /// A brace or a bracket that is not closed, a variant that is not there, a format that is none.
    #[error("the answer has {{{name}}}: {problem}")]
    Form {
        /// What stands in the braces.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Answer {
    /// The sentence with its figures. A figure of a variant by its number is only made where the variants are those
    /// that the scenario's file compares, all of them.
    ///
    /// # Errors
    /// [`AnswerError`] naming what stands in the braces.
    pub fn sentence(&self, variants: &[Figured], are_those_of_the_file: bool) -> Result<String, AnswerError> {
        let mut sentence = String::new();
        let mut rest = self.sentence.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            sentence.push_str(before);
            let Some((inside, behind)) = after.split_once('}') else {
                return Err(form(after, "the brace is not closed"));
            };
            sentence.push_str(&figure(inside, variants, are_those_of_the_file)?);
            rest = behind;
        }
        sentence.push_str(rest);
        Ok(sentence.trim().to_owned())
    }
}

impl Expectation {
    /// What is not as expected, in words; nothing where all is well. A figure that is not there is not as expected.
    #[must_use]
    pub fn failures(&self, variants: &[Figured]) -> Vec<String> {
        let chosen = match self.of {
            None => variants,
            Some(Which::First) => variants.get(..1).unwrap_or_default(),
            Some(Which::Last) => variants
                .get(variants.len().saturating_sub(1)..)
                .unwrap_or_default(),
        };
        chosen
            .iter()
            .filter_map(|variant| self.failure(variant))
            .collect()
    }

    fn failure(&self, variant: &Figured) -> Option<String> {
        let Self { metric, because, .. } = self;
        let place = place(&variant.parameters);
        let Some(value) = variant.metrics.get(metric) else {
            return Some(format!(
                "{metric} is not measured{place}; expected because {because}"
            ));
        };
        let bound = match (self.at_least, self.at_most) {
            (Some(least), _) if value.total_cmp(&least).is_lt() => format!("at least {least}"),
            (_, Some(most)) if value.total_cmp(&most).is_gt() => format!("at most {most}"),
            _ => return None,
        };
        Some(format!(
            "{metric} is {value}{place}, expected {bound} because {because}"
        ))
    }
}

fn place(parameters: &BTreeMap<String, String>) -> String {
    if parameters.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    format!(" where {}", pairs.join(", "))
}

fn form(name: &str, problem: impl Into<String>) -> AnswerError {
    AnswerError::Form {
        name: name.chars().take(80).collect(),
        problem: problem.into(),
    }
}

/// What stands in the place of one pair of braces.
fn figure(inside: &str, variants: &[Figured], are_those_of_the_file: bool) -> Result<String, AnswerError> {
    let (what, format) = inside.split_once('|').unwrap_or((inside, ""));
    let (name, which) = match what.split_once('[') {
        Some((name, which)) => {
            let which = which
                .strip_suffix(']')
                .ok_or_else(|| form(inside, "the bracket is not closed"))?;
            (name, Some(which))
        }
        None => (what, None),
    };
    let chosen: Vec<&Figured> = match which {
        None => variants.iter().collect(),
        Some("first") => variants.first().into_iter().collect(),
        Some("last") => variants.last().into_iter().collect(),
        Some(number) => {
            if !are_those_of_the_file {
                let problem = "these runs are not of all variants that the scenario compares";
                return Err(form(inside, problem));
            }
            let index = number
                .parse::<usize>()
                .ok()
                .and_then(|number| number.checked_sub(1));
            let found = index.and_then(|index| variants.get(index));
            vec![found.ok_or_else(|| form(inside, format!("there is no variant {number}")))?]
        }
    };
    let words: Vec<String> = chosen
        .into_iter()
        .map(
            |variant| match value(name.trim(), format.trim(), inside, variant) {
                // A figure of what is not there in this variant, such as of a group of nobody.
                Err(AnswerError::Unknown { .. }) if is_known(name.trim(), variants) => Ok("none".to_owned()),
                made => made,
            },
        )
        .collect::<Result<_, _>>()?;
    Ok(row(&words))
}

/// Whether some variant has such a figure.
fn is_known(name: &str, variants: &[Figured]) -> bool {
    variants.iter().any(|variant| variant.metrics.contains_key(name))
}

/// Words in a row: "1, 2 and 3".
fn row(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn value(name: &str, format: &str, inside: &str, variant: &Figured) -> Result<String, AnswerError> {
    let ending = format!(".{name}");
    let mut parameters = variant.parameters.iter();
    if let Some((_, value)) = parameters.find(|(key, _)| *key == name || key.ends_with(&ending)) {
        return match value.parse::<f64>() {
            Ok(number) => written(number, format).ok_or_else(|| no_format(inside)),
            Err(_) => Ok(value.clone()),
        };
    }
    let Some(number) = variant.metrics.get(name) else {
        let known: Vec<&str> = variant.metrics.keys().map(String::as_str).collect();
        return Err(AnswerError::Unknown {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    written(*number, format).ok_or_else(|| no_format(inside))
}

fn no_format(inside: &str) -> AnswerError {
    form(inside, "behind | one writes percent, seconds, bytes or credits")
}

/// A number for people; none where there is no such format.
fn written(number: f64, format: &str) -> Option<String> {
    Some(match format {
        "" => short(number),
        "percent" => format!("{} %", short(number * 100.0)),
        "seconds" => seconds(number),
        "bytes" => scaled(number, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B"),
        "credits" => format!("{} credits", short(number / 1e6)),
        _ => return None,
    })
}

fn seconds(number: f64) -> String {
    if number.abs() >= 0.0005 && number.abs() < 1.0 {
        return format!("{} ms", short(number * 1_000.0));
    }
    scaled(number, &[(86_400.0, "d"), (3_600.0, "h"), (120.0, "")], "s")
}

fn scaled(number: f64, units: &[(f64, &str)], unit: &str) -> String {
    let found = units.iter().find(|(size, _)| number.abs() >= *size);
    match found {
        Some((_, "")) => format!("{} min", short(number / 60.0)),
        Some((size, unit)) => format!("{} {unit}", short(number / size)),
        None => format!("{} {unit}", short(number)),
    }
}

/// Three digits that count, or a whole number with its thousands apart.
fn short(number: f64) -> String {
    let size = number.abs();
    if size >= 1_000.0 {
        let whole = format!("{number:.0}");
        let (sign, digits) = whole
            .strip_prefix('-')
            .map_or(("", whole.as_str()), |digits| ("-", digits));
        let mut apart = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                apart.push(',');
            }
            apart.push(digit);
        }
        return format!("{sign}{apart}");
    }
    let places = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if !(f64::EPSILON..1.0).contains(&size) => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{number:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants() -> Vec<Figured> {
        [(100, 1.0, 0.25), (1_000, 0.987_6, 3_700.0), (100_000, 0.5, 90.0)]
            .into_iter()
            .map(|(nodes, reach, time_s)| Figured {
                parameters: [("gossip.nodes".to_owned(), nodes.to_string())].into(),
                metrics: [("reach_share".to_owned(), reach), ("time_s".to_owned(), time_s)].into(),
            })
            .collect()
    }

    fn sentence(text: &str, variants: &[Figured]) -> Result<String, AnswerError> {
        let answer = Answer {
            sentence: text.to_owned(),
            ..Answer::default()
        };
        answer.sentence(variants, variants.len() == 3)
    }

    #[test]
    fn figures_stand_in_the_sentence() {
        let all = variants();
        assert_eq!(
            sentence(
                "At {nodes} nodes {reach_share|percent} in {time_s|seconds}.",
                &all
            )
            .unwrap(),
            "At 100, 1,000 and 100,000 nodes 100 %, 98.8 % and 50 % in 250 ms, 1.03 h and 90 s."
        );
        assert_eq!(
            sentence(
                "{reach_share[first]} to {reach_share[last]}, {time_s[2]|bytes}",
                &all
            )
            .unwrap(),
            "1 to 0.5, 3.7 kB"
        );
        assert_eq!(sentence("{nodes}: {time_s}", &all[..1]).unwrap(), "100: 0.25");
        assert_eq!(sentence("{time_s}", &[]).unwrap(), "nothing");
        let some = sentence("{time_s[1]}", &all[1..]).unwrap_err().to_string();
        assert!(some.contains("not of all variants"), "{some}");
        let mut some = variants();
        some[1].metrics.remove("time_s");
        assert_eq!(sentence("{time_s}", &some).unwrap(), "0.25, none and 90");
    }

    #[test]
    fn what_the_sentence_gets_wrong_is_named() {
        let all = variants();
        for (text, part) in [
            ("{reached}", "there are reach_share, time_s"),
            ("{reach_share", "not closed"),
            ("{reach_share[first}", "not closed"),
            ("{reach_share|furlongs}", "percent"),
            ("{reach_share[4]}", "there is no variant 4"),
            ("{reach_share[0]}", "there is no variant 0"),
            ("{reach_share[]}", "there is no variant"),
        ] {
            let error = sentence(text, &all).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_as_expected_is_said() {
        let expectation = |metric: &str, at_least, at_most, of| Expectation {
            metric: metric.to_owned(),
            at_least,
            at_most,
            of,
            because: "the graph is connected".to_owned(),
        };
        let all = variants();
        let failures = expectation("reach_share", Some(0.9), None, None).failures(&all);
        assert_eq!(
            failures,
            [
                "reach_share is 0.5 where gossip.nodes = 100000, expected at least 0.9 because the graph is connected"
            ]
        );
        assert!(
            expectation("reach_share", Some(0.9), None, Some(Which::First))
                .failures(&all)
                .is_empty()
        );
        assert_eq!(
            expectation("reach_share", None, Some(0.4), Some(Which::Last))
                .failures(&all)
                .len(),
            1
        );
        assert_eq!(expectation("reached", None, None, None).failures(&all).len(), 3);
    }
}
