//! What a node tells Prometheus about its GPUs, in the names of OpenTelemetry's conventions for hardware
//! (<https://opentelemetry.io/docs/specs/semconv/hardware/>: `hw.gpu.*`, `hw.power`, `hw.temperature`, `hw.errors`,
//! `hw.status`), and when they are read for that.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gristmill_benchmark::health::Slowdown;
use gristmill_benchmark::inventory::{Device, DeviceKind, Inventory};
use gristmill_telemetry::{Family, Gauge, Registry};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a reading is good for: scrapes come more often than drivers like to be asked.
const FRESH: Duration = Duration::from_secs(10);
/// How long a scrape waits for the drivers.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this long without an answer of the drivers, nothing is told any more.
const STALE: Duration = Duration::from_secs(60);

/// Names and values.
type Labels = Vec<(&'static str, String)>;
type Amounts = Family<Labels, Gauge<f64, AtomicU64>>;

/// The metrics of the GPUs. What a driver does not tell is not there.
#[derive(Debug, Default)]
pub(crate) struct HardwareMetrics {
    memory_limit: Amounts,
    memory_usage: Amounts,
    memory_utilization: Amounts,
    utilization: Amounts,
    temperature: Amounts,
    power: Amounts,
    power_limit: Amounts,
    errors: Amounts,
    status: Amounts,
}

impl HardwareMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let named = [
            (
                "hw_gpu_memory_limit_bytes",
                "Size of the GPU's memory",
                &metrics.memory_limit,
            ),
            (
                "hw_gpu_memory_usage_bytes",
                "The GPU's memory in use",
                &metrics.memory_usage,
            ),
            (
                "hw_gpu_memory_utilization_ratio",
                "Share of the GPU's memory in use",
                &metrics.memory_utilization,
            ),
            (
                "hw_gpu_utilization_ratio",
                "Share of time in which the GPU was busy",
                &metrics.utilization,
            ),
            (
                "hw_temperature_celsius",
                "Temperature of the GPU",
                &metrics.temperature,
            ),
            ("hw_power_watts", "Power that the GPU draws", &metrics.power),
            // The conventions have no limit of power.
            (
                "gristmill_hw_power_limit_watts",
                "Power that the GPU may draw at most",
                &metrics.power_limit,
            ),
            // A gauge: the driver's own count begins anew when it is loaded.
            (
                "hw_errors",
                "Errors of the GPU's memory that could not be corrected",
                &metrics.errors,
            ),
            ("hw_status", "Whether the GPU is in this state", &metrics.status),
        ];
        for (name, help, family) in named {
            registry.register(name, help, family.clone());
        }
        metrics
    }

    /// Shows these devices and no others.
    pub(crate) fn show(&self, devices: &[Device]) {
        let all = [
            &self.memory_limit,
            &self.memory_usage,
            &self.memory_utilization,
            &self.utilization,
            &self.temperature,
            &self.power,
            &self.power_limit,
            &self.errors,
            &self.status,
        ];
        all.into_iter().for_each(Family::clear);
        for device in devices.iter().filter(|device| device.kind != DeviceKind::Cpu) {
            self.show_one(device);
        }
    }

    fn show_one(&self, device: &Device) {
        let of = |more: &[(&'static str, &str)]| {
            let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
            labels(device).into_iter().chain(more).collect::<Labels>()
        };
        let set = |family: &Amounts, more: &[(&'static str, &str)], value: Option<f64>| {
            if let Some(value) = value {
                family.get_or_create(&of(more)).set(value);
            }
        };
        let (total, free) = (device.memory_total_bytes, device.memory_free_bytes);
        let used = total.zip(free).map(|(total, free)| total.saturating_sub(free));
        let share = used.zip(total).filter(|(_, total)| *total > 0);
        set(&self.memory_limit, &[], total.map(bytes));
        set(&self.memory_usage, &[], used.map(bytes));
        set(
            &self.memory_utilization,
            &[],
            share.map(|(used, total)| bytes(used) / bytes(total)),
        );
        let busy = device
            .utilization_percent
            .map(|percent| f64::from(percent) / 100.0);
        set(&self.utilization, &[("hw_gpu_task", "general")], busy);
        let kind = [("hw_type", "gpu")];
        set(
            &self.temperature,
            &kind,
            device.temperature_celsius.map(f64::from),
        );
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1_000.0;
        set(&self.power, &kind, device.power_milliwatts.map(watts));
        set(&self.power_limit, &kind, device.power_limit_milliwatts.map(watts));
        let health = &device.health;
        let uncorrected = [("hw_type", "gpu"), ("error_type", "uncorrected")];
        set(
            &self.errors,
            &uncorrected,
            health.ecc_uncorrected_errors.map(bytes),
        );
        let failed = health.ecc_uncorrected_errors.is_some_and(|errors| errors > 0);
        let degraded = health.slowdowns.iter().copied().any(Slowdown::is_fault);
        for (state, is_so) in [
            ("ok", !failed && !degraded),
            ("degraded", degraded),
            ("failed", failed),
        ] {
            let state = [("hw_type", "gpu"), ("hw_state", state)];
            set(&self.status, &state, Some(if is_so { 1.0 } else { 0.0 }));
        }
    }
}

/// What every metric of a device says about it.
fn labels(device: &Device) -> Labels {
    let place = || format!("{}:{}", device.kind, device.index);
    vec![
        ("hw_id", device.uuid.clone().unwrap_or_else(place)),
        ("hw_name", device.name.clone()),
        ("hw_vendor", device.vendor.clone()),
    ]
}

/// A number of bytes as Prometheus counts: exact up to 9 PB.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
const fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

/// Reads the devices when somebody wants to know, and not more often than they like.
#[derive(Debug, Default)]
pub(crate) struct HardwareWatch {
    state: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Reading {
    last: Option<(Instant, Inventory)>,
    /// A reading that is under way. A driver that is stuck keeps one thread, not one for each scrape.
    running: Option<JoinHandle<Inventory>>,
}

impl HardwareWatch {
    /// The devices as they were some seconds ago at most; none where the drivers have not answered for a minute.
    pub(crate) async fn devices(&self) -> Vec<Device> {
        self.devices_by(gristmill_benchmark::probe::inventory).await
    }

    async fn devices_by(&self, read: impl FnOnce() -> Inventory + Send + 'static) -> Vec<Device> {
        let mut state = self.state.lock().await;
        let is_fresh = |last: &(Instant, Inventory)| last.0.elapsed() < FRESH;
        if !state.last.as_ref().is_some_and(is_fresh) {
            let running = state
                .running
                .get_or_insert_with(|| tokio::task::spawn_blocking(read));
            if let Ok(ended) = timeout(PATIENCE, running).await {
                state.running = None;
                // One that panicked is told by the panic; the next scrape tries again.
                if let Ok(inventory) = ended {
                    state.last = Some((Instant::now(), inventory));
                }
            }
        }
        let known = state.last.as_ref().filter(|(at, _)| at.elapsed() < STALE);
        known
            .map(|(_, inventory)| inventory.devices.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use gristmill_benchmark::health::Health;
    use gristmill_benchmark::inventory::Host;
    use gristmill_telemetry::exposition::exposition;

    use super::*;

    fn card() -> Device {
        Device {
            uuid: Some("GPU-1".into()),
            memory_total_bytes: Some(24 << 30),
            memory_free_bytes: Some(18 << 30),
            utilization_percent: Some(87),
            temperature_celsius: Some(71),
            power_milliwatts: Some(312_500),
            health: Health {
                slowdowns: vec![Slowdown::Heat],
                ..Health::default()
            },
            ..Device::new(DeviceKind::Cuda, 0, "RTX", "NVIDIA")
        }
    }

    fn inventory(devices: Vec<Device>) -> Inventory {
        let host = Host {
            operating_system: String::new(),
            architecture: String::new(),
        };
        Inventory::new(host, devices, vec![])
    }

    #[test]
    fn what_is_told_is_exported_and_nothing_else() {
        let mut registry = Registry::default();
        let metrics = HardwareMetrics::register(&mut registry);
        metrics.show(&[card(), Device::new(DeviceKind::Cpu, 0, "CPU", "Intel")]);
        let (_, text) = exposition(&registry, None);
        let labels = "hw_id=\"GPU-1\",hw_name=\"RTX\",hw_vendor=\"NVIDIA\"";
        for line in [
            format!("hw_gpu_memory_limit_bytes{{{labels}}} 25769803776.0"),
            format!("hw_gpu_memory_usage_bytes{{{labels}}} 6442450944.0"),
            format!("hw_gpu_memory_utilization_ratio{{{labels}}} 0.25"),
            format!("hw_gpu_utilization_ratio{{{labels},hw_gpu_task=\"general\"}} 0.87"),
            format!("hw_temperature_celsius{{{labels},hw_type=\"gpu\"}} 71.0"),
            format!("hw_power_watts{{{labels},hw_type=\"gpu\"}} 312.5"),
            format!("hw_status{{{labels},hw_type=\"gpu\",hw_state=\"degraded\"}} 1.0"),
            format!("hw_status{{{labels},hw_type=\"gpu\",hw_state=\"ok\"}} 0.0"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("hw_errors{") && !text.contains("power_limit_watts{") && !text.contains("Intel")
        );
        // A card that was taken out is not shown any longer.
        metrics.show(&[]);
        assert!(!exposition(&registry, None).1.contains("GPU-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn devices_are_read_when_the_last_reading_is_old() {
        let (watch, reads) = (HardwareWatch::default(), Arc::new(AtomicU32::new(0)));
        let read = || {
            let reads = Arc::clone(&reads);
            move || {
                reads.fetch_add(1, Ordering::SeqCst);
                inventory(vec![card()])
            }
        };
        assert_eq!(watch.devices_by(read()).await.len(), 1);
        assert_eq!(watch.devices_by(read()).await.len(), 1);
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        tokio::time::advance(FRESH).await;
        watch.devices_by(read()).await;
        assert_eq!(reads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_stuck_driver_keeps_one_thread_and_what_it_said_is_shown_for_a_while() {
        let later = async |time| {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        };
        let watch = HardwareWatch::default();
        assert_eq!(watch.devices_by(|| inventory(vec![card()])).await.len(), 1);
        later(FRESH).await;
        let (let_go, stuck) = mpsc::channel::<()>();
        let first = watch.devices_by(move || {
            let _ = stuck.recv();
            inventory(vec![card(), card()])
        });
        assert_eq!(first.await.len(), 1, "what it said some seconds ago");
        later(STALE).await;
        let second = watch.devices_by(|| unreachable!("one reading is under way already"));
        assert_eq!(second.await, [], "that is too old by now");
        drop(let_go);
        let third = watch.devices_by(|| unreachable!("one reading is under way already"));
        assert_eq!(
            third.await.len(),
            2,
            "the reading under way is the one that counts"
        );
    }
}
