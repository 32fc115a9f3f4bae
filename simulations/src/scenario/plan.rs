//! What is run of a scenario: its question, the variants that it compares, what it expects of them and the sentence
//! that answers.
//!
//! Three sections of the file are the plan's own: `[vary]` lists the values of some keys, `[small]` says what is
//! changed where the run has to be quick, `[answer]` holds the sentence, and `[[expect]]` what must be true of
//! figures. All others say what world is run.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::answer::{Answer, Expectation};
use super::document::{Change, Document, DocumentError, Root};
use super::question;

/// Most variants of one plan.
pub const VARIANTS_MAX: usize = 10_000;

/// Why a text is no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A mistake in the text or in a change of it.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The first line asks nothing.
    #[error("line 1: the first line of a scenario is the question it asks, as a comment: '# How …?'")]
    Question,
    /// Nothing to vary.
    #[error("{key} is varied over nothing; write its values, such as {key}=1,2,3")]
    NoValues {
        /// The key.
        key: String,
    },
    /// Too much.
    #[error("the plan has more than {VARIANTS_MAX} variants; vary fewer keys or values")]
    TooManyVariants,
}

/// A key and the values that it takes in the variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// The whole key.
    pub key: String,
    /// The values as TOML.
    pub values: Vec<String>,
}

/// One world of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The varied keys with their values here.
    pub parameters: BTreeMap<String, String>,
    document: Document,
}

/// All that a plan is made of, to keep beside what was run of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The scenario's short name.
    pub name: String,
    /// What names it on a command line: its file, or its name where it comes with the program.
    pub source: String,
    /// The file's text.
    pub text: String,
    /// What was changed in all variants.
    pub changes: Vec<Change>,
    /// What is varied.
    pub dimensions: Vec<Dimension>,
}

impl Recipe {
    /// The plan again.
    ///
    /// # Errors
    /// [`PlanError`] where the recipe was changed by hand.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let mut plan = Plan::parse(&self.name, &self.text)?;
        plan.source.clone_from(&self.source);
        plan.small.clear();
        for Change { key, value } in &self.changes {
            plan.document.change_exactly(key.clone(), value)?;
        }
        plan.dimensions.clone_from(&self.dimensions);
        Ok(plan)
    }
}

/// A scenario, and what is run of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// A short name: that of the file.
    pub name: String,
    /// What names it on a command line: its file, or its name where it comes with the program.
    pub source: String,
    /// The first line of the file.
    pub question: String,
    /// What answers the question.
    pub answer: Answer,
    /// What must be true of the figures.
    pub expectations: Vec<Expectation>,
    document: Document,
    dimensions: Vec<Dimension>,
    /// The keys that the file varies.
    varied_in_file: Vec<String>,
    small: Vec<Change>,
}

impl Plan {
    /// Reads a scenario's file. The world itself is read per variant, by [`Variant::read`].
    ///
    /// # Errors
    /// [`PlanError`] naming line and key.
    pub fn parse(name: &str, text: &str) -> Result<Self, PlanError> {
        let question = question(text).ok_or(PlanError::Question)?;
        let document = Document::parse(text)?;
        let mut root = document.root()?;
        let dimensions = match root.get_mut().remove("vary") {
            Some(vary) => dimensions_of(&document, &vary)?,
            None => Vec::new(),
        };
        let small = match root.get_mut().remove("small") {
            Some(small) => leaves(&document, &small)?
                .into_iter()
                .map(|(key, value)| Change::new(key, document.written(value.span())))
                .collect(),
            None => Vec::new(),
        };
        let answer = part(&document, &mut root, "answer")?.unwrap_or_default();
        let expectations = part(&document, &mut root, "expect")?.unwrap_or_default();
        drop(root);
        Ok(Self {
            name: name.to_owned(),
            source: name.to_owned(),
            question,
            answer,
            expectations,
            document,
            varied_in_file: dimensions.iter().map(|dimension| dimension.key.clone()).collect(),
            dimensions,
            small,
        })
    }

