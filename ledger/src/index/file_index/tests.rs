use super::*;

mod journal;

use std::fs;

use gristmill_protocol::credits::Credits;
use proptest::prelude::*;

use crate::disk::RealDisk;
use crate::disk::faulty::FaultyDisk;
use crate::index::comparison::Comparison;
use crate::index::files::IndexDamage;
use crate::index::row::{ACCOUNT_BYTES, ROW_BYTES};

use self::journal::*;

/// Both files with the bytes of their slots.
const FILES: [(&str, usize); 2] = [("rows", ROW_BYTES), ("accounts", ACCOUNT_BYTES)];

fn copy(from: &Path, to: &Path) {
    for (name, _) in FILES {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn written(journal: &Journal) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let index = journal.open(folder.path()).unwrap();
    index.append(&journal.entries).unwrap();
    folder
}

#[test]
fn every_entry_comes_back_as_the_book_said_it_and_after_reopening() {
    let journal = Journal::of(story());
    let folder = tempfile::tempdir().unwrap();
    let index = journal.open(folder.path()).unwrap();
    assert_eq!(index.head().unwrap(), None);
    index.append(&[]).unwrap();
    for batch in journal.entries.chunks(4) {
        index.append(batch).unwrap();
        journal.assert_told_by(&index, "while it grows");
    }
    index.flush().unwrap();
    drop(index);
    let index = journal.open(folder.path()).unwrap();
    assert_eq!(index.head().unwrap().unwrap().sequence, 19);
    journal.assert_told_by(&index, "reopened");
}

#[test]
fn an_index_has_no_gap_and_nothing_twice() {
    let journal = Journal::of(story());
    let folder = tempfile::tempdir().unwrap();
    let index = journal.open(folder.path()).unwrap();
    assert!(matches!(
        index.append(&journal.entries[1..2]),
        Err(IndexError::Store(_))
    ));
    index.append(&journal.entries[..3]).unwrap();
    let with_gap = [journal.entries[3].clone(), journal.entries[5].clone()];
    for wrong in [&journal.entries[2..3], &journal.entries[4..], &with_gap] {
        assert!(matches!(index.append(wrong), Err(IndexError::Store(_))));
    }
    index.append(&journal.entries[3..]).unwrap();
    journal.assert_told_by(&index, "after what was refused");
}

#[test]
fn one_at_a_time_writes() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    let index = journal.open(folder.path()).unwrap();
    assert!(matches!(journal.open(folder.path()), Err(IndexError::InUse)));
    drop(index);
    journal.open(folder.path()).unwrap();
}

/// Opens what is there, whatever it is, and goes on as the ledger does.
fn opens_to_a_prefix_and_goes_on(journal: &Journal, directory: &Path, how: &str) -> u64 {
    let index = match journal.open(directory) {
        Ok(index) => index,
        Err(IndexError::Damaged(_)) => {
            fs::remove_dir_all(directory).unwrap();
            journal.open(directory).unwrap()
        }
        Err(other) => panic!("{how}: {other}"),
    };
    journal.assert_told_by(&index, how);
    let kept = index.head().unwrap().map_or(0, |head| head.sequence);
    index.append(&journal.entries[kept as usize..]).unwrap();
    drop(index);
    let index = journal.open(directory).unwrap();
    assert_eq!(
        index.head().unwrap(),
        journal.entries.last().map(IndexedEntry::head),
        "{how}"
    );
    journal.assert_told_by(&index, how);
    kept
}

