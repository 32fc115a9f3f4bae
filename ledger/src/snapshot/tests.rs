//! Snapshots come back, and every change of one is noticed.

use super::*;
use crate::disk::RealDisk;
use crate::entry::{Entry, Grant, GrantKind};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::GrantId;

fn example(entries: u8) -> (SnapshotHeader, Book) {
    let mut book = Book::new();
    let mut frontier = Frontier::new();
    for id in 1..=entries {
        let grant = Entry::Grant(Grant {
            id: GrantId::from_bytes([id; 16]),
            account: AccountId::from_public_key([id % 7; 32]),
            amount: Credits::micro(5),
            kind: GrantKind::Operator,
            reason: "snapshot".into(),
            starter_daily_budget: Credits::ZERO,
        });
        book.apply(&grant.check().unwrap(), u64::from(id)).unwrap();
        frontier.push(LogHash::from_bytes([id; 32]));
    }
    let header = SnapshotHeader {
        sequence: u64::from(entries),
        record_hash: LogHash::from_bytes([entries; 32]),
        location: Location {
            segment: 3,
            offset: 77,
            bytes: 99,
        },
        state_digest: book.digest(),
        frontier,
    };
    (header, book)
}

#[test]
fn a_snapshot_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("snapshots");
    assert_eq!(list(&RealDisk, &directory).unwrap(), Vec::<u64>::new());
    let (header, book) = example(40);
    write(&RealDisk, &directory, &header, &book).unwrap();
    let snapshot = read(&RealDisk, &directory, 40).unwrap();
    assert_eq!(
        (&snapshot.header, snapshot.book.digest()),
        (&header, book.digest())
    );
    assert_eq!(snapshot.header.frontier.root(), header.frontier.root());
    assert_eq!(
        snapshot.bytes,
        std::fs::metadata(path(&directory, 40)).unwrap().len()
    );
    assert_eq!(read_header(&RealDisk, &directory, 40).unwrap(), header);
    assert!(matches!(
        read(&RealDisk, &directory, 41),
        Err(SnapshotError::Read(error)) if error.kind() == io::ErrorKind::NotFound
    ));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (header, book) = example(3);
    write(&RealDisk, folder.path(), &header, &book).unwrap();
    let file = path(folder.path(), 3);
    let whole = std::fs::read(&file).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &damaged).unwrap();
        assert!(read(&RealDisk, folder.path(), 3).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(read(&RealDisk, folder.path(), 3).is_err(), "cut at {length}");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    std::fs::write(&file, longer).unwrap();
    assert!(read(&RealDisk, folder.path(), 3).is_err());
    std::fs::write(&file, &whole).unwrap();
    // Under another name it would be the state after another record.
    std::fs::rename(&file, path(folder.path(), 4)).unwrap();
    assert!(matches!(
        read(&RealDisk, folder.path(), 4),
        Err(SnapshotError::Contradiction { .. })
    ));
}

#[test]
fn a_state_that_is_another_than_the_header_says_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (header, _) = example(3);
    let (_, other) = example(4);
    write(&RealDisk, folder.path(), &header, &other).unwrap();
    assert!(matches!(
        read(&RealDisk, folder.path(), 3),
        Err(SnapshotError::Contradiction { .. })
    ));
}

#[test]
fn only_the_newest_are_kept_and_other_files_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    for entries in [9, 2, 30, 100] {
        let (header, book) = example(entries);
        write(&RealDisk, folder.path(), &header, &book).unwrap();
    }
    std::fs::write(folder.path().join("7"), "not twenty digits").unwrap();
    std::fs::write(folder.path().join("00000000000000000050.new"), "interrupted").unwrap();
    assert_eq!(list(&RealDisk, folder.path()).unwrap(), [100, 30, 9, 2]);
    prune(&RealDisk, folder.path(), 2).unwrap();
    assert_eq!(list(&RealDisk, folder.path()).unwrap(), [100, 30]);
    assert!(!folder.path().join("00000000000000000050.new").exists());
    assert!(folder.path().join("7").exists());
}
