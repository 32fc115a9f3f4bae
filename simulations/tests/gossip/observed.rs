//! What one run of a network showed, of the model or of libp2p, and how far two of them are apart.

use std::collections::BTreeMap;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// How many receptions of a message were over so many links.
    pub(crate) hops: BTreeMap<u64, u64>,
    /// How many peers have so many neighbours in their mesh.
    pub(crate) mesh: BTreeMap<u64, u64>,
    /// How many messages were published.
    pub(crate) messages: u64,
    /// How many receptions were of a message that the receiver already had.
    pub(crate) duplicates: u64,
    /// How many pairs of a newcomer and an old message there are, and how many newcomers got by asking.
    pub(crate) asked_of: (u64, u64),
}

impl Observed {
    /// Puts two runs together.
    pub(crate) fn add(&mut self, other: &Self) {
        for (hops, count) in &other.hops {
            *self.hops.entry(*hops).or_default() += count;
        }
        for (size, count) in &other.mesh {
            *self.mesh.entry(*size).or_default() += count;
        }
        self.messages += other.messages;
        self.duplicates += other.duplicates;
        self.asked_of.0 += other.asked_of.0;
        self.asked_of.1 += other.asked_of.1;
    }

    /// Receptions of a new message.
    pub(crate) fn receptions(&self) -> u64 {
        self.hops.values().sum()
    }

    /// Duplicates per first reception.
    pub(crate) fn duplicates_per_reception(&self) -> f64 {
        self.duplicates as f64 / self.receptions() as f64
    }

    /// The share of what newcomers could have asked for that they got.
    pub(crate) fn share_asked(&self) -> f64 {
        self.asked_of.1 as f64 / self.asked_of.0 as f64
    }

    /// The share of receptions within so many links, as a line of a table.
    pub(crate) fn curve(&self) -> String {
        let all = self.receptions() as f64;
        let mut sum = 0;
        let points = self.hops.iter().map(|(hops, count)| {
            sum += count;
            format!("{hops}: {:.3}", sum as f64 / all)
        });
        points.collect::<Vec<_>>().join(", ")
    }

    /// The mean of a distribution.
    pub(crate) fn mean(of: &BTreeMap<u64, u64>) -> f64 {
        let all: u64 = of.values().sum();
        of.iter().map(|(value, count)| value * count).sum::<u64>() as f64 / all as f64
    }
}

/// The largest distance between two distribution functions (Kolmogorov).
pub(crate) fn distance(one: &BTreeMap<u64, u64>, other: &BTreeMap<u64, u64>) -> f64 {
    let share = |of: &BTreeMap<u64, u64>, value: u64| {
        let all: u64 = of.values().sum();
        of.range(..=value).map(|(_, count)| count).sum::<u64>() as f64 / all as f64
    };
    one.keys()
        .chain(other.keys())
        .map(|value| (share(one, *value) - share(other, *value)).abs())
        .fold(0.0, f64::max)
}
