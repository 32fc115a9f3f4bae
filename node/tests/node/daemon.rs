//! The daemon around the jobs: starting, listing, watching, ending.

use std::collections::BTreeMap;
use std::time::Duration;

use gristmill_node::settings::LocalApi;
use gristmill_node::{Settings, StartError};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{JobKind, ProviderFrame, RefusalCode};
use gristmill_transport::MeshError;
use serde_json::Value;

use crate::consumer::{Ask, PATIENCE};
use crate::market::{Market, clock, start_coordinator, start_node, within_a_minute};
use crate::server::MODEL;

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_heard_and_withdrawn() {
    within_a_minute(async {
        let market = Market::start().await;
        let consumer = market.consumer(2).await;
        let node = market.node(|settings| settings.region = "CH".into()).await;
        let coordinator = node.joined().await.unwrap();
        let mut changes = consumer.mesh.changes();
        let is_listed = || {
            consumer.mesh.with_board(|board| {
                let now_ms = clock()();
                let found = board
                    .candidates(JobKind::ChatCompletions, MODEL, coordinator, now_ms)
                    .next();
                found.map(|found| {
                    (
                        found.listing.provider,
                        found.listing.region.clone(),
                        found.offer.context_length,
                    )
                })
            })
        };
        while is_listed().is_none() {
            changes.changed().await.unwrap();
        }
        assert_eq!(is_listed(), Some((node.account(), "CH".into(), 2_048)));
        node.shutdown().await.unwrap();
        while is_listed().is_some() {
            changes.changed().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_is_joined_later() {
    within_a_minute(async {
        let mut market = Market::start().await;
        let port = market
            .coordinator
            .http_url()
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let settings = market.settings();
        market.coordinator.shutdown().await.unwrap();
        let node = start_node(market.folder.path(), settings).await.unwrap();
        market.coordinator = start_coordinator(market.folder.path(), port).await;
        let consumer = market.consumer(2).await;
        node.joined().await.unwrap();
        let mut paid = consumer.channel(node.account(), Credits::micro(1_000_000)).await;
        assert!(
            consumer
                .ask(&node, &mut paid, &Ask::script("say 1"))
                .await
                .outcome
                .result
                .is_ok()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_sees_what_goes_on_and_web_pages_do_not() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), Credits::micro(1_000_000)).await;
        consumer.ask(&node, &mut paid, &Ask::script("say 3")).await;
        node.redeem_now().await.unwrap();
        let address = node.local_api_address().unwrap();
        let get = async |path: &str, host: &str| {
            let request = reqwest::Client::new()
                .get(format!("http://{address}{path}"))
                .header("host", host);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        let local = address.to_string();
        assert_eq!(get("/healthz", &local).await.0, 200);
        let (status, view) = get("/v1/status", &local).await;
        assert_eq!(
            (status, view["account"].as_str()),
            (200, Some(node.account().to_string().as_str()))
        );
        // Chats, completions, embeddings, transcripts, speech, images and rankings.
        assert_eq!(view["offers"].as_array().unwrap().len(), 7);
        assert_eq!(view["jobs"][0]["since_start"]["completed"], 1);
        assert_eq!(view["jobs"][0]["since_start"]["output_tokens"], 3);
        assert_eq!(view["earnings"]["receipts"], 1);
        assert_eq!(view["earnings"]["unpaid"], 0);
        let scraped = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        let families = exposition(&scraped.text().await.unwrap());
        for name in [
            "gen_ai_server_request_duration_seconds",
            "gen_ai_server_time_to_first_token_seconds",
            "gen_ai_server_time_per_output_token_seconds",
            "gen_ai_client_token_usage",
        ] {
            assert_eq!(families[name].0, "histogram", "{name}");
        }
        let value = |name: &str, labels: &str| {
            let found = families[name]
                .1
                .iter()
                .find(|(series, _)| series.contains(labels));
            found.unwrap_or_else(|| panic!("{name} has no {labels}")).1
        };
        assert_eq!(value("gristmill_jobs_total", "outcome=\"completed\""), 1.0);
        assert_eq!(value("gristmill_delivered_microcredits_total", ""), 3_005.0);
        assert_eq!(value("gristmill_engine_up", &market.server.url()), 1.0);
        let earned = view["earnings"]["earned"].as_u64().unwrap();
        assert_eq!(value("gristmill_earned_microcredits", ""), earned as f64);
        assert_eq!(get("/v1/status", "evil.example").await.0, 403);
        assert_eq!(get("/v1/nothing", &local).await.0, 404);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_start_is_named() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market.node(|_| {}).await;
        let start = async |change: &dyn Fn(&mut Settings)| {
            let mut settings = market.settings();
            change(&mut settings);
            market.start_node(settings).await.unwrap_err()
        };
        let error = start(&|_| {}).await;
        assert!(matches!(error, StartError::DataDirectoryInUse(_)), "{error}");
        assert!(error.to_string().contains("--data-dir"));
        node.shutdown().await.unwrap();
        // Ports with somebody else on them.
        let holder = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = holder.local_addr().unwrap();
        let error = start(&|settings| settings.local_api = LocalApi::At(taken)).await;
        assert!(matches!(error, StartError::LocalApi { .. }), "{error}");
        drop(holder);
        let key = gristmill_protocol::identity::Keypair::from_secret(&[77; 32]);
        let other =
            gristmill_transport::Mesh::start(&key, gristmill_transport::MeshConfig::default(), clock());
        let (other, _) = other.await.unwrap();
        let listen = gristmill_node::settings::MeshListen::At(other.listen_addresses());
        let error = start(&|settings| settings.mesh_listen = listen.clone()).await;
        assert!(
            matches!(error, StartError::Mesh(MeshError::AddressInUse { .. })),
            "{error}"
        );
        let error = start(&|settings| settings.coordinator = "nowhere".into()).await;
        assert!(matches!(error, StartError::Coordinator(_)), "{error}");
        let elsewhere = "http://169.254.169.254/".parse().unwrap();
        let error = start(&|settings| settings.upstreams.urls = vec![reqwest::Url::clone(&elsewhere)]).await;
        assert!(matches!(error, StartError::Upstream(_)), "{error}");
        // After all these failures the folder is free and whole.
        market.node(|_| {}).await.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_its_jobs_and_takes_no_others() {
    within_a_minute(async {
        let market = Market::start().await;
        let brief = |settings: &mut Settings| settings.drain = Duration::from_millis(200);
        let (node, consumer) = (market.node(brief).await, market.consumer(2).await);
        let paid = consumer.channel(node.account(), Credits::micro(1_000_000)).await;
        let (mut stream, _) = consumer.begin(&node, &paid.ticket, &Ask::script("hang 1")).await;
        while !matches!(stream.receive(PATIENCE).await.unwrap(), ProviderFrame::Chunk(_)) {}
        let addresses: Vec<_> = node
            .mesh()
            .listen_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        let provider = node.account();
        let mut late = consumer.mesh.open_job(provider, &addresses).await.unwrap();
        let ended = tokio::spawn(node.shutdown());
        // The running job is told why it ends once it had its time.
        let failed = loop {
            match stream.receive(PATIENCE).await.unwrap() {
                ProviderFrame::Failed(failed) => break failed,
                other => assert!(matches!(other, ProviderFrame::Chunk(_)), "{other:?}"),
            }
        };
        assert_eq!((failed.status, failed.code.as_str()), (503, "provider_stopping"));
        market.server.until_left("hang 1").await;
        // A stream that was opened before gets a refusal, or just ends where it is too late even for that.
        let open = gristmill_protocol::job::OpenJob {
            ticket: paid.ticket.clone(),
            request_id: "late".parse().unwrap(),
            kind: JobKind::ChatCompletions,
            model: MODEL.into(),
            price_cap: crate::market::price(),
            body_bytes: 0,
            content_type: String::new(),
            trace_parent: None,
        };
        let _ = late
            .send(&gristmill_protocol::job::ConsumerFrame::Open(open), PATIENCE)
            .await;
        if let Ok(frame) = late.receive(PATIENCE).await {
            assert!(
                matches!(frame, ProviderFrame::Refused(refused) if refused.code == RefusalCode::ShuttingDown)
            );
        }
        drop((stream, late));
        ended.await.unwrap().unwrap();
    })
    .await;
}

/// Reads the text format of Prometheus
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>): families with their type, and the
/// values of their series. Panics where it is not in that format.
fn exposition(text: &str) -> BTreeMap<String, (String, Vec<(String, f64)>)> {
    let mut families = BTreeMap::<String, (String, Vec<(String, f64)>)>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let before = families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "twice: {line}");
            name.clone_into(&mut current);
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let suffix = name
                .strip_prefix(&current)
                .unwrap_or_else(|| panic!("{line} is not of {current}"));
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = if family.0 == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            assert!(suffixes.contains(&suffix), "{line}");
            family.1.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    families
}

/// The guide is there when nothing else is, and serves like any other model.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_anything_offers_the_guide() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market.node(|settings| settings.upstreams.urls.clear()).await;
        let offers = node.offers();
        let kinds: Vec<JobKind> = offers.iter().map(|offer| offer.kind).collect();
        assert_eq!(kinds, [JobKind::ChatCompletions, JobKind::Completions]);
        let consumer = market.consumer(2).await;
        let mut paid = consumer.channel(node.account(), Credits::micro(10_000_000)).await;
        let body = serde_json::json!({
            "messages": [{"role": "user", "content": "What is Gristmill?"}], "max_tokens": 8,
        });
        let ask = Ask {
            model: offers[0].model.clone(),
            body: body.to_string().into_bytes(),
            ..Ask::script("")
        };
        let answer = consumer.ask(&node, &mut paid, &ask).await;
        assert!(answer.outcome.result.is_ok(), "{:?}", answer.outcome.result);
        assert!(!answer.text().is_empty());
        node.shutdown().await.unwrap();
    })
    .await;
}
