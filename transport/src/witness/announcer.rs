//! The coordinator's side: tells the mesh its newest checkpoints, and passes on what others say of the log, to those
//! who come later too: a newcomer may know nobody else.

use std::time::Duration;

use gristmill_protocol::log::checkpoint::LogKeys;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::mesh::{AnnounceError, Heard, LogFeed, Mesh};

/// How often a new checkpoint is told at most.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// Tells the mesh each newest checkpoint of an own log, until told to stop or nobody makes checkpoints any more.
pub async fn announce(
    mesh: Mesh,
    keys: LogKeys,
    mut notes: watch::Receiver<Option<String>>,
    stop: impl Future<Output = ()> + Send,
) {
    let mut feed = mesh.watch_log(&keys);
    tokio::pin!(stop);
    notes.mark_changed();
    let mut next = Instant::now();
    loop {
        let newer = async {
            sleep_until(next).await;
            notes.changed().await
        };
        tokio::select! {
            () = &mut stop => return,
            heard = feed.next() => match heard {
                Some(heard) => pass_on(&mesh, &keys, heard).await,
                None => return,
            },
            changed = newer => {
                if changed.is_err() {
                    // The last checkpoint is told; what others say of the log is forwarded for as long as somebody
                    // else needs the mesh.
                    drop(mesh);
                    return go_on_hearing(feed, &keys, stop).await;
                }
                let note = notes.borrow_and_update().clone();
                if let Some(note) = note {
                    tell(&mesh, &note).await;
                }
                next = Instant::now() + ANNOUNCE_EVERY;
            }
        }
    }
}

async fn go_on_hearing(mut feed: LogFeed, keys: &LogKeys, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            heard = feed.next() => match heard {
                Some(heard) => look_at(&heard, keys),
                None => return,
            },
        }
    }
}

async fn tell(mesh: &Mesh, note: &str) {
    let told = match note.parse() {
        Ok(note) => mesh.publish_checkpoint(note).await,
        Err(error) => Err(AnnounceError::Checkpoint(
            gristmill_protocol::log::checkpoint::CheckpointError::Note(error),
        )),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "the newest checkpoint was not told on the mesh");
    }
}

/// Gossip forwards a message once, to those who listen then: for all others it is said again.
async fn pass_on(mesh: &Mesh, keys: &LogKeys, heard: Heard) {
    look_at(&heard, keys);
    if let Heard::Evidence(evidence) = heard
        && let Err(error) = mesh.publish_evidence(*evidence).await
    {
        tracing::warn!(%error, "evidence against this coordinator's own log is not told to those who come later");
    }
}

fn look_at(heard: &Heard, keys: &LogKeys) {
    if let Heard::Evidence(evidence) = heard
        && let Ok(lie) = evidence.verify(keys)
    {
        let evidence = super::evidence_digest(evidence);
        tracing::error!(%lie, evidence, "peers have evidence against this coordinator's own log");
    }
}
