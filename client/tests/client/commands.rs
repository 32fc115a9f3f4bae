//! The commands, as a developer's shell runs them. What they print is the shell's; here it is how they end.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use gristmill_client::FileSection;
use gristmill_client::cli::{self, Command};

use crate::harness::{Market, PATIENCE};
use crate::provider::{Setup, TestProvider, words};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

async fn run(line: &[&str], data_dir: &Path) -> anyhow::Result<ExitCode> {
    let program = Program::parse_from(std::iter::once(&"client").chain(line));
    cli::run(program.command, FileSection::default(), data_dir, true).await
}

fn is_success(code: ExitCode) -> bool {
    format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_through_a_running_client() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let (listen, coordinator) = (market.address().to_string(), market.coordinator.http_url());
    let place = ["--listen", &listen, "--coordinator", &coordinator];
    let data_dir = market.client_directory.path();
    for line in [
        &["chat", "What is Gristmill?"][..],
        &["models"],
        &["providers"],
        &["balance"],
    ] {
        let code = run(&[line, &place].concat(), data_dir).await.unwrap();
        assert!(is_success(code), "{line:?}");
    }
    assert_eq!(provider.jobs.borrow().len(), 1);
    let unknown = run(
        &[&["chat", "Hi", "--model", "guid"][..], &place].concat(),
        data_dir,
    )
    .await;
    assert!(unknown.unwrap_err().to_string().contains("did you mean guide?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_without_a_running_client() {
    let Market {
        coordinator,
        client,
        client_directory,
        coordinator_directory: _kept,
        ..
    } = Market::start().await;
    client.shutdown().await.unwrap();
    let bootstrap = coordinator.bootstrap_addresses();
    let provider = TestProvider::start(
        Setup::default(),
        coordinator.account(),
        &bootstrap,
        words(&["Hi"]),
    )
    .await;
    let url = coordinator.http_url();
    // Nobody listens at port 9.
    let place = ["--listen", "127.0.0.1:9", "--coordinator", &url];
    let data_dir = client_directory.path();
    let heard = async {
        while run(&[&["chat", "Hi"][..], &place].concat(), data_dir)
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(provider.jobs.borrow().len(), 1);
    for line in [&["models"][..], &["providers"], &["balance"]] {
        assert!(
            is_success(run(&[line, &place].concat(), data_dir).await.unwrap()),
            "{line:?}"
        );
    }
    let nobody = tempfile::tempdir().unwrap();
    let error = run(&[&["balance"][..], &place].concat(), nobody.path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no account yet"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_has_its_own_exit_code() {
    let nowhere = tempfile::tempdir().unwrap();
    for line in [
        &["serve", "--listen", "0.0.0.0:0"][..],
        &["serve", "--coordinator", "ftp://x", "--listen", "127.0.0.1:0"],
        &["models", "--listen", "0.0.0.0:0"],
    ] {
        let code = run(line, nowhere.path()).await.unwrap();
        assert_eq!(
            format!("{code:?}"),
            format!("{:?}", ExitCode::from(3)),
            "{line:?}"
        );
    }
}
