//! Signs certificates and keeps them, one after the other, so that the newest is what stays.

use std::sync::Arc;

use gristmill_benchmark::session::{CallId, CertifiedRecord, DeviceKey, Event};
use gristmill_protocol::identity::Keypair;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::CertificateStore;

/// Most certificates that wait to be written, and most that were and are not heard of yet. Calls beyond are told to come
/// back: a disk that is slower than providers renew must not fill the memory.
const QUEUE_MAX: usize = 256;

/// What is to be written.
pub(super) enum Job {
    /// A certificate is signed and kept.
    Keep {
        record: Box<CertifiedRecord>,
        renewal: Option<CallId>,
    },
    /// What is kept changed.
    Update(Box<CertifiedRecord>),
    /// Nothing is kept any more.
    Forget(DeviceKey),
}

/// What became of a certificate.
pub(super) struct Written {
    record: Box<CertifiedRecord>,
    renewal: Option<CallId>,
    is_kept: bool,
}

impl Written {
    pub(super) fn event(self) -> Event {
        let Self {
            record,
            renewal,
            is_kept,
        } = self;
        Event::Kept {
            record,
            renewal,
            is_kept,
        }
    }
}

/// Starts the task. It ends when nobody can send it anything any more and everything is written.
pub(super) fn start(
    store: Arc<dyn CertificateStore>,
    keypair: Keypair,
) -> (mpsc::Sender<Job>, mpsc::Receiver<Written>, JoinHandle<()>) {
    let (jobs, mut inbox) = mpsc::channel(QUEUE_MAX);
    let (outbox, written) = mpsc::channel(QUEUE_MAX);
    let task = tokio::spawn(async move {
        while let Some(job) = inbox.recv().await {
            let (store, keypair) = (store.clone(), keypair.clone());
            match tokio::task::spawn_blocking(move || write(&*store, &keypair, job)).await {
                Ok(Some(written)) => {
                    // The machine may have ended: the certificate is kept all the same, and told by the status.
                    let _ = outbox.send(written).await;
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a certificate was not written"),
            }
        }
    });
    (jobs, written, task)
}

fn write(store: &dyn CertificateStore, keypair: &Keypair, job: Job) -> Option<Written> {
    match job {
        Job::Keep { mut record, renewal } => {
            record.text = record.certificate.sign(keypair);
            let kept = store.keep(&record);
            if let Err(error) = &kept {
                tracing::error!(%error, "a hardware certificate can't be kept, so it is not given out");
            }
            let is_kept = kept.is_ok();
            Some(Written {
                record,
                renewal,
                is_kept,
            })
        }
        Job::Update(record) => {
            if let Err(error) = store.keep(&record) {
                tracing::error!(%error, "a device that failed its challenge is renewable again after a restart");
            }
            None
        }
        Job::Forget(device) => {
            if let Err(error) = store.forget(&device) {
                tracing::warn!(%error, "a certificate that expired long ago stays on the disk");
            }
            None
        }
    }
}
