//! What a run tells about a node or a job, in words.

use serde::{Deserialize, Serialize};

use super::NodeId;

/// Most sentences of one story.
pub const STORIES_MAX: usize = 100_000;

/// Whose story is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Everything that happened to a node.
    Node(NodeId),
    /// Everything that has to do with a job, wherever it happened.
    Job(u64),
}

impl Interest {
    /// Whether something belongs to the story.
    #[must_use]
    pub fn covers(&self, node: NodeId, job: Option<u64>) -> bool {
        match self {
            Self::Node(wanted) => *wanted == node,
            Self::Job(wanted) => job == Some(*wanted),
        }
    }
}

/// One sentence of a story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// The order among those of one moment.
    pub tie: u64,
    /// Where.
    pub node: NodeId,
    /// With which job it has to do.
    pub job: Option<u64>,
    /// What happened.
    pub words: String,
}
