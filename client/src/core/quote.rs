//! What a request would cost, offer by offer, before anybody is asked.

use std::collections::BTreeSet;

use gristmill_protocol::board::Board;
use gristmill_protocol::content::input_tokens_max;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::{Capability, Offer};
use gristmill_protocol::usage::Usage;
use serde::Serialize;

use crate::core::budget::Scope;
use crate::core::failure::ApiFailure;
use crate::core::models::{ListedPrice, reference_cost};
use crate::core::near_names::near_names;
use crate::core::request::ProgramRequest;

/// Output tokens of a usual answer.
const OUTPUT_TOKENS_LIKELY: u64 = 256;
/// Most offers that are quoted, the cheapest first.
const QUOTES_MAX: usize = 32;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The own account, whose offers can't be bought.
    pub account: AccountId,
    /// Whose tickets pay; any, where the coordinator is not known yet.
    pub coordinator: Option<AccountId>,
    /// The highest price that is paid, per million of any unit.
    pub max_price_per_million: Option<Credits>,
    /// The output tokens that are assumed where the program sets no limit.
    pub output_tokens_assumed: u32,
}

/// The answer to `POST /v1/chat/completions/input_tokens`. Amounts are in microcredits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quote {
    object: &'static str,
    model: String,
    /// An estimate: only the model's own tokenizer knows.
    input_tokens: u64,
    /// No more than these are paid.
    input_tokens_max: u64,
    /// An estimate.
    output_tokens_likely: u64,
    currency: &'static str,
    /// Which of the figures are bounds; all others are estimates.
    bounds: [&'static str; 2],
    providers: Vec<ProviderQuote>,
}

/// What one provider would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProviderQuote {
    provider: AccountId,
    price: ListedPrice,
    context_length: u32,
    cost: CostRange,
}

/// What the request can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CostRange {
    /// The prompt alone, by the estimate.
    min: Credits,
    /// With a usual answer, by the estimate.
    likely: Credits,
    /// What is set aside for it. More is never paid.
    max: Credits,
}

impl Quote {
    /// The quote for a request, of which `input_tokens` are estimated.
    ///
    /// # Errors
    /// [`ApiFailure`] as the request itself would fail: nobody offers the model, or can honour a field.
    pub fn of(
        request: &ProgramRequest,
        input_tokens: u64,
        board: &Board,
        asker: &Asker,
        now_ms: u64,
    ) -> Result<Self, ApiFailure> {
        let offers = fitting(request, board, asker, now_ms)?;
        let output_tokens_likely = OUTPUT_TOKENS_LIKELY
            .min(request.output_tokens_max.unwrap_or(u64::MAX))
            .saturating_mul(request.choices);
        let mut providers: Vec<ProviderQuote> = offers
            .into_iter()
            .filter_map(|(provider, offer)| {
                let cost = cost_range(request, input_tokens, output_tokens_likely, offer, asker)?;
                Some(ProviderQuote {
                    provider,
                    price: ListedPrice::of(&offer.price),
                    context_length: offer.context_length,
                    cost,
                })
            })
            .collect();
        providers.sort_by_key(|quote| (quote.cost.likely, quote.provider));
        providers.truncate(QUOTES_MAX);
        Ok(Self {
            object: "chat.completion.input_tokens",
            model: request.model.clone(),
            input_tokens,
            input_tokens_max: input_tokens_max(request.body.len() as u64),
            output_tokens_likely,
            currency: "microcredits",
            bounds: ["input_tokens_max", "providers[].cost.max"],
            providers,
        })
    }
}

/// The offers that the request could go to.
fn fitting<'board>(
    request: &ProgramRequest,
    board: &'board Board,
    asker: &Asker,
    now_ms: u64,
) -> Result<Vec<(AccountId, &'board Offer)>, ApiFailure> {
    let model = &request.model;
    let mut offers: Vec<(AccountId, &Offer)> = board
        .listings(now_ms)
        .filter(|listing| listing.provider != asker.account)
        .filter(|listing| {
            asker
                .coordinator
                .is_none_or(|it| listing.coordinators.contains(&it))
        })
        .flat_map(|listing| listing.offers.iter().map(|offer| (listing.provider, offer)))
        .filter(|(_, offer)| offer.kind == request.kind && offer.model == *model)
        .collect();
    if offers.is_empty() {
        let models = board.models(now_ms);
        let names: BTreeSet<&str> = models.keys().map(String::as_str).collect();
        return Err(match names.contains(model.as_str()) {
            true => {
                ApiFailure::no_provider_available(format!("nobody who can be paid offers '{model}' now"), 10)
            }
            false => ApiFailure::model_not_found(model, &near_names(model, names.into_iter())),
        });
    }
    for (capability, field) in &request.needs {
        let honours = |offer: &Offer| {
            offer.capabilities.contains(capability) || offer.capabilities.contains(&Capability::Passthrough)
        };
        offers.retain(|(_, offer)| honours(offer));
        if offers.is_empty() {
            return Err(ApiFailure::unsupported_field(model, field));
        }
    }
    if let Some(cap) = asker.max_price_per_million {
        let dearest = |offer: &Offer| {
            offer
                .price
                .per_million
                .values()
                .max()
                .copied()
                .unwrap_or_default()
        };
        offers.retain(|(_, offer)| dearest(offer) <= cap && offer.price.constant <= cap);
        if offers.is_empty() {
            return Err(ApiFailure::budget_exhausted(format!(
                "every offer of '{model}' costs more than the {cap} credits per million that max_price_per_million allows"
            )));
        }
    }
    offers.sort_by_key(|(provider, offer)| (reference_cost(&offer.price), *provider));
    Ok(offers)
}