    /// All that it is made of.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        Recipe {
            name: self.name.clone(),
            source: self.source.clone(),
            text: self.text().to_owned(),
            changes: self.changes().to_vec(),
            dimensions: self.dimensions.clone(),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.document.text()
    }

    /// What is changed in all variants, with whole keys.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        self.document.changes()
    }

    /// What is varied.
    #[must_use]
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Whether it varies the keys that its file does, in the same order, so that the sentence of the file's `[answer]`
    /// can speak of variants by their numbers.
    #[must_use]
    pub fn varies_as_its_file(&self) -> bool {
        let keys = self.dimensions.iter().map(|dimension| &dimension.key);
        keys.eq(&self.varied_in_file)
    }

    /// Applies the section `[small]`.
    ///
    /// # Errors
    /// [`PlanError`] where a change does not fit.
    pub fn make_small(&mut self) -> Result<(), PlanError> {
        for change in std::mem::take(&mut self.small) {
            if let Some(key) = change.key.strip_prefix("vary.") {
                let values = values_of(&change)?;
                self.vary(key, values)?;
            } else {
                self.change(&change)?;
            }
        }
        Ok(())
    }

    /// Changes a key in all variants. A key that was varied no longer is.
    ///
    /// # Errors
    /// [`PlanError`] where the change does not fit.
    pub fn change(&mut self, change: &Change) -> Result<(), PlanError> {
        let key = self.whole_key(change)?;
        self.dimensions.retain(|dimension| dimension.key != key);
        self.document.change_exactly(key, &change.value)?;
        Ok(())
    }

    /// Varies a key over these values instead of its own.
    ///
    /// # Errors
    /// [`PlanError`] where the key is not known, or there are no or too many values.
    pub fn vary(&mut self, key: &str, values: Vec<String>) -> Result<(), PlanError> {
        let Some(first) = values.first() else {
            return Err(PlanError::NoValues { key: key.to_owned() });
        };
        let key = self.whole_key(&Change::new(key, first))?;
        match self.dimensions.iter_mut().find(|dimension| dimension.key == key) {
            Some(dimension) => dimension.values = values,
            None => self.dimensions.push(Dimension { key, values }),
        }
        Ok(())
    }

    /// The whole key; those that are varied count as there.
    fn whole_key(&self, change: &Change) -> Result<String, PlanError> {
        let ending = format!(".{}", change.key);
        let varied: Vec<&Dimension> = self
            .dimensions
            .iter()
            .filter(|dimension| dimension.key == change.key || dimension.key.ends_with(&ending))
            .collect();
        match varied.as_slice() {
            [only] => Ok(only.key.clone()),
            _ => Ok(self.document.whole_key(change)?),
        }
    }

    /// The world as the file says it, before any key is varied: no run is of it, but a mistake in it is one. A varied
    /// key without a value of its own has its first one.
    ///
    /// # Errors
    /// [`PlanError`] where a value does not fit.
    pub fn unvaried(&self) -> Result<Variant, PlanError> {
        let mut document = self.document.clone();
        for Dimension { key, values } in &self.dimensions {
            if let (false, Some(first)) = (document.has_value(key), values.first()) {
                document.change_exactly(key.clone(), first)?;
            }
        }
        Ok(Variant {
            parameters: BTreeMap::new(),
            document,
        })
    }

    /// Every combination of the varied values, the last key changing fastest.
    ///
    /// # Errors
    /// [`PlanError`] where there are too many, or a value does not fit.
    pub fn variants(&self) -> Result<Vec<Variant>, PlanError> {
        let count = self.dimensions.iter().try_fold(1_usize, |count, dimension| {
            count.checked_mul(dimension.values.len())
        });
        if count.is_none_or(|count| count > VARIANTS_MAX) {
            return Err(PlanError::TooManyVariants);
        }
        let mut variants = vec![Variant {
            parameters: BTreeMap::new(),
            document: self.document.clone(),
        }];
        for Dimension { key, values } in &self.dimensions {
            let mut longer = Vec::with_capacity(variants.len() * values.len());
            for variant in &variants {
                for value in values {
                    let mut variant = variant.clone();
                    variant.document.change_exactly(key.clone(), value)?;
                    variant.parameters.insert(key.clone(), plain(value));
                    longer.push(variant);
                }
            }
            variants = longer;
        }
        Ok(variants)
    }
}

