//! Picks the provider to ask next.
//!
//! Of those that are nearly as good as the best one, two are drawn, and the better of the two is asked. Nobody is
//! asked who was not drawn, so with a share `w` of the weights a provider gets at most `1 - (1 - w)^2 < 2w` of the
//! requests of a herd that sees the same stale board, however good it looks. Weights are free slots, as far as they
//! can still be believed, times how good the offer is.
//!
//! Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001; with
//! old information: M. Dahlin, "Interpreting Stale Load Information", IEEE TPDS 11(10), 2000.

use rand::{Rng, RngExt as _};

use crate::board::{Board, Candidate};
use crate::identity::AccountId;
use crate::listing::{Listing, Offer};
use crate::routing::candidates::{Asker, Needs, NoRoute, fitting};
use crate::routing::records::{ProviderRecords, Standing};
use crate::routing::score::Rank;

/// Who scores at most so many times what the best one does is nearly as good.
pub const NEARLY_AS_GOOD: f64 = 1.5;
/// Who has read the beginning of the prompt may score so many times what the best one does.
pub const WORTH_OF_PREFIX: f64 = 2.0;
/// Slots that are counted at most: what a provider claims draws no more than this.
const SLOTS_COUNTED_MAX: u16 = 32;
/// After so many milliseconds half of what a listing says of free slots is believed no more.
const FREE_SLOTS_BELIEVED_MS: u64 = 60_000;
/// Weights are whole numbers of this part of a slot.
const WEIGHT_UNIT: f64 = 1_024.0;

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

/// A candidate and what is known of it.
struct Contender<'board> {
    candidate: Candidate<'board>,
    standing: Standing,
    rank: Rank,
}

/// Picks the provider to ask next.
///
/// # Errors
/// [`NoRoute`] saying why there is none.
pub fn choose<'board>(
    board: &'board Board,
    needs: &Needs<'board>,
    asker: &Asker<'_>,
    records: &ProviderRecords,
    now_ms: u64,
    random: &mut impl Rng,
) -> Result<Route, NoRoute> {
    let mut contenders: Vec<Contender<'_>> = fitting(board, needs, asker, records, now_ms)?
        .into_iter()
        .map(|candidate| {
            let standing = records.standing(&candidate.listing.provider, now_ms);
            let is_funded = asker.funded.contains(&candidate.listing.provider);
            let rank = Rank::of(&candidate, needs, &standing, is_funded);
            Contender {
                candidate,
                standing,
                rank,
            }
        })
        .collect();
    let best_class = contenders.iter().map(|contender| contender.rank.class()).min();
    contenders.retain(|contender| Some(contender.rank.class()) == best_class);
    let best = contenders
        .iter()
        .map(|contender| contender.rank.score)
        .fold(f64::INFINITY, f64::min);
    let holder = records.prefix_holder(needs.prefix, now_ms);
    let chosen = holder
        .and_then(|holder| prefix_holder(&contenders, holder, best))
        .or_else(|| draw(&contenders, best, now_ms, random))
        .ok_or(NoRoute::AllTried)?;
    Ok(Route {
        provider: chosen.candidate.listing.provider,
        addresses: chosen.candidate.listing.addresses.clone(),
        offer: chosen.candidate.offer.clone(),
    })
}

/// Who has read the beginning of the prompt, unless it is full or much worse than the best one.
fn prefix_holder<'a, 'board>(
    contenders: &'a [Contender<'board>],
    holder: AccountId,
    best: f64,
) -> Option<&'a Contender<'board>> {
    contenders.iter().find(|contender| {
        contender.candidate.listing.provider == holder
            && contender.rank.score <= best * WORTH_OF_PREFIX
            && contender.standing.jobs < u32::from(contender.candidate.listing.slots)
    })
}

/// The better of two that are drawn by weight, perhaps of one that is drawn twice.
fn draw<'a, 'board>(
    contenders: &'a [Contender<'board>],
    best: f64,
    now_ms: u64,
    random: &mut impl Rng,
) -> Option<&'a Contender<'board>> {
    let near: Vec<(&Contender<'_>, u64)> = contenders
        .iter()
        .filter(|contender| contender.rank.score <= best * NEARLY_AS_GOOD)
        .map(|contender| (contender, weight(contender, best, now_ms)))
        .collect();
    let total: u64 = near.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut one = || {
        let mut point = random.random_range(0..total);
        near.iter().find_map(|(contender, weight)| {
            let is_here = point < *weight;
            point = point.saturating_sub(*weight);
            is_here.then_some(*contender)
        })
    };
    let (first, second) = (one()?, one()?);
    if second.rank.score < first.rank.score {
        Some(second)
    } else {
        Some(first)
    }
}

/// How often a contender is drawn; at least 1.
fn weight(contender: &Contender<'_>, best: f64, now_ms: u64) -> u64 {
    let slots = expected_free_slots(contender.candidate.listing, contender.standing.jobs, now_ms);
    let quality = best / contender.rank.score;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from zero to the counted slots times the unit"
    )]
    let weight = (slots * quality * quality * WEIGHT_UNIT) as u64;
    weight.max(1)
}

/// How many slots are probably free: what the listing says, drifting towards half of all with its age, and no more
/// than our own jobs leave.
fn expected_free_slots(listing: &Listing, own_jobs: u32, now_ms: u64) -> f64 {
    let slots = f64::from(listing.slots.clamp(1, SLOTS_COUNTED_MAX));
    let free = f64::from(listing.free_slots.min(SLOTS_COUNTED_MAX));
    let age_ms = now_ms
        .saturating_sub(listing.issued_at_ms)
        .min(FREE_SLOTS_BELIEVED_MS) as f64;
    let doubt = age_ms / FREE_SLOTS_BELIEVED_MS as f64;
    let drifted = free + (slots / 2.0 - free) * doubt;
    let left = (slots - f64::from(own_jobs)).max(0.0);
    // Somebody may have finished since.
    drifted.min(left).max(0.25)
}

#[cfg(test)]
mod tests;
