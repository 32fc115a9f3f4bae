//! Who may be asked at all: what a request rules out, and in which words.

use std::collections::{BTreeMap, BTreeSet};

use crate::board::{Board, Candidate};
use crate::credits::Credits;
use crate::identity::AccountId;
use crate::job::JobKind;
use crate::listing::{Capability, Offer};
use crate::planted::{self, Bug};
use crate::routing::affinity::PrefixDigests;
use crate::routing::constraints::{Constraint, Constraints};
use crate::routing::near_names::near_names;
use crate::routing::records::ProviderRecords;
use crate::usage::{Price, Unit};

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
    /// Offers with at most so long a context are out: one of them has said that the prompt is too long.
    pub context_length_above: u32,
    /// What the caller restricts providers to.
    pub constraints: &'a Constraints,
    /// The beginnings of the prompt, by which it finds who has read them.
    pub prefix: &'a PrefixDigests,
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
    /// None of the offers that are left meets this restriction.
    Excluded(Constraint),
    /// All who offer it have been tried, or were ruled out while trying.
    AllTried,
    /// Those who were not tried have failed so often that they are left alone for so many milliseconds more.
    AllFailing {
        /// Milliseconds until the first of them may be asked.
        retry_after_ms: u64,
    },
}

/// The candidates that may be asked.
///
/// # Errors
/// [`NoRoute`] naming the first reason after which nobody was left.
pub fn fitting<'board>(
    board: &'board Board,
    needs: &Needs<'board>,
    asker: &Asker<'_>,
    records: &ProviderRecords,
    now_ms: u64,
) -> Result<Vec<Candidate<'board>>, NoRoute> {
    let mut rest: Vec<Candidate<'board>> = board
        .candidates(needs.kind, needs.model, asker.coordinator, now_ms)
        .collect();
    if rest.is_empty() {
        return Err(explain(board, needs, now_ms));
    }
    keep(&mut rest, NoRoute::OnlyOwn, |candidate| {
        candidate.listing.provider != asker.account
    })?;
    // One field after the other, so that the error names one without which there would be an offer.
    for (capability, field) in needs.capabilities {
        keep(&mut rest, NoRoute::Unsupported(field), |candidate| {
            honours(candidate.offer, *capability)
        })?;
    }
    for constraint in [
        Constraint::Provider,
        Constraint::OnlyVerified,
        Constraint::Privacy,
        Constraint::Region,
        Constraint::MaxPrice,
    ] {
        keep(&mut rest, NoRoute::Excluded(constraint), |candidate| {
            meets(candidate, needs.constraints, constraint)
        })?;
    }
    if planted::is(Bug::OnlyCheapestLookedAt) {
        rest.sort_by_key(|candidate| candidate.offer.price.coefficient(Unit::OutputToken));
        rest.truncate(1);
    }
    keep(&mut rest, NoRoute::AllTried, |candidate| {
        (!asker.tried.contains(&candidate.listing.provider) || planted::is(Bug::TriedProviderAskedAgain))
            && candidate.offer.context_length > needs.context_length_above
    })?;
    let wait_ms = |candidate: &Candidate<'_>| {
        records
            .standing(&candidate.listing.provider, now_ms)
            .breaker_wait_ms
    };
    let retry_after_ms = rest.iter().map(wait_ms).min().unwrap_or(0);
    keep(&mut rest, NoRoute::AllFailing { retry_after_ms }, |candidate| {
        wait_ms(candidate) == 0
    })?;
    Ok(rest)
}

fn keep(
    rest: &mut Vec<Candidate<'_>>,
    reason: NoRoute,
    fits: impl Fn(&Candidate<'_>) -> bool,
) -> Result<(), NoRoute> {
    rest.retain(|candidate| fits(candidate));
    if rest.is_empty() { Err(reason) } else { Ok(()) }
}

/// Why there are no candidates at all.
fn explain(board: &Board, needs: &Needs<'_>, now_ms: u64) -> NoRoute {
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
    // An upstream server gets every field; whether it can honour it, only it can say. Who can't go on with an answer
    // says nothing, though, and begins another one: only a trial tells.
    let passes_on =
        capability != Capability::Continuation && offer.capabilities.contains(&Capability::Passthrough);
    passes_on || offer.capabilities.contains(&capability)
}

/// Whether a candidate meets one of the restrictions.
fn meets(candidate: &Candidate<'_>, constraints: &Constraints, constraint: Constraint) -> bool {
    let listing = candidate.listing;
    match constraint {
        Constraint::MaxPrice => constraints
            .max_price_per_million
            .is_none_or(|cap| candidate.offer.price.within(&price_cap(cap))),
        Constraint::Region => {
            let regions = &constraints.regions;
            regions.is_empty() || regions.iter().any(|region| region.covers(&listing.region))
        }
        Constraint::Privacy => listing.privacy >= constraints.privacy,
        Constraint::Provider => constraints
            .provider
            .is_none_or(|provider| provider == listing.provider),
        Constraint::OnlyVerified => candidate.is_verified || !constraints.only_verified,
    }
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
