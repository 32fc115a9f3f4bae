//! Balances, starter grants and the operator's grants.

use futures::future::join_all;
use gristmill_coordinator::Settings;
use gristmill_protocol::coordinator_api::AccountView;
use gristmill_protocol::credits::Credits;

use crate::harness::{Account, Network, credits, grant, settings};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

async fn open(network: &Network, account: &Account) -> AccountView {
    account
        .call(network, "POST", "/v1/accounts", Vec::new())
        .await
        .ok()
}

/// Two credits for each newcomer, for two newcomers a day.
fn with_starters() -> Settings {
    Settings {
        starter_grant: credits(2),
        starter_daily_budget: credits(5),
        ..settings()
    }
}

#[tokio::test]
async fn without_a_starter_grant_an_account_opens_empty() {
    let network = Network::start().await;
    let account = Account::new();
    let view = open(&network, &account).await;
    assert_eq!(
        (view.account, view.available, view.held),
        (account.id(), Credits::ZERO, Credits::ZERO)
    );
    assert!(!view.starter_granted);
    assert_eq!(account.view(&network).await, view);
}

#[tokio::test]
async fn a_starter_grant_is_given_once_however_often_and_at_once_it_is_asked_for() {
    let mut network = Network::start_with(with_starters()).await;
    let account = Account::new();
    let views = join_all((0..20).map(|_| open(&network, &account))).await;
    assert!(views.iter().any(|view| view.starter_granted));
    let view = account.view(&network).await;
    assert_eq!((view.available, view.starter_granted), (credits(2), true));
    // The calls that came second have given back what they had counted of the budget.
    assert!(open(&network, &Account::new()).await.starter_granted);
    assert_eq!(network.totals_at_the_end().await.issued, credits(4));
}

#[tokio::test]
async fn the_daily_budget_holds_across_a_restart_and_returns_the_next_day() {
    let mut network = Network::start_with(with_starters()).await;
    assert!(open(&network, &Account::new()).await.starter_granted);
    // Grants of the operator do not count.
    network.account_with(1_000).await;
    network.stop().await;
    network.start_again().await;
    assert!(open(&network, &Account::new()).await.starter_granted);
    let late = Account::new();
    let view = open(&network, &late).await;
    assert_eq!((view.available, view.starter_granted), (Credits::ZERO, false));
    network.clock.advance(DAY_MS);
    assert!(open(&network, &late).await.starter_granted);
    assert_eq!(network.totals_at_the_end().await.issued, credits(1_006));
}

#[tokio::test]
async fn a_crowd_of_newcomers_gets_no_more_than_the_budget() {
    let mut network = Network::start_with(with_starters()).await;
    let crowd: Vec<Account> = (0..200).map(|_| Account::new()).collect();
    let views = join_all(crowd.iter().map(|account| open(&network, account))).await;
    assert_eq!(views.iter().filter(|view| view.starter_granted).count(), 2);
    assert_eq!(network.totals_at_the_end().await.issued, credits(4));
}

#[tokio::test]
async fn another_starter_grant_in_the_settings_gives_nobody_a_second_one() {
    let mut network = Network::start_with(with_starters()).await;
    let account = Account::new();
    open(&network, &account).await;
    network.stop().await;
    network.settings.starter_grant = credits(5);
    network.start_again().await;
    assert_eq!(open(&network, &account).await.available, credits(2));
}

#[tokio::test]
async fn only_the_operator_grants_and_a_repeated_grant_does_nothing() {
    let mut network = Network::start().await;
    let (operator, account) = (network.operator(), Account::new());
    let request = grant(account.id(), credits(3));
    account
        .post(&network, "/v1/grants", &request)
        .await
        .assert_refused(403, "forbidden");
    for _ in 0..3 {
        let view: AccountView = operator.post(&network, "/v1/grants", &request).await.ok();
        assert_eq!((view.account, view.available), (account.id(), credits(3)));
    }
    let mut other = request.clone();
    other.amount = credits(4);
    operator
        .post(&network, "/v1/grants", &other)
        .await
        .assert_refused(409, "conflict");
    let nothing = grant(account.id(), Credits::ZERO);
    operator
        .post(&network, "/v1/grants", &nothing)
        .await
        .assert_refused(400, "invalid_request");
    let mut verbose = grant(account.id(), credits(1));
    verbose.reason = "x".repeat(1_025);
    operator
        .post(&network, "/v1/grants", &verbose)
        .await
        .assert_refused(400, "invalid_request");
    network.stop().await;
    network.start_again().await;
    let view: AccountView = operator.post(&network, "/v1/grants", &request).await.ok();
    assert_eq!(view.available, credits(3));
}

#[tokio::test]
async fn an_account_is_seen_by_its_owner_and_the_operator() {
    let network = Network::start().await;
    let (account, stranger) = (network.account_with(3).await, Account::new());
    let path = format!("/v1/account?account={}", account.id());
    for who in [&network.operator(), &account] {
        let view: AccountView = who.get(&network, &path).await.ok();
        assert_eq!((view.account, view.available), (account.id(), credits(3)));
    }
    stranger
        .get(&network, &path)
        .await
        .assert_refused(403, "forbidden");
}
