//! Routes of hardware challenges and certificates.

#![expect(
    unused_qualifications,
    reason = "utoipa's macro for query parameters writes them"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use gristmill_benchmark::session::AddressKey;
use gristmill_protocol::coordinator_api::ErrorBody;
use gristmill_protocol::hardware::{
    CertificatesPage, ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareStatus, NextStep,
    PROOF_MAX_BYTES, RenewalAnswer, RenewalRequest,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use gristmill_service::listener::BoundedListener;
use serde::Deserialize;
use utoipa::IntoParams;

use super::signed_call::{PathParameter, QueryParameters, SignedCall, SignedJson};
use crate::core::rejection::Rejection;
use crate::service::Service;

type Answer<T> = Result<Json<T>, Rejection>;

/// The route that takes longer than others: proofs are large.
pub(super) const PROOF_ROUTE: &str = "/v1/hardware/challenges/{challenge}/proof";

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// From where a caller comes, as far as that can be told: behind a proxy on this machine, what it says.
pub(super) struct CallerAddress(Option<AddressKey>);

impl<S: Send + Sync> FromRequestParts<S> for CallerAddress {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let peer = ConnectInfo::<Peer>::from_request_parts(parts, state).await;
        let Ok(ConnectInfo(Peer(peer))) = peer else {
            return Ok(Self(None));
        };
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
        let forwarded = forwarded.and_then(|value| value.to_str().ok());
        Ok(Self(address_of(peer, forwarded)))
    }
}

/// Only a proxy on this machine is believed, and of what it says only the last address, which it added itself.
fn address_of(peer: SocketAddr, forwarded: Option<&str>) -> Option<AddressKey> {
    let last = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
    match last {
        Some(address) if peer.ip().to_canonical().is_loopback() => AddressKey::of(address),
        _ => AddressKey::of(peer.ip()),
    }
}

