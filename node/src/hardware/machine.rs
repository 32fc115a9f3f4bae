//! The devices of this machine, shown with candle to the coordinator over HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use gristmill_benchmark::fingerprint::Fingerprint;
use gristmill_benchmark::inventory::{Device, DeviceKind};
use gristmill_benchmark::probe;
use gristmill_benchmark::prover::{
    Again, Budget, ClaimPercent, Control, Gate, Progress, Prover, ProverError, ShowError, StopToken,
    show_within_attempts,
};
use gristmill_benchmark::upkeep::DeviceKey;
use gristmill_protocol::hardware::{
    ChallengeRequest, HardwareDigest, HardwareKind, HardwareStatus, RenewalAnswer,
};
use gristmill_protocol::ids::ChallengeId;
use gristmill_transport::{CoordinatorCallError, CoordinatorClient};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Activity, HardwareError, HardwareState, Phase, Showing};
use crate::settings::HardwareSettings;
use crate::slots::{Lent, Slots};

/// This machine, and the coordinator that it is shown to.
pub(crate) struct Machine {
    client: Arc<CoordinatorClient>,
    budget: Budget,
    claim_percent: ClaimPercent,
}

impl Machine {
    /// Within what the owner allows.
    pub(crate) fn new(client: Arc<CoordinatorClient>, settings: &HardwareSettings) -> Self {
        Self {
            client,
            budget: budget(settings),
            // Settings are checked when they are read.
            claim_percent: ClaimPercent::new(settings.claim_percent).unwrap_or_default(),
        }
    }
}

/// What the owner allows, as the prover takes it.
pub(crate) fn budget(settings: &HardwareSettings) -> Budget {
    Budget {
        memory_max_bytes: settings.memory_max_bytes,
        power_max_milliwatts: settings.power_max_watts.map(|watts| watts.saturating_mul(1_000)),
    }
}

/// The devices that can be shown: the GPUs, or the processor where there is none.
pub(crate) fn shown(devices: &[Device]) -> Vec<(DeviceKey, Device)> {
    let usable = |is_processor: bool| -> Vec<(DeviceKey, Device)> {
        let found = devices
            .iter()
            .filter(|device| device.usable && (device.kind == DeviceKind::Cpu) == is_processor);
        found
            .filter_map(|device| Some(((hardware_kind(device.kind)?, device.index), device.clone())))
            .collect()
    };
    let gpus = usable(false);
    if gpus.is_empty() { usable(true) } else { gpus }
}

const fn hardware_kind(kind: DeviceKind) -> Option<HardwareKind> {
    match kind {
        DeviceKind::Cuda => Some(HardwareKind::Cuda),
        DeviceKind::Metal => Some(HardwareKind::Metal),
        DeviceKind::Cpu => Some(HardwareKind::Cpu),
        DeviceKind::Rocm => None,
    }
}

/// The inventory asks drivers, which can take a while.
async fn inventory() -> Vec<(DeviceKey, Device)> {
    let devices = tokio::task::spawn_blocking(|| shown(&probe::inventory().devices)).await;
    devices.unwrap_or_else(|error| {
        tracing::error!(%error, "looking for devices panicked");
        Vec::new()
    })
}

#[async_trait]
impl Showing for Machine {
    async fn devices(&self) -> BTreeSet<DeviceKey> {
        inventory().await.into_iter().map(|(key, _)| key).collect()
    }

    async fn status(&self) -> Result<HardwareStatus, HardwareError> {
        self.client.hardware_status().await.map_err(|error| match &error {
            // A coordinator of an earlier version, or one that is told to issue none.
            CoordinatorCallError::Refused { status: 404, .. } => HardwareError::NoSuchCall,
            _ => error.into(),
        })
    }

    async fn renew(&self, certificate: &str) -> Result<RenewalAnswer, HardwareError> {
        Ok(self.client.renew_certificate(certificate).await?)
    }

    async fn show(
        &self,
        lent: &Lent,
        stop: &CancellationToken,
        state: &watch::Sender<HardwareState>,
    ) -> Vec<Result<String, HardwareError>> {
        let devices = inventory().await;
        state.send_modify(|state| state.activity = Activity::Showing(phases(&devices)));
        let token = StopToken::default();
        let listening = state.clone();
        let control = Control::new(token.clone(), Arc::new(NoJob(Arc::clone(lent.slots()))))
            .with_listener(Arc::new(move |progress| tell(&listening, progress)));
        let show = |place: usize, percent| {
            let (key, device) = &devices[place];
            self.show_one(*key, device.clone(), percent, control.for_device(place))
        };
        let again = |again: &Again| {
            let device = devices[again.device].1.summary();
            tracing::info!(device, "{again}");
            state.send_modify(|state| state.activity = Activity::Showing(phases(&devices)));
        };
        let all = async {
            let shown = show_within_attempts(devices.len(), self.claim_percent, show, again).await;
            let named = devices.iter().zip(shown);
            named
                .map(|((_, device), shown)| shown.map_err(|error| told(&device.summary(), error)))
                .collect()
        };
        tokio::pin!(all);
        tokio::select! {
            shown = &mut all => return shown,
            () = stop.cancelled() => token.stop(),
        }
        all.await
    }
}

