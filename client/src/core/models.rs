//! What is on offer, as `GET /v1/models` lists it.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::Board;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Offer;
use gristmill_protocol::usage::{Price, Usage};
use serde::{Deserialize, Serialize};

/// Tokens of each kind by which offers of a model are compared.
const REFERENCE_TOKENS: u64 = 1_000;

/// A model on offer. The first four fields are OpenAI's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// Its name.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Since when it has been on offer, as far as the oldest living listing tells; Unix seconds.
    pub created: u64,
    /// `gristmill`: nobody owns what many offer.
    pub owned_by: String,
    /// What it can be asked for.
    pub kinds: BTreeSet<JobKind>,
    /// The longest context on offer, in tokens.
    pub context_length: u32,
    /// The price of the cheapest offer.
    pub price: PriceView,
    /// How many providers offer it.
    pub providers: usize,
    /// How many of those have verified hardware.
    #[serde(default)]
    pub verified_providers: usize,
}

/// A price and its unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceView {
    /// `microcredits`.
    pub currency: String,
    /// The price.
    #[serde(flatten)]
    pub price: ListedPrice,
}

/// A price as it is listed. ([`Price`] refuses unknown fields, which can't be flattened.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPrice {
    /// Due for any request.
    pub constant: Credits,
    /// Due per million of each unit.
    pub per_million: BTreeMap<gristmill_protocol::usage::Unit, Credits>,
}

impl ListedPrice {
    /// As it stands in an offer.
    #[must_use]
    pub fn of(price: &Price) -> Self {
        Self {
            constant: price.constant,
            per_million: price.per_million.clone(),
        }
    }
}

/// The body of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The models by name.
    pub data: Vec<ModelView>,
}

/// What an account can buy from others with a coordinator's tickets; with any tickets, where none is named.
#[must_use]
pub fn models_on_offer(
    board: &Board,
    coordinator: Option<AccountId>,
    account: Option<AccountId>,
    now_ms: u64,
) -> ModelList {
    let mut models: BTreeMap<&str, (Credits, ModelView)> = BTreeMap::new();
    let payable = board
        .listings(now_ms)
        .filter(|listing| coordinator.is_none_or(|it| listing.coordinators.contains(&it)))
        .filter(|listing| account != Some(listing.provider));
    for listing in payable {
        let created = listing.issued_at_ms / 1_000;
        let is_verified = board.certificates(&listing.provider, now_ms).next().is_some();
        let mut counted = BTreeSet::new();
        for offer in &listing.offers {
            let cost = reference_cost(&offer.price);
            let (cheapest, model) = models
                .entry(&offer.model)
                .or_insert_with(|| (cost, view(offer, created)));
            let is_first = counted.insert(&offer.model);
            model.providers += usize::from(is_first);
            model.verified_providers += usize::from(is_first && is_verified);
            model.kinds.insert(offer.kind);
            model.created = model.created.min(created);
            model.context_length = model.context_length.max(offer.context_length);
            if cost < *cheapest {
                *cheapest = cost;
                model.price = price_view(&offer.price);
            }
        }
    }
    let data = models.into_values().map(|(_, model)| model).collect();
    ModelList {
        object: "list".into(),
        data,
    }
}

/// What a usual request costs at a price, by which offers are compared.
#[must_use]
pub fn reference_cost(price: &Price) -> Credits {
    price
        .cost(&Usage::tokens(REFERENCE_TOKENS, REFERENCE_TOKENS))
        .unwrap_or(Credits::MAX)
}

impl ModelView {
    /// What a usual request costs at the cheapest offer.
    #[must_use]
    pub fn reference_cost(&self) -> Credits {
        let ListedPrice {
            constant,
            per_million,
        } = self.price.price.clone();
        reference_cost(&Price {
            constant,
            per_million,
        })
    }
}

fn view(offer: &Offer, created: u64) -> ModelView {
    ModelView {
        id: offer.model.clone(),
        object: "model".into(),
        created,
        owned_by: "gristmill".into(),
        kinds: BTreeSet::new(),
        context_length: offer.context_length,
        price: price_view(&offer.price),
        providers: 0,
        verified_providers: 0,
    }
}

fn price_view(price: &Price) -> PriceView {
    PriceView {
        currency: "microcredits".into(),
        price: ListedPrice::of(price),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::listing::{Listing, PrivacyTier};
    use gristmill_protocol::log::checkpoint::LogKeys;
    use serde_json::json;

    use crate::core::providers::tests::{COORDINATOR, certificate};

    const NOW: u64 = 1_800_000_000_000;

    fn account(byte: u8) -> AccountId {
        Keypair::from_secret(&[byte; 32]).account()
    }

    fn post(board: &mut Board, byte: u8, coordinator: u8, offers: &[(JobKind, &str, u32, u32)]) {
        let offer = |(kind, model, context_length, price): &(JobKind, &str, u32, u32)| Offer {
            kind: *kind,
            model: (*model).into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: *context_length,
            capabilities: vec![],
            price: Price::per_million_tokens(Credits::micro(*price), Credits::micro(*price)),
        };
        let listing = Listing {
            provider: account(byte),
            sequence: 1,
            issued_at_ms: NOW - u64::from(byte) * 1_000,
            ttl_ms: 300_000,
            addresses: vec![],
            coordinators: vec![account(coordinator)],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers: offers.iter().map(offer).collect(),
            slots: 1,
            free_slots: 1,
            certificates: if byte == 2 {
                vec![certificate(byte, 1, NOW)]
            } else {
                vec![]
            },
        };
        board
            .insert(&listing.seal(&Keypair::from_secret(&[byte; 32])).unwrap(), NOW)
            .unwrap();
    }

    #[test]
    fn a_model_is_listed_once_with_its_best_price() {
        let (chat, embeddings) = (JobKind::ChatCompletions, JobKind::Embeddings);
        let mut board = Board::default();
        board.trust(LogKeys::new(account(COORDINATOR)));
        post(
            &mut board,
            1,
            200,
            &[(chat, "guide", 512, 9_000), (embeddings, "guide", 256, 7_000)],
        );
        post(
            &mut board,
            2,
            200,
            &[(chat, "guide", 1_024, 8_000), (embeddings, "mini", 256, 1)],
        );
        post(&mut board, 3, 201, &[(chat, "elsewhere", 1, 1)]);
        post(&mut board, 4, 200, &[(chat, "own", 1, 1)]);
        let list = models_on_offer(&board, Some(account(200)), Some(account(4)), NOW);
        assert_eq!(
            serde_json::to_value(&list.data[0]).unwrap(),
            json!({
                "id": "guide", "object": "model", "created": NOW / 1_000 - 2, "owned_by": "gristmill",
                "kinds": ["chat_completions", "embeddings"], "context_length": 1_024, "providers": 2,
                "verified_providers": 1,
                "price": {"currency": "microcredits", "constant": 0,
                    "per_million": {"input_token": 7_000, "output_token": 7_000}},
            })
        );
        let names: Vec<&str> = list.data.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(names, ["guide", "mini"]);
        assert_eq!(models_on_offer(&board, None, None, NOW).data.len(), 4);
        let again: ModelList = serde_json::from_str(&serde_json::to_string(&list).unwrap()).unwrap();
        assert_eq!(again, list);
    }
}
