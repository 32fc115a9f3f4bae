//! Routes for the operator: freezing accounts, and statements, which their owners may ask for too.

#![expect(
    unused_qualifications,
    reason = "utoipa's macro for query parameters writes them"
)]

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gristmill_protocol::coordinator_api::{AccountView, ErrorBody};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::operator_api::{FreezeRequest, StatementPage};
use serde::Deserialize;
use utoipa::IntoParams;

use super::signed_call::{QueryParameters, SignedCall, SignedJson};
use crate::core::rejection::Rejection;
use crate::service::Service;

type Answer<T> = Result<Json<T>, Rejection>;

/// Freezes an account, or ends that. A frozen account opens no channels and none is opened for it; what it promised
/// before is still paid. Only the operator's key may.
#[utoipa::path(post, path = "/v1/freezes", tag = "operator", security(("caller_token" = [])),
    request_body = FreezeRequest,
    responses(
        (status = 200, description = "The account after it", body = AccountView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "The caller is not the operator", body = ErrorBody),
        (status = 409, description = "The id was used with other content, or there is nothing to change", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn freeze(
    State(service): State<Arc<Service>>,
    call: SignedJson<FreezeRequest>,
) -> Answer<AccountView> {
    service.freeze(call.account, call.content).await.map(Json)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatementQuery {
    /// Another account than the caller's own; only the operator may ask.
    account: Option<AccountId>,
    /// Only entries before this record of the journal: the `next` of the page before.
    before: Option<u64>,
    /// Most entries of the page, 1 to 1000; 100 unless given.
    limit: Option<usize>,
}

/// What concerned an account, newest first.
#[utoipa::path(get, path = "/v1/statement", tag = "accounts", security(("caller_token" = [])),
    params(StatementQuery),
    responses(
        (status = 200, body = StatementPage),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "Another's account", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn statement(
    State(service): State<Arc<Service>>,
    QueryParameters(query): QueryParameters<StatementQuery>,
    call: SignedCall,
) -> Answer<StatementPage> {
    let account = query.account.unwrap_or(call.account);
    service
        .statement(call.account, account, query.before, query.limit)
        .await
        .map(Json)
}
