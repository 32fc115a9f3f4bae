//! The members of a JSON object, and where they stand in its text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A member that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its name, its value and one of the commas beside it stand.
    pub(super) member: Range<usize>,
    /// Where its value stands.
    pub(super) value: Range<usize>,
    /// Whether there is another one of the same name.
    pub(super) is_repeated: bool,
}

/// Name and value of each member.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

/// A name as it is meant, and as it is written.
struct Name<'a> {
    meant: Cow<'a, str>,
    written: &'a RawValue,
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = <&RawValue>::deserialize(deserializer)?;
        let meant: String = serde_json::from_str(written.get()).map_err(serde::de::Error::custom)?;
        Ok(Self {
            meant: Cow::Owned(meant),
            written,
        })
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// All members of an object in order; `None` where the text is none.
pub(super) fn all(object: &[u8]) -> Option<Vec<(String, &RawValue)>> {
    let Members(members) = serde_json::from_slice(object).ok()?;
    let named = members
        .into_iter()
        .map(|(name, value)| (name.meant.into_owned(), value));
    Some(named.collect())
}

/// Where the first member of a name stands; `None` where there is none, or the text is no object.
pub(super) fn find(object: &[u8], name: &str) -> Option<Found> {
    let Members(members) = serde_json::from_slice(object).ok()?;
    let mut same = members.iter().filter(|(own, _)| own.meant == name);
    let (own, value) = same.next()?;
    let (key, value) = (place(object, own.written), place(object, value));
    Some(Found {
        member: with_comma(object, key.start..value.end),
        value,
        is_repeated: same.next().is_some(),
    })
}

/// Where a value that was borrowed from a text stands in it.
fn place(text: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr() - text.as_ptr().addr();
    start..start + value.get().len()
}

/// A member with the comma after it, or before it where it is the last one.
fn with_comma(object: &[u8], member: Range<usize>) -> Range<usize> {
    let is_blank = |byte: &&u8| byte.is_ascii_whitespace();
    let after = object[member.end..].iter().take_while(is_blank).count();
    if object.get(member.end + after) == Some(&b',') {
        return member.start..member.end + after + 1;
    }
    let before = object[..member.start].iter().rev().take_while(is_blank).count();
    match member.start.checked_sub(before + 1) {
        Some(comma) if object[comma] == b',' => comma..member.end,
        _ => member,
    }
}