/// Flips every bit of both files, one at a time, and says where it was found: comparing changes nothing.
#[test]
fn every_flipped_bit_is_found() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    for (name, slot) in FILES {
        let path = folder.path().join(name);
        let bytes = fs::read(&path).unwrap();
        let file = RealDisk.open(&path).unwrap();
        for (place, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                let how = format!("bit {bit} of byte {place} of {name}");
                let offset = (place / slot * slot) as u64;
                file.write_at(place as u64, &[byte ^ (1 << bit)]).unwrap();
                match Comparison::begin(&RealDisk, folder.path()) {
                    Ok(Some(comparison)) => {
                        let file = path.clone();
                        assert_eq!(comparison.damage(), Some(&IndexDamage { file, offset }), "{how}");
                        assert!(offset > 0 && comparison.entries() < 19, "{how}");
                        assert_eq!(disagreeing(comparison, &journal), [0; 0], "{how}");
                    }
                    Err(IndexError::Damaged(text)) => {
                        assert_eq!(text, format!("byte 0 of {}", path.display()), "{how}");
                        assert_eq!(offset, 0, "{how}");
                    }
                    other => panic!("{how}: {other:?}"),
                }
            }
            file.write_at(place as u64, &[*byte]).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

/// The entries about which an index and a journal disagree.
fn disagreeing(mut comparison: Comparison, journal: &Journal) -> Vec<u64> {
    let disagree = |entry: &&IndexedEntry| !comparison.agrees(entry).unwrap();
    let found = journal.entries.iter().filter(disagree);
    found.map(|entry| entry.sequence).collect()
}

#[test]
fn an_index_that_says_anything_else_than_the_journal_is_found_out() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    let comparison = || Comparison::begin(&RealDisk, folder.path()).unwrap().unwrap();
    assert_eq!((comparison().entries(), comparison().damage()), (19, None));
    assert_eq!(disagreeing(comparison(), &journal), [0; 0]);
    type Change = fn(&mut IndexedEntry);
    let changes: [(&str, Change); 4] = [
        ("place", |entry| entry.location.offset += 1),
        ("hash", |entry| entry.record_hash = LogHash::from_bytes([1; 32])),
        ("amounts", |entry| {
            if let crate::outcome::Effect::Settled(settled) = &mut entry.outcome.effect {
                settled.fee = Credits::micro(77);
            }
        }),
        ("parties", |entry| {
            if let crate::outcome::Effect::Settled(settled) = &mut entry.outcome.effect {
                settled.provider = account(CAROL);
            }
        }),
    ];
    for (what, change) in changes {
        let mut other = journal.clone();
        change(&mut other.entries[6]);
        assert_eq!(disagreeing(comparison(), &other).first(), Some(&7), "{what}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    assert!(Comparison::begin(&RealDisk, nowhere.path()).unwrap().is_none());
}

/// What the next start makes of a flipped bit, tried for one of every byte.
#[test]
fn whatever_bit_flips_the_next_start_goes_on() {
    let journal = Journal::of(story());
    let original = written(&journal);
    let folder = tempfile::tempdir().unwrap();
    for (name, slot) in FILES {
        let bytes = fs::read(original.path().join(name)).unwrap();
        for (place, byte) in bytes.iter().enumerate() {
            copy(original.path(), folder.path());
            let file = RealDisk.open(&folder.path().join(name)).unwrap();
            file.write_at(place as u64, &[byte ^ (1 << (place % 8))]).unwrap();
            let how = format!("byte {place} of {name}");
            let kept = opens_to_a_prefix_and_goes_on(&journal, folder.path(), &how);
            if name == "rows" {
                assert_eq!(kept, (place / slot).saturating_sub(1) as u64, "{how}");
            }
        }
    }
}

/// As a kill or a full disk leaves them.
#[test]
fn files_cut_at_every_byte_open_to_a_prefix() {
    let journal = Journal::of(story());
    let original = written(&journal);
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in FILES {
        let bytes = fs::read(original.path().join(name)).unwrap();
        for length in 0..bytes.len() {
            copy(original.path(), folder.path());
            fs::write(folder.path().join(name), &bytes[..length]).unwrap();
            let how = format!("{length} bytes of {name}");
            let kept = opens_to_a_prefix_and_goes_on(&journal, folder.path(), &how);
            if name == "rows" {
                assert_eq!(kept, (length / ROW_BYTES).saturating_sub(1) as u64, "{how}");
            }
        }
        copy(original.path(), folder.path());
        fs::remove_file(folder.path().join(name)).unwrap();
        opens_to_a_prefix_and_goes_on(&journal, folder.path(), &format!("no {name}"));
    }
}

/// As a loss of power leaves them: later parts are on the disk, earlier ones are zeros or of an older index.
#[test]
fn what_a_loss_of_power_leaves_opens_to_a_prefix() {
    let journal = Journal::of(story());
    let original = written(&journal);
    let older = written(&Journal::of(
        story()
            .into_iter()
            .rev()
            .filter(|entry| matches!(entry, Entry::Grant(_)))
            .collect(),
    ));
    let older = fs::read(older.path().join("rows")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, slot) in FILES {
        let bytes = fs::read(original.path().join(name)).unwrap();
        for start in (0..bytes.len()).step_by(slot) {
            for with in ["zeros", "older"] {
                copy(original.path(), folder.path());
                let mut lost = bytes.clone();
                let place = &mut lost[start..start + slot];
                match older.get(start..start + slot) {
                    Some(old) if with == "older" => place.copy_from_slice(old),
                    _ => place.fill(0),
                }
                fs::write(folder.path().join(name), lost).unwrap();
                let how = format!("{name}: {with} at byte {start}");
                opens_to_a_prefix_and_goes_on(&journal, folder.path(), &how);
            }
        }
    }
}

#[test]
fn a_bit_that_flips_while_it_is_open_is_an_error_and_gone_after_the_next_opening() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    let index = journal.open(folder.path()).unwrap();
    let path = folder.path().join("rows");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5 * ROW_BYTES + 13] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(index.entry(5), Err(IndexError::Damaged(text)) if text.contains("byte 320 of")));
    assert_eq!(index.entry(6).unwrap().as_ref(), Some(&journal.entries[5]));
    let all = index.history(&account(ALICE), Selection::All, None, 100);
    assert!(matches!(all, Err(IndexError::Damaged(_))));
    assert_eq!(
        index.history(&account(BOB), Selection::All, Some(4), 9).unwrap(),
        [3]
    );
    drop(index);
    let kept = opens_to_a_prefix_and_goes_on(&journal, folder.path(), "reopened");
    assert_eq!(kept, 4);
}

