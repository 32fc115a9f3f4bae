//! The coordinator's side of all challenges: a state machine of `(event, now, randomness) -> effects`.
//!
//! [`Challenges`] is the whole of it. Its driver gives it what callers send, the time of the coordinator's clock and
//! the randomness of the operating system, and does what the [`Effect`]s say: answers calls, verifies proofs on
//! other threads, signs and keeps certificates. Nothing here reads a clock, draws randomness or computes a product.
//!
//! Invariants:
//! - no round seed leaves before the matrices are ready and the commitment of the stage before is in; no opening is
//!   drawn before every commitment is in;
//! - devices that share an owner, an address or a UUID start every stage at one moment, each with a seed of its own,
//!   and the fold of what stays in memory too; none of them is certified while another one that is certified stays
//!   away;
//! - whoever is ready begins or is refused within a bound that nobody else can move;
//! - the clock runs from the moment that a seed could leave, not from when it is fetched;
//! - what is held is bounded: challenges in all, of one account and at one address, how often they begin, and how
//!   long each phase takes.

mod admission;
mod certified;
mod challenges;
mod course;
mod event;
mod group;
mod link;
mod policy;
mod refusal;
mod shown;
mod sizing;

pub use certified::{CertifiedRecord, Renewal};
pub use challenges::{Challenges, Counts};
pub use event::{Answer, CallId, Effect, Event, Problem, Shown, VerificationTask};
pub use link::{AddressKey, DeviceKey};
pub use policy::Policy;
pub use refusal::Refusal;
pub use shown::{credit_ms, deadline_ms, fastest_rate, memory_shown, rate_shown};
pub use sizing::parameters_for;

#[cfg(test)]
mod tests;
