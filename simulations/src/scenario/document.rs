//! A scenario's text with what was changed in it: `--set key=value`, `--nodes`, the values of a variant. A mistake is
//! named by its line in the file, or by the change that made it.

use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest text of a scenario, in bytes.
pub const TEXT_MAX: usize = 1 << 18;
/// Most changes of one scenario.
pub const CHANGES_MAX: usize = 64;

/// What stands before the value of a change, so that it is read as TOML.
const HOLDER: &str = "v = ";

/// One change of a scenario: a key of the file, and TOML that is put in place of its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The key with its tables, such as `network.loss`, or `providers.home.count` for the table of the array
    /// `providers` whose `name` is `home`. The end of it is enough where only one key ends so.
    pub key: String,
    /// The value as TOML; a word that is no TOML is taken as a string.
    pub value: String,
}

impl Change {
    /// A change.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl ToString) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
        }
    }

    /// Reads `key=value`.
    ///
    /// # Errors
    /// In words, where there is no `=` or no key.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
                Ok(Self::new(key.trim(), value.trim()))
            }
            _ => Err(format!(
                "`{text}` changes nothing; write key=value, such as network.loss=0.1"
            )),
        }
    }
}

/// Why a text is no scenario, or why it cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Not TOML, an unknown or missing key, or a value out of its bounds.
    #[error("line {line}{}: {message}", in_key(key))]
    Line {
        /// The line, from 1.
        line: usize,
        /// The key on it; empty where none was found.
        key: String,
        /// What is wrong and how to mend it.
        message: String,
    },
    /// A change made a mistake.
    #[error("{key}={value}: {message}")]
    Change {
        /// Which key.
        key: String,
        /// Which value.
        value: String,
        /// What is wrong and how to mend it.
        message: String,
    },
    /// Too long.
    #[error("the scenario is longer than {TEXT_MAX} bytes; shorten it")]
    TooLong,
    /// Too many changes.
    #[error("there are more than {CHANGES_MAX} changes of the scenario; write them into its file")]
    TooManyChanges,
}

fn in_key(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!(", key {key}")
    }
}

/// A text that is TOML, and its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file's text, then the changes, one a line; places in it are those of the values.
    source: String,
    /// Where the file's text ends.
    text_end: usize,
    /// With whole keys.
    changes: Vec<Change>,
    /// The values of the changes, each behind so much space that its place is that in the source.
    padded: Vec<String>,
}

/// What a document holds: tables whose values know their places.
pub(super) type Root<'d> = Spanned<DeTable<'d>>;