/// Asks for a challenge of a device. The same request again gives the same challenge again.
#[utoipa::path(post, path = "/v1/hardware/challenges", tag = "hardware", security(("caller_token" = [])),
    request_body = ChallengeRequest,
    responses(
        (status = 200, body = ChallengeOpened),
        (status = 400, description = "The claim is out of bounds", body = ErrorBody),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 409, description = "The challenge exists with other content, or the UUID is another account's", body = ErrorBody),
        (status = 429, description = "Too many challenges of the account or from its address", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn open_challenge(
    State(service): State<Arc<Service>>,
    CallerAddress(address): CallerAddress,
    call: SignedJson<ChallengeRequest>,
) -> Answer<ChallengeOpened> {
    service
        .open_challenge(call.account, address, call.content)
        .await
        .map(Json)
}

/// Tells what was done in a challenge, and hears what is next. The answer may be held back for some seconds.
#[utoipa::path(post, path = "/v1/hardware/challenges/{challenge}/steps", tag = "hardware",
    security(("caller_token" = [])), request_body = ChallengeStep,
    params(("challenge" = ChallengeId, Path, description = "The name of the challenge")),
    responses(
        (status = 200, body = NextStep),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 404, description = "No such challenge of the caller", body = ErrorBody),
        (status = 409, description = "Not the step that is next, or committed to otherwise before", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn challenge_step(
    State(service): State<Arc<Service>>,
    PathParameter(challenge): PathParameter<ChallengeId>,
    call: SignedJson<ChallengeStep>,
) -> Answer<NextStep> {
    service
        .challenge_step(call.account, challenge, call.content)
        .await
        .map(Json)
}

/// Uploads the proof of a challenge.
#[utoipa::path(post, path = "/v1/hardware/challenges/{challenge}/proof", tag = "hardware",
    security(("caller_token" = [])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("challenge" = ChallengeId, Path, description = "The name of the challenge")),
    responses(
        (status = 200, body = NextStep),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 404, description = "No proof is awaited for such a challenge", body = ErrorBody),
        (status = 413, description = "The proof is too large", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn challenge_proof(
    State(service): State<Arc<Service>>,
    PathParameter(challenge): PathParameter<ChallengeId>,
    request: Request,
) -> Answer<NextStep> {
    let (account, proof) = match service.expect_proof(challenge).await {
        Ok(()) => {
            let call = SignedCall::with_body_of(request, &service, PROOF_MAX_BYTES).await?;
            (call.account, call.body.to_vec())
        }
        // One that was taken before is answered as then, where it is a small call; nothing large is read in vain.
        Err(refusal) => {
            let call = SignedCall::from_request(request, &service)
                .await
                .map_err(|_| refusal)?;
            (call.account, call.body.to_vec())
        }
    };
    service.challenge_proof(account, challenge, proof).await.map(Json)
}

/// Gives a certificate a later expiry, or demands a challenge.
#[utoipa::path(post, path = "/v1/hardware/renewals", tag = "hardware", security(("caller_token" = [])),
    request_body = RenewalRequest,
    responses(
        (status = 200, body = RenewalAnswer),
        (status = 400, description = "The certificate does not count", body = ErrorBody),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "Another account's certificate", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn renew_certificate(
    State(service): State<Arc<Service>>,
    call: SignedJson<RenewalRequest>,
) -> Answer<RenewalAnswer> {
    service
        .renew_certificate(call.account, call.content)
        .await
        .map(Json)
}

/// How the caller's devices stand.
#[utoipa::path(get, path = "/v1/hardware", tag = "hardware", security(("caller_token" = [])),
    responses(
        (status = 200, body = HardwareStatus),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn hardware_status(
    State(service): State<Arc<Service>>,
    call: SignedCall,
) -> Answer<HardwareStatus> {
    service.hardware_status(call.account).await.map(Json)
}

/// How many challenges of hardware were posed and how they ended, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Metrics in the text format of Prometheus", body = String, content_type = "text/plain"),
    (status = 404, description = "This coordinator poses no challenges", body = ErrorBody),
    (status = "default", description = "Any other failure", body = ErrorBody)
))]
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Rejection> {
    let (content_type, text) = service.hardware_metrics()?;
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificatesQuery {
    /// Only this account's.
    account: Option<AccountId>,
    /// Only those after this challenge: the `next` of the page before.
    after: Option<ChallengeId>,
    /// Most certificates of the page, 1 to 1000; 100 unless given.
    limit: Option<usize>,
}

/// The certificates that hold. Only the operator's key may ask.
#[utoipa::path(get, path = "/v1/hardware/certificates", tag = "operator", security(("caller_token" = [])),
    params(CertificatesQuery),
    responses(
        (status = 200, body = CertificatesPage),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "The caller is not the operator", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn certificates(
    State(service): State<Arc<Service>>,
    QueryParameters(query): QueryParameters<CertificatesQuery>,
    call: SignedCall,
) -> Answer<CertificatesPage> {
    let CertificatesQuery {
        account,
        after,
        limit,
    } = query;
    service
        .certificates(call.account, account, after, limit)
        .await
        .map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proxy_on_this_machine_is_believed() {
        let key = |text: &str| AddressKey::of(text.parse().unwrap());
        let of = |peer: &str, forwarded| address_of(peer.parse().unwrap(), forwarded);
        assert_eq!(of("192.0.2.1:9", None), key("192.0.2.1"));
        assert_eq!(of("192.0.2.1:9", Some("198.51.100.7")), key("192.0.2.1"));
        assert_eq!(of("127.0.0.1:9", Some("198.51.100.7")), key("198.51.100.7"));
        assert_eq!(of("[::1]:9", Some("10.9.8.7, 198.51.100.7")), key("198.51.100.7"));
        for nothing in [None, Some(""), Some("unknown"), Some("198.51.100.7, evil")] {
            assert_eq!(of("127.0.0.1:9", nothing), None, "{nothing:?}");
        }
    }
}