/// The same entries, but with other salts: other records in the same places.
fn salted_anew(journal: &Journal) -> Journal {
    let mut records = (*journal.records).clone();
    let mut entries = journal.entries.clone();
    for (record, entry) in records.values_mut().zip(&mut entries) {
        record.content[0] ^= 1;
        entry.record_hash = record.hash();
    }
    let records = Arc::new(records);
    Journal { records, entries }
}

/// A journal that went on otherwise from where the index is damaged: nothing of the old rows comes back.
#[test]
fn what_follows_damage_never_counts_again() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    let path = folder.path().join("rows");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5 * ROW_BYTES] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let other = salted_anew(&journal);
    let index = other.open(folder.path()).unwrap();
    assert_eq!(index.head().unwrap().unwrap().sequence, 4);
    index.append(&other.entries[4..6]).unwrap();
    drop(index);
    let index = other.open(folder.path()).unwrap();
    assert_eq!(index.head().unwrap(), Some(other.entries[5].head()));
}

#[test]
fn rows_of_another_journal_are_not_believed() {
    let journal = Journal::of(story());
    let folder = written(&journal);
    let other = salted_anew(&journal);
    let index = other.open(folder.path()).unwrap();
    let head = index.head().unwrap().unwrap();
    assert_eq!(head.sequence, 19);
    assert!(
        other
            .records
            .values()
            .all(|record| record.hash() != head.record_hash)
    );
    for sequence in 1..=19 {
        assert!(matches!(index.entry(sequence), Err(IndexError::Damaged(_))));
    }
    drop(index);
    // A journal that has lost its end: the head says how far it had come.
    let mut shorter = journal.clone();
    shorter.records = Arc::new(
        journal
            .records
            .iter()
            .take(3)
            .map(|(at, record)| (*at, record.clone()))
            .collect(),
    );
    let index = shorter.open(folder.path()).unwrap();
    assert_eq!(index.head().unwrap().unwrap().sequence, 19);
    assert_eq!(index.entry(3).unwrap().as_ref(), Some(&journal.entries[2]));
    assert!(matches!(index.entry(4), Err(IndexError::Damaged(_))));
}

