//! The runner with devices and a coordinator that do as they are told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use gristmill_protocol::hardware::{
    CERTIFICATE_LIFE_SECONDS, CertifiedDevice, DeviceStatus, HardwareDigest, HardwareKind, METHOD, Precision,
    Throughput,
};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::jws::Audience;
use rand::SeedableRng as _;
use tokio::task::JoinHandle;

const NOW: u64 = 1_800_000_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn coordinator_key() -> Keypair {
    Keypair::from_secret(&[1; 32])
}

fn account() -> AccountId {
    Keypair::from_secret(&[2; 32]).account()
}

/// A certificate of a processor, by a coordinator about an account.
fn certificate(issuer: &Keypair, about: AccountId, index: u32, issued_at_ms: u64) -> HardwareCertificate {
    let iat = issued_at_ms / 1_000;
    HardwareCertificate {
        iss: issuer.account(),
        sub: about,
        aud: Audience::One(issuer.account()),
        jti: ChallengeId::from_bytes([7; 16]),
        iat,
        exp: iat + CERTIFICATE_LIFE_SECONDS,
        shown_at: iat,
        method: METHOD.into(),
        device: CertifiedDevice {
            kind: HardwareKind::Cpu,
            index,
            name: "A processor".into(),
            vendor: String::new(),
            uuid: None,
        },
        memory_bytes: 1 << 30,
        throughput: vec![Throughput {
            precision: Precision::F32,
            multiply_adds_per_second: 1_000_000_000,
        }],
        score: 10,
        fingerprint: HardwareDigest::from_bytes([9; 32]),
        fingerprint_changed: false,
    }
}

/// What the devices and the coordinator do.
#[derive(Default)]
struct Scripted {
    clock_ms: AtomicU64,
    /// What is answered to the next calls; afterwards everything is well.
    failures: Mutex<Vec<HardwareError>>,
    wanted: Mutex<bool>,
    given: Mutex<Option<String>>,
    /// Whose certificate is given.
    about: Mutex<Option<AccountId>>,
    looks: AtomicUsize,
    shows: AtomicUsize,
    renewals: AtomicUsize,
    /// Whether showing goes on until it is broken off.
    takes_for_ever: Mutex<bool>,
    computing: watch::Sender<bool>,
}

#[async_trait]
impl Showing for Arc<Scripted> {
    async fn devices(&self) -> BTreeSet<DeviceKey> {
        BTreeSet::from([(HardwareKind::Cpu, 0)])
    }

    async fn status(&self) -> Result<HardwareStatus, HardwareError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        let device = |certificate| DeviceStatus {
            certificate,
            challenge_wanted: *self.wanted.lock().unwrap(),
        };
        Ok(HardwareStatus {
            devices: self
                .given
                .lock()
                .unwrap()
                .clone()
                .map(device)
                .into_iter()
                .collect(),
            challenges: vec![],
        })
    }

    async fn renew(&self, _certificate: &str) -> Result<RenewalAnswer, HardwareError> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        let certificate = self.give();
        Ok(RenewalAnswer::Renewed { certificate })
    }

    async fn show(
        &self,
        lent: &Lent,
        stop: &CancellationToken,
        _state: &watch::Sender<HardwareState>,
    ) -> Vec<Result<String, HardwareError>> {
        self.shows.fetch_add(1, Ordering::SeqCst);
        self.computing.send_replace(true);
        while *self.takes_for_ever.lock().unwrap() && !lent.is_wanted_back() && !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let was_broken_off = lent.is_wanted_back() || stop.is_cancelled();
        self.computing.send_replace(false);
        match was_broken_off {
            true => vec![Err(HardwareError::Interrupted)],
            false => vec![Ok(self.give())],
        }
    }
}

impl Scripted {
    fn give(&self) -> String {
        *self.wanted.lock().unwrap() = false;
        let about = self.about.lock().unwrap().unwrap_or_else(account);
        let now_ms = self.clock_ms.load(Ordering::SeqCst);
        let token = certificate(&coordinator_key(), about, 0, now_ms).sign(&coordinator_key());
        *self.given.lock().unwrap() = Some(token.clone());
        token
    }
}

/// A runner whose clock goes ten thousand times as fast as it sleeps: hours pass in seconds.
struct Running {
    scripted: Arc<Scripted>,
    slots: Arc<Slots>,
    state: watch::Receiver<HardwareState>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    ticking: JoinHandle<()>,
}

