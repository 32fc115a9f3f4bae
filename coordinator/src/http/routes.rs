//! Every route of the interface, in one table from which both the router and the OpenAPI description are made, so
//! that neither can have one that the other lacks.

#![expect(
    unused_qualifications,
    reason = "utoipa's macro for query parameters writes them"
)]

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::{Json, Router};
use gristmill_protocol::coordinator_api::{
    AccountView, ApiError, ChannelView, CosignatureAnswer, CosignatureRequest, ErrorBody, GrantRequest, Jwk,
    JwkSet, ListingsAnswer, LogInfo, NetworkInfo, OpenChannelAnswer, OpenChannelRequest, ReceiptView,
    ReceiptsPage, SettleAnswer, SettleRequest, SettlementResult,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::hardware::{
    CertificateView, CertificatesPage, CertifiedDevice, ChallengeOpened, ChallengeParameters,
    ChallengeRequest, ChallengeSeed, ChallengeStep, DeviceStatus, HardwareCertificate, HardwareClaim,
    HardwareDigest, HardwareKind, HardwareStatus, NextStep, Precision, RenewalAnswer, RenewalRequest, Stage,
    Throughput, UnitPosition, UnitsRoot,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChallengeId, ChannelId, EntryId, GrantId};
use gristmill_protocol::operator_api::{FreezeRequest, StatementEntry, StatementKind, StatementPage};
use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};

use super::hardware_routes::{
    __path_certificates, __path_challenge_proof, __path_challenge_step, __path_hardware_status,
    __path_metrics, __path_open_challenge, __path_renew_certificate, certificates, challenge_proof,
    challenge_step, hardware_status, metrics, open_challenge, renew_certificate,
};
use super::log_routes::{
    __path_cosign, __path_log_checkpoint, __path_log_entries, __path_log_tile, __path_receipt, cosign,
    log_checkpoint, log_entries, log_tile, receipt,
};
use super::operator_routes::{__path_freeze, __path_statement, freeze, statement};
use super::signed_call::{PathParameter, QueryParameters, SignedCall, SignedJson};
use crate::core::rejection::Rejection;
use crate::service::Service;

type Answer<T> = Result<Json<T>, Rejection>;

macro_rules! routes {
    ($($method:ident $path:literal => $handler:ident),* $(,)?) => {
        /// Method and path of every route.
        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        /// The router of all of them.
        pub(crate) fn router() -> Router<Arc<Service>> {
            // An index has slashes in it, which OpenAPI has no way to say.
            Router::new()$(.route(&$path.replace("{index}", "{*index}"), axum::routing::$method($handler)))*
        }

        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "Gristmill coordinator",
                description = "Accounts, channels, settlements and receipts of a Gristmill network. Amounts are \
                               whole microcredits, times are Unix milliseconds.",
                license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
            ),
            paths($($handler),*),
            components(schemas(
                AccountId, AccountView, ApiError, ChannelId, ChannelView, Credits, ErrorBody, GrantId, GrantRequest,
                Health, Jwk, JwkSet, ListingsAnswer, NetworkInfo, OpenChannelAnswer, OpenChannelRequest,
                ReceiptsPage, SettleAnswer, SettleRequest, SettlementResult, CosignatureAnswer, CosignatureRequest,
                LogInfo, ReceiptView, EntryId, FreezeRequest,
                StatementEntry, StatementKind, StatementPage,
                CertificateView, CertificatesPage, CertifiedDevice, ChallengeId, ChallengeOpened,
                ChallengeParameters, ChallengeRequest, ChallengeSeed, ChallengeStep, DeviceStatus,
                HardwareCertificate, HardwareClaim, HardwareDigest, HardwareKind, HardwareStatus, NextStep,
                Precision, RenewalAnswer, RenewalRequest, Stage, Throughput, UnitPosition, UnitsRoot
            )),
            modifiers(&CallerToken)
        )]
        struct Description;
    };
}

routes! {
    post "/v1/accounts" => open_account,
    get "/v1/account" => account,
    post "/v1/channels" => open_channel,
    get "/v1/channels/{channel}" => channel,
    post "/v1/channels/{channel}/close" => close_channel,
    post "/v1/settlements" => settle,
    get "/v1/receipts" => receipts,
    get "/v1/receipts/{sequence}" => receipt,
    post "/v1/cosignatures" => cosign,
    get "/log/checkpoint" => log_checkpoint,
    get "/log/tile/{level}/{index}" => log_tile,
    get "/log/tile/entries/{index}" => log_entries,
    post "/v1/grants" => grant,
    post "/v1/freezes" => freeze,
    get "/v1/statement" => statement,
    get "/v1/hardware" => hardware_status,
    get "/v1/hardware/certificates" => certificates,
    post "/v1/hardware/challenges" => open_challenge,
    post "/v1/hardware/challenges/{challenge}/steps" => challenge_step,
    post "/v1/hardware/challenges/{challenge}/proof" => challenge_proof,
    post "/v1/hardware/renewals" => renew_certificate,
    get "/v1/listings" => listings,
    get "/v1/network" => network,
    get "/.well-known/jwks.json" => jwks,
    get "/metrics" => metrics,
    get "/healthz" => alive,
    get "/readyz" => ready,
    get "/openapi.json" => openapi,
}

