//! What is on offer, from what the engines can run and what the owner asks for it.

use std::collections::BTreeSet;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{MODEL_NAME_MAX_BYTES, OFFERS_MAX, Offer, SHORT_TEXT_MAX_BYTES};
use gristmill_protocol::usage::{Price, Unit};

use crate::engine::EngineModel;
use crate::settings::Prices;

/// What one engine can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineModels {
    /// Its models.
    pub models: Vec<EngineModel>,
    /// The price of all of them, where the owner set one for this engine.
    pub price: Option<Price>,
}

/// An offer and the engine that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The offer.
    pub offer: Offer,
    /// The place of its engine in what [`catalogue`] was given.
    pub engine: usize,
}

/// Why a model is not on offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Omission {
    /// An engine before it offers the same model for the same kind of job.
    OfferedTwice(String),
    /// Its name can't stand in a listing.
    Unnameable(String),
    /// The listing is full.
    NoRoom(String),
}

impl std::fmt::Display for Omission {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OfferedTwice(name) => write!(formatter, "'{name}' is offered by another engine already"),
            Self::Unnameable(name) => {
                write!(
                    formatter,
                    "'{}' is no name of at most {MODEL_NAME_MAX_BYTES} bytes",
                    name.escape_debug()
                )
            }
            Self::NoRoom(name) => write!(
                formatter,
                "'{name}' is beyond the {OFFERS_MAX} offers of a listing"
            ),
        }
    }
}

/// Puts the offers together, engine by engine in the order given. Plain completions come last: nearly every model
/// that chats has them, and where a listing is full, a further model is worth more.
#[must_use]
pub fn catalogue(engines: &[EngineModels], prices: &Prices) -> (Vec<CatalogueEntry>, BTreeSet<Omission>) {
    let (mut entries, mut omissions) = (Vec::new(), BTreeSet::new());
    let mut taken = BTreeSet::new();
    let each = engines.iter().enumerate().flat_map(|(at, engine)| {
        engine
            .models
            .iter()
            .map(move |model| (at, (model, &engine.price)))
    });
    let (last, first): (Vec<_>, Vec<_>) =
        each.partition(|(_, (model, _))| model.kind == JobKind::Completions);
    for (engine, (model, engine_price)) in first.into_iter().chain(last) {
        let name = model.name.clone();
        let fits =
            !name.is_empty() && name.len() <= MODEL_NAME_MAX_BYTES && !name.chars().any(char::is_control);
        if !fits {
            omissions.insert(Omission::Unnameable(
                name.chars().take(MODEL_NAME_MAX_BYTES).collect(),
            ));
        } else if !taken.insert((model.kind, name.clone())) {
            omissions.insert(Omission::OfferedTwice(name));
        } else if entries.len() == OFFERS_MAX {
            omissions.insert(Omission::NoRoom(name));
        } else {
            let price = engine_price.as_ref().unwrap_or_else(|| prices.of(&name));
            entries.push(CatalogueEntry {
                offer: offer(model, charged(price, model.kind)),
                engine,
            });
        }
    }
    (entries, omissions)
}

/// The part of a price that a kind of job can be charged for: text is counted in tokens, what is passed through in
/// bytes and time. A consumer reckons with everything that an offer names.
fn charged(price: &Price, kind: JobKind) -> Price {
    let counts = |unit: Unit| match unit {
        Unit::InputToken | Unit::OutputToken => !kind.is_passed_through(),
        Unit::ByteIn | Unit::ByteOut | Unit::GpuMillisecond => kind.is_passed_through(),
    };
    let mut charged = price.clone();
    charged.per_million.retain(|unit, _| counts(*unit));
    charged
}

