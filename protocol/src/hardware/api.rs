//! The calls around a challenge: asking for one, renewing a certificate, and seeing how things stand.

use serde::{Deserialize, Serialize};

use crate::hardware::{ChallengeParameters, ChallengeSeed, HardwareCertificate, HardwareClaim, NextStep};
use crate::identity::AccountId;
use crate::ids::ChallengeId;

/// `POST /v1/hardware/challenges`: asks for a challenge. Repeating it with the same id and claim gives the same
/// challenge again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// The name of the challenge, drawn at random by the provider.
    pub challenge: ChallengeId,
    /// What the device is said to be.
    pub claim: HardwareClaim,
}

/// The answer to [`ChallengeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChallengeOpened {
    /// The name of the challenge.
    pub challenge: ChallengeId,
    /// The name and version of the method: [`METHOD`](crate::hardware::METHOD).
    pub method: String,
    /// How large it is.
    pub parameters: ChallengeParameters,
    /// From which the matrices are made.
    pub setup_seed: ChallengeSeed,
    /// What is next.
    pub next: NextStep,
}

/// `POST /v1/hardware/renewals`: asks for the same certificate with a later expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RenewalRequest {
    /// The certificate, a compact JWS of type `gristmill-hardware+jwt`.
    pub certificate: String,
}

/// The answer to [`RenewalRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "renewal", rename_all = "snake_case")]
pub enum RenewalAnswer {
    /// The certificate holds for longer.
    Renewed {
        /// The new one.
        certificate: String,
    },
    /// The hardware has to be shown again: ask for a challenge. The certificate holds until its expiry.
    ChallengeRequired,
}

/// `GET /v1/hardware`: how the caller's devices stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HardwareStatus {
    /// The devices that have a certificate.
    pub devices: Vec<DeviceStatus>,
    /// The challenges that are open.
    pub challenges: Vec<ChallengeId>,
}

/// How a certified device stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceStatus {
    /// The newest certificate, a compact JWS of type `gristmill-hardware+jwt`.
    pub certificate: String,
    /// Whether the device is wanted for a challenge now, because another one is challenged that belongs to the same
    /// owner, or is at the same address. That one waits for it.
    pub challenge_wanted: bool,
}

/// `GET /v1/hardware/certificates?account=A&after=C&limit=N`: the certificates that hold, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertificatesPage {
    /// At most [`CERTIFICATES_PER_PAGE_MAX`](crate::hardware::CERTIFICATES_PER_PAGE_MAX), in the order of their
    /// challenges' names.
    pub certificates: Vec<CertificateView>,
    /// What to give as `after` for the next page, where there is one.
    pub next: Option<ChallengeId>,
}

/// A certificate that holds, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertificateView {
    /// Whose device.
    pub account: AccountId,
    /// What the certificate says.
    pub certificate: HardwareCertificate,
    /// Whether it may be renewed, or has to run out.
    pub renewable: bool,
}
