//! The owner's own view of a running node, over HTTP on loopback: `GET /healthz`, `GET /v1/status`,
//! `GET /v1/witness` and, for Prometheus, `GET /metrics`.
//!
//! It only shows; nothing can be changed through it. Web pages are kept out all the same: only known `Host` names
//! are answered, and no other origin may read the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gristmill_transport::Mesh;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::daemon::summary;
use crate::hardware::HardwareState;
use crate::hardware_metrics::HardwareWatch;
use crate::job_driver::JobHost;
use crate::metrics::Now;
use crate::offering::Offering;
use crate::receipt_file::ReceiptFile;
use crate::settings::Settings;

/// The longest that calls in progress are waited for at the end.
const DRAIN: Duration = Duration::from_secs(1);

/// What the API shows.
pub(crate) struct View {
    pub(crate) settings: Settings,
    pub(crate) host: Arc<JobHost>,
    pub(crate) mesh: Mesh,
    pub(crate) offering: Arc<Offering>,
    pub(crate) receipts: ReceiptFile,
    pub(crate) hardware: watch::Receiver<HardwareState>,
    pub(crate) gpus: HardwareWatch,
}

/// Serves the API until told to stop.
pub(crate) async fn serve(listener: TcpListener, address: SocketAddr, view: View, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/v1/status", get(status))
        .route("/v1/witness", get(witness))
        .route("/metrics", get(metrics))
        .fallback(|| async {
            refusal(
                StatusCode::NOT_FOUND,
                "not_found",
                "there are /healthz, /v1/status, /v1/witness and /metrics",
            )
        })
        .layer(from_fn_with_state(address, only_this_machine))
        .with_state(Arc::new(view));
    let stopped = stop.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::warn!(%error, "the local API ended");
            }
        }
        () = overdue => {}
    }
}

/// Refuses calls that a web page made: under a foreign name that it made point here, or from its own origin.
async fn only_this_machine(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    if is_ours(request.headers(), address) {
        return next.run(request).await;
    }
    let message = format!("call it as http://{address}, and not from a web page");
    refusal(StatusCode::FORBIDDEN, "forbidden", &message)
}

fn is_ours(headers: &HeaderMap, address: SocketAddr) -> bool {
    let port = address.port();
    let names = [
        address.to_string(),
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
    ];
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let known = |name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let origin = headers
        .get(ORIGIN)
        .map(|origin| origin.to_str().unwrap_or_default());
    known(host) && origin.is_none_or(|origin| origin.strip_prefix("http://").is_some_and(known))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message}}))).into_response()
}

async fn health(State(view): State<Arc<View>>) -> Response {
    let failed = view.host.vouchers.failure().borrow().clone();
    match failed {
        Some(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, "disk_failed", &error.to_string()),
        None if view.host.closing.is_cancelled() => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the node is stopping",
        ),
        None => Json(json!({"status": "ok"})).into_response(),
    }
}

/// What the node's witness knows of the coordinator's log.
async fn witness(State(view): State<Arc<View>>) -> Json<Value> {
    let status = view.host.witness.status();
    let now_ms = (view.host.clock)();
    let age_ms = status
        .checkpoint
        .as_ref()
        .map(|checkpoint| now_ms.saturating_sub(checkpoint.accepted_at_ms));
    Json(json!({
        "witness": status,
        "checkpoint_age_ms": age_ms,
        "distrusted_because": status.distrust(),
        "takes_jobs": view.host.distrust().is_none(),
    }))
}

/// What Prometheus reads.
async fn metrics(State(view): State<Arc<View>>, headers: HeaderMap) -> Response {
    let host = &view.host;
    let earnings = summary(host, &view.receipts);
    let now = Now {
        jobs: host.slots.jobs(),
        engines: view.offering.engine_names(),
        earned: earnings.total.earned,
        fees: earnings.total.fee,
        pending: earnings.pending,
        unpaid: host.channels.unpaid(),
        devices: view.gpus.devices().await,
    };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (content_type, text) = host.metrics.text(&now, accept);
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

async fn status(State(view): State<Arc<View>>) -> Json<Value> {
    let host = &view.host;
    let catalogue = Arc::clone(&view.offering.catalogue().borrow());
    let offers: Vec<_> = catalogue
        .offers
        .iter()
        .enumerate()
        .map(|(place, offer)| {
            json!({
                "kind": offer.kind,
                "model": offer.model,
                "engine": catalogue.engine_name(place),
                "quantization": offer.quantization,
                "context_length": offer.context_length,
                "capabilities": offer.capabilities,
                "price": offer.price,
            })
        })
        .collect();
    let counts = host.tally.counts();
    let jobs: Vec<_> = counts
        .iter()
        .map(|((kind, model), tally)| json!({"kind": kind, "model": model, "since_start": tally}))
        .collect();
    let addresses: Vec<_> = view
        .mesh
        .listen_addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    let earnings = summary(host, &view.receipts);
    Json(json!({
        "account": host.keypair.account(),
        "version": env!("CARGO_PKG_VERSION"),
        "coordinator": {
            "url": view.settings.coordinator,
            "account": host.coordinator.borrow().as_ref().map(|keys| *keys.newest()),
            "distrusted_because": host.witness.distrust(),
        },
        "mesh": {"addresses": addresses, "peers": view.mesh.connected_peers().len()},
        "offers": offers,
        "slots": {"total": host.slots.slots(), "jobs": host.slots.jobs(), "queue_length": host.slots.queue_length()},
        "jobs": jobs,
        "hardware": view.hardware.borrow().shown((host.clock)()),
        "earnings": {
            "earned": earnings.total.earned,
            "fee": earnings.total.fee,
            "receipts": earnings.total.receipts,
            "pending": earnings.pending,
            "lost": earnings.lost,
            "unpaid": host.channels.unpaid(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_from_this_machine_are_ours() {
        let address: SocketAddr = "127.0.0.1:7430".parse().unwrap();
        let ours = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            is_ours(&headers, address)
        };
        for host in ["127.0.0.1:7430", "localhost:7430", "LOCALHOST:7430", "[::1]:7430"] {
            assert!(ours(host, None), "{host}");
        }
        for host in [
            "",
            "evil.example:7430",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1.evil.example:7430",
            "localhost.:7430",
        ] {
            assert!(!ours(host, None), "{host}");
        }
        assert!(ours("localhost:7430", Some("http://localhost:7430")));
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:7430",
            "http://localhost:7430.evil.example",
            "http://localhost:80",
        ] {
            assert!(!ours("localhost:7430", Some(origin)), "{origin}");
        }
        assert!(!is_ours(&HeaderMap::new(), address));
    }
}
