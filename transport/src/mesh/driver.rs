//! The swarm's task: translates commands and the swarm's events.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gristmill_protocol::identity::Keypair;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::announcements::Announcements;
use super::behaviour::MeshBehaviour;
use super::bootstrap::BootstrapPeers;
use super::checkpoints::Announcement;
use super::gossip::{checkpoints_topic, listings_topic};
use super::setup::{check_free, swarm};
use super::shared::Shared;
use super::{Clock, MeshConfig, MeshError, PublishError, Published, addresses};
use crate::job_stream::behaviour::{Acceptor, OpenRequest};

mod events;

/// How often bootstrap peers are looked after, and an own listing that nobody has heard.
const TICK: Duration = Duration::from_millis(250);
/// How often expired listings are forgotten.
const EXPIRY_TICK: Duration = Duration::from_secs(30);
/// How long a listener may take to be bound.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown goes on sending what was just published.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long a shutdown waits for connections to close, and for ports to be free.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a shutdown looks whether ports are free: QUIC drains its connections on tasks of its own.
const PORT_POLL: Duration = Duration::from_millis(10);

/// What handles ask of the task.
pub(super) enum Command {
    Publish {
        sealed: Vec<u8>,
        reply: oneshot::Sender<Result<Published, PublishError>>,
    },
    Announce {
        announcement: Announcement,
        reply: oneshot::Sender<Published>,
    },
    OpenJob {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        request: OpenRequest,
    },
    AddBootstrap {
        peer: PeerId,
        address: Multiaddr,
    },
    Score {
        peer: PeerId,
        reply: oneshot::Sender<Option<f64>>,
    },
    Shutdown,
}

/// The swarm and what belongs to it.
pub(super) struct Driver {
    swarm: Swarm<MeshBehaviour>,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    clock: Clock,
    started: Instant,
    bootstrap: BootstrapPeers,
    /// Where the peer of each connection is.
    remotes: HashMap<ConnectionId, Multiaddr>,
    listeners: Vec<ListenerId>,
    /// The own listing that no peer has heard yet.
    unheard: Option<Vec<u8>>,
    announcements: Announcements,
}