impl Variant {
    /// Reads the world that this variant is of.
    ///
    /// # Errors
    /// [`DocumentError`] naming line and key, or the change.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        let mut root = self.document.root()?;
        for section in ["vary", "small", "answer", "expect"] {
            root.get_mut().remove(section);
        }
        self.document.read_root(root)
    }

    /// What differs from the file's text, with whole keys: the changes of the plan, then the varied values.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        self.document.changes()
    }

    /// Says of which world a snapshot is: the text and everything that was changed in it.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: identity of a scenario");
        hasher.update(self.document.text().as_bytes());
        for change in self.changes() {
            hasher.update(&[0]).update(change.key.as_bytes());
            hasher.update(&[0]).update(change.value.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// A mistake that only shows once several values are seen together, at a key of the file.
    #[must_use]
    pub fn mistake(&self, key: &str, message: String) -> DocumentError {
        self.document.mistake_of(key, message)
    }
}

/// A value as people read it: a string without its quotes.
fn plain(value: &str) -> String {
    value.trim().trim_matches('"').to_owned()
}

fn part<'d, T: DeserializeOwned>(
    document: &'d Document,
    root: &mut Root<'d>,
    section: &str,
) -> Result<Option<T>, DocumentError> {
    root.get_mut()
        .remove(section)
        .map(|value| document.read_value(value))
        .transpose()
}

/// The values of a table and of those in it, with whole keys, in the order in which they were written.
fn leaves<'v, 'd>(
    document: &Document,
    section: &'v Spanned<DeValue<'d>>,
) -> Result<Vec<(String, &'v Spanned<DeValue<'d>>)>, DocumentError> {
    fn collect<'v, 'd>(
        table: &'v DeTable<'d>,
        before: &str,
        found: &mut Vec<(String, &'v Spanned<DeValue<'d>>)>,
    ) {
        for (key, value) in table {
            let key = format!("{before}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => collect(inner, &format!("{key}."), found),
                _ => found.push((key, value)),
            }
        }
    }
    let Some(table) = section.get_ref().as_table() else {
        let message = "this is to be a table of keys and values".to_owned();
        return Err(document.mistake_at(section.span().start, message));
    };
    let mut found = Vec::new();
    collect(table, "", &mut found);
    found.sort_by_key(|(_, value)| value.span().start);
    Ok(found)
}

fn dimensions_of(document: &Document, vary: &Spanned<DeValue<'_>>) -> Result<Vec<Dimension>, DocumentError> {
    let mut dimensions = Vec::new();
    for (key, list) in leaves(document, vary)? {
        let values: Vec<String> = list
            .get_ref()
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| document.written(value.span()).to_owned())
            .collect();
        if values.is_empty() {
            let message = format!("write the values to compare as a list, such as {key} = [1, 2, 3]");
            return Err(document.mistake_at(list.span().start, message));
        }
        let key = document.whole_key(&Change::new(key, list.get_ref().type_str()))?;
        dimensions.push(Dimension { key, values });
    }
    Ok(dimensions)
}

/// The values of a list in a change.
fn values_of(change: &Change) -> Result<Vec<String>, PlanError> {
    let no_values = || PlanError::NoValues {
        key: change.key.clone(),
    };
    let list = DeValue::parse(&change.value).map_err(|_| no_values())?;
    let list = list.get_ref().as_array().ok_or_else(no_values)?;
    Ok(list
        .iter()
        .filter_map(|value| change.value.get(value.span()).map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests;
