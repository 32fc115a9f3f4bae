//! Challenges of hardware from the request to the certificate, and what liars get.

use std::time::Duration;

use clap::Parser as _;
use gristmill_coordinator::server::hardware_directory;
use gristmill_coordinator::{Coordinator, FileSection, Settings, cli};
use gristmill_protocol::hardware::{
    CertificatesPage, ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareCertificate, HardwareStatus,
    NextStep, PROOF_MAX_BYTES, RenewalAnswer, RenewalRequest,
};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::tokens::Call;
use gristmill_transport::coordinator_client::CoordinatorClient;
use tokio_util::sync::CancellationToken;

use crate::hardware_prover::{
    Challenge, HONEST_MS, RATE, certify, claim, commit, prepare, refused, request, step, upload, verdict,
};
use crate::harness::{Account, Network, random, settings};

fn open(network: &Network, certificate: &str) -> HardwareCertificate {
    let keys = LogKeys::new(network.coordinator());
    HardwareCertificate::open(certificate, &keys, network.clock.now_ms()).unwrap()
}

async fn status(network: &Network, account: &Account) -> HardwareStatus {
    account.get(network, "/v1/hardware").await.ok()
}

async fn renew(network: &Network, account: &Account, certificate: &str) -> crate::harness::Reply {
    let request = RenewalRequest {
        certificate: certificate.to_owned(),
    };
    account.post(network, "/v1/hardware/renewals", &request).await
}

#[tokio::test]
async fn hardware_is_shown_through_the_client_and_everybody_can_check_the_certificate() {
    let network = Network::start().await;
    let account = Account::new();
    let clock = network.clock.clone();
    let client = CoordinatorClient::new(
        &network.running().http_url(),
        None,
        account.keypair.clone(),
        std::sync::Arc::new(move || clock.now_ms()),
    )
    .unwrap();
    let request = ChallengeRequest {
        challenge: ChallengeId::from_bytes(random()),
        claim: claim(Some("GPU-1")),
    };
    let opened = client.open_challenge(&request).await.unwrap();
    assert_eq!(
        client.open_challenge(&request).await.unwrap(),
        opened,
        "a repeated request"
    );
    let mut challenge = Challenge::new(opened.clone());
    let id = opened.challenge;
    let mut next = opened.next;
    let certificate = loop {
        next = match next {
            NextStep::Echo { nonce } => client
                .challenge_step(id, &ChallengeStep::Echo { nonce })
                .await
                .unwrap(),
            NextStep::Prepare { .. } => {
                network.clock.advance(1_000);
                client.challenge_step(id, &ChallengeStep::Ready).await.unwrap()
            }
            NextStep::Stage {
                stage, round_seed, ..
            } => {
                let roots = challenge.do_stage(&round_seed);
                network.clock.advance(HONEST_MS);
                let step = ChallengeStep::StageCommitment { stage, roots };
                client.challenge_step(id, &step).await.unwrap()
            }
            NextStep::Residency { nonce, .. } => {
                let roots = challenge.fold_memory(&nonce);
                client
                    .challenge_step(id, &ChallengeStep::ResidencyCommitment { roots })
                    .await
                    .unwrap()
            }
            NextStep::Open {
                units,
                resident_units,
                ..
            } => {
                let proof = challenge.prove(&units, &resident_units);
                client.challenge_proof(id, proof).await.unwrap()
            }
            NextStep::Wait { .. } | NextStep::Verifying => {
                client.challenge_step(id, &ChallengeStep::Wait).await.unwrap()
            }
            NextStep::Certified { certificate } => break certificate,
            refused @ NextStep::Refused { .. } => panic!("{refused:?}"),
        };
    };
    let shown = open(&network, &certificate);
    assert_eq!((shown.sub, shown.jti), (account.id(), id));
    let rate = shown.throughput[0].multiply_adds_per_second;
    assert!((RATE * 99 / 100..=RATE).contains(&rate), "{rate}");
    assert_eq!(shown.memory_bytes, 2 * 2 * 256 * 256);
    let status = client.hardware_status().await.unwrap();
    assert_eq!(status.devices[0].certificate, certificate);
    network.clock.advance(5_000);
    let renewed = client.renew_certificate(&certificate).await.unwrap();
    let RenewalAnswer::Renewed { certificate: renewed } = renewed else {
        panic!("{renewed:?}")
    };
    assert_eq!(open(&network, &renewed).exp, shown.exp + 5);
}