impl Document {
    /// Reads a text.
    ///
    /// # Errors
    /// [`DocumentError`] where it is no TOML or too long.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > TEXT_MAX {
            return Err(DocumentError::TooLong);
        }
        let document = Self {
            source: format!("{text}\n"),
            text_end: text.len(),
            changes: Vec::new(),
            padded: Vec::new(),
        };
        document.root()?;
        Ok(document)
    }

    /// The file's text, without changes.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.get(..self.text_end).unwrap_or_default()
    }

    /// What was changed, in order, with whole keys.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The text with its changes as tables.
    pub(super) fn root(&self) -> Result<Root<'_>, DocumentError> {
        let mut root = DeTable::parse(self.text()).map_err(|error| self.mistake(&error))?;
        for (change, padded) in self.changes.iter().zip(&self.padded) {
            put(root.get_mut(), change, padded).map_err(|message| mistaken(change, message))?;
        }
        Ok(root)
    }

    /// What was written at a place.
    pub(super) fn written(&self, span: Range<usize>) -> &str {
        self.source.get(span).unwrap_or_default()
    }

    /// Reads a value of this document.
    pub(super) fn read_value<T: DeserializeOwned>(
        &self,
        value: Spanned<DeValue<'_>>,
    ) -> Result<T, DocumentError> {
        T::deserialize(toml::de::ValueDeserializer::from(value)).map_err(|error| self.mistake(&error))
    }

    /// Reads tables of this document.
    pub(super) fn read_root<T: DeserializeOwned>(&self, root: Root<'_>) -> Result<T, DocumentError> {
        T::deserialize(toml::de::Deserializer::from(root)).map_err(|error| self.mistake(&error))
    }

    /// The whole key that a change means: itself, or the only one that ends so.
    ///
    /// # Errors
    /// [`DocumentError::Change`] where several end so.
    pub fn whole_key(&self, change: &Change) -> Result<String, DocumentError> {
        let root = self.root()?;
        let keys = keys_of(root.get_ref());
        if keys.contains(&change.key) {
            return Ok(change.key.clone());
        }
        let ending = format!(".{}", change.key);
        let is_meant = |key: &&String| key.ends_with(&ending) && !is_of_the_plan(key);
        let found: Vec<&str> = keys.iter().filter(is_meant).map(String::as_str).collect();
        match found.as_slice() {
            [only] => Ok((*only).to_owned()),
            // A key that the file leaves at its default: whoever reads the scenario knows whether there is such.
            [] => Ok(change.key.clone()),
            several => Err(mistaken(
                change,
                format!("several keys end so; write one of {}", several.join(", ")),
            )),
        }
    }

    /// Puts a value in place of another one, or where there was none.
    ///
    /// # Errors
    /// [`DocumentError`] where the key cannot be found or the value is no TOML.
    pub fn change(&mut self, change: &Change) -> Result<(), DocumentError> {
        let key = self.whole_key(change)?;
        self.change_exactly(key, &change.value)
    }

    /// Puts a value at a whole key.
    pub(super) fn change_exactly(&mut self, key: String, value: &str) -> Result<(), DocumentError> {
        if self.changes.len() >= CHANGES_MAX {
            return Err(DocumentError::TooManyChanges);
        }
        // The value's place is counted from the beginning of the source, so that a mistake in it is found again.
        if let Some(before) = self.changes.iter().position(|change| change.key == key) {
            self.changes.remove(before);
            self.padded.remove(before);
        }
        let start = self.source.len() + key.len() + " = ".len();
        let _ = writeln!(self.source, "{key} = {value}");
        let before = start.saturating_sub(HOLDER.len());
        self.padded.push(format!("{}{HOLDER}{value}", " ".repeat(before)));
        self.changes.push(Change::new(key, value));
        self.root().map(|_| ())
    }

    /// Whether a whole key has a value.
    pub(super) fn has_value(&self, key: &str) -> bool {
        self.root()
            .is_ok_and(|root| place_of(root.get_ref(), key).is_some())
    }

    /// A mistake with its place.
    fn mistake(&self, error: &toml::de::Error) -> DocumentError {
        let message = taught(&error.message().trim_end().replace('\n', "; "));
        let at = error.span().map_or(0, |span| span.start);
        self.mistake_at(at, message)
    }

    /// A mistake at a key, wherever its value comes from.
    pub(super) fn mistake_of(&self, key: &str, message: String) -> DocumentError {
        let root = self.root();
        let at = root.ok().and_then(|root| place_of(root.get_ref(), key));
        self.mistake_at(at.unwrap_or(0), message)
    }

    /// A mistake at a place of the source.
    pub(super) fn mistake_at(&self, at: usize, message: String) -> DocumentError {
        if at <= self.text_end {
            let before = self.source.get(..at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let key = self.key_at(line);
            return DocumentError::Line { line, key, message };
        }
        let line = self
            .source
            .get(..at)
            .and_then(|before| before.rsplit('\n').next());
        let rest = self.source.get(at..).and_then(|after| after.lines().next());
        let whole = format!("{}{}", line.unwrap_or_default(), rest.unwrap_or_default());
        let (key, value) = whole.split_once(" = ").unwrap_or((&whole, ""));
        let mut message = message;
        if message.starts_with("unknown field") && !key.contains('.') {
            message.push_str("; a key of a table is written with its table, such as links.loss");
        }
        DocumentError::Change {
            key: key.to_owned(),
            value: value.to_owned(),
            message,
        }
    }

    /// The key that a line of the file assigns or the table that it opens; empty where it is neither.
    fn key_at(&self, line: usize) -> String {
        let lines: Vec<&str> = self.text().lines().take(line).collect();
        let Some(last) = lines.last().map(|line| line.trim()) else {
            return String::new();
        };
        let header = |line: &str| {
            let name = line.trim().strip_prefix('[')?.trim_start_matches('[');
            Some(name.split(']').next()?.trim().to_owned())
        };
        if let Some(table) = header(last) {
            return table;
        }
        let Some((key, _)) = last.split_once('=').filter(|(key, _)| !key.starts_with('#')) else {
            return String::new();
        };
        let table = lines.iter().rev().find_map(|line| header(line));
        table.map_or_else(
            || key.trim().to_owned(),
            |table| format!("{table}.{}", key.trim()),
        )
    }
}

/// A message of the reader with how to mend it, where it leaves that open.
fn taught(message: &str) -> String {
    let negative = message
        .strip_prefix("invalid value: integer `-")
        .and_then(|rest| rest.split_once('`'))
        .filter(|(_, expected)| expected.contains("expected u"));
    match negative {
        Some((number, _)) => format!("-{number} is negative; write a whole number from 0"),
        None => message.to_owned(),
    }
}

