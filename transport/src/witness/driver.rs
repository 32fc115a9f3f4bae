//! The task of a witness: translates what happens into inputs of [`Watch`], and its actions into calls and files.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::coordinator_api::CosignatureRequest;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::cosignature::{self, CosignatureError};
use gristmill_protocol::log::evidence::{Evidence, Lie};
use gristmill_protocol::log::extension::Extension;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::proof::tiles_for_consistency;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::checking::{check, reader};
use super::files::{self, KeptCheckpoint};
use super::receipts::{OwnReceipt, ProvedReceipt, ReceiptFound};
use super::tiles::Tiles;
use super::watch::{Action, Input, Pace, Watch};
use super::{
    Alarm, COSIGN_EVERY, CheckpointStatus, CosignedStatus, ReceiptStatus, WithheldStatus, WitnessConfig,
    WitnessStatus,
};
use crate::coordinator_client::{CoordinatorClient, KnownKeys};
use crate::mesh::{Clock, EVIDENCE_PER_LOG_MAX, Heard, LogFeed, Mesh};

/// Runs a witness.
pub struct WitnessDriver {
    pub(super) client: Arc<CoordinatorClient>,
    pub(super) mesh: Mesh,
    pub(super) keypair: Keypair,
    pub(super) clock: Clock,
    pub(super) config: WitnessConfig,
    pub(super) status: channel::Sender<WitnessStatus>,
    pub(super) receipts: mpsc::Receiver<Vec<OwnReceipt>>,
    pub(super) proofs: mpsc::Sender<Vec<ProvedReceipt>>,
}

impl std::fmt::Debug for WitnessDriver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "WitnessDriver({:?})", self.client)
    }
}

/// What was done beside the task.
enum Done {
    Polled(Option<SignedNote>),
    Extended(Extension),
    NotExtended { from: u64, to: u64 },
    Checked(Vec<(u64, ReceiptFound)>),
    Cosigned(CosignedStatus),
    NotCosigned,
    KeysAsked,
}

impl WitnessDriver {
    /// Watches until `stop` resolves or the mesh has ended. The coordinator need not be there yet.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut known = self.client.known_keys();
        let keys = tokio::select! {
            () = &mut stop => return,
            keys = first_keys(&mut known) => match keys {
                Some(keys) => keys,
                None => return,
            },
        };
        let feed = self.mesh.watch_log(&keys);
        Watching::begin(self, keys).await.run(feed, known, stop).await;
    }
}

async fn first_keys(known: &mut channel::Receiver<Option<Arc<KnownKeys>>>) -> Option<LogKeys> {
    let known = known.wait_for(Option::is_some).await.ok()?;
    known.as_ref().map(|known| known.keys().clone())
}

/// A driver that has met its log.
struct Watching {
    driver: WitnessDriver,
    watch: Watch,
    tiles: Tiles,
    tasks: JoinSet<Done>,
    /// Evidence that could not be written yet.
    unwritten: Vec<Evidence>,
    asks_for_keys: bool,
}

