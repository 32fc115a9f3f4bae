//! What every store has to pass, and what it is compared with. A suite for tests, in the crate so that every store,
//! also one that is made elsewhere, is held to the same; it panics where a promise is broken.
//!
//! - [`conformance_tests!`](crate::conformance_tests) makes one test of each promise in [`checks`] and [`races`].
//! - [`model`] is a book that is too simple to be wrong and far too slow to be used, against which random sequences of
//!   entries are compared.
//! - [`server`] and [`database`] start a real PostgreSQL and give each test a database of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "a suite of tests"
)]

pub mod checks;
pub mod comparison;
pub mod database;
pub mod log_checks;
pub mod model;
pub mod races;
pub mod server;
pub mod world;

use std::sync::Arc;

use async_trait::async_trait;

use crate::Store;
use crate::book::Book;
use crate::entry::Entry;

/// A kind of store.
#[async_trait]
pub trait StoreKind: Send + Sync {
    /// An empty ledger somewhere new.
    async fn begin(&self) -> Box<dyn KeptLedger>;
}

/// A ledger in a place where it stays, whether it is open or not.
#[async_trait]
pub trait KeptLedger: Send + Sync {
    /// Opens it. Where the store allows one process only, what was opened before is shut down by then.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Reads every record back, decides about each again with a fresh book, and finds the same answers and the same state.
pub async fn assert_consistent(store: &dyn Store) -> Book {
    let head = store.head().await.unwrap();
    let mut book = Book::new();
    while book.sequence() < head.sequence {
        let first = book.sequence() + 1;
        let records = store.records(first, 300).await.unwrap();
        assert!(!records.is_empty(), "record {first} is missing");
        for record in records {
            let entry = Entry::decode_salted(&record.content).unwrap().check().unwrap();
            let applied = book.apply(&entry, record.time_ms).unwrap();
            let posted = store.posted(record.sequence).await.unwrap().unwrap();
            let crate::book::Applied::New { sequence, outcome } = applied else {
                panic!("record {} is a repetition", record.sequence);
            };
            assert_eq!(record.sequence, sequence);
            assert_eq!(posted.sequence, sequence);
            assert_eq!(posted.outcome, outcome, "entry {sequence}");
            assert_eq!(posted.time_ms, record.time_ms, "entry {sequence}");
            assert_eq!(posted.record_hash, record.hash(), "entry {sequence}");
        }
    }
    book.verify().unwrap();
    assert_eq!(*book.head(), head);
    assert_eq!(store.state_digest().await.unwrap(), book.digest());
    store.verify().await.unwrap();
    book
}

/// One test for each promise, in a module of this name. `$kind` is an expression that gives a [`StoreKind`].
#[macro_export]
macro_rules! conformance_tests {
    ($module:ident, $kind:expr) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            $crate::conformance_tests!(@each $kind, checks:
                an_empty_ledger_has_nothing
                a_story_of_every_kind_of_entry_is_kept
                the_same_entry_has_the_same_answer_for_ever
                refusals_change_nothing
                histories_are_pages_from_the_newest_on
                channels_expire_in_order_and_downtime_delays_them
                the_largest_numbers_come_back
                records_are_read_in_bounded_pages
                a_post_that_nobody_waits_for_is_written
                shutdown_finishes_what_waits_and_takes_no_more
            );
            $crate::conformance_tests!(@each $kind, races:
                two_thousand_posts_at_once_conserve_every_credit
                every_call_doubled_reordered_and_raced_has_one_effect
                a_name_that_many_race_for_is_given_once
            );
            $crate::conformance_tests!(@each $kind, log_checks:
                tiles_are_kept_and_never_change
                one_size_has_one_root
                racing_for_a_size_gives_one_root
                the_published_checkpoint_is_the_largest_one
            );

            #[test]
            fn random_entries_do_what_the_model_says() {
                $crate::conformance::comparison::random_entries_do_what_the_model_says(&$kind);
            }
        }
    };
    (@each $kind:expr, $group:ident: $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::$group::$check(&$kind).await;
            }
        )*
    };
}
