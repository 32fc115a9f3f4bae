//! Who serves a request, and what to do when it doesn't: routing as pure code, run by clients and by the simulator.
//!
//! [`choice`] picks a provider of a [`crate::board::Board`]: [`candidates`] leaves out whom the request rules out,
//! [`score`] compares the rest by price, time and record, [`affinity`] keeps conversations where their prefix is.
//! [`records`] is what a client has seen of each provider, with one [`breaker`] each. [`retry`] says when to ask
//! again, [`hedge`] when to ask a second provider beside a slow first one.
//!
//! Numbers are computed with `+ - * /` alone, which give the same bits on every machine.

pub mod affinity;
pub mod breaker;
pub mod candidates;
pub mod choice;
pub mod constraints;
mod float_bits;
pub mod hedge;
pub mod near_names;
pub mod records;
pub mod retry;
pub mod score;