impl Watching {
    async fn begin(driver: WitnessDriver, keys: LogKeys) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let pace = Pace {
            poll_ms: milliseconds(driver.config.poll_every),
            cosign_ms: driver.config.cosign.then_some(milliseconds(COSIGN_EVERY)),
        };
        let (data_dir, of) = (driver.config.data_dir.clone(), keys.clone());
        let kept = on_disk(move || files::kept_checkpoint(&data_dir, &of)).await;
        let kept = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "the checkpoint kept of the log can't be read; watching begins anew");
            None
        });
        driver.status.send_modify(|status| {
            status.log = Some(keys.origin().to_owned());
            status.signer = Some(*keys.newest());
            status.checkpoint = kept.as_ref().map(CheckpointStatus::of);
        });
        let kept = kept.map(|kept| kept.checkpoint);
        let to_announce = kept.clone();
        let tiles = Tiles::new(Arc::clone(&driver.client));
        let mut watching = Self {
            watch: Watch::new(keys, kept, pace),
            tiles,
            tasks: JoinSet::new(),
            unwritten: Vec::new(),
            asks_for_keys: false,
            driver,
        };
        if let Some(checkpoint) = to_announce {
            watching.act(Action::Announce(checkpoint)).await;
        }
        watching.take_kept_evidence().await;
        watching
    }

    /// What was found in an earlier run still holds.
    async fn take_kept_evidence(&mut self) {
        let data_dir = self.driver.config.data_dir.clone();
        match on_disk(move || files::kept_evidence(&data_dir)).await {
            Ok(kept) => {
                for kept in kept {
                    if kept.evidence.verify(self.watch.keys()).is_ok() {
                        self.evidence(kept.evidence).await;
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the evidence kept can't be read"),
        }
    }

    async fn run(
        mut self,
        mut feed: LogFeed,
        mut known: channel::Receiver<Option<Arc<KnownKeys>>>,
        mut stop: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
    ) {
        let mut tick = interval(self.driver.config.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => return,
                heard = feed.next() => match heard {
                    Some(heard) => self.heard(heard).await,
                    None => return,
                },
                Ok(()) = known.changed() => {
                    let keys = known.borrow_and_update().as_ref().map(|known| known.keys().clone());
                    if let Some(keys) = keys {
                        self.follow(keys).await;
                    }
                }
                Some(receipts) = self.driver.receipts.recv() => self.input(Input::Receipts(receipts)).await,
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.done(done).await,
                    Err(error) => tracing::error!(%error, "a part of the witness panicked"),
                },
                _ = tick.tick() => {
                    self.write_evidence().await;
                    self.input(Input::Tick).await;
                }
            }
        }
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Checkpoint { checkpoint, from } => self.input(Input::Heard { checkpoint, from }).await,
            Heard::Evidence(evidence) => self.evidence(*evidence).await,
            Heard::UnknownKey => self.ask_for_keys(),
        }
    }

    /// Evidence that was verified. One piece is enough to distrust the log; more are kept all the same.
    async fn evidence(&mut self, evidence: Evidence) {
        match (self.watch.caught(), evidence.verify(self.watch.keys())) {
            (false, _) => self.input(Input::HeardEvidence(Box::new(evidence))).await,
            (true, Ok(lie)) => self.alarm(evidence, lie).await,
            (true, Err(_)) => {}
        }
    }

    async fn follow(&mut self, keys: LogKeys) {
        self.driver.mesh.follow_log_keys(&keys);
        let signer = *keys.newest();
        self.driver
            .status
            .send_modify(|status| status.signer = Some(signer));
        self.input(Input::Keys(keys)).await;
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Polled(shown) => self.input(Input::Polled(shown)).await,
            Done::Extended(extension) => self.input(Input::Extended(extension)).await,
            Done::NotExtended { from, to } => self.input(Input::FetchFailed { from, to }).await,
            Done::Checked(found) => self.input(Input::Checked(found)).await,
            Done::Cosigned(cosigned) => self
                .driver
                .status
                .send_modify(|status| status.cosigned = Some(cosigned)),
            Done::KeysAsked => self.asks_for_keys = false,
            Done::NotCosigned => {}
        }
    }

    async fn input(&mut self, input: Input) {
        let now_ms = self.now_ms();
        let actions = self.watch.handle(input, now_ms, rand::random());
        for action in actions {
            self.act(action).await;
        }
        self.tell_status();
    }

    fn now_ms(&self) -> u64 {
        (self.driver.clock)()
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Poll => self.poll(),
            Action::Fetch { from, to } => self.fetch(from, to),
            Action::ForgetTiles => self.tiles.forget(),
            Action::AskForKeys => self.ask_for_keys(),
            Action::Keep(checkpoint) => self.keep(checkpoint).await,
            Action::Announce(checkpoint) => {
                if let Err(error) = self.driver.mesh.publish_checkpoint(checkpoint.into_note()).await {
                    tracing::debug!(%error, "the newest checkpoint was not told on the mesh");
                }
            }
            Action::Cosign(checkpoint) => self.cosign(&checkpoint),
            Action::Alarm(evidence, lie) => self.alarm(*evidence, lie).await,
            Action::Withheld { size, since_ms } => {
                tracing::warn!(
                    log = self.watch.keys().origin(),
                    size,
                    waited_ms = self.now_ms().saturating_sub(since_ms),
                    "the coordinator signed a checkpoint of its log and does not show how the log goes on there; an \
                     honest one that can be reached does"
                );
            }
            Action::Check { checkpoint, receipts } => self.check(checkpoint, receipts),
            Action::Proved(proved) => {
                tracing::debug!(receipts = proved.len(), "receipts are proved");
                // Nobody has to read them.
                let _ = self.driver.proofs.send(proved).await;
            }
            Action::Missing(sequences) => {
                for sequence in sequences {
                    tracing::error!(
                        log = self.watch.keys().origin(),
                        sequence,
                        "the coordinator gave a receipt for a record that its log still lacks after a minute; keep \
                         the receipt, it is the coordinator's word"
                    );
                }
            }
        }
    }

    fn poll(&mut self) {
        let client = Arc::clone(&self.driver.client);
        self.tasks.spawn(async move {
            match client.checkpoint().await {
                Ok(note) => Done::Polled(Some(note)),
                Err(error) => {
                    tracing::debug!(%error, "the coordinator does not show its log");
                    Done::Polled(None)
                }
            }
        });
    }

    fn fetch(&mut self, from: u64, to: u64) {
        let tiles = self.tiles.clone();
        self.tasks.spawn(async move {
            let fetched = tiles.fetch(tiles_for_consistency(from, to)).await;
            let extended = fetched.map_err(|error| error.to_string()).and_then(|tiles| {
                Extension::build(from, to, reader(&tiles)).map_err(|error| error.to_string())
            });
            match extended {
                Ok(extension) => Done::Extended(extension),
                Err(error) => {
                    tracing::debug!(from, to, error, "the log does not show how it goes on");
                    Done::NotExtended { from, to }
                }
            }
        });
    }

    fn check(&mut self, checkpoint: SignedCheckpoint, receipts: Vec<OwnReceipt>) {
        let (tiles, keys) = (self.tiles.clone(), self.watch.keys().clone());
        self.tasks.spawn(async move {
            let mut found = Vec::new();
            let mut is_there = true;
            for receipt in receipts {
                let one = match is_there {
                    true => check(&tiles, &keys, &checkpoint, &receipt).await,
                    false => ReceiptFound::Unknown,
                };
                // What did not come for one does not come for the others either.
                is_there = one != ReceiptFound::Unknown;
                found.push((receipt.sequence, one));
            }
            Done::Checked(found)
        });
    }

    fn cosign(&mut self, checkpoint: &SignedCheckpoint) {
        let at_ms = self.now_ms();
        let size = checkpoint.size();
        let line = match cosignature::cosign(checkpoint, &self.driver.keypair, at_ms / 1_000) {
            Ok(line) => line,
            Err(error @ CosignatureError::Time(_)) => {
                return tracing::warn!(%error, "the clock of this machine is wrong; nothing is cosigned");
            }
            Err(error) => return tracing::warn!(%error, "a checkpoint is not cosigned"),
        };
        let request = CosignatureRequest {
            size,
            cosignature: line.to_string(),
        };
        let client = Arc::clone(&self.driver.client);
        self.tasks.spawn(async move {
            match client.cosign(&request).await {
                Ok(_) => Done::Cosigned(CosignedStatus { size, at_ms }),
                Err(error) => {
                    tracing::debug!(%error, size, "the coordinator did not take a cosignature");
                    Done::NotCosigned
                }
            }
        });
    }

    fn ask_for_keys(&mut self) {
        if std::mem::replace(&mut self.asks_for_keys, true) {
            return;
        }
        let client = Arc::clone(&self.driver.client);
        self.tasks.spawn(async move {
            client.refresh_keys().await;
            Done::KeysAsked
        });
    }

    async fn keep(&mut self, checkpoint: SignedCheckpoint) {
        let kept = KeptCheckpoint {
            checkpoint,
            accepted_at_ms: self.now_ms(),
        };
        let status = CheckpointStatus::of(&kept);
        let (data_dir, log) = (self.driver.config.data_dir.clone(), *self.watch.keys().first());
        if let Err(error) = on_disk(move || files::keep_checkpoint(&data_dir, &log, &kept)).await {
            tracing::warn!(%error, "the newest checkpoint can't be kept on disk; it is remembered until this program ends");
        }
        self.driver
            .status
            .send_modify(|now| now.checkpoint = Some(status));
    }

    /// Keeps the evidence, tells everybody, and makes it known here.
    async fn alarm(&mut self, evidence: Evidence, lie: Lie) {
        let digest = files::evidence_digest(&evidence);
        let is_known = |status: &WitnessStatus| status.alarms.iter().any(|alarm| alarm.evidence == digest);
        let (known, full) = {
            let status = self.driver.status.borrow();
            (is_known(&status), status.alarms.len() >= EVIDENCE_PER_LOG_MAX)
        };
        if known || full {
            return;
        }
        self.driver.status.send_modify(|status| {
            status.alarms.push(Alarm {
                lie: lie.to_string(),
                evidence: digest.clone(),
                file: None,
            });
        });
        self.unwritten.push(evidence.clone());
        self.write_evidence().await;
        let file = self.file_of(&digest);
        tracing::error!(
            log = self.watch.keys().origin(),
            evidence = digest,
            file,
            "THE COORDINATOR WAS CAUGHT LYING: {lie}. 'gristmill ledger evidence verify' checks the file"
        );
        if let Err(error) = self.driver.mesh.publish_evidence(evidence).await {
            tracing::warn!(%error, "the evidence was not told on the mesh");
        }
    }

    fn file_of(&self, digest: &str) -> String {
        let status = self.driver.status.borrow();
        let alarm = status.alarms.iter().find(|alarm| alarm.evidence == digest);
        alarm
            .and_then(|alarm| alarm.file.as_ref())
            .map_or_else(|| "not written yet".to_owned(), |file| file.display().to_string())
    }

    /// Writes evidence that is not on disk yet. What fails is tried again.
    async fn write_evidence(&mut self) {
        for evidence in std::mem::take(&mut self.unwritten) {
            let (data_dir, written) = (self.driver.config.data_dir.clone(), evidence.clone());
            match on_disk(move || files::keep_evidence(&data_dir, &written)).await {
                Ok(path) => {
                    let digest = files::evidence_digest(&evidence);
                    self.driver.status.send_modify(|status| {
                        let mut alarms = status.alarms.iter_mut();
                        if let Some(alarm) = alarms.find(|alarm| alarm.evidence == digest) {
                            alarm.file = Some(path);
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "evidence against the coordinator can't be written; trying again");
                    self.unwritten.push(evidence);
                }
            }
        }
    }

    fn tell_status(&self) {
        let receipts = ReceiptStatus {
            proved: self.watch.receipts().proved(),
            waiting: self.watch.receipts().len(),
            missing: self.watch.receipts().missing(),
        };
        let shown_at_ms = self.watch.polled_at_ms();
        let withheld = self
            .watch
            .withheld()
            .map(|(size, since_ms)| WithheldStatus { size, since_ms });
        self.driver.status.send_if_modified(|status| {
            let before = (status.receipts, status.shown_at_ms, status.withheld);
            (status.receipts, status.shown_at_ms, status.withheld) = (receipts, shown_at_ms, withheld);
            before != (receipts, shown_at_ms, withheld)
        });
    }
}

impl CheckpointStatus {
    pub(super) fn of(kept: &KeptCheckpoint) -> Self {
        Self {
            size: kept.checkpoint.size(),
            root: *kept.checkpoint.root(),
            accepted_at_ms: kept.accepted_at_ms,
        }
    }
}

/// Reads or writes files where that may take its time.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
