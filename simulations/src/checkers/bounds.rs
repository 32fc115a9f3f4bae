//! What a party can lose, whatever any other party does: the table of `market-protocol.md`, counted by the party itself
//! from what it truly did and got.
//!
//! - A provider: one credit window for each open channel, and after a loss of power what was vouchered in the 100 ms before.
//! - A consumer: what it vouchered for output that it then rejected, one chunk; nothing for what was not delivered.
//! - A coordinator: its starter budget; that is [`super::conservation`]'s, which sees all grants.

mod consumer;
mod provider;

pub use consumer::{CONSUMER_RULE, ConsumerBounds};
pub use provider::{PERSISTED_WITHIN_US, PROVIDER_RULE, ProviderBounds};
