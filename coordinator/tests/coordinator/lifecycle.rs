//! Starting, stopping, starting again: what was answered is still true.

use std::time::Duration;

use clap::Parser as _;
use gristmill_coordinator::{Coordinator, FileSection, Settings, StartError, cli};
use gristmill_protocol::coordinator_api::{
    ChannelView, ListingsAnswer, OpenChannelAnswer, SettleRequest, SettlementResult, listing_from_text,
    voucher_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::listing::{Listing, PrivacyTier};
use gristmill_protocol::tokens::Call;
use gristmill_transport::mesh::{Mesh, MeshConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::harness::{Account, LIFE_MS, Network, channel_request, credits, settings};

#[tokio::test]
async fn a_restart_changes_nothing_but_the_time_to_redeem() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let request = channel_request(provider.id(), credits(4));
    let opened: OpenChannelAnswer = consumer.open(&network, &request).await.ok();
    let settled = provider
        .settle(&network, &[consumer.voucher(request.channel, 1_000_000)])
        .await;
    let SettlementResult::Settled { receipt, .. } = &settled.results[0] else {
        panic!("{settled:?}")
    };
    let (account, coordinator) = (consumer.view(&network).await, network.coordinator());
    let before: ChannelView = consumer.channel(&network, request.channel).await;

    network.stop().await;
    // Down for longer than the channel was to live.
    network.clock.advance(2 * LIFE_MS);
    network.start_again().await;

    assert_eq!(network.coordinator(), coordinator);
    assert_eq!(consumer.view(&network).await, account);
    let again: OpenChannelAnswer = consumer.open(&network, &request).await.ok();
    assert_eq!(again.ticket, opened.ticket);
    let after = consumer.channel(&network, request.channel).await;
    assert_eq!(after.redeem_by_ms, before.redeem_by_ms + 2 * LIFE_MS);
    assert!(after.open);
    assert_eq!(
        provider.receipts(&network, "").await.receipts,
        std::slice::from_ref(receipt)
    );
    let late = provider
        .settle(&network, &[consumer.voucher(request.channel, 2_000_000)])
        .await;
    assert!(
        matches!(late.results[0], SettlementResult::Settled { .. }),
        "{late:?}"
    );
    // Time in which it runs counts again.
    network.clock.advance(LIFE_MS + 1);
    let closed = || async { (!consumer.channel(&network, request.channel).await.open).then_some(()) };
    network.eventually(closed).await;
    let totals = network.totals_at_the_end().await;
    assert_eq!((totals.settled, totals.held), (credits(2), Credits::ZERO));
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let network = Network::start().await;
    let account = network.account_with(3).await;
    let error = network.try_start().await.unwrap_err();
    assert!(matches!(error, StartError::Ledger { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&network.running().ledger_directory().display().to_string()),
        "{text}"
    );
    assert_eq!(account.view(&network).await.available, credits(3));
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do_and_leaves_the_directory_free() {
    let network = Network::start().await;
    let taken = network.running().http_address();
    let folder = tempfile::tempdir().unwrap();
    let start = |settings: Settings| Coordinator::start(settings, folder.path(), CancellationToken::new());
    let error = start(Settings {
        http_listen: taken,
        ..settings()
    })
    .await
    .unwrap_err();
    assert!(
        matches!(error, StartError::HttpAddressInUse { address } if address == taken),
        "{error:?}"
    );
    assert!(error.to_string().contains(&taken.to_string()) && error.to_string().contains("--http-listen"));
    let wrong = Settings {
        mesh_listen: vec!["nonsense".into()],
        ..settings()
    };
    let error = start(wrong).await.unwrap_err();
    assert!(
        error.to_string().contains("mesh_listen") && error.to_string().contains("nonsense"),
        "{error}"
    );
    start(settings()).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_mesh_port_in_use_is_named() {
    let network = Network::start().await;
    let taken = network.running().bootstrap_addresses()[0]
        .split("/p2p/")
        .next()
        .unwrap()
        .to_owned();
    let folder = tempfile::tempdir().unwrap();
    let same = Settings {
        mesh_listen: vec![taken.clone()],
        ..settings()
    };
    let error = Coordinator::start(same, folder.path(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::Mesh(_)) && error.to_string().contains(&taken),
        "{error}"
    );
}

#[tokio::test]
async fn ending_by_the_token_frees_everything() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let shutdown = CancellationToken::new();
        let running = Coordinator::start(settings(), folder.path(), shutdown.clone())
            .await
            .unwrap();
        let address = running.http_address();
        shutdown.cancel();
        running.wait().await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn a_call_in_progress_is_finished_before_the_end_and_a_new_one_is_not_taken() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 1).await;
    let vouchers = vec![voucher_text(&consumer.voucher(channel, 500_000))];
    let body = serde_json::to_vec(&SettleRequest { vouchers }).unwrap();
    let token = provider.token(
        &network,
        Call {
            method: "POST",
            path: "/v1/settlements",
            body: &body,
        },
    );
    let head = format!(
        "POST /v1/settlements HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let address = network.running().http_address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&[head.as_bytes(), &body[..20]].concat())
        .await
        .unwrap();
    // Answers to calls that came later show that the head of the first one has been read.
    for _ in 0..3 {
        consumer.view(&network).await;
    }
    let finish = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.write_all(&body[20..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (totals, answer) = tokio::join!(network.totals_at_the_end(), finish);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"status\":\"settled\""),
        "{answer}"
    );
    assert_eq!(totals.settled, Credits::micro(500_000));
}

#[tokio::test]
async fn the_directory_carries_what_the_mesh_has_heard() {
    let network = Network::start().await;
    let provider = Keypair::from_secret(&[42; 32]);
    let bootstrap = network.running().bootstrap_addresses();
    let config = MeshConfig {
        bootstrap: bootstrap.iter().map(|address| address.parse().unwrap()).collect(),
        ..MeshConfig::default()
    };
    let (clock, now_ms) = (network.clock.clone(), network.clock.now_ms());
    let (mesh, _jobs) = Mesh::start(&provider, config, std::sync::Arc::new(move || clock.now_ms()))
        .await
        .unwrap();
    let listing = Listing {
        provider: provider.account(),
        sequence: now_ms,
        issued_at_ms: now_ms,
        ttl_ms: 600_000,
        addresses: Vec::new(),
        coordinators: vec![network.coordinator()],
        region: String::new(),
        privacy: PrivacyTier::Standard,
        offers: Vec::new(),
        slots: 1,
        free_slots: 1,
        certificates: vec![],
    };
    mesh.publish_listing(listing.clone().seal(&provider).unwrap())
        .await
        .unwrap();
    let heard = network
        .eventually(|| async { network.get::<ListingsAnswer>("/v1/listings").await.listings.pop() })
        .await;
    assert_eq!(
        Listing::open(&listing_from_text(&heard).unwrap(), now_ms).unwrap(),
        listing
    );
    mesh.shutdown().await;
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::test]
async fn the_operator_grants_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let running = Coordinator::start(settings(), folder.path(), CancellationToken::new())
        .await
        .unwrap();
    let (account, url) = (Account::new().id().to_string(), running.http_url());
    let run = |line: Vec<&str>| {
        let line = ["coordinator"]
            .into_iter()
            .chain(line)
            .chain(["--coordinator", &url]);
        let command = Program::parse_from(line).command;
        cli::run(command, FileSection::default(), folder.path(), true)
    };
    let id = "000102030405060708090a0b0c0d0e0f";
    for _ in 0..2 {
        run(vec!["grant", &account, "2.5", "--reason", "hello", "--id", id])
            .await
            .unwrap();
    }
    run(vec!["balance", &account]).await.unwrap();
    run(vec!["balance"]).await.unwrap();
    let error = run(vec!["grant", &account, "3", "--reason", "hello", "--id", id])
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("conflict"), "{error:#}");
    let directory = running.ledger_directory().to_owned();
    running.shutdown().await.unwrap();
    let error = run(vec!["balance", &account]).await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot be reached"), "{error:#}");
    let ledger = gristmill_ledger::Ledger::open(&directory, &Default::default()).unwrap();
    assert_eq!(
        ledger.head().await.unwrap().totals.issued,
        Credits::micro(2_500_000)
    );
}
