//! The network between nodes.