#[tokio::test]
async fn what_is_late_by_a_millisecond_is_refused() {
    let network = Network::start().await;
    let account = Account::new();
    let mut challenge = Challenge::open(&network, &account, claim(None)).await;
    let next = commit(&network, &account, &mut challenge, HONEST_MS * 5 / 4).await;
    assert_eq!(refused(&next), "slower_than_claimed");
    certify(&network, &account, claim(None)).await;
    let url = format!("http://{}/metrics", network.running().http_address());
    let told = reqwest::get(url).await.unwrap().text().await.unwrap();
    for line in [
        "gristmill_hardware_challenges_posed_total 2",
        "gristmill_hardware_challenges_passed_total 1",
        "gristmill_hardware_challenges_refused_total{code=\"slower_than_claimed\"} 1",
        "gristmill_hardware_challenges_open 0.0",
    ] {
        assert!(told.lines().any(|found| found == line), "{line}\n{told}");
    }
}

#[tokio::test]
async fn who_never_answers_is_forgotten() {
    let network = Network::start().await;
    let account = Account::new();
    let challenge = Challenge::open(&network, &account, claim(None)).await;
    assert!(matches!(
        prepare(&network, &account, &challenge).await,
        NextStep::Stage { .. }
    ));
    assert_eq!(status(&network, &account).await.challenges, [challenge.id()]);
    network.clock.advance(60_000);
    network
        .eventually(|| async {
            status(&network, &account)
                .await
                .challenges
                .is_empty()
                .then_some(())
        })
        .await;
    let told = step(&network, &account, challenge.id(), &ChallengeStep::Wait)
        .await
        .ok();
    assert_eq!(refused(&told), "slower_than_claimed");
}

#[tokio::test]
async fn other_units_than_asked_yesterdays_proof_and_garbage_are_refused() {
    let network = Network::start().await;
    let mut yesterday = Vec::new();
    for lie in ["other units", "yesterday", "garbage", "nothing"] {
        let account = Account::new();
        let mut challenge = Challenge::open(&network, &account, claim(None)).await;
        let open = commit(&network, &account, &mut challenge, HONEST_MS).await;
        let NextStep::Open {
            mut units,
            resident_units,
            ..
        } = open
        else {
            panic!("{open:?}")
        };
        let honest = challenge.prove(&units, &resident_units);
        for unit in &mut units {
            unit.row = (unit.row + 1) % 32;
        }
        let others = challenge.prove(&units, &resident_units);
        let proof = match lie {
            "other units" => others,
            "yesterday" => yesterday.clone(),
            "garbage" => honest.iter().map(|byte| byte ^ 0x55).collect(),
            _ => Vec::new(),
        };
        yesterday = honest;
        let next = upload(&network, &account, challenge.id(), proof).await.ok();
        let end = verdict(&network, &account, challenge.id(), next).await;
        assert_eq!(refused(&end), "proof", "{lie}: {end:?}");
        assert!(status(&network, &account).await.devices.is_empty());
    }
}

#[tokio::test]
async fn a_proof_of_ten_gigabytes_is_not_read() {
    let network = Network::start().await;
    let account = Account::new();
    let mut challenge = Challenge::open(&network, &account, claim(None)).await;
    let path = format!("/v1/hardware/challenges/{}/proof", challenge.id());
    // Before a proof is awaited, nothing large is read at all.
    let early = upload(&network, &account, challenge.id(), vec![0; 2 << 20]).await;
    early.assert_refused(404, "not_found");
    commit(&network, &account, &mut challenge, HONEST_MS).await;
    let token = account.token(
        &network,
        Call {
            method: "POST",
            path: &path,
            body: b"",
        },
    );
    // Ten gigabytes are announced; the answer comes without them.
    let answer = raw_upload(&network, &path, &token, 10_000_000_000).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let too_large = upload(&network, &account, challenge.id(), vec![0; PROOF_MAX_BYTES + 1]).await;
    too_large.assert_refused(413, "request_too_large");
    // The challenge goes on.
    let told = step(&network, &account, challenge.id(), &ChallengeStep::Wait)
        .await
        .ok();
    assert!(matches!(told, NextStep::Open { .. }));
}

