//! Which listings a directory answer carries, when there are more than fit.

use std::sync::Arc;

use gristmill_protocol::coordinator_api::listing_text;

/// Most bytes of sealed listings in one answer.
pub const DIRECTORY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Listings as text, from a random place on and around, as many as fit into `max_bytes`. Since the place is random,
/// no provider can make itself a name that is always in the answer, or keep another one out of all of them.
#[must_use]
pub fn directory(mut listings: Vec<Arc<[u8]>>, random: u64, max_bytes: usize) -> Vec<String> {
    if listings.is_empty() {
        return Vec::new();
    }
    let count = u64::try_from(listings.len()).unwrap_or(u64::MAX);
    listings.rotate_left(usize::try_from(random % count).unwrap_or(0));
    let mut bytes = 0;
    let fits = |sealed: &&Arc<[u8]>| {
        bytes += sealed.len();
        bytes <= max_bytes
    };
    listings
        .iter()
        .take_while(fits)
        .map(|sealed| listing_text(sealed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn listings(count: u8) -> Vec<Arc<[u8]>> {
        (0..count).map(|byte| Arc::from(vec![byte; 10])).collect()
    }

    #[test]
    fn what_fits_is_given_whole() {
        let texts: BTreeSet<String> = directory(listings(10), 7, 100).into_iter().collect();
        assert_eq!(
            texts,
            listings(10).iter().map(|sealed| listing_text(sealed)).collect()
        );
        assert!(directory(Vec::new(), 3, 100).is_empty());
    }

    #[test]
    fn what_does_not_fit_is_bounded_and_everyone_has_a_turn() {
        let mut seen = BTreeSet::new();
        for random in 0..10 {
            let texts = directory(listings(10), random, 39);
            assert_eq!(texts.len(), 3);
            seen.extend(texts);
        }
        assert_eq!(seen.len(), 10);
    }
}
