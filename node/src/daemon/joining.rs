//! Finds the coordinator and through it the mesh, however long that takes.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_transport::{CoordinatorCallError, CoordinatorClient, Mesh};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The first wait for a coordinator that is away; doubles.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest wait for one that was never there: its operator may just be starting it.
const BACK_OFF_MAX: Duration = Duration::from_secs(8);
/// How often a coordinator is asked again for its bootstrap addresses, which change when it moves.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Keeps the coordinator's account and bootstrap addresses up to date until told to stop.
pub(super) async fn run(
    client: Arc<CoordinatorClient>,
    mesh: Mesh,
    known: watch::Sender<Option<Arc<LogKeys>>>,
    stop: CancellationToken,
) {
    let (mut wait, mut told) = (BACK_OFF, false);
    let mut keys = client.known_keys();
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = client.network() => asked,
        };
        match asked {
            Ok(network) => {
                for address in network.bootstrap {
                    add_bootstrap(&mesh, &address).await;
                }
                if tell_keys(&client, &known) {
                    tracing::info!(coordinator = %network.coordinator, network = network.name, "joined the market");
                }
                wait = LOOK_AGAIN;
            }
            Err(
                error @ (CoordinatorCallError::WrongCoordinator { .. }
                | CoordinatorCallError::KeyChanged { .. }),
            ) => {
                tracing::error!(%error, "the coordinator is not the one that was expected");
                wait = LOOK_AGAIN;
            }
            Err(error) => {
                let is_known = known.borrow().is_some();
                if is_known {
                    wait = LOOK_AGAIN;
                } else {
                    if !told {
                        tracing::warn!(%error, "not on the market yet: the coordinator is away; asking until it is back");
                    }
                    told = true;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
            }
        }
        let looks_again = tokio::time::sleep(wait);
        tokio::pin!(looks_again);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut looks_again => break,
                // Others ask for the keys too, when they meet an unknown one.
                Ok(()) = keys.changed() => {
                    let is_known = known.borrow().is_some();
                    if is_known {
                        tell_keys(&client, &known);
                    }
                }
            }
        }
    }
}

/// Tells the keys that the client knows. Returns whether none were told before.
fn tell_keys(client: &CoordinatorClient, known: &watch::Sender<Option<Arc<LogKeys>>>) -> bool {
    let keys = client.known_keys().borrow().clone();
    let keys = keys.map(|keys| Arc::new(keys.keys().clone()));
    known.send_replace(keys).is_none()
}

async fn add_bootstrap(mesh: &Mesh, address: &str) {
    match address.parse() {
        Ok(parsed) => {
            if let Err(error) = mesh.add_bootstrap(parsed).await {
                tracing::warn!(%error, "a bootstrap address of the coordinator is unusable");
            }
        }
        Err(error) => tracing::warn!(address, %error, "the coordinator gave an address that is none"),
    }
}