/// Sends the head of an upload and reads what comes back.
async fn raw_upload(network: &Network, path: &str, token: &str, announced: u64) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = network.running().http_address();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut answer));
    let length = read.await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn nobody_else_takes_part_in_a_challenge_and_replayed_calls_are_refused() {
    let network = Network::start().await;
    let (account, other) = (Account::new(), Account::new());
    let challenge = Challenge::open(&network, &account, claim(None)).await;
    step(&network, &other, challenge.id(), &ChallengeStep::Wait)
        .await
        .assert_refused(404, "not_found");
    upload(&network, &other, challenge.id(), vec![1])
        .await
        .assert_refused(404, "not_found");
    let taken = ChallengeRequest {
        challenge: challenge.id(),
        claim: claim(None),
    };
    other
        .post(&network, "/v1/hardware/challenges", &taken)
        .await
        .assert_refused(409, "conflict");
    let path = "/v1/hardware";
    let token = account.token(
        &network,
        Call {
            method: "GET",
            path,
            body: b"",
        },
    );
    for status in [200, 401] {
        let reply = crate::harness::send(&network, "GET", path, Vec::new(), Some(&token)).await;
        assert_eq!(reply.status.as_u16(), status);
    }
    let early = ChallengeStep::StageCommitment {
        stage: 0,
        roots: Vec::new(),
    };
    step(&network, &account, challenge.id(), &early)
        .await
        .assert_refused(409, "conflict");
    let mut wrong = claim(None);
    wrong.name = "a\nb".into();
    request(&network, &account, wrong)
        .await
        .assert_refused(400, "invalid_request");
}

#[tokio::test]
async fn certificates_survive_a_restart_and_open_challenges_do_not() {
    let mut network = Network::start().await;
    let (account, thief) = (Account::new(), Account::new());
    let certificate = certify(&network, &account, claim(Some("GPU-1"))).await;
    let challenge = Challenge::open(&network, &account, claim(Some("GPU-2"))).await;
    network.stop().await;
    network.start_again().await;
    let status = status(&network, &account).await;
    assert_eq!(status.devices[0].certificate, certificate);
    assert!(status.challenges.is_empty());
    step(&network, &account, challenge.id(), &ChallengeStep::Wait)
        .await
        .assert_refused(404, "not_found");
    request(&network, &thief, claim(Some("GPU-1")))
        .await
        .assert_refused(409, "uuid_taken");
    renew(&network, &thief, &certificate)
        .await
        .assert_refused(403, "forbidden");
    network.clock.advance(1_000);
    let renewed: RenewalAnswer = renew(&network, &account, &certificate).await.ok();
    assert!(matches!(renewed, RenewalAnswer::Renewed { .. }), "{renewed:?}");
    let forged = certificate.replace('.', "..");
    renew(&network, &account, &forged)
        .await
        .assert_refused(400, "invalid_request");
    // A day later it has expired, and nothing renews it.
    network.clock.advance(24 * 60 * 60_000);
    renew(&network, &account, &certificate)
        .await
        .assert_refused(400, "invalid_request");
}

#[tokio::test]
async fn two_devices_of_one_owner_run_at_one_time_and_one_device_cannot_be_two() {
    let network = Network::start().await;
    let account = Account::new();
    let mut one = Challenge::open(&network, &account, claim(Some("GPU-1"))).await;
    let mut two = Challenge::open(&network, &account, claim(Some("GPU-2"))).await;
    assert_ne!(one.opened.setup_seed, two.opened.setup_seed);
    let (first, second) = tokio::join!(
        prepare(&network, &account, &one),
        prepare(&network, &account, &two)
    );
    // The first may have been told to wait for the second.
    let begun = |challenge: ChallengeId, told: NextStep| {
        let (network, account) = (&network, &account);
        async move {
            match told {
                NextStep::Wait { .. } => step(network, account, challenge, &ChallengeStep::Wait).await.ok(),
                told => told,
            }
        }
    };
    let first = begun(one.id(), first).await;
    let second = begun(two.id(), second).await;
    let (
        NextStep::Stage {
            round_seed: first, ..
        },
        NextStep::Stage {
            round_seed: second, ..
        },
    ) = (first, second)
    else {
        panic!("both stages begin")
    };
    assert_ne!(first, second);
    // One after the other on the same device: the second is late.
    let roots = one.do_stage(&first);
    network.clock.advance(HONEST_MS);
    let commitment = ChallengeStep::StageCommitment { stage: 0, roots };
    let roots = two.do_stage(&second);
    let second_commitment = ChallengeStep::StageCommitment { stage: 0, roots };
    let (held, late) = tokio::join!(step(&network, &account, one.id(), &commitment), async {
        // The first commitment is in when its challenge no longer counts as missing.
        network.clock.advance(HONEST_MS);
        step(&network, &account, two.id(), &second_commitment).await
    });
    let _: NextStep = held.ok();
    assert_eq!(refused(&late.ok()), "slower_than_claimed");
}

