//! The doctor from outside: a real coordinator, a server that is up or down, a node that runs.

use std::process::ExitCode;

use gristmill_node::cli::Command;
use gristmill_node::doctor::{Check, Report, Verdict, examine, gather};
use gristmill_node::settings::{LocalApi, MeshListen};
use gristmill_node::{FileSection, ServeArguments, Settings, SettingsError};
use gristmill_protocol::identity::Keypair;
use gristmill_transport::mesh::listen_addresses;

use crate::market::{Market, start_node, within_a_minute};

async fn ask(market: &Market, settings: Settings) -> Report {
    examine(&gather(Ok(settings), &market.folder.path().join("node")).await)
}

/// The verdict and the text of a check that has one line.
fn line(report: &Report, check: Check) -> (Verdict, String) {
    let mut found = report.findings.iter().filter(|finding| finding.check == check);
    let line = found
        .next()
        .unwrap_or_else(|| panic!("{check:?} has no line: {report:#?}"));
    assert!(
        found.next().is_none(),
        "{check:?} has more than one line: {report:#?}"
    );
    (line.verdict, format!("{} -> {}", line.what, line.remedy))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_seen_to_be_up_and_to_be_down() {
    within_a_minute(async {
        let mut market = Market::start().await;
        let settings = market.settings();
        let report = ask(&market, settings.clone()).await;
        let (verdict, text) = line(&report, Check::Upstream);
        assert_eq!(verdict, Verdict::Fit, "{report:#?}");
        assert!(
            text.contains("models") && text.contains(&market.server.url()),
            "{text}"
        );
        assert_eq!(line(&report, Check::Coordinator).0, Verdict::Fit, "{report:#?}");
        // The same clock twice: nobody is ahead of anybody.
        assert_eq!(line(&report, Check::Clock).0, Verdict::Fit, "{report:#?}");
        assert_eq!(line(&report, Check::Reachability).0, Verdict::Fit, "{report:#?}");
        // Looking leaves nothing behind: no key, no folder, no coordinator that is known from now on.
        assert!(!market.folder.path().join("node").exists());

        // Its port is closed before the next question, and nobody else has it.
        let url = market.server.url();
        market.server = crate::server::Server::start().await;
        let report = ask(&market, settings).await;
        assert_eq!(report.exit_code(), 1);
        let down = report
            .findings
            .iter()
            .filter(|finding| finding.check == Check::Upstream);
        let down: Vec<_> = down
            .map(|finding| (finding.verdict, finding.what.clone()))
            .collect();
        assert!(
            down.iter().all(|(verdict, _)| *verdict == Verdict::Unfit),
            "{down:?}"
        );
        assert!(down[0].1.contains(&url), "{down:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_is_away_or_another_one_is_told() {
    within_a_minute(async {
        let market = Market::start().await;
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let away = Settings {
            coordinator: closed.clone(),
            ..market.settings()
        };
        let (verdict, text) = line(&ask(&market, away).await, Check::Coordinator);
        assert_eq!(verdict, Verdict::Unfit);
        assert!(text.contains(&closed) && text.contains("--coordinator"), "{text}");

        let other = Settings {
            coordinator_account: Some(Keypair::from_secret(&[7; 32]).account()),
            ..market.settings()
        };
        let (verdict, text) = line(&ask(&market, other).await, Check::Coordinator);
        assert_eq!(verdict, Verdict::Unfit);
        assert!(text.contains("check the address and the account"), "{text}");

        // A server that is no coordinator.
        let confused = Settings {
            coordinator: market.server.url().trim_end_matches('/').to_owned(),
            ..market.settings()
        };
        let (verdict, text) = line(&ask(&market, confused).await, Check::Coordinator);
        assert_eq!(
            (verdict, text.contains("no coordinator")),
            (Verdict::Unfit, true),
            "{text}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_running_node_are_no_fault_and_those_of_others_are() {
    within_a_minute(async {
        let market = Market::start().await;
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mesh, api) = (free(), free());
        let port = mesh.local_addr().unwrap().port();
        let settings = Settings {
            mesh_listen: MeshListen::At(vec![listen_addresses([127, 0, 0, 1].into(), port).remove(1)]),
            local_api: LocalApi::At(api.local_addr().unwrap()),
            ..market.settings()
        };
        let report = ask(&market, settings.clone()).await;
        assert_eq!(line(&report, Check::MeshPort).0, Verdict::Unfit, "{report:#?}");
        assert_eq!(line(&report, Check::LocalApi).0, Verdict::Unfit, "{report:#?}");
        drop((mesh, api));

        let node = start_node(market.folder.path(), settings.clone()).await.unwrap();
        node.joined().await.unwrap();
        let report = ask(&market, settings).await;
        let (verdict, text) = line(&report, Check::MeshPort);
        assert_eq!(
            (verdict, text.contains("while the node runs")),
            (Verdict::Fit, true),
            "{text}"
        );
        assert_eq!(line(&report, Check::LocalApi).0, Verdict::Fit, "{report:#?}");
        // Its account's key is there now, and the coordinator is the one it knows.
        assert!(
            line(&report, Check::Key).1.contains(&node.account().to_string()),
            "{report:#?}"
        );
        assert_eq!(line(&report, Check::Coordinator).0, Verdict::Fit, "{report:#?}");
        node.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_are_a_line_and_the_rest_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ServeArguments {
        slots: Some(0),
        ..ServeArguments::default()
    };
    let command = Command::Doctor(Box::new(arguments));
    let code = gristmill_node::cli::run(command, FileSection::default(), folder.path(), true).await;
    assert_eq!(code.unwrap(), ExitCode::from(1));
    let report = examine(&gather(Err(SettingsError::MeshListen), folder.path()).await);
    assert_eq!(report.exit_code(), 1);
    let (verdict, text) = line(&report, Check::Settings);
    assert!(
        verdict == Verdict::Unfit && text.contains("mesh_listen"),
        "{text}"
    );
    assert_eq!(line(&report, Check::DataFolder).0, Verdict::Fit, "{report:#?}");
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.check == Check::Devices)
    );
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.check != Check::Coordinator)
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_told_with_the_way_out() {
    use std::os::unix::fs::PermissionsExt as _;
    within_a_minute(async {
        let market = Market::start().await;
        let data_dir = market.folder.path().join("node");
        let key = gristmill_node::daemon::identity_path(&data_dir);
        gristmill_transport::key_file::load_or_create(&key).unwrap();
        assert_eq!(
            line(&ask(&market, market.settings()).await, Check::Key).0,
            Verdict::Fit
        );
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (verdict, text) = line(&ask(&market, market.settings()).await, Check::Key);
        assert!(verdict == Verdict::Unfit && text.contains("chmod 600"), "{text}");
    })
    .await;
}