/// Says how calls are signed.
struct CallerToken;

impl Modify for CallerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "A JWT of type gristmill-caller+jwt that the account signs with its own Ed25519 key for this one \
                 call: iss and sub the account, aud the coordinator, iat, exp at most 60 s later, a random jti, \
                 method, path with its query, and body_digest, the BLAKE3 of the body in hexadecimal digits. \
                 A token is accepted once.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("caller_token", SecurityScheme::Http(scheme));
        let auditor = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key that the operator gave to an auditor."))
            .build();
        components.add_security_scheme("auditor_key", SecurityScheme::Http(auditor));
    }
}

/// The description of the interface (OpenAPI 3.1).
pub(crate) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// Opens the caller's account, and gives it the starter grant where the operator has set one, once.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", security(("caller_token" = [])), responses(
    (status = 200, body = AccountView),
    (status = 401, description = "No valid caller token", body = ErrorBody),
    (status = "default", description = "Any other failure", body = ErrorBody)
))]
async fn open_account(State(service): State<Arc<Service>>, call: SignedCall) -> Answer<AccountView> {
    service.open_account(call.account).await.map(Json)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AccountQuery {
    /// Another account than the caller's own; only the operator may ask.
    account: Option<AccountId>,
}

/// The caller's balances.
#[utoipa::path(get, path = "/v1/account", tag = "accounts", security(("caller_token" = [])), params(AccountQuery),
    responses(
        (status = 200, body = AccountView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "Another's account", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn account(
    State(service): State<Arc<Service>>,
    QueryParameters(query): QueryParameters<AccountQuery>,
    call: SignedCall,
) -> Answer<AccountView> {
    service
        .account(call.account, query.account.unwrap_or(call.account))
        .await
        .map(Json)
}

/// Holds credits of the caller for a provider. The same request again gives the same ticket again.
#[utoipa::path(post, path = "/v1/channels", tag = "channels", security(("caller_token" = [])),
    request_body = OpenChannelRequest,
    responses(
        (status = 200, body = OpenChannelAnswer),
        (status = 400, description = "Malformed, or outside of the network's bounds", body = ErrorBody),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 402, description = "The account has too few credits", body = ErrorBody),
        (status = 409, description = "The channel exists with other content", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn open_channel(
    State(service): State<Arc<Service>>,
    call: SignedJson<OpenChannelRequest>,
) -> Answer<OpenChannelAnswer> {
    service.open_channel(call.account, call.content).await.map(Json)
}

/// A channel of the caller, as consumer or provider.
#[utoipa::path(get, path = "/v1/channels/{channel}", tag = "channels", security(("caller_token" = [])),
    params(("channel" = ChannelId, Path, description = "The name of the channel")),
    responses(
        (status = 200, body = ChannelView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 404, description = "No such channel of the caller", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn channel(
    State(service): State<Arc<Service>>,
    PathParameter(channel): PathParameter<ChannelId>,
    call: SignedCall,
) -> Answer<ChannelView> {
    service.channel(call.account, channel).await.map(Json)
}

/// Ends a channel early; what is left of the hold returns to the consumer. Only its provider may.
#[utoipa::path(post, path = "/v1/channels/{channel}/close", tag = "channels", security(("caller_token" = [])),
    params(("channel" = ChannelId, Path, description = "The name of the channel")),
    responses(
        (status = 200, body = ChannelView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "The caller is the consumer", body = ErrorBody),
        (status = 404, description = "No such channel of the caller", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn close_channel(
    State(service): State<Arc<Service>>,
    PathParameter(channel): PathParameter<ChannelId>,
    call: SignedCall,
) -> Answer<ChannelView> {
    service.close_channel(call.account, channel).await.map(Json)
}

/// Hands in vouchers, in any order and as often as one likes. Each has its own result.
#[utoipa::path(post, path = "/v1/settlements", tag = "settlements", security(("caller_token" = [])),
    request_body = SettleRequest,
    responses(
        (status = 200, body = SettleAnswer),
        (status = 400, description = "Malformed, or over 1000 vouchers", body = ErrorBody),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 413, description = "Over 1 MiB", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn settle(
    State(service): State<Arc<Service>>,
    call: SignedJson<SettleRequest>,
) -> Answer<SettleAnswer> {
    service.settle(call.content).await.map(Json)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ReceiptsQuery {
    /// Only receipts before this record of the journal: the `next` of the page before.
    before: Option<u64>,
    /// Most receipts of the page, 1 to 1000; 100 unless given.
    limit: Option<usize>,
}

/// The caller's receipts as consumer and as provider, newest first.
#[utoipa::path(get, path = "/v1/receipts", tag = "settlements", security(("caller_token" = [])),
    params(ReceiptsQuery),
    responses(
        (status = 200, body = ReceiptsPage),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn receipts(
    State(service): State<Arc<Service>>,
    QueryParameters(query): QueryParameters<ReceiptsQuery>,
    call: SignedCall,
) -> Answer<ReceiptsPage> {
    service
        .receipts(call.account, query.before, query.limit)
        .await
        .map(Json)
}

/// Issues credits. Only the operator's key may.
#[utoipa::path(post, path = "/v1/grants", tag = "operator", security(("caller_token" = [])),
    request_body = GrantRequest,
    responses(
        (status = 200, description = "The account after the grant", body = AccountView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "The caller is not the operator", body = ErrorBody),
        (status = 409, description = "The grant exists with other content", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
async fn grant(State(service): State<Arc<Service>>, call: SignedJson<GrantRequest>) -> Answer<AccountView> {
    service.grant(call.account, call.content).await.map(Json)
}

/// Living listings that the coordinator has heard, each signed by its provider.
#[utoipa::path(get, path = "/v1/listings", tag = "network", responses(
    (status = 200, body = ListingsAnswer),
    (status = "default", description = "Any failure", body = ErrorBody)
))]
async fn listings(State(service): State<Arc<Service>>) -> Result<impl IntoResponse, Rejection> {
    Ok(([(CONTENT_TYPE, "application/json")], service.listings()?))
}

/// What one needs to know before anything else.
#[utoipa::path(get, path = "/v1/network", tag = "network", responses(
    (status = 200, body = NetworkInfo),
    (status = "default", description = "Any failure", body = ErrorBody)
))]
async fn network(State(service): State<Arc<Service>>) -> Json<NetworkInfo> {
    Json(service.network())
}

/// The keys that sign tickets and receipts.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "network", responses(
    (status = 200, body = JwkSet),
    (status = "default", description = "Any failure", body = ErrorBody)
))]
async fn jwks(State(service): State<Arc<Service>>) -> Json<JwkSet> {
    Json(service.jwks())
}

/// How the coordinator is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses(
    (status = 200, body = Health),
    (status = "default", description = "Any failure", body = ErrorBody)
))]
async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether calls are taken: the ledger is open and no shutdown has begun.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, body = Health),
    (status = 503, description = "Not now", body = ErrorBody),
    (status = "default", description = "Any other failure", body = ErrorBody)
))]
async fn ready(State(service): State<Arc<Service>>) -> Answer<Health> {
    service.ready()?;
    Ok(Json(Health { status: "ok" }))
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "network", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
    (status = "default", description = "Any failure", body = ErrorBody)
))]
async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(description())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::to_value(description()).unwrap()
    }

    /// Calls `visit` with every object of a document.
    fn walk(value: &Value, visit: &mut dyn FnMut(&serde_json::Map<String, Value>)) {
        match value {
            Value::Object(object) => {
                visit(object);
                object.values().for_each(|value| walk(value, visit));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            described.extend(
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (method.clone(), path.clone())),
            );
        }
        let routed = ROUTES
            .iter()
            .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut references = 0;
        walk(&document, &mut |object| {
            if let Some(Value::String(reference)) = object.get("$ref") {
                references += 1;
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        });
        assert!(references > 20, "{references}");
    }

    #[test]
    fn path_parameters_are_declared_and_operations_are_named_once() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                assert!(
                    names.insert(operation["operationId"].as_str().unwrap().to_owned()),
                    "{operation}"
                );
                assert!(operation["responses"].get("200").is_some(), "{path}");
                let declared: BTreeSet<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let in_path: BTreeSet<&str> = path
                    .split('/')
                    .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                    .collect();
                assert_eq!(declared, in_path, "{path}");
            }
        }
    }

    #[test]
    fn what_is_served_reads_back_as_openapi() {
        let text = serde_json::to_string(&description()).unwrap();
        let read: utoipa::openapi::OpenApi = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn signed_calls_are_marked_and_open_ones_are_not() {
        let document = document();
        for (method, path) in ROUTES {
            let signed = document["paths"][path][method].get("security").is_some();
            let open = [
                "/log/checkpoint",
                "/log/tile/{level}/{index}",
                "/v1/listings",
                "/v1/network",
                "/.well-known/jwks.json",
                "/metrics",
                "/healthz",
                "/readyz",
                "/openapi.json",
            ];
            assert_eq!(signed, !open.contains(path), "{path}");
        }
    }
}
