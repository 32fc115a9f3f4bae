//! What a coordinator tells Prometheus about its challenges of hardware.

use std::sync::atomic::AtomicU64;

use gristmill_benchmark::session::Counts;
use gristmill_telemetry::{Counter, Family, Gauge, Registry};

/// Names and values.
type Labels = Vec<(&'static str, &'static str)>;

/// The metrics. Labels are the codes of refusals, which are a few: nothing in them is of a provider.
#[derive(Debug, Default)]
pub(super) struct ChallengeMetrics {
    posed: Counter,
    pub(super) passed: Counter,
    refused: Family<Labels, Counter>,
    open: Gauge<f64, AtomicU64>,
    devices: Gauge<f64, AtomicU64>,
}

impl ChallengeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "gristmill_hardware_challenges_posed",
            "Challenges of hardware that were posed",
            metrics.posed.clone(),
        );
        registry.register(
            "gristmill_hardware_challenges_passed",
            "Challenges of hardware that ended with a certificate",
            metrics.passed.clone(),
        );
        registry.register(
            "gristmill_hardware_challenges_refused",
            "Challenges of hardware that ended without a certificate, by the code that the provider was told",
            metrics.refused.clone(),
        );
        registry.register(
            "gristmill_hardware_challenges_open",
            "Challenges of hardware that are not over",
            metrics.open.clone(),
        );
        registry.register(
            "gristmill_hardware_devices",
            "Devices that are remembered as certified, also where the certificate expired",
            metrics.devices.clone(),
        );
        metrics
    }

    /// A challenge ended without a certificate.
    pub(super) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&vec![("code", code)]).inc();
    }

    /// Shows how much there is now.
    pub(super) fn show(&self, counts: Counts) {
        self.posed.inc_by(counts.posed.saturating_sub(self.posed.get()));
        self.open.set(as_float(counts.open));
        self.devices.set(as_float(counts.devices));
    }
}

/// Counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
const fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use gristmill_telemetry::exposition::exposition;

    use super::*;

    #[test]
    fn what_happened_is_told_by_its_code() {
        let mut registry = Registry::default();
        let metrics = ChallengeMetrics::register(&mut registry);
        let counts = |posed| Counts {
            open: 2,
            held: 1,
            devices: 7,
            posed,
        };
        metrics.show(counts(3));
        metrics.show(counts(5));
        metrics.passed.inc();
        metrics.refused("late");
        metrics.refused("late");
        let (_, text) = exposition(&registry, None);
        for line in [
            "gristmill_hardware_challenges_posed_total 5",
            "gristmill_hardware_challenges_passed_total 1",
            "gristmill_hardware_challenges_refused_total{code=\"late\"} 2",
            "gristmill_hardware_challenges_open 2.0",
            "gristmill_hardware_devices 7.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
