//! Who serves a request: ranks what is on offer by price, latency and record.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::{Board, Candidate};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, Offer};
use gristmill_protocol::usage::{Price, Unit, Usage};
use rand::Rng;
use rand::seq::SliceRandom as _;

use crate::core::near_names::near_names;
use crate::core::records::{ProviderRecords, Standing};

/// Bytes of text per token of a prompt, for an estimate.
const BYTES_PER_TOKEN: u64 = 4;
/// Output tokens per choice that are expected of a request, unless it allows fewer.
const OUTPUT_TOKENS_EXPECTED: u64 = 512;
/// So many milliseconds of waiting are worth as much as the price of the answer.
const LATENCY_WORTH_PRICE_MS: f64 = 2_000.0;
/// What a provider without a slot free is expected to take longer, in milliseconds.
const NO_SLOT_LATENCY_MS: f64 = 1_000.0;
/// A provider that has a channel already is preferred at prices and latencies up to so much worse: opening another
/// channel sets credits aside.
const FUNDED_ADVANTAGE: f64 = 1.15;

/// What a request needs of an offer.
#[derive(Clone, Debug)]
pub struct Needs<'a> {
    /// What is asked for.
    pub kind: JobKind,
    /// The model.
    pub model: &'a str,
    /// What has to be honoured, and the field that asks for it.
    pub capabilities: &'a BTreeMap<Capability, &'static str>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Most output tokens over all choices, where the program says.
    pub output_tokens_max: Option<u64>,
    /// How many choices are wanted.
    pub choices: u64,
    /// The highest price that is paid, per million of any unit.
    pub max_price_per_million: Option<Credits>,
    /// Offers with at most so long a context are out: one of them has said that the prompt is too long.
    pub context_length_above: u32,
}

/// Who asks, and whom not to ask.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// The own account, whose offers are out.
    pub account: AccountId,
    /// Whose tickets pay.
    pub coordinator: AccountId,
    /// Who was asked for this request already.
    pub tried: &'a BTreeSet<AccountId>,
    /// Who has a channel that pays.
    pub funded: &'a BTreeSet<AccountId>,
}

/// A provider to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whom.
    pub provider: AccountId,
    /// Where.
    pub addresses: Vec<String>,
    /// For what.
    pub offer: Offer,
}

/// Why nobody can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nobody offers such a model; these names are near.
    UnknownModel(Vec<String>),
    /// The model is on offer for other kinds of jobs.
    OtherKind(BTreeSet<JobKind>),
    /// Nobody offers anything.
    NothingOnOffer,
    /// Those who offer it don't take the coordinator's tickets.
    OtherCoordinators,
    /// The only one who offers it is this very account.
    OnlyOwn,
    /// None of the offers honours what this field asks for.
    Unsupported(&'static str),
    /// Every offer asks for more than the price cap.
    AbovePriceCap,
    /// All who offer it have been tried, or were ruled out while trying.
    AllTried,
}

/// Picks the best provider to ask next.
///
/// # Errors
/// [`NoRoute`] saying why there is none.
pub fn choose(
    board: &Board,
    needs: &Needs<'_>,
    asker: &Asker<'_>,
    records: &ProviderRecords,
    now_ms: u64,
    random: &mut impl Rng,
) -> Result<Route, NoRoute> {
    let candidates: Vec<_> = board
        .candidates(needs.kind, needs.model, asker.coordinator, now_ms)
        .collect();
    let mut fitting: Vec<_> = fitting(&candidates, needs, asker)
        .map_err(|reason| reason.unwrap_or_else(|| explain(board, needs, &candidates, now_ms)))?;
    // Equals in random order: all clients preferring the same one would be bad for all.
    fitting.shuffle(random);
    let rank = |candidate: &Candidate<'_>| {
        let standing = records.standing(&candidate.listing.provider, now_ms);
        rank(
            candidate,
            needs,
            &standing,
            asker.funded.contains(&candidate.listing.provider),
        )
    };
    let best = fitting
        .into_iter()
        .map(|candidate| (rank(&candidate), candidate))
        .min_by(|(a, _), (b, _)| {
            (a.is_failing, a.is_busy, a.may_overflow)
                .cmp(&(b.is_failing, b.is_busy, b.may_overflow))
                .then(a.score.total_cmp(&b.score))
        });
    let (_, best) = best.ok_or(NoRoute::AllTried)?;
    Ok(Route {
        provider: best.listing.provider,
        addresses: best.listing.addresses.clone(),
        offer: best.offer.clone(),
    })
}

