//! Amounts of credits in the configuration file.

use std::fmt;

use gristmill_protocol::credits::Credits;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// An amount of credits in the configuration file: a text such as `"2.5"`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountSetting(pub Credits);

impl<'de> Deserialize<'de> for AmountSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = AmountSetting;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an amount of credits such as \"2.5\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<AmountSetting, E> {
        text.parse().map(AmountSetting).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, whole: i64) -> Result<AmountSetting, E> {
        let positive =
            u64::try_from(whole).map_err(|_| E::invalid_value(Unexpected::Signed(whole), &self))?;
        self.visit_u64(positive)
    }

    fn visit_u64<E: Error>(self, whole: u64) -> Result<AmountSetting, E> {
        self.visit_str(&whole.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<AmountSetting, E> {
        // The shortest text that reads back as the same number is what was written.
        let text = number.to_string();
        text.parse()
            .map(AmountSetting)
            .map_err(|_| E::invalid_value(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        amount: AmountSetting,
    }

    #[test]
    fn amounts_are_read_exactly_from_texts_and_numbers() {
        for (text, micro) in [
            ("\"2.5\"", 2_500_000),
            ("2.5", 2_500_000),
            ("7", 7_000_000),
            ("0.000001", 1),
        ] {
            let file: File = toml::from_str(&format!("amount = {text}")).unwrap();
            assert_eq!(file.amount, AmountSetting(Credits::micro(micro)), "{text}");
        }
        for text in ["\"x\"", "-1", "-0.5", "1e-9", "true", "nan", "9007199255"] {
            assert!(
                toml::from_str::<File>(&format!("amount = {text}")).is_err(),
                "{text}"
            );
        }
    }
}