fn offer(model: &EngineModel, price: Price) -> Offer {
    let mut capabilities = model.capabilities.clone();
    capabilities.sort_unstable();
    capabilities.dedup();
    let quantization = &model.quantization[..model.quantization.floor_char_boundary(SHORT_TEXT_MAX_BYTES)];
    Offer {
        kind: model.kind,
        model: model.name.clone(),
        weights_digest: model.weights_digest,
        quantization: quantization.to_owned(),
        context_length: model.context_length,
        capabilities,
        price,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::listing::Capability;

    fn model(name: &str) -> EngineModel {
        EngineModel {
            name: name.into(),
            kind: JobKind::ChatCompletions,
            weights_digest: None,
            quantization: "q4".into(),
            context_length: 2_048,
            capabilities: vec![Capability::Passthrough, Capability::Tools, Capability::Tools],
        }
    }

    fn engine(names: &[&str]) -> EngineModels {
        EngineModels {
            models: names.iter().copied().map(model).collect(),
            price: None,
        }
    }

    fn price(output: u32) -> Price {
        Price::per_million_tokens(Credits::micro(1), Credits::micro(output))
    }

    #[test]
    fn the_first_engine_serves_a_model_that_two_have() {
        let (entries, omissions) = catalogue(
            &[engine(&["a"]), engine(&["a", "b"])],
            &Settings::default().prices,
        );
        let served: Vec<_> = entries
            .iter()
            .map(|entry| (entry.offer.model.as_str(), entry.engine))
            .collect();
        assert_eq!(served, [("a", 0), ("b", 1)]);
        assert_eq!(omissions, BTreeSet::from([Omission::OfferedTwice("a".into())]));
    }

    #[test]
    fn a_price_of_the_engine_wins_over_one_of_the_model_over_the_default() {
        let mut prices = Settings::default().prices;
        prices.by_model.insert("b".into(), price(2));
        let special = EngineModels {
            price: Some(price(3)),
            ..engine(&["c"])
        };
        let (entries, _) = catalogue(&[engine(&["a", "b"]), special], &prices);
        let found: Vec<_> = entries.into_iter().map(|entry| entry.offer.price).collect();
        let default = charged(&prices.default, JobKind::ChatCompletions);
        assert_eq!(found, [default, price(2), price(3)]);
    }

    #[test]
    fn text_is_charged_in_tokens_and_the_rest_in_bytes_and_time() {
        let mut whole = price(9);
        whole.constant = Credits::micro(7);
        whole.per_million.insert(Unit::GpuMillisecond, Credits::micro(5));
        let text = charged(&whole, JobKind::Completions);
        assert_eq!(
            (text.coefficient(Unit::OutputToken), text.per_million.len()),
            (Credits::micro(9), 2)
        );
        let speech = charged(&whole, JobKind::AudioSpeech);
        assert_eq!(speech.constant, Credits::micro(7));
        assert_eq!(
            (speech.coefficient(Unit::GpuMillisecond), speech.per_million.len()),
            (Credits::micro(5), 1)
        );
    }

    #[test]
    fn further_models_are_worth_more_than_plain_completions() {
        let names: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
        let chats = engine(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut both = chats.clone();
        both.models
            .extend(chats.models.into_iter().map(|model| EngineModel {
                kind: JobKind::Completions,
                ..model
            }));
        let (entries, omissions) = catalogue(&[both, engine(&["other"])], &Settings::default().prices);
        let chats = entries
            .iter()
            .filter(|entry| entry.offer.kind == JobKind::ChatCompletions);
        assert_eq!(
            (chats.count(), entries.len(), omissions.len()),
            (21, OFFERS_MAX, 9)
        );
    }

    #[test]
    fn whatever_engines_say_fits_the_bounds_of_a_listing() {
        let long = "x".repeat(MODEL_NAME_MAX_BYTES + 1);
        let names: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
        let mut many = engine(&names.iter().map(String::as_str).collect::<Vec<_>>());
        many.models[0].quantization = "ü".repeat(200);
        let (entries, omissions) =
            catalogue(&[engine(&["", "a\nb", &long]), many], &Settings::default().prices);
        assert_eq!(entries.len(), OFFERS_MAX);
        assert_eq!(omissions.len(), 3 + 8);
        for entry in entries {
            assert!(entry.offer.quantization.len() <= SHORT_TEXT_MAX_BYTES);
            assert_eq!(
                entry.offer.capabilities,
                [Capability::Tools, Capability::Passthrough]
            );
        }
    }
}