/// The disk fills up at every possible byte; reading goes on, and so does writing once there is space.
#[test]
fn a_full_disk_poisons_nothing() {
    let journal = Journal::of(story());
    let all_bytes = (20 * ROW_BYTES + 6 * ACCOUNT_BYTES) as u64;
    for room in 0..=all_bytes {
        let folder = tempfile::tempdir().unwrap();
        let small = FaultyDisk::over(RealDisk::shared());
        small.set_free_bytes(Some(room));
        let disk: Arc<dyn Disk> = Arc::new(small.clone());
        let index = match FileIndex::open(&disk, folder.path(), journal.reader()) {
            Ok(index) => index,
            Err(IndexError::Store(_)) if room < (ROW_BYTES + ACCOUNT_BYTES) as u64 => {
                opens_to_a_prefix_and_goes_on(&journal, folder.path(), "not even begun");
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let mut appended = 0;
        while let Some(batch) = journal
            .entries
            .get(appended..(appended + 3).min(journal.entries.len()))
        {
            if batch.is_empty() || index.append(batch).is_err() {
                break;
            }
            appended += batch.len();
        }
        assert_eq!(
            appended == journal.entries.len(),
            room == all_bytes,
            "room for {room} bytes"
        );
        journal.assert_told_by(&index, "full");
        assert_eq!(
            index.head().unwrap().map_or(0, |head| head.sequence),
            appended as u64
        );
        // A process that ends here finds a prefix.
        let ended = tempfile::tempdir().unwrap();
        copy(folder.path(), ended.path());
        assert!(opens_to_a_prefix_and_goes_on(&journal, ended.path(), "ended when full") >= appended as u64);
        // And one that goes on appends what has waited, in batches of other sizes.
        small.set_free_bytes(None);
        for batch in journal.entries[appended..].chunks(5) {
            index.append(batch).unwrap();
        }
        journal.assert_told_by(&index, "space again");
        drop(index);
        let reopened = opens_to_a_prefix_and_goes_on(&journal, folder.path(), "reopened");
        assert_eq!(reopened, 19);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a list that is searched from its end: any accounts, kinds, batches, openings, pages.
    #[test]
    fn histories_are_what_a_plain_search_finds(
        picks in proptest::collection::vec((0..4u8, 0..6u8, any::<bool>()), 1..400),
        batch in 1..70usize,
        questions in proptest::collection::vec((0..8u8, any::<bool>(), proptest::option::of(0..420u64), 0..30usize), 40),
    ) {
        let mut journal = Journal::default();
        for ((consumer, provider, is_settlement), sequence) in picks.into_iter().zip(1..) {
            // One account is rare, another concerns nearly everything.
            let provider = if sequence % 97 == 0 { 7 } else { provider };
            let parts = (account(consumer), account(provider));
            let entry = if is_settlement { settle(1, ALICE, 9) } else { close(1) };
            let parties = if parts.0 == parts.1 { vec![parts.0] } else { vec![parts.0, parts.1] };
            let outcome = recall::outcome(&entry, &parties, [Credits::micro(1), Credits::micro(2)]).unwrap();
            journal.entries.push(IndexedEntry {
                sequence,
                time_ms: 1,
                record_hash: LogHash::from_bytes([1; 32]),
                location: Location { segment: 1, offset: sequence, bytes: 1 },
                outcome,
            });
        }
        let folder = tempfile::tempdir().unwrap();
        for (number, batch) in journal.entries.chunks(batch).enumerate() {
            let index = journal.open(folder.path()).unwrap();
            index.append(&batch[..batch.len() / 2]).unwrap();
            index.append(&batch[batch.len() / 2..]).unwrap();
            if number > 6 {
                break;
            }
        }
        let index = journal.open(folder.path()).unwrap();
        let known = index.state().newest;
        journal.entries.truncate(known as usize);
        for (name, all, before, limit) in questions {
            let selection = if all { Selection::All } else { Selection::Settlements };
            prop_assert_eq!(
                index.history(&account(name), selection, before, limit).unwrap(),
                journal.history(&account(name), selection, before, limit),
                "{} {:?} {:?} {}", name, selection, before, limit
            );
        }
    }
}
