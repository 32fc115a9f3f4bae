//! Random entries against the book's invariants.

use super::*;

fn any_entry() -> impl Strategy<Value = Entry> {
    let name = 1u8..5;
    let kind = prop_oneof![Just(GrantKind::Starter), Just(GrantKind::Operator)];
    let reason = prop_oneof![Just(CloseReason::Provider), Just(CloseReason::Expired)];
    prop_oneof![
        2 => (0u8..20, name.clone(), 0u32..500, kind).prop_map(|(id, to, amount, kind)| grant(id, to, amount, kind)),
        3 => (0u8..12, name.clone(), name.clone(), 0u32..300)
            .prop_map(|(id, consumer, provider, limit)| open(id, consumer, provider, limit)),
        5 => (0u8..12, name, 0u32..320).prop_map(|(id, signer, cumulative)| settle(id, signer, cumulative)),
        1 => (0u8..12, reason).prop_map(|(id, reason)| close(id, reason)),
        1 => (0u64..200).prop_map(|downtime_ms| Entry::Started(Started { downtime_ms })),
        1 => (200u8..204, 1u8..5).prop_map(|(id, of)| Entry::Freeze(frozen(id, of))),
        1 => (204u8..208, 1u8..5).prop_map(|(id, of)| Entry::Unfreeze(frozen(id, of))),
        1 => (10u8..13, 10u8..13).prop_map(|(old, new)| rotate(10, old, new)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is posted in whatever order: nothing is made or lost, and the journal alone gives the same state.
    #[test]
    fn random_entries_never_break_the_book(entries in proptest::collection::vec((any_entry(), 0u64..2_000), 1..120)) {
        let mut book = Book::new();
        let mut journal = Vec::new();
        for (entry, time_ms) in entries {
            let before = book.digest();
            match apply(&mut book, entry.clone(), time_ms) {
                Ok(Applied::New { sequence, outcome }) => {
                    journal.push((entry.encode(), time_ms));
                    prop_assert_eq!(sequence, journal.len() as u64);
                    prop_assert!(outcome.transfers.iter().all(|moved| !moved.amount.is_zero()));
                }
                Ok(Applied::Before { sequence }) => {
                    prop_assert!((1..=journal.len() as u64).contains(&sequence));
                    prop_assert_eq!(book.digest(), before);
                }
                Err(ApplyError::Refused(_)) => prop_assert_eq!(book.digest(), before),
                Err(ApplyError::Broken(broken)) => return Err(TestCaseError::fail(broken.to_string())),
            }
            book.verify().unwrap();
        }
        let mut replayed = Book::new();
        for (bytes, time_ms) in journal {
            let entry = CheckedEntry::journaled(Entry::decode(&bytes).unwrap());
            let applied = replayed.apply(&entry, time_ms);
            prop_assert!(matches!(applied, Ok(Applied::New { .. })), "{:?}", applied);
        }
        prop_assert_eq!(replayed.digest(), book.digest());
        let mut bytes = Vec::new();
        book.write_state(&mut bytes).unwrap();
        prop_assert_eq!(Book::read_state(&mut bytes.as_slice()).unwrap().digest(), book.digest());
        prop_assert_eq!(replayed.deadlines, book.deadlines);
    }

    /// Many small vouchers or one large one: the same fee.
    #[test]
    fn fees_do_not_depend_on_batching(mut steps in proptest::collection::vec(1u32..10_000, 1..20), fee in 0u16..=10_000) {
        steps.sort_unstable();
        steps.dedup();
        let channel_of = |book: &mut Book| {
            apply(book, grant(1, ALICE, 20_000, GrantKind::Operator), 1).unwrap();
            let Entry::OpenChannel(terms) = open(7, ALICE, BOB, 10_000) else { unreachable!() };
            apply(book, Entry::OpenChannel(OpenChannel { fee_basis_points: fee, ..terms }), 2).unwrap();
        };
        let (mut small, mut large) = (Book::new(), Book::new());
        channel_of(&mut small);
        channel_of(&mut large);
        for step in &steps {
            apply(&mut small, settle(7, ALICE, *step), 3).unwrap();
        }
        apply(&mut large, settle(7, ALICE, *steps.last().unwrap()), 3).unwrap();
        prop_assert_eq!(small.totals(), large.totals());
        prop_assert_eq!(small.balance(&account(BOB)), large.balance(&account(BOB)));
    }
}
