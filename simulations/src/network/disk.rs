//! How long a disk takes until what was written is safe: what a coordinator waits for before it answers.

use serde::Deserialize;

use crate::engine::random::Random;

/// A kind of disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disk {
    /// An SSD that is protected against loss of power, so that it may answer from its memory.
    #[default]
    Protected,
    /// An SSD of a desktop computer.
    Desktop,
    /// A hard disk of 7,200 turns a minute.
    Hard,
    /// A desktop's SSD that is nearly full: now and then it stops for half a second to tidy up. A guess.
    Stalling,
}

/// Parts of a thousand, and the time within which so many syncs are done, in microseconds. In between it is linear.
type Quantiles = [(u64, u64); 6];

const fn quantiles(disk: Disk) -> Quantiles {
    match disk {
        Disk::Protected => [
            (0, 10),
            (500, 30),
            (900, 60),
            (990, 150),
            (999, 1_000),
            (1_000, 5_000),
        ],
        Disk::Desktop => [
            (0, 400),
            (500, 900),
            (900, 1_500),
            (990, 4_000),
            (999, 15_000),
            (1_000, 50_000),
        ],
        Disk::Hard => [
            (0, 4_000),
            (500, 12_000),
            (900, 20_000),
            (990, 40_000),
            (999, 80_000),
            (1_000, 200_000),
        ],
        Disk::Stalling => [
            (0, 400),
            (500, 1_500),
            (900, 10_000),
            (990, 500_000),
            (999, 1_000_000),
            (1_000, 2_000_000),
        ],
    }
}

impl Disk {
    /// The time of one `fdatasync`, in microseconds.
    #[must_use]
    pub fn sync_us(self, random: &mut Random) -> u64 {
        let drawn = random.below(1_000_000);
        let table = quantiles(self);
        for pair in table.windows(2) {
            let (low, high) = (pair[0].0 * 1_000, pair[1].0 * 1_000);
            if drawn < high {
                return pair[0].1 + (pair[1].1 - pair[0].1) * (drawn - low) / (high - low);
            }
        }
        table[table.len() - 1].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_as_the_table_says() {
        for disk in [Disk::Protected, Disk::Desktop, Disk::Hard, Disk::Stalling] {
            let mut random = Random::of_purpose(1, "disk", 0);
            let mut times: Vec<u64> = (0..20_000).map(|_| disk.sync_us(&mut random)).collect();
            times.sort_unstable();
            for (part, time) in quantiles(disk) {
                let place = usize::try_from(part * 20).unwrap().min(times.len() - 1);
                let near = time * 3 / 4..=time * 4 / 3 + 1;
                assert!(
                    part == 1_000 || near.contains(&times[place]),
                    "{disk:?} {part}: {}",
                    times[place]
                );
            }
        }
    }
}
