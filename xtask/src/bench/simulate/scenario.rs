//! Whole scenarios by their number of nodes.

use serde::{Deserialize, Serialize};

/// What the program tells of a run, as far as it matters here.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Growth {
    pub(super) nodes: u64,
    pub(super) threads: u32,
    pub(super) events: u64,
    pub(super) wall_s: f64,
    pub(super) peak_rss_bytes: u64,
    pub(super) digest: String,
    /// None where all nodes remember what they heard.
    pub(super) bytes_per_idle_node: Option<f64>,
    pub(super) protocol_bytes_per_node: f64,
    /// Of the whole process, the building of the world included.
    #[serde(default)]
    pub(super) processor_s: f64,
}

impl Growth {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53")]
    pub(super) fn events_per_core_second(&self) -> f64 {
        self.events as f64 / self.processor_s
    }
}

/// How processor time grows with nodes: the slope of the least squares of their logarithms. None of fewer than two.
#[expect(clippy::cast_precision_loss, reason = "a few runs, of millions of nodes")]
pub(super) fn exponent(runs: &[Growth]) -> Option<f64> {
    let points: Vec<(f64, f64)> = runs
        .iter()
        .map(|run| ((run.nodes as f64).ln(), run.processor_s.ln()))
        .collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (nodes, seconds) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points
        .iter()
        .map(|point| (point.0 - nodes) * (point.1 - seconds))
        .sum();
    let alone: f64 = points.iter().map(|point| (point.0 - nodes).powi(2)).sum();
    (alone > 0.0).then(|| together / alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(nodes: u64, processor_s: f64) -> Growth {
        Growth {
            nodes,
            threads: 1,
            events: 1,
            wall_s: processor_s,
            peak_rss_bytes: 1,
            digest: String::new(),
            bytes_per_idle_node: None,
            protocol_bytes_per_node: 1.0,
            processor_s,
        }
    }

    #[test]
    fn the_exponent_is_that_of_the_power_law() {
        let runs = [run(10, 3.0), run(100, 60.0), run(1_000, 1_200.0)];
        let fitted = exponent(&runs).unwrap();
        assert!((fitted - 20_f64.log10()).abs() < 1e-9, "{fitted}");
        assert_eq!(exponent(&runs[..1]), None);
        assert_eq!(exponent(&[]), None);
    }
}
