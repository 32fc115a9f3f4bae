//! Rules of the market that are looked at all the time, whatever people do. A breach stops the run at its event, so that
//! seed and event number replay it.
//!
//! Checkers decide by what people tell them, never by what the checked code says of itself: [`conservation`] keeps a second
//! book of its own, [`bounds`] counts what each party could lose, [`liveness`] says when a job should have been served, and
//! [`forwarding`] what an honest peer may pass on. Their states are part of snapshots.

pub mod bounds;
pub mod conservation;
pub mod forwarding;
pub mod liveness;

use crate::engine::{Breach, NodeId};

/// Where and when a rule is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// At which node.
    pub node: NodeId,
    /// Microseconds of virtual time.
    pub at_us: u64,
}

impl Place {
    /// A broken rule, here and now.
    #[must_use]
    pub fn breach(self, rule: &str, message: impl Into<String>) -> Breach {
        Breach {
            rule: rule.to_owned(),
            message: message.into(),
            node: self.node,
            at_us: self.at_us,
        }
    }
}

#[cfg(test)]
mod tests;