/// The candidates that may be asked, or why none; `None` where there are no candidates at all.
fn fitting<'board>(
    candidates: &[Candidate<'board>],
    needs: &Needs<'_>,
    asker: &Asker<'_>,
) -> Result<Vec<Candidate<'board>>, Option<NoRoute>> {
    if candidates.is_empty() {
        return Err(None);
    }
    let mut rest = candidates.to_vec();
    let mut keep = |reason: NoRoute, fits: &dyn Fn(&Candidate<'_>) -> bool| {
        rest.retain(|candidate| fits(candidate));
        if rest.is_empty() {
            Err(Some(reason))
        } else {
            Ok(())
        }
    };
    keep(NoRoute::OnlyOwn, &|candidate| {
        candidate.listing.provider != asker.account
    })?;
    // One field after the other, so that the error names one without which there would be an offer.
    for (capability, field) in needs.capabilities {
        keep(NoRoute::Unsupported(field), &|candidate| {
            honours(candidate.offer, *capability)
        })?;
    }
    if let Some(cap) = needs.max_price_per_million {
        let cap = price_cap(cap);
        keep(NoRoute::AbovePriceCap, &|candidate| {
            candidate.offer.price.within(&cap)
        })?;
    }
    keep(NoRoute::AllTried, &|candidate| {
        !asker.tried.contains(&candidate.listing.provider)
            && candidate.offer.context_length > needs.context_length_above
    })?;
    Ok(rest)
}

fn explain(board: &Board, needs: &Needs<'_>, candidates: &[Candidate<'_>], now_ms: u64) -> NoRoute {
    debug_assert!(candidates.is_empty());
    let models = board.models(now_ms);
    match models.get(needs.model) {
        _ if models.is_empty() => NoRoute::NothingOnOffer,
        Some(kinds) if kinds.contains(&needs.kind) => NoRoute::OtherCoordinators,
        Some(kinds) => NoRoute::OtherKind(kinds.clone()),
        None => {
            let same_kind = models.iter().filter(|(_, kinds)| kinds.contains(&needs.kind));
            NoRoute::UnknownModel(near_names(needs.model, same_kind.map(|(name, _)| name.as_str())))
        }
    }
}

fn honours(offer: &Offer, capability: Capability) -> bool {
    // An upstream server gets every field; whether it can honour it, only it can say.
    offer.capabilities.contains(&capability) || offer.capabilities.contains(&Capability::Passthrough)
}

/// The highest price allowed: no part of a price may be above `cap`.
fn price_cap(cap: Credits) -> Price {
    let units = [
        Unit::InputToken,
        Unit::OutputToken,
        Unit::GpuMillisecond,
        Unit::ByteIn,
        Unit::ByteOut,
    ];
    Price {
        constant: cap,
        per_million: units.into_iter().map(|unit| (unit, cap)).collect(),
    }
}

/// What orders candidates; less is better.
struct Rank {
    is_failing: bool,
    is_busy: bool,
    may_overflow: bool,
    score: f64,
}

fn rank(candidate: &Candidate<'_>, needs: &Needs<'_>, standing: &Standing, is_funded: bool) -> Rank {
    let expected = expected_usage(needs);
    // A price that is no amount is as bad as the worst one.
    let cost = candidate
        .offer
        .price
        .cost(&expected)
        .unwrap_or(Credits::MAX)
        .microcredits() as f64;
    let listing = candidate.listing;
    let slots_taken = standing.jobs >= u32::from(listing.slots);
    let no_slot = if listing.free_slots == 0 || slots_taken {
        NO_SLOT_LATENCY_MS
    } else {
        0.0
    };
    let latency = 1.0 + (standing.latency_ms + no_slot) / LATENCY_WORTH_PRICE_MS;
    let funded = if is_funded { 1.0 } else { FUNDED_ADVANTAGE };
    Rank {
        is_failing: standing.is_failing,
        is_busy: standing.is_busy,
        may_overflow: needs.body_bytes / BYTES_PER_TOKEN > u64::from(candidate.offer.context_length),
        // Free offers still differ in latency.
        score: (cost + 1.0) * latency * funded,
    }
}

/// What the request will probably use: by it offers are compared, not paid.
fn expected_usage(needs: &Needs<'_>) -> Usage {
    let output = match needs.kind {
        kind if !kind.is_generated_text() => 0,
        _ => {
            let expected = OUTPUT_TOKENS_EXPECTED.saturating_mul(needs.choices);
            needs
                .output_tokens_max
                .map_or(expected, |most| most.min(expected))
        }
    };
    Usage::tokens(needs.body_bytes / BYTES_PER_TOKEN, output).with(Unit::ByteIn, needs.body_bytes)
}

#[cfg(test)]
mod tests;
