//! What a request would cost, offer by offer, before anybody is asked.

use gristmill_protocol::board::Candidate;
use gristmill_protocol::content::input_tokens_max;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::Offer;
use gristmill_protocol::usage::Usage;
use serde::Serialize;

use crate::core::budget::Scope;
use crate::core::models::ListedPrice;
use crate::core::request::ProgramRequest;

/// Output tokens of a usual answer.
const OUTPUT_TOKENS_LIKELY: u64 = 256;
/// Most offers that are quoted, the cheapest first.
const QUOTES_MAX: usize = 32;

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
    /// The quote for a request, of which `input_tokens` are estimated, at the offers that it could go to.
    /// `output_tokens_assumed` counts where the program sets no limit.
    #[must_use]
    pub fn of(
        request: &ProgramRequest,
        input_tokens: u64,
        candidates: &[Candidate<'_>],
        output_tokens_assumed: u32,
    ) -> Self {
        let output_tokens_likely = OUTPUT_TOKENS_LIKELY
            .min(request.output_tokens_max.unwrap_or(u64::MAX))
            .saturating_mul(request.choices);
        let mut providers: Vec<ProviderQuote> = candidates
            .iter()
            .filter_map(|Candidate { listing, offer, .. }| {
                let (input, output) = (input_tokens, output_tokens_likely);
                let cost = cost_range(request, input, output, offer, output_tokens_assumed)?;
                Some(ProviderQuote {
                    provider: listing.provider,
                    price: ListedPrice::of(&offer.price),
                    context_length: offer.context_length,
                    cost,
                })
            })
            .collect();
        providers.sort_by_key(|quote| (quote.cost.likely, quote.provider));
        providers.truncate(QUOTES_MAX);
        Self {
            object: "chat.completion.input_tokens",
            model: request.model.clone(),
            input_tokens,
            input_tokens_max: input_tokens_max(request.body.len() as u64),
            output_tokens_likely,
            currency: "microcredits",
            bounds: ["input_tokens_max", "providers[].cost.max"],
            providers,
        }
    }
}

/// Nothing where the price makes no amount.
fn cost_range(
    request: &ProgramRequest,
    input_tokens: u64,
    output_tokens: u64,
    offer: &Offer,
    output_tokens_assumed: u32,
) -> Option<CostRange> {
    let scope = Scope {
        kind: request.kind,
        // The longest that an assumed limit makes the body.
        body_bytes: request.body_bytes(Some(u64::MAX)),
        output_tokens_max: request.output_tokens_max,
        choices: request.choices,
        context_length: offer.context_length,
        output_tokens_assumed,
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

    fn listing(byte: u8, price: u32) -> Listing {
        Listing {
            provider: Keypair::from_secret(&[byte; 32]).account(),
            sequence: 1,
            issued_at_ms: 1,
            ttl_ms: 300_000,
            addresses: vec![],
            coordinators: vec![],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers: vec![Offer {
                kind: JobKind::ChatCompletions,
                model: "guide".into(),
                weights_digest: None,
                quantization: String::new(),
                context_length: 4_096,
                capabilities: vec![],
                price: Price::per_million_tokens(Credits::micro(price), Credits::micro(price)),
            }],
            slots: 1,
            free_slots: 1,
            certificates: vec![],
        }
    }

    fn quote(listings: &[Listing], limit: serde_json::Value) -> serde_json::Value {
        let body =
            json!({"model": "guide", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": limit});
        let request = ProgramRequest::parse(JobKind::ChatCompletions, Bytes::from(body.to_string())).unwrap();
        let candidates: Vec<Candidate<'_>> = listings
            .iter()
            .map(|listing| Candidate {
                listing,
                offer: &listing.offers[0],
                is_verified: false,
            })
            .collect();
        serde_json::to_value(Quote::of(&request, 10, &candidates, 4_096)).unwrap()
    }

    #[test]
    fn the_cheapest_comes_first_and_the_bound_covers_the_estimate() {
        let quote = quote(&[listing(1, 2_000_000), listing(2, 1_000_000)], json!(100));
        let providers = quote["providers"].as_array().unwrap();
        assert_eq!(providers[0]["cost"]["min"], 10);
        assert_eq!(providers[0]["cost"]["likely"], 110);
        assert!(providers[0]["cost"]["max"].as_u64() > providers[0]["cost"]["likely"].as_u64());
        assert_eq!(providers[1]["cost"]["likely"], 220);
        assert!(quote["input_tokens_max"].as_u64().unwrap() > 256);
    }

    #[test]
    fn without_a_limit_a_usual_answer_is_likely_and_the_assumed_limit_is_the_bound() {
        let quote = quote(&[listing(1, 1_000_000)], json!(null));
        let cost = &quote["providers"][0]["cost"];
        assert_eq!(cost["likely"], 10 + OUTPUT_TOKENS_LIKELY);
        assert!(cost["max"].as_u64().unwrap() >= 4_096);
    }

    #[test]
    fn no_more_offers_are_quoted_than_anybody_reads() {
        let many: Vec<Listing> = (1..=100).map(|byte| listing(byte, 1_000)).collect();
        assert_eq!(
            quote(&many, json!(5))["providers"].as_array().unwrap().len(),
            QUOTES_MAX
        );
    }
}
