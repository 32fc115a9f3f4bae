//! What is answered from memory: the models on offer, and whether the client is well.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use crate::coordinator_link::LinkState;
use crate::core::failure::ApiFailure;
use crate::core::models::{ModelList, models_on_offer};
use crate::core::near_names::near_names;
use crate::core::providers::providers_on_offer;
use crate::proxy::Proxy;
use crate::proxy::answer::{failure_response, json_body};

pub(super) fn json_response(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(json) => json_body(json.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            failure_response(&ApiFailure::internal())
        }
    }
}

fn on_offer(proxy: &Proxy) -> ModelList {
    let market = &proxy.market;
    let coordinator = market.link.terms().map(|terms| terms.coordinator);
    let now_ms = (market.clock)();
    market
        .mesh
        .with_board(|board| models_on_offer(board, coordinator, Some(market.account), now_ms))
}

/// `GET /v1/models`.
pub(super) async fn models(State(proxy): State<Arc<Proxy>>) -> Response {
    json_response(&on_offer(&proxy))
}

/// `GET /v1/providers`: who offers something, and which hardware of theirs is verified.
pub(super) async fn providers(State(proxy): State<Arc<Proxy>>) -> Response {
    let market = &proxy.market;
    let coordinator = market.link.terms().map(|terms| terms.coordinator);
    let now_ms = (market.clock)();
    json_response(
        &market
            .mesh
            .with_board(|board| providers_on_offer(board, coordinator, Some(market.account), now_ms)),
    )
}

/// `GET /v1/models/{id}`. Names of models may have slashes.
pub(super) async fn model(
    State(proxy): State<Arc<Proxy>>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else {
        return failure_response(&ApiFailure::invalid_request("the name of the model is not UTF-8"));
    };
    let list = on_offer(&proxy);
    match list.data.iter().find(|model| model.id == id) {
        Some(model) => json_response(model),
        None => {
            let shown: String = id.chars().take(128).collect();
            let near = near_names(&shown, list.data.iter().map(|model| model.id.as_str()));
            failure_response(&ApiFailure::model_not_found(&shown, &near))
        }
    }
}

/// `GET /healthz`: the process answers.
pub(super) async fn health(State(proxy): State<Arc<Proxy>>) -> Response {
    json_response(&json!({
        "status": "ok",
        "program": "gristmill-client",
        "version": env!("CARGO_PKG_VERSION"),
        "account": proxy.market.account,
    }))
}

/// `GET /v1/witness`: what the client's witness knows of the coordinator's log.
pub(super) async fn witness(State(proxy): State<Arc<Proxy>>) -> Response {
    let market = &proxy.market;
    let status = market.link.witness().status();
    let now_ms = (market.clock)();
    let age_ms = status
        .checkpoint
        .as_ref()
        .map(|checkpoint| now_ms.saturating_sub(checkpoint.accepted_at_ms));
    json_response(&json!({
        "witness": status,
        "checkpoint_age_ms": age_ms,
        "distrusted_because": status.distrust(),
        "opens_channels": market.link.distrust().is_none(),
    }))
}

/// `GET /readyz`: a request has a chance.
pub(super) async fn readiness(State(proxy): State<Arc<Proxy>>) -> Response {
    let models = on_offer(&proxy).data.len();
    let link = proxy.market.link.state();
    if proxy.market.link.terms().is_none() {
        let reason = match link {
            LinkState::Away(reason) => reason,
            LinkState::Unknown | LinkState::Joined => "it has not answered yet".to_owned(),
        };
        return failure_response(&ApiFailure::coordinator_unavailable(&reason));
    }
    if models == 0 {
        return failure_response(&ApiFailure::no_provider_available(
            "nobody offers anything yet",
            5,
        ));
    }
    json_response(&json!({
        "status": "ready",
        "models": models,
        "coordinator": if link == LinkState::Joined { "joined" } else { "away" },
        "coordinator_distrusted_because": proxy.market.link.witness().distrust(),
        "peers": proxy.market.mesh.connected_peers().len(),
    }))
}