impl Machine {
    async fn show_one(
        &self,
        (_, index): DeviceKey,
        device: Device,
        percent: ClaimPercent,
        control: Control,
    ) -> Result<String, ShowError> {
        let (budget, measuring) = (self.budget, control.clone());
        let measured = tokio::task::spawn_blocking(move || {
            let mut prover = Prover::open(&device, &budget)?;
            let measurement = prover.measure(&measuring)?;
            for remark in measurement.remarks() {
                tracing::warn!(device = device.summary(), "{remark}");
            }
            let fingerprint = HardwareDigest::from_bytes(Fingerprint::of(&device).digest());
            let claim = prover.claim(&measurement, percent, index, fingerprint);
            Ok((prover, claim))
        });
        let (prover, claim) = measured
            .await
            .unwrap_or_else(|error| Err(ProverError::DriverGaveUp(error.to_string())))?;
        let request = ChallengeRequest {
            challenge: ChallengeId::from_bytes(rand::random()),
            claim,
        };
        gristmill_benchmark::prover::show(Arc::new(prover), &*self.client, &request, &control).await
    }
}

/// The devices are free as long as there is no job.
struct NoJob(Arc<Slots>);

impl Gate for NoJob {
    fn is_open(&self) -> bool {
        self.0.jobs() == 0
    }
}

impl From<CoordinatorCallError> for HardwareError {
    fn from(error: CoordinatorCallError) -> Self {
        Self::Coordinator(error.to_string())
    }
}

/// What went wrong with a device, in the runner's words.
fn told(device: &str, error: ShowError) -> HardwareError {
    match error {
        ShowError::Prover(ProverError::Interrupted(_)) => HardwareError::Interrupted,
        ShowError::Challenger(error) => match error.downcast::<CoordinatorCallError>() {
            Ok(error) => (*error).into(),
            Err(error) => HardwareError::Coordinator(error.to_string()),
        },
        error => HardwareError::Device {
            device: device.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn phases(devices: &[(DeviceKey, Device)]) -> Vec<Phase> {
    let phase = |(_, device): &(DeviceKey, Device)| Phase {
        device: device.summary(),
        doing: "being measured".to_owned(),
        percent: 0,
    };
    devices.iter().map(phase).collect()
}

/// Shows progress where it is news.
fn tell(state: &watch::Sender<HardwareState>, progress: Progress) {
    state.send_if_modified(|state| {
        let Activity::Showing(phases) = &mut state.activity else {
            return false;
        };
        let Some(phase) = phases.get_mut(progress.device) else {
            return false;
        };
        let now = Phase {
            device: phase.device.clone(),
            doing: progress.phase.to_string(),
            percent: progress.done.saturating_mul(100) / progress.of.max(1),
        };
        let is_news = *phase != now;
        *phase = now;
        is_news
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: DeviceKind, index: u32, usable: bool) -> Device {
        Device {
            kind,
            index,
            usable,
            ..probe::inventory()
                .devices
                .into_iter()
                .find(|device| device.kind == DeviceKind::Cpu)
                .unwrap()
        }
    }

    #[test]
    fn gpus_are_shown_and_the_processor_only_where_there_is_none() {
        let keys = |devices: &[Device]| -> Vec<DeviceKey> {
            shown(devices).into_iter().map(|(key, _)| key).collect()
        };
        let processor = device(DeviceKind::Cpu, 0, true);
        let gpus = [
            device(DeviceKind::Cuda, 0, true),
            device(DeviceKind::Cuda, 1, false),
            device(DeviceKind::Cuda, 2, true),
            device(DeviceKind::Rocm, 0, false),
            processor.clone(),
        ];
        assert_eq!(keys(&gpus), [(HardwareKind::Cuda, 0), (HardwareKind::Cuda, 2)]);
        let without = [device(DeviceKind::Cuda, 0, false), processor];
        assert_eq!(keys(&without), [(HardwareKind::Cpu, 0)]);
        assert!(keys(&[]).is_empty());
    }

    #[test]
    fn progress_is_told_where_it_is_news() {
        let devices = [((HardwareKind::Cpu, 0), device(DeviceKind::Cpu, 0, true))];
        let (state, mut follows) = watch::channel(HardwareState::default());
        let progress = |device, done| Progress {
            device,
            phase: gristmill_benchmark::prover::Phase::Residency,
            done,
            of: 200,
        };
        tell(&state, progress(0, 100));
        assert!(!follows.has_changed().unwrap(), "nothing is being shown");
        state.send_modify(|state| state.activity = Activity::Showing(phases(&devices)));
        follows.mark_unchanged();
        tell(&state, progress(1, 100));
        assert!(!follows.has_changed().unwrap(), "there is no such device");
        tell(&state, progress(0, 100));
        assert!(follows.has_changed().unwrap());
        follows.mark_unchanged();
        tell(&state, progress(0, 101));
        assert!(!follows.has_changed().unwrap(), "still 50 %");
        let Activity::Showing(phases) = follows.borrow().activity.clone() else {
            panic!("it is being shown");
        };
        assert_eq!(phases[0].percent, 50);
    }

    #[test]
    fn a_job_is_an_interruption_and_everything_else_is_said_in_words() {
        use gristmill_benchmark::prover::Interruption;
        let closed = ShowError::from(Interruption::GateClosed);
        assert_eq!(told("cpu", closed), HardwareError::Interrupted);
        let refused = CoordinatorCallError::Refused {
            status: 429,
            code: "too_many_challenges".into(),
            message: "later".into(),
        };
        let refused = told("cpu", ShowError::Challenger(Box::new(refused)));
        assert!(matches!(refused, HardwareError::Coordinator(said) if said.contains("later")));
        let slow = ShowError::Refused {
            code: "slower_than_claimed".into(),
            message: "it took too long".into(),
        };
        let slow = told("cpu:0", slow).to_string();
        assert!(
            slow.contains("cpu:0") && slow.contains("it took too long"),
            "{slow}"
        );
    }
}