/// Keys of the sections that say what is run rather than in which world.
fn is_of_the_plan(key: &str) -> bool {
    ["vary.", "small.", "answer."]
        .iter()
        .any(|section| key.starts_with(section))
}

fn mistaken(change: &Change, message: String) -> DocumentError {
    DocumentError::Change {
        key: change.key.clone(),
        value: change.value.clone(),
        message,
    }
}

/// Puts the value of a change where it belongs.
fn put<'d>(root: &mut DeTable<'d>, change: &Change, padded: &'d str) -> Result<(), String> {
    let value = value_of(padded, &change.value)?;
    let names: Vec<&str> = change.key.split('.').collect();
    let Some((last, tables)) = names.split_last() else {
        return Err("there is no key".to_owned());
    };
    let span = value.span();
    let table = descend(root, tables, &span)?;
    if let Some(old) = table.get_mut(*last) {
        *old = value;
    } else {
        table.insert(Spanned::new(span, (*last).to_owned().into()), value);
    }
    Ok(())
}

/// A value as TOML; a word that is none is a string.
fn value_of<'d>(padded: &'d str, value: &str) -> Result<Spanned<DeValue<'d>>, String> {
    if let Ok(mut parsed) = DeTable::parse(padded)
        && parsed.get_ref().len() == 1
        && let Some(value) = parsed.get_mut().remove("v")
    {
        return Ok(value);
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if value.chars().all(is_word) && value.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let start = padded.len().saturating_sub(value.len());
        let word = DeValue::String(value.to_owned().into());
        return Ok(Spanned::new(start..padded.len(), word));
    }
    Err("the value is no TOML; write a number, true, a \"string\" or a [list]".to_owned())
}

/// The table at the end of a path of keys; made where it is missing.
fn descend<'t, 'd>(
    table: &'t mut DeTable<'d>,
    names: &[&str],
    span: &Range<usize>,
) -> Result<&'t mut DeTable<'d>, String> {
    let [name, rest @ ..] = names else {
        return Ok(table);
    };
    if !table.contains_key(*name) {
        let key = Spanned::new(span.clone(), (*name).to_owned().into());
        table.insert(key, Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    let value = table.get_mut(*name).map(Spanned::get_mut);
    match (value, rest) {
        (Some(DeValue::Table(inner)), _) => descend(inner, rest, span),
        (Some(DeValue::Array(list)), [which, rest @ ..]) => {
            let found = list.iter_mut().enumerate().find_map(|(index, value)| {
                let DeValue::Table(inner) = value.get_mut() else {
                    return None;
                };
                (name_of(inner, index) == *which || index.to_string() == *which).then_some(inner)
            });
            let inner = found.ok_or_else(|| format!("{name} has no table that is named {which}"))?;
            descend(inner, rest, span)
        }
        _ => Err(format!("{name} is no table")),
    }
}

/// Where the value of a whole key stands.
fn place_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let Some((first, rest)) = key.split_once('.') else {
        return table.get(key).map(|value| value.span().start);
    };
    match table.get(first)?.get_ref() {
        DeValue::Table(inner) => place_of(inner, rest),
        DeValue::Array(list) => {
            let (which, rest) = rest.split_once('.')?;
            list.iter().enumerate().find_map(|(index, value)| {
                let inner = value.get_ref().as_table()?;
                let is_meant = name_of(inner, index) == which || index.to_string() == which;
                is_meant.then(|| place_of(inner, rest)).flatten()
            })
        }
        _ => None,
    }
}

/// How a table of an array is called: its `name`, or its place.
fn name_of(table: &DeTable<'_>, index: usize) -> String {
    let name = table.get("name").and_then(|name| name.get_ref().as_str());
    name.map_or_else(|| index.to_string(), str::to_owned)
}

/// Every key that has a value, with its tables.
fn keys_of(root: &DeTable<'_>) -> Vec<String> {
    fn collect(table: &DeTable<'_>, before: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            let key = format!("{before}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => collect(inner, &format!("{key}."), keys),
                DeValue::Array(list) if list.iter().any(|value| value.get_ref().is_table()) => {
                    for (index, value) in list.iter().enumerate() {
                        if let Some(inner) = value.get_ref().as_table() {
                            collect(inner, &format!("{key}.{}.", name_of(inner, index)), keys);
                        }
                    }
                }
                _ => keys.push(key),
            }
        }
    }
    let mut keys = Vec::new();
    collect(root, "", &mut keys);
    keys
}