#[tokio::test]
async fn a_hundred_listings_on_one_device_are_bounded_and_challenged_together() {
    let network = Network::start().await;
    // One proxy stands for one address; what it says before the last address is the liar's.
    let (mut opened, mut refusals) = (Vec::new(), 0);
    for name in 0..100 {
        let account = Account::new();
        let body = serde_json::to_vec(&ChallengeRequest {
            challenge: ChallengeId::from_bytes(random()),
            claim: claim(Some(&format!("made up {name}"))),
        })
        .unwrap();
        let path = "/v1/hardware/challenges";
        let token = account.token(
            &network,
            Call {
                method: "POST",
                path,
                body: &body,
            },
        );
        let response = network
            .http()
            .post(network.url(path))
            .bearer_auth(token)
            .header("x-forwarded-for", format!("10.0.0.{name}, 192.0.2.7"))
            .body(body)
            .send()
            .await
            .unwrap();
        match response.status().as_u16() {
            200 => opened.push((account, response.json::<ChallengeOpened>().await.unwrap())),
            429 => refusals += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((opened.len(), refusals), (64, 36));
    // The first is ready and waits for all the others.
    let (account, first) = &opened[0];
    let mut next = first.next.clone();
    while let NextStep::Echo { nonce } = next {
        let echo = ChallengeStep::Echo { nonce };
        next = step(&network, account, first.challenge, &echo).await.ok();
    }
    let waits = step(&network, account, first.challenge, &ChallengeStep::Ready);
    let time = async {
        // It is held for four seconds; the others have twenty for their echoes.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            network.clock.advance(500);
        }
        std::future::pending::<()>().await;
    };
    let waits = tokio::select! {
        waits = waits => waits,
        () = time => unreachable!("time does not end"),
    };
    assert_eq!(waits.ok::<NextStep>(), NextStep::Wait { missing: 63 });
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::test]
async fn the_operator_lists_certificates_and_nobody_else_does() {
    let network = Network::start().await;
    let account = Account::new();
    certify(&network, &account, claim(None)).await;
    let path = "/v1/hardware/certificates";
    account.get(&network, path).await.assert_refused(403, "forbidden");
    let operator = network.operator();
    let page: CertificatesPage = operator.get(&network, path).await.ok();
    assert_eq!(page.certificates.len(), 1);
    assert_eq!(page.certificates[0].account, account.id());
    assert!(page.certificates[0].renewable);
    let other = format!("{path}?account={}", Account::new().id());
    let page: CertificatesPage = operator.get(&network, &other).await.ok();
    assert!(page.certificates.is_empty() && page.next.is_none());
    operator
        .get(&network, &format!("{path}?limit=0"))
        .await
        .assert_refused(400, "invalid_request");
    // The command goes by the machine's clock, so it asks a coordinator that does, too.
    let folder = tempfile::tempdir().unwrap();
    let kept = hardware_directory(folder.path());
    std::fs::create_dir_all(&kept).unwrap();
    for file in std::fs::read_dir(hardware_directory(network.path())).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), kept.join(file.file_name())).unwrap();
    }
    let running = Coordinator::start(settings(), folder.path(), CancellationToken::new())
        .await
        .unwrap();
    let url = running.http_url();
    for json in [true, false] {
        let line = ["coordinator", "hardware", "--coordinator", &url];
        let command = Program::parse_from(line).command;
        let status = cli::run(command, FileSection::default(), folder.path(), json).await;
        assert_eq!(status.unwrap(), std::process::ExitCode::SUCCESS);
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_process_that_poses_no_challenges_says_so() {
    let network = Network::start_with(Settings {
        hardware_challenges: false,
        ..settings()
    })
    .await;
    let account = Account::new();
    request(&network, &account, claim(None))
        .await
        .assert_refused(404, "not_found");
}
