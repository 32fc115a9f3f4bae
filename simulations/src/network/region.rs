//! Parts of the world, how far they are apart and what time it is there.

use serde::Deserialize;

use super::weights::Kind;

/// A part of the world, and the Azure region that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// East US.
    NorthAmericaEast,
    /// West US.
    NorthAmericaWest,
    /// Brazil South.
    SouthAmerica,
    /// West Europe.
    Europe,
    /// South Africa North.
    Africa,
    /// UAE North.
    MiddleEast,
    /// Central India.
    India,
    /// Southeast Asia.
    SoutheastAsia,
    /// Japan East.
    Japan,
    /// Australia East.
    Australia,
}

impl Kind for Region {
    const ALL: &'static [(Self, u16)] = &[
        (Self::NorthAmericaEast, 20),
        (Self::NorthAmericaWest, 13),
        (Self::SouthAmerica, 1),
        (Self::Europe, 50),
        (Self::Africa, 1),
        (Self::MiddleEast, 2),
        (Self::India, 3),
        (Self::SoutheastAsia, 6),
        (Self::Japan, 2),
        (Self::Australia, 2),
    ];
}

/// Round trips in milliseconds. Within a region: to the next Azure region of the same area (East US 2, West US 2, Germany West
/// Central, South Africa West, UAE Central, South India, Indonesia Central, Japan West, Australia Southeast); South America has no
/// second one, and Africa's is taken.
const ROUND_TRIP_MS: [[u16; 10]; 10] = [
    [11, 74, 121, 91, 226, 191, 218, 229, 165, 207],
    [74, 26, 171, 153, 279, 257, 224, 172, 110, 142],
    [121, 171, 24, 191, 327, 293, 320, 337, 275, 298],
    [91, 153, 191, 14, 171, 124, 153, 182, 242, 282],
    [226, 279, 327, 171, 24, 105, 134, 211, 255, 348],
    [191, 257, 293, 124, 105, 8, 35, 90, 155, 182],
    [218, 224, 320, 153, 134, 35, 25, 59, 129, 152],
    [229, 172, 337, 182, 211, 90, 59, 19, 74, 98],
    [165, 110, 275, 242, 255, 155, 129, 74, 15, 105],
    [207, 142, 298, 282, 348, 182, 152, 98, 105, 17],
];

/// Minutes that local time is ahead of UTC, without summer time; Europe's is Berlin's.
const MINUTES_AHEAD: [i64; 10] = [-300, -480, -180, 60, 120, 240, 330, 480, 540, 600];

impl Region {
    /// Half of the round trip to another region, in microseconds.
    #[must_use]
    pub fn one_way_us(self, other: Self) -> u64 {
        u64::from(ROUND_TRIP_MS[self as usize][other as usize]) * 500
    }

    /// The hour of the day, 0 to 23, so long after midnight in UTC.
    #[must_use]
    pub fn local_hour(self, now_us: u64) -> usize {
        let minutes = i64::try_from(now_us / 60_000_000).unwrap_or(0) + MINUTES_AHEAD[self as usize];
        usize::try_from(minutes.rem_euclid(1_440) / 60).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_two_directions_and_the_order_of_the_regions() {
        for (one, row) in ROUND_TRIP_MS.iter().enumerate() {
            for (other, round_trip) in row.iter().enumerate() {
                assert_eq!(*round_trip, ROUND_TRIP_MS[other][one]);
                assert!(row[one] <= *round_trip);
            }
        }
        for (place, (region, _)) in Region::ALL.iter().enumerate() {
            assert_eq!(*region as usize, place);
        }
        assert_eq!(Region::Europe.one_way_us(Region::Japan), 121_000);
    }

    #[test]
    fn midnight_in_utc_is_morning_in_japan() {
        assert_eq!(Region::Japan.local_hour(0), 9);
        assert_eq!(Region::NorthAmericaWest.local_hour(0), 16);
        assert_eq!(Region::India.local_hour(30 * 60_000_000), 6);
    }
}
