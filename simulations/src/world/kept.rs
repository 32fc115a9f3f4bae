//! Machines of the protocol in a snapshot: written down without their keys and texts, and woken when both are at hand.

use gristmill_protocol::board::{Board, BoardSnapshot};
use gristmill_protocol::channel::{ConsumerChannel, ConsumerChannelSnapshot};
use gristmill_protocol::session::consumer::{ConsumerSession, ConsumerSnapshot};
use gristmill_protocol::session::provider::{ProviderSession, ProviderSnapshot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A machine that can be written down.
pub(crate) trait Machine {
    /// What is written.
    type Snapshot: Serialize + DeserializeOwned;

    /// What is to be written now.
    fn written(&self) -> Self::Snapshot;
}

macro_rules! machine {
    ($machine:ty, $snapshot:ty) => {
        impl Machine for $machine {
            type Snapshot = $snapshot;

            fn written(&self) -> $snapshot {
                self.snapshot()
            }
        }
    };
}

machine!(Board, BoardSnapshot);
machine!(ConsumerChannel, ConsumerChannelSnapshot);
machine!(ConsumerSession, ConsumerSnapshot);
machine!(ProviderSession, ProviderSnapshot);

/// A machine, or what was read of it and is not woken yet.
#[derive(Debug)]
pub(crate) enum Kept<M: Machine> {
    Awake(M),
    Asleep(Box<M::Snapshot>),
}

impl<M: Machine> Kept<M> {
    /// The machine, where it is awake.
    pub(crate) const fn awake(&self) -> Option<&M> {
        match self {
            Self::Awake(machine) => Some(machine),
            Self::Asleep(_) => None,
        }
    }

    /// The machine, where it is awake.
    pub(crate) const fn awake_mut(&mut self) -> Option<&mut M> {
        match self {
            Self::Awake(machine) => Some(machine),
            Self::Asleep(_) => None,
        }
    }

    /// Wakes it, where it is asleep.
    pub(crate) fn wake<E>(&mut self, restore: impl FnOnce(M::Snapshot) -> Result<M, E>) -> Result<(), E>
    where
        M::Snapshot: Clone,
    {
        if let Self::Asleep(snapshot) = self {
            *self = Self::Awake(restore((**snapshot).clone())?);
        }
        Ok(())
    }
}

impl<M: Machine> Serialize for Kept<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Awake(machine) => machine.written().serialize(serializer),
            Self::Asleep(snapshot) => snapshot.serialize(serializer),
        }
    }
}

impl<'de, M: Machine> Deserialize<'de> for Kept<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::Asleep(Box::new(M::Snapshot::deserialize(deserializer)?)))
    }
}