fn start(change: impl FnOnce(&Scripted)) -> Running {
    let scripted = Arc::new(Scripted {
        clock_ms: AtomicU64::new(NOW),
        ..Scripted::default()
    });
    change(&scripted);
    let (state, follows) = watch::channel(HardwareState::default());
    let keys = Arc::new(LogKeys::new(coordinator_key().account()));
    // Nobody changes it: a runner keeps asking without.
    let (_, coordinator) = watch::channel(Some(keys));
    let (slots, stop) = (Slots::new(1, 1), CancellationToken::new());
    let of_clock = Arc::clone(&scripted);
    let runner = HardwareRunner {
        account: account(),
        clock: Arc::new(move || of_clock.clock_ms.load(Ordering::SeqCst)),
        slots: Arc::clone(&slots),
        coordinator,
        showing: Arc::new(Arc::clone(&scripted)),
        state,
        random: ChaCha8Rng::seed_from_u64(7),
    };
    // Every job that comes or goes wakes the runner; here time does, by a job's number that does not change.
    let (ticks, waking) = (Arc::clone(&scripted), Arc::clone(&slots));
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks.clock_ms.fetch_add(10_000, Ordering::SeqCst);
            waking.wake();
        }
    });
    Running {
        task: tokio::spawn(runner.run(stop.clone())),
        scripted,
        slots,
        state: follows,
        stop,
        ticking,
    }
}

impl Running {
    async fn until(&mut self, holds: impl FnMut(&HardwareState) -> bool) -> HardwareState {
        let seen = tokio::time::timeout(PATIENCE, self.state.wait_for(holds)).await;
        seen.expect("it comes in time").unwrap().clone()
    }

    async fn computes(&self, wanted: bool) {
        let mut computing = self.scripted.computing.subscribe();
        let seen = tokio::time::timeout(PATIENCE, computing.wait_for(|is| *is == wanted)).await;
        seen.expect("it comes in time").unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.ticking.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_got_renewed_and_shown_anew_when_the_coordinator_wants_it() {
    let mut running = start(|_| {});
    let first = running.until(|state| !state.certificates.is_empty()).await;
    assert_eq!(running.scripted.shows.load(Ordering::SeqCst), 1);
    let expires_at = first.certificates[0].1.exp;
    running
        .until(|state| {
            state
                .certificates
                .first()
                .is_some_and(|(_, held)| held.exp > expires_at)
        })
        .await;
    assert_eq!(
        running.scripted.shows.load(Ordering::SeqCst),
        1,
        "it was renewed, not shown"
    );
    assert!(running.scripted.renewals.load(Ordering::SeqCst) >= 1);
    *running.scripted.wanted.lock().unwrap() = true;
    let shown_again = async {
        while running.scripted.shows.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown_again)
        .await
        .expect("it comes in time");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_breaks_a_proof_off_waits_for_it_and_it_is_tried_again_afterwards() {
    let mut running = start(|scripted| *scripted.takes_for_ever.lock().unwrap() = true);
    running.computes(true).await;
    let job = running.slots.enter().unwrap();
    let turn = tokio::time::timeout(PATIENCE, job.turn()).await.unwrap();
    assert!(turn.is_some());
    assert!(
        !*running.scripted.computing.borrow(),
        "the job runs beside a proof"
    );
    let failed = running.until(|state| state.failure.is_some()).await;
    assert_eq!(failed.failure, Some(HardwareError::Interrupted.to_string()));
    let shows = running.scripted.shows.load(Ordering::SeqCst);
    // As long as the job runs nothing begins, however often the time comes.
    let later_ms = running.scripted.clock_ms.load(Ordering::SeqCst) + 400_000;
    while running.scripted.clock_ms.load(Ordering::SeqCst) < later_ms {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.scripted.shows.load(Ordering::SeqCst), shows);
    *running.scripted.takes_for_ever.lock().unwrap() = false;
    drop((turn, job));
    running.until(|state| !state.certificates.is_empty()).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_coordinator_that_challenges_nothing_is_computed() {
    let mut running = start(|scripted| {
        scripted
            .failures
            .lock()
            .unwrap()
            .extend(vec![HardwareError::NoSuchCall; 1_000]);
    });
    let failed = running.until(|state| state.failure.is_some()).await;
    assert!(failed.failure.unwrap().contains("issues no certificates"));
    while running.scripted.looks.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.scripted.shows.load(Ordering::SeqCst), 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_about_somebody_else_is_not_listed() {
    let stranger = Keypair::from_secret(&[9; 32]).account();
    let mut running = start(|scripted| *scripted.about.lock().unwrap() = Some(stranger));
    let failed = running.until(|state| state.failure.is_some()).await;
    assert!(failed.failure.unwrap().contains("does not hold"));
    assert!(running.state.borrow().certificates.is_empty());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_told_to_also_in_the_middle_of_a_proof() {
    let running = start(|scripted| *scripted.takes_for_ever.lock().unwrap() = true);
    running.computes(true).await;
    running.end().await;
}
