//! Each planted error changes what happens at its own place, and nothing at the places of the others.

use gristmill_protocol::planted::{Bug, plant};

mod boards;
mod books;
mod channels;
mod routes;

/// An error, and whether what it does is seen when its place is tried.
type Place = (Bug, fn() -> bool);

fn places() -> impl Iterator<Item = &'static Place> {
    [channels::PLACES, boards::PLACES, routes::PLACES, books::PLACES]
        .into_iter()
        .flatten()
}

#[test]
fn each_error_is_seen_at_its_own_place_and_nowhere_else() {
    let covered: Vec<Bug> = places().map(|(bug, _)| *bug).collect();
    assert_eq!(covered, Bug::ALL, "every error has its place here");
    for planted in [None].into_iter().chain(Bug::ALL.iter().copied().map(Some)) {
        let _planted = plant(planted);
        for (bug, is_seen) in places() {
            assert_eq!(
                is_seen(),
                planted == Some(*bug),
                "{bug:?} with {planted:?} planted"
            );
        }
    }
}