/// Nothing where the price makes no amount.
fn cost_range(
    request: &ProgramRequest,
    input_tokens: u64,
    output_tokens: u64,
    offer: &Offer,
    asker: &Asker,
) -> Option<CostRange> {
    let scope = Scope {
        kind: request.kind,
        // The longest that an assumed limit makes the body.
        body_bytes: request.body_bytes(Some(u64::MAX)),
        output_tokens_max: request.output_tokens_max,
        choices: request.choices,
        context_length: offer.context_length,
        output_tokens_assumed: asker.output_tokens_assumed,
    };
    let cost = |output| offer.price.cost(&Usage::tokens(input_tokens, output)).ok();
    let max = scope.cost_max(&offer.price, scope.output_tokens()).ok()?;
    Some(CostRange {
        min: cost(0)?.min(max),
        likely: cost(output_tokens)?.min(max),
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::job::JobKind;
    use gristmill_protocol::listing::{Listing, PrivacyTier};
    use gristmill_protocol::usage::Price;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000_000;

    fn post(board: &mut Board, byte: u8, price: u32, capabilities: Vec<Capability>) {
        let keypair = Keypair::from_secret(&[byte; 32]);
        let listing = Listing {
            provider: keypair.account(),
            sequence: 1,
            issued_at_ms: NOW,
            ttl_ms: 300_000,
            addresses: vec![],
            coordinators: vec![Keypair::from_secret(&[200; 32]).account()],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers: vec![Offer {
                kind: JobKind::ChatCompletions,
                model: "guide".into(),
                weights_digest: None,
                quantization: String::new(),
                context_length: 4_096,
                capabilities,
                price: Price::per_million_tokens(Credits::micro(price), Credits::micro(price)),
            }],
            slots: 1,
            free_slots: 1,
        };
        board.insert(&listing.seal(&keypair).unwrap(), NOW).unwrap();
    }

    fn quote(
        board: &Board,
        fields: serde_json::Value,
        cap: Option<u32>,
    ) -> Result<serde_json::Value, ApiFailure> {
        let mut body = json!({"model": "guide", "messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let request = ProgramRequest::parse(JobKind::ChatCompletions, Bytes::from(body.to_string())).unwrap();
        let asker = Asker {
            account: Keypair::from_secret(&[9; 32]).account(),
            coordinator: None,
            max_price_per_million: cap.map(Credits::micro),
            output_tokens_assumed: 4_096,
        };
        Quote::of(&request, 10, board, &asker, NOW).map(|quote| serde_json::to_value(quote).unwrap())
    }

    #[test]
    fn the_cheapest_comes_first_and_the_bound_covers_the_estimate() {
        let mut board = Board::default();
        post(&mut board, 1, 2_000_000, vec![]);
        post(&mut board, 2, 1_000_000, vec![]);
        post(&mut board, 9, 1, vec![]);
        let quote = quote(&board, json!({"max_tokens": 100}), None).unwrap();
        let providers = quote["providers"].as_array().unwrap();
        assert_eq!(providers.len(), 2, "the own offer is none");
        assert_eq!(providers[0]["cost"]["min"], 10);
        assert_eq!(providers[0]["cost"]["likely"], 110);
        assert!(providers[0]["cost"]["max"].as_u64() > providers[0]["cost"]["likely"].as_u64());
        assert_eq!(providers[1]["cost"]["likely"], 220);
        assert!(quote["input_tokens_max"].as_u64().unwrap() > 256);
    }

    #[test]
    fn it_fails_as_the_request_would() {
        let mut board = Board::default();
        assert_eq!(
            quote(&board, json!({}), None).unwrap_err().code,
            "model_not_found"
        );
        post(&mut board, 1, 2_000_000, vec![Capability::Tools]);
        let unsupported = quote(&board, json!({"seed": 5}), None).unwrap_err();
        assert_eq!(
            (unsupported.status, unsupported.param.as_deref()),
            (400, Some("seed"))
        );
        assert!(quote(&board, json!({"tools": [{}]}), None).is_ok());
        assert_eq!(
            quote(&board, json!({}), Some(1_999_999)).unwrap_err().code,
            "budget_exhausted"
        );
        assert!(quote(&board, json!({}), Some(2_000_000)).is_ok());
        assert_eq!(
            quote(&board, json!({"model": "guidf"}), None).unwrap_err().status,
            404
        );
    }
}
