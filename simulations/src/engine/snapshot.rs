//! A run on disk: written between epochs, read back to go on as if it had never stopped.

use std::io::{Read, Write};
use std::sync::Mutex;

use bincode::config::{Configuration, Fixint, LittleEndian, NoLimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::queue::Entry;
use super::shard::Shard;
use super::simulation::{Simulation, of};
use super::trace::Chain;
use super::{NodeId, SHARDS, World, nodes_of_shard};

/// The first bytes of a snapshot, with the version of its format.
const MAGIC: [u8; 8] = *b"GRSTSIM\x01";
const CONFIGURATION: Configuration<LittleEndian, Fixint, NoLimit> = bincode::config::legacy();

/// Why a snapshot could not be written or read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file is of something else or of another version.
    #[error("this is no snapshot of a run by this version of the simulator; start the run anew")]
    Foreign,
    /// Written.
    #[error("the snapshot could not be written: {0}")]
    Write(#[from] bincode::error::EncodeError),
    /// Read.
    #[error("the snapshot is damaged: {0}; start the run anew")]
    Read(#[from] bincode::error::DecodeError),
    /// Of another run.
    #[error("the snapshot is of another run ({what} differs); start the run anew")]
    OtherRun {
        /// What differs.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    magic: [u8; 8],
    /// Of the scenario and whatever else decides the run.
    identity: [u8; 32],
    seed: u64,
    nodes: NodeId,
    now_us: u64,
    chain: Chain,
}

fn write<T: Serialize>(value: T, to: &mut impl Write) -> Result<(), SnapshotError> {
    bincode::serde::encode_into_std_write(value, to, CONFIGURATION)?;
    Ok(())
}

fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, SnapshotError> {
    Ok(bincode::serde::decode_from_std_read(from, CONFIGURATION)?)
}

impl<W: World> Simulation<W> {
    /// Writes the run as it stands between two epochs. `identity` says of which scenario it is.
    ///
    /// # Errors
    /// [`SnapshotError::Write`].
    pub fn write_snapshot(&mut self, identity: [u8; 32], to: &mut impl Write) -> Result<(), SnapshotError> {
        let header = Header {
            magic: MAGIC,
            identity,
            seed: self.seed,
            nodes: self.nodes,
            now_us: self.now_us,
            chain: self.chain.clone(),
        };
        write(header, to)?;
        write(self.world.shared(), to)?;
        self.settle();
        for shard in &mut self.shards {
            let shard = of(shard);
            write((&shard.counters, shard.events), to)?;
            write(&shard.state, to)?;
            write(u64::try_from(shard.queue.len()).unwrap_or(u64::MAX), to)?;
            for entry in shard.queue.iter() {
                write(entry, to)?;
            }
        }
        Ok(())
    }

    /// Puts everything that is on its way from shard to shard where it goes.
    fn settle(&mut self) {
        let mut moved: Vec<Vec<Entry<W::Event>>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for shard in &mut self.shards {
            let shard = of(shard);
            shard.outbox.first_at_us = u64::MAX;
            for (entries, to) in shard.outbox.entries.iter_mut().zip(&mut moved) {
                to.append(entries);
            }
        }
        for (shard, moved) in self.shards.iter_mut().zip(moved) {
            let shard = of(shard);
            let inbox = shard.inbox.iter_mut().flat_map(|entries| entries.drain(..));
            for entry in inbox.chain(moved) {
                shard.queue.push(entry);
            }
        }
    }

    /// Reads a run back into a world that was made anew from the same scenario.
    ///
    /// # Errors
    /// [`SnapshotError`] where the file is damaged, foreign, or of another run.
    pub fn read_snapshot(
        mut world: W,
        identity: [u8; 32],
        seed: u64,
        from: &mut impl Read,
    ) -> Result<Self, SnapshotError> {
        let header: Header = read(from).map_err(|_| SnapshotError::Foreign)?;
        if header.magic != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        if header.identity != identity {
            return Err(SnapshotError::OtherRun { what: "the scenario" });
        }
        if header.seed != seed {
            return Err(SnapshotError::OtherRun { what: "the seed" });
        }
        world.restore(read(from)?);
        let mut shards = Vec::with_capacity(SHARDS);
        for number in 0..SHARDS {
            shards.push(Mutex::new(Self::read_shard(number, header.nodes, from)?));
        }
        let shards = shards.try_into().map_err(|_| SnapshotError::OtherRun {
            what: "the number of shards",
        })?;
        Ok(Self {
            world,
            seed,
            nodes: header.nodes,
            now_us: header.now_us,
            shards,
            chain: header.chain,
        })
    }

    fn read_shard(number: usize, nodes: NodeId, from: &mut impl Read) -> Result<Shard<W>, SnapshotError> {
        let (counters, events): (Vec<u32>, u64) = read(from)?;
        if counters.len() != nodes_of_shard(nodes, number) {
            return Err(SnapshotError::OtherRun {
                what: "the number of nodes",
            });
        }
        let mut shard = Shard::new(read(from)?, 0);
        shard.counters = counters;
        shard.events = events;
        let entries: u64 = read(from)?;
        for _ in 0..entries {
            shard.queue.push(read(from)?);
        }
        Ok(shard)
    }
}
