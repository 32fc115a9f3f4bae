//! What the operator does to accounts: freezing, and statements of account.

use clap::Parser as _;
use gristmill_coordinator::{FileSection, cli};
use gristmill_ledger::statement::Owned;
use gristmill_protocol::coordinator_api::{AccountView, GrantRequest};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::EntryId;
use gristmill_protocol::operator_api::{FreezeRequest, StatementEntry, StatementKind, StatementPage};

use crate::harness::{Account, Network, channel_request, credits, random};

fn freeze(account: &Account, frozen: bool, reason: &str) -> FreezeRequest {
    FreezeRequest {
        id: EntryId::from_bytes(random()),
        account: account.id(),
        frozen,
        reason: reason.into(),
    }
}

#[tokio::test]
async fn a_frozen_account_opens_no_channels_and_still_pays_what_it_promised() {
    let network = Network::start().await;
    let (consumer, provider, other) = (
        network.account_with(10).await,
        Account::new(),
        network.account_with(5).await,
    );
    let operator = network.operator();
    let channel = consumer.open_to(&network, &provider, 4).await;
    let request = freeze(&consumer, true, "stolen key");
    for _ in 0..2 {
        let view: AccountView = operator.post(&network, "/v1/freezes", &request).await.ok();
        assert!(view.frozen);
    }
    assert!(consumer.view(&network).await.frozen);
    let opening = channel_request(provider.id(), credits(1));
    consumer
        .open(&network, &opening)
        .await
        .assert_refused(403, "account_frozen");
    let to_it = channel_request(consumer.id(), credits(1));
    other
        .open(&network, &to_it)
        .await
        .assert_refused(403, "account_frozen");
    provider
        .settle(&network, &[consumer.voucher(channel, 1_000_000)])
        .await;
    assert_eq!(
        provider.view(&network).await.available,
        Credits::micro(980_000),
        "what was promised is paid"
    );

    let same_id = FreezeRequest {
        reason: "another reason".into(),
        ..request.clone()
    };
    let again = freeze(&consumer, true, "again");
    let nothing = freeze(&consumer, true, "");
    let by_itself = freeze(&consumer, false, "please");
    for (caller, request, status, code) in [
        (&operator, &same_id, 409, "conflict"),
        (&operator, &again, 409, "conflict"),
        (&operator, &nothing, 400, "invalid_request"),
        (&consumer, &by_itself, 403, "forbidden"),
    ] {
        let refused = caller.post(&network, "/v1/freezes", request).await;
        refused.assert_refused(status, code);
    }
    let request = freeze(&consumer, false, "new key");
    let view: AccountView = operator.post(&network, "/v1/freezes", &request).await.ok();
    assert!(!view.frozen);
    consumer.open_to(&network, &provider, 1).await;
}

async fn all_entries(network: &Network, caller: &Account, of: &Account, limit: usize) -> Vec<StatementEntry> {
    let (mut entries, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/statement?account={}&limit={limit}{before}", of.id());
        let page: StatementPage = caller.get(network, &path).await.ok();
        entries.extend(page.entries);
        match page.next {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    entries.reverse();
    entries
}

#[tokio::test]
async fn a_statement_adds_up_to_the_balances_whatever_the_pages() {
    let network = Network::start().await;
    let (consumer, provider) = (network.account_with(50).await, Account::new());
    for round in 1..=5 {
        let channel = consumer.open_to(&network, &provider, 4).await;
        for step in 1..=round {
            let voucher = consumer.voucher(channel, step * 100_001);
            provider.settle(&network, &[voucher]).await;
        }
        provider.close(&network, channel).await.ok::<serde_json::Value>();
    }
    let request = freeze(&consumer, true, "=1+1");
    let _: AccountView = network
        .operator()
        .post(&network, "/v1/freezes", &request)
        .await
        .ok();
    for (account, lines) in [(&consumer, 1 + 5 + 15 + 5 + 1), (&provider, 15)] {
        let view = account.view(&network).await;
        for limit in [1, 2, 7, 1_000] {
            let entries = all_entries(&network, account, account, limit).await;
            assert_eq!(entries.len(), lines, "limit {limit}");
            let sum = entries
                .iter()
                .try_fold(Owned::default(), |owned, entry| owned.after(entry))
                .unwrap();
            assert_eq!((sum.available, sum.held), (view.available, view.held));
        }
        let by_operator = all_entries(&network, &network.operator(), account, 100).await;
        assert_eq!(by_operator.len(), lines);
    }
    let entries = all_entries(&network, &consumer, &consumer, 100).await;
    assert_eq!(entries[0].kind, StatementKind::Grant);
    assert_eq!(entries[0].reason.as_deref(), Some("test"));
    assert_eq!(entries.last().unwrap().reason.as_deref(), Some("=1+1"));

    let path = format!("/v1/statement?account={}", consumer.id());
    provider
        .get(&network, &path)
        .await
        .assert_refused(403, "forbidden");
    for limit in [0, 1_001] {
        let path = format!("/v1/statement?limit={limit}");
        consumer
            .get(&network, &path)
            .await
            .assert_refused(400, "invalid_request");
    }
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::test]
async fn the_operator_freezes_and_reads_statements_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let running = gristmill_coordinator::Coordinator::start(
        crate::harness::settings(),
        folder.path(),
        tokio_util::sync::CancellationToken::new(),
    )
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
    run(vec!["grant", &account, "2.5", "--reason", "hello"])
        .await
        .unwrap();
    for _ in 0..2 {
        run(vec!["freeze", &account, "--reason", "why", "--id", id])
            .await
            .unwrap();
    }
    let error = run(vec!["freeze", &account, "--reason", "other", "--id", id])
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("conflict"), "{error:#}");
    assert!(format!("{error:#}").contains(&format!("--id {id}")), "{error:#}");
    run(vec!["unfreeze", &account, "--reason", "why not"])
        .await
        .unwrap();
    for format in ["csv", "json", "table"] {
        run(vec![
            "statement",
            &account,
            "--from",
            "2020-01-01",
            "--format",
            format,
        ])
        .await
        .unwrap();
    }
    assert!(
        Program::try_parse_from(["coordinator", "freeze", &account]).is_err(),
        "a reason is needed"
    );
    assert!(Program::try_parse_from(["coordinator", "statement", &account, "--from", "monday"]).is_err());
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_grant_to_a_frozen_account_is_still_possible() {
    let network = Network::start().await;
    let account = network.account_with(1).await;
    let request = freeze(&account, true, "check");
    let operator = network.operator();
    let _: AccountView = operator.post(&network, "/v1/freezes", &request).await.ok();
    let grant: GrantRequest = crate::harness::grant(account.id(), credits(2));
    let view: AccountView = operator.post(&network, "/v1/grants", &grant).await.ok();
    assert_eq!((view.available, view.frozen), (credits(3), true));
}
