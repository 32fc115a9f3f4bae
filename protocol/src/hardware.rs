//! What a coordinator and a provider say to each other when the provider shows its hardware, and the certificate that
//! everybody can check afterwards without asking anybody.
//!
//! The method is specified in `docs/PROOF.md`; here are only its messages and its bounds. What is multiplied, folded
//! and verified is in the crate `gristmill-benchmark`.
//!
//! The course over HTTP, each call signed like every other one:
//! 1. `POST /v1/hardware/challenges` with a [`ChallengeRequest`]: what the device is said to be. The
//!    [`ChallengeOpened`] answer brings the parameters and the seed of the matrices.
//! 2. `POST /v1/hardware/challenges/{challenge}/steps` with one [`ChallengeStep`] after the other. Each
//!    [`NextStep`] answer says what to do next: echo, make the matrices, wait for the devices that are challenged
//!    together, do a stage, fold what stayed in memory, open units.
//! 3. `POST /v1/hardware/challenges/{challenge}/proof` with the bytes of the openings.
//! 4. `POST /v1/hardware/renewals` with a [`RenewalRequest`] before the certificate expires, and
//!    `GET /v1/hardware` for a [`HardwareStatus`], which says whether a device is wanted for a challenge.
//!
//! A step that was taken before is answered with what is next now, so every call may be repeated.

mod api;
mod certificate;
mod claim;
mod digests;
mod parameters;
mod steps;

pub use api::{
    CertificateView, CertificatesPage, ChallengeOpened, ChallengeRequest, DeviceStatus, HardwareStatus,
    RenewalAnswer, RenewalRequest,
};
pub use certificate::{CertifiedDevice, HardwareCertificate};
pub use claim::{ClaimError, HardwareClaim, HardwareKind, Precision, Throughput};
pub use digests::{ChallengeSeed, DigestTextError, HardwareDigest, UnitsRoot};
pub use parameters::{ChallengeParameters, ParametersError, Stage};
pub use steps::{ChallengeStep, NextStep, UnitPosition};

/// The name of the method, with its version.
pub const METHOD: &str = "gristmill-matmul/1";
/// The smallest dimension of the matrices.
pub const DIMENSION_MIN: u32 = 256;
/// The largest dimension of the matrices.
pub const DIMENSION_MAX: u32 = 16_384;
/// Most stages of a challenge: one for each precision.
pub const STAGES_MAX: usize = 3;
/// Most rounds of a stage. Their roots fit into one call's body.
pub const ROUNDS_MAX: u32 = 8_192;
/// Most units that are opened of the stages, and as many again of what stayed in memory.
pub const OPENINGS_MAX: u32 = 1_024;
/// Most bytes of a proof. A leaf and a path of the largest dimension, for every unit that can be opened, are below.
pub const PROOF_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of a certificate as text.
pub const CERTIFICATE_MAX_BYTES: usize = 2 * 1024;
/// How long a certificate holds, in seconds: six hours.
pub const CERTIFICATE_LIFE_SECONDS: u64 = 6 * 60 * 60;
/// Most certificates in one page of the operator's list.
pub const CERTIFICATES_PER_PAGE_MAX: usize = 1_000;
