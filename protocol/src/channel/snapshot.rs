//! A consumer's channel on disk, without its key. The provider's side has none and is written as it is.

use serde::{Deserialize, Serialize};

use super::ConsumerChannel;
use crate::credits::Credits;
use crate::identity::{AccountId, Keypair, Signed};
use crate::ids::ChannelId;
use crate::session::restore::{RestoreError, same_key};
use crate::voucher::Voucher;

/// A [`ConsumerChannel`] without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerChannelSnapshot {
    consumer: AccountId,
    channel: ChannelId,
    limit: Credits,
    owed: Credits,
    promised: Credits,
    reserved: Credits,
    #[serde(with = "crate::codec::canonical")]
    newest: Option<Signed<Voucher>>,
}

impl ConsumerChannel {
    /// The channel as it stands, without its key.
    #[must_use]
    pub fn snapshot(&self) -> ConsumerChannelSnapshot {
        ConsumerChannelSnapshot {
            consumer: self.keypair.account(),
            channel: self.channel,
            limit: self.limit,
            owed: self.owed,
            promised: self.promised,
            reserved: self.reserved,
            newest: self.newest.clone(),
        }
    }

    /// Goes on where a snapshot was taken, with the same key.
    ///
    /// # Errors
    /// [`RestoreError::OtherKey`] where it is another one.
    pub fn restore(snapshot: ConsumerChannelSnapshot, keypair: Keypair) -> Result<Self, RestoreError> {
        same_key(snapshot.consumer, keypair.account())?;
        Ok(Self {
            keypair,
            channel: snapshot.channel,
            limit: snapshot.limit,
            owed: snapshot.owed,
            promised: snapshot.promised,
            reserved: snapshot.reserved,
            newest: snapshot.newest,
        })
    }
}
