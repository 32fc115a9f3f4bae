//! A coordinator for the tests of its client.

use super::*;

/// What the server saw, and what it shall say instead of an answer.
#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) seen: Arc<Mutex<Vec<String>>>,
    pub(super) tokens: Arc<Mutex<HashSet<String>>>,
    pub(super) instead: Arc<Mutex<Vec<Response>>>,
}

impl Server {
    pub(super) async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handle).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    pub(super) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Who calls: the token must be for this very call, and new.
    fn caller(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Option<AccountId> {
        let token = headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")?;
        let claims = Call {
            method: method.as_str(),
            path,
            body,
        }
        .verify(token, &account(COORDINATOR), now_ms())
        .ok()?;
        self.tokens
            .lock()
            .unwrap()
            .insert(claims.jti)
            .then_some(claims.iss)
    }
}

pub(super) async fn handle(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path_and_query().unwrap().as_str().to_owned();
    server.seen.lock().unwrap().push(format!("{method} {path}"));
    if let Some(response) = server.instead.lock().unwrap().pop() {
        return response;
    }
    let public = matches!(
        path.as_str(),
        "/v1/network" | "/v1/listings" | "/.well-known/jwks.json"
    );
    if !public && server.caller(&method, &path, &headers, &body) != Some(account(CALLER)) {
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    answer(&format!("{method} {path}"), &body)
}

pub(super) fn answer(call: &str, body: &[u8]) -> Response {
    let channel_path = format!("GET /v1/channels/{CHANNEL}");
    let close_path = format!("POST /v1/channels/{CHANNEL}/close");
    match call {
        "GET /v1/network" => json(&network()),
        "GET /v1/listings" => json(&ListingsAnswer {
            listings: vec![listing_text(&sealed(7, 1))],
        }),
        "GET /.well-known/jwks.json" => json(&JwkSet {
            keys: vec![Jwk::of(&account(COORDINATOR))],
        }),
        "POST /v1/accounts" | "GET /v1/account" => json(&balances()),
        "POST /v1/channels" => {
            let request: OpenChannelRequest = serde_json::from_slice(body).unwrap();
            let view = ChannelView {
                channel: request.channel,
                limit: request.limit,
                ..channel()
            };
            json(&OpenChannelAnswer {
                ticket: "a.b.c".into(),
                channel: view,
            })
        }
        "POST /v1/settlements" => {
            let request: SettleRequest = serde_json::from_slice(body).unwrap();
            let settled = |text: &String| {
                let voucher = voucher_from_text(text).unwrap().verify().unwrap().clone();
                SettlementResult::Unchanged {
                    channel: voucher.channel,
                    settled: voucher.cumulative,
                }
            };
            json(&SettleAnswer {
                results: request.vouchers.iter().map(settled).collect(),
                log_indices: vec![None; request.vouchers.len()],
            })
        }
        "GET /v1/receipts?before=9&limit=2" => json(&ReceiptsPage {
            receipts: vec!["a.b.c".into()],
            proofs: vec![None],
            next: Some(8),
        }),
        "GET /v1/receipts?limit=10" => json(&ReceiptsPage {
            receipts: vec![],
            proofs: vec![],
            next: None,
        }),
        "POST /v1/grants" => json(&balances()),
        other if other == channel_path || other == close_path => json(&channel()),
        _ => refusal(StatusCode::NOT_FOUND, "not_found"),
    }
}

pub(super) fn json(value: &impl Serialize) -> Response {
    axum::Json(serde_json::to_value(value).unwrap()).into_response()
}

pub(super) fn refusal(status: StatusCode, code: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": format!("because of {code}")}});
    (status, axum::Json(body)).into_response()
}

pub(super) fn network() -> NetworkInfo {
    network_of(&[COORDINATOR])
}

/// The network of a coordinator whose keys were these, one after the other.
pub(super) fn network_of(keys: &[u8]) -> NetworkInfo {
    let first = keys[0];
    let newest = account(keys[keys.len() - 1]);
    let origin = origin_of(&account(first));
    NetworkInfo {
        name: "test".into(),
        coordinator: newest,
        log: LogInfo {
            verifier_key: VerifierKey::new(&origin, KeyKind::Ed25519, newest).unwrap(),
            origin,
            account: account(first),
            keys: keys
                .windows(2)
                .map(|pair| handover_text(&handover(first, pair[0], pair[1])))
                .collect(),
        },
        version: "0.1.0".into(),
        bootstrap: vec![],
        fee_basis_points: 250,
        starter_grant: Credits::micro(0),
        channel_limit_max: Credits::micro(1_000_000),
        channel_life_max_ms: 600_000,
    }
}

pub(super) fn balances() -> AccountView {
    AccountView {
        account: account(CALLER),
        available: Credits::micro(10),
        held: Credits::micro(0),
        starter_granted: false,
        frozen: false,
    }
}

pub(super) fn channel() -> ChannelView {
    ChannelView {
        channel: CHANNEL,
        consumer: account(CALLER),
        provider: account(2),
        limit: Credits::micro(5),
        settled: Credits::micro(0),
        fee_basis_points: 250,
        redeem_by_ms: now_ms() + 1000,
        open: true,
    }
}