impl Driver {
    /// Sets the swarm up and listens.
    pub(super) async fn start(
        keypair: &Keypair,
        config: &MeshConfig,
        acceptor: Acceptor,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, MeshError> {
        let mut bootstrap = BootstrapPeers::default();
        for address in &config.bootstrap {
            let (peer, address) = addresses::split_peer(address.clone())?;
            bootstrap.add(peer, address, 0, false);
        }
        let swarm = swarm(keypair, config, acceptor)?;
        let started = Instant::now();
        let remotes = HashMap::new();
        let mut driver = Self {
            swarm,
            commands,
            shared,
            clock,
            started,
            bootstrap,
            remotes,
            listeners: Vec::new(),
            unheard: None,
            announcements: Announcements::default(),
        };
        driver.listen(config).await?;
        Ok(driver)
    }

    async fn listen(&mut self, config: &MeshConfig) -> Result<(), MeshError> {
        let mut unbound = HashSet::new();
        for address in &config.listen {
            check_free(address)?;
            let listener = self
                .swarm
                .listen_on(address.clone())
                .map_err(|error| MeshError::Listen {
                    address: address.clone(),
                    reason: error.to_string(),
                })?;
            unbound.insert(listener);
            self.listeners.push(listener);
        }
        for address in &config.external {
            self.swarm.add_external_address(address.clone());
        }
        let bound = async {
            while !unbound.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                    unbound.remove(listener_id);
                }
                self.on_swarm_event(event);
            }
        };
        timeout(LISTEN_TIMEOUT, bound)
            .await
            .map_err(|_| MeshError::Setup("the system did not bind every listener in time".into()))
    }

    /// Runs until told to shut down, or until nobody has a handle any more.
    pub(super) async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry_tick = interval(EXPIRY_TICK);
        expiry_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watching = self.shared.watching.subscribe();
        watching.mark_changed();
        let mut unchecked = self.shared.unchecked.subscribe();
        unchecked.mark_changed();
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.on_command(command),
                },
                Ok(()) = watching.changed() => {
                    if *watching.borrow_and_update() {
                        self.hear_checkpoints();
                    }
                }
                Ok(()) = unchecked.changed() => {
                    self.shared.check_certificates((self.clock)());
                    // A full board takes seconds: others get their turn in between.
                    yield_now().await;
                }
                _ = tick.tick() => self.on_tick(),
                _ = expiry_tick.tick() => self.shared.expire((self.clock)()),
            }
        }
        self.shut_down().await;
    }

    async fn shut_down(mut self) {
        self.commands.close();
        let farewell = async {
            loop {
                let event = self.swarm.select_next_some().await;
                self.on_swarm_event(event);
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
        let listened = self.shared.listening.send_replace(Vec::new());
        for listener in std::mem::take(&mut self.listeners) {
            self.swarm.remove_listener(listener);
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that the peer has gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm_event(event);
            }
        };
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("some connections did not close in time");
        }
        self.shared.peers.send_replace(BTreeSet::new());
        self.shared.listeners.send_replace(BTreeSet::new());
        drop(self.swarm);
        let freed = async {
            while listened.iter().any(|address| check_free(address).is_err()) {
                sleep(PORT_POLL).await;
            }
        };
        if timeout(CLOSE_TIMEOUT, freed).await.is_err() {
            tracing::debug!("some ports are not free yet");
        }
    }

    fn on_command(&mut self, command: Command) {
        // Where a reply cannot be sent, whoever asked has gone.
        match command {
            Command::Publish { sealed, reply } => {
                let _ = reply.send(self.publish(sealed));
            }
            Command::Announce { announcement, reply } => {
                self.announcements.add(announcement);
                self.send_announcements();
                let _ = reply.send(match self.announcements.all_sent() {
                    true => Published::Sent,
                    false => Published::Waiting,
                });
            }
            Command::OpenJob {
                peer,
                addresses,
                request,
            } => {
                self.swarm.behaviour_mut().jobs.open(peer, addresses, request);
            }
            Command::AddBootstrap { peer, address } => {
                let connected = self.swarm.is_connected(&peer);
                self.bootstrap.add(peer, address, self.elapsed_ms(), connected);
                self.dial_bootstrap_peers();
            }
            Command::Score { peer, reply } => {
                let _ = reply.send(self.swarm.behaviour().gossip.peer_score(&peer));
            }
            Command::Shutdown => {}
        }
    }

    fn publish(&mut self, sealed: Vec<u8>) -> Result<Published, PublishError> {
        let insertion = self.shared.insert(&sealed, (self.clock)())?;
        if !insertion.is_news() {
            return Err(PublishError::NotNews(insertion));
        }
        self.unheard = Some(sealed);
        self.send_unheard();
        Ok(if self.unheard.is_none() {
            Published::Sent
        } else {
            Published::Waiting
        })
    }

    /// Sends the own listing where no peer has heard it yet.
    fn send_unheard(&mut self) {
        let Some(sealed) = &self.unheard else { return };
        match self
            .swarm
            .behaviour_mut()
            .gossip
            .publish(listings_topic(), sealed.clone())
        {
            // A duplicate has come back to us from a peer: it has been heard.
            Ok(_) | Err(gossipsub::PublishError::Duplicate) => self.unheard = None,
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => tracing::debug!(%error, "own listing not sent; trying again"),
        }
    }

    fn hear_checkpoints(&mut self) {
        // Subscribing once more changes nothing.
        if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&checkpoints_topic()) {
            tracing::error!(%error, "checkpoints are not heard on the mesh");
        }
    }

    /// Says what there is to say about logs.
    fn send_announcements(&mut self) {
        self.announcements.begin_round(self.elapsed_ms(), rand::random());
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        self.announcements
            .send(|message| match gossip.publish(checkpoints_topic(), message) {
                Ok(_) | Err(gossipsub::PublishError::Duplicate) => true,
                Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => false,
                Err(error) => {
                    tracing::debug!(%error, "an announcement about a log is not sent; trying again");
                    false
                }
            });
    }

    /// What is due every now and then.
    fn on_tick(&mut self) {
        self.dial_bootstrap_peers();
        self.send_unheard();
        self.send_announcements();
    }

    fn dial_bootstrap_peers(&mut self) {
        for (peer, addresses) in self.bootstrap.take_due(self.elapsed_ms()) {
            for address in &addresses {
                self.swarm
                    .behaviour_mut()
                    .kademlia
                    .add_address(&peer, address.clone());
            }
            let opts = DialOpts::peer_id(peer)
                .addresses(addresses)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            if let Err(error) = self.swarm.dial(opts) {
                tracing::debug!(%peer, %error, "bootstrap peer not dialled");
                if self.swarm.is_connected(&peer) {
                    self.bootstrap.on_connected(&peer);
                } else {
                    self.on_bootstrap_lost(&peer);
                }
            }
        }
    }

    fn on_bootstrap_lost(&mut self, peer: &PeerId) {
        self.bootstrap.on_lost(peer, self.elapsed_ms(), rand::random());
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
