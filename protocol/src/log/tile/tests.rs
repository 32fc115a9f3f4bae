use super::*;
use crate::log::hash::leaf_hash;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn paths_are_those_of_the_specification() {
    for (level, index, width, path) in [
        (0, 1_234_067, 256, "tile/0/x001/x234/067"),
        (0, 1_234_067, 8, "tile/0/x001/x234/067.p/8"),
        (0, 0, 256, "tile/0/000"),
        (1, 0, 1, "tile/1/000.p/1"),
        (63, 999, 255, "tile/63/999.p/255"),
        (2, 1000, 256, "tile/2/x001/000"),
        (0, u64::MAX, 256, "tile/0/x018/x446/x744/x073/x709/x551/615"),
    ] {
        let tile = Tile::new(level, index, width).unwrap();
        assert_eq!(tile.path(), path);
        assert_eq!(Tile::parse(path), Ok(tile));
        let bundle = EntryBundle::new(index, width).unwrap();
        let (_, rest) = path.strip_prefix("tile/").unwrap().split_once('/').unwrap();
        assert_eq!(bundle.path(), format!("tile/entries/{rest}"));
        assert_eq!(EntryBundle::parse(&bundle.path()), Ok(bundle));
        assert!(EntryBundle::parse(path).is_err());
        assert!(Tile::parse(&bundle.path()).is_err());
    }
}

#[test]
fn every_other_spelling_is_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0//000",
        "tile/00/000",
        "tile/+0/000",
        "tile/-1/000",
        "tile/64/000",
        "tile/256/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/X001/000",
        "tile/0/xx001/000",
        "tile/0/x+01/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
        "tile/entries/000",
        "tile/data/000",
        "tile/0/٠٠٠",
    ] {
        assert_eq!(Tile::parse(path), Err(TileError::Path(path.to_owned())), "{path}");
        let bundle = path.replacen("tile/0/", "tile/entries/", 1);
        assert!(
            path == "tile/entries/000" || EntryBundle::parse(&bundle).is_err(),
            "{bundle}"
        );
    }
    assert!(Tile::parse(&"tile/0/x001".repeat(10_000)).is_err());
}

#[test]
fn widths_and_levels_end_where_they_should() {
    for (level, width, good) in [
        (0, 0, false),
        (0, 1, true),
        (0, 256, true),
        (0, 257, false),
        (63, 256, true),
        (64, 256, false),
    ] {
        assert_eq!(Tile::new(level, 0, width).is_ok(), good, "{level} {width}");
        assert_eq!(EntryBundle::new(0, width).is_ok(), good || level > 63, "{width}");
    }
}

/// The example of the specification.
#[test]
fn a_tree_of_70000_leaves_has_these_tiles() {
    let tiles: Vec<_> = tiles_of(70_000).collect();
    let expected = (0..273)
        .map(|index| (0, index, 256))
        .chain([(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)])
        .map(|(level, index, width)| Tile::new(level, index, width).unwrap());
    assert_eq!(tiles, expected.collect::<Vec<_>>());
    let paths: Vec<_> = tiles_of(256).map(|tile| tile.path()).collect();
    assert_eq!(paths, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_of(0).count(), 0);
    assert_eq!(
        tiles_of(crate::log::LOG_SIZE_MAX).next().unwrap().path(),
        "tile/0/000"
    );
}

#[test]
fn hashes_need_exactly_their_bytes() {
    let tile = Tile::new(0, 0, 2).unwrap();
    let hashes = [leaf_hash(b"a"), leaf_hash(b"b")];
    let bytes = [hashes[0].bytes().as_slice(), hashes[1].bytes()].concat();
    assert_eq!(tile.hashes(&bytes), Ok(hashes.to_vec()));
    for actual in [0, 32, 63, 65, 96] {
        let expected = 64;
        assert_eq!(
            tile.hashes(&vec![0; actual]),
            Err(TileError::Length {
                tile,
                expected,
                actual
            })
        );
    }
    assert_eq!(tile.full().hashes(&[7; TILE_MAX_BYTES]).unwrap().len(), 256);
}

fn check_between(old_size: u64, new_size: u64) {
    let old: BTreeSet<_> = tiles_of(old_size).collect();
    let expected: Vec<_> = tiles_of(new_size).filter(|tile| !old.contains(tile)).collect();
    let between: Vec<_> = tiles_between(old_size, new_size).collect();
    assert_eq!(between, expected, "{old_size} to {new_size}");
    let bundles: Vec<_> = bundles_between(old_size, new_size)
        .map(|bundle| bundle.tile())
        .collect();
    let leaves: Vec<_> = expected.into_iter().filter(|tile| tile.level() == 0).collect();
    assert_eq!(bundles, leaves);
}

#[test]
fn growing_writes_the_tiles_that_the_smaller_tree_lacks() {
    let sizes: Vec<u64> = (0..20)
        .chain([
            255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 66_000, 131_072,
        ])
        .collect();
    for (position, &old) in sizes.iter().enumerate() {
        for &new in &sizes[position..] {
            check_between(old, new);
        }
    }
    assert_eq!(tiles_between(5, 5).count(), 0);
    assert_eq!(tiles_between(6, 5).count(), 0);
}

proptest! {
    #[test]
    fn growing_anywhere(old in 0u64..100_000, more in 0u64..10_000) {
        check_between(old, old + more);
    }

    #[test]
    fn every_tile_has_one_spelling(level in 0u8..=63, index: u64, width in 1u16..=256) {
        let tile = Tile::new(level, index, width).unwrap();
        prop_assert_eq!(Tile::parse(&tile.path()), Ok(tile));
    }

    #[test]
    fn what_parses_is_spelled_so(path in "tile/(entries|[0-9]{1,3})/[x0-9/]{0,12}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.path(), path.as_str());
        }
        if let Ok(bundle) = EntryBundle::parse(&path) {
            prop_assert_eq!(bundle.path(), path);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(path in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Tile::parse(&path).is_err());
        let _ = Tile::new(0, 0, 2).unwrap().hashes(&bytes);
    }
}
