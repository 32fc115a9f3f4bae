//! For serde: a strategy as text, since snapshots are in a format that cannot read tagged values.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::people::pricing::Strategy;

pub(super) fn serialize<S: Serializer>(strategy: &Option<Strategy>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = serde_json::to_string(strategy).map_err(S::Error::custom)?;
    text.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Strategy>, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_str(&text).map_err(D::Error::custom)
}
