//! A provider that multiplies on the processor, with the integer reference.

use gristmill_benchmark::challenge::bookkeeping::Bookkeeping;
use gristmill_benchmark::challenge::dimension::Dimension;
use gristmill_benchmark::challenge::fold;
use gristmill_benchmark::challenge::matrices::Matrices;
use gristmill_benchmark::challenge::recomputation::Reference;
use gristmill_benchmark::challenge::residency::{self, Weights};
use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeSeed, ChallengeStep, HardwareClaim, HardwareDigest,
    HardwareKind, NextStep, Precision, Throughput, UnitPosition, UnitsRoot,
};
use gristmill_protocol::ids::ChallengeId;

use crate::harness::{Account, Network, Reply, random};

/// Two rounds of the smallest dimension take 2.8 seconds at this rate, and are late after 3.5.
pub const RATE: u64 = 12_000_000;
/// How long a provider that tells the truth takes for its rounds, on the clock of the test.
pub const HONEST_MS: u64 = 2_800;

pub fn claim(uuid: Option<&str>) -> HardwareClaim {
    HardwareClaim {
        kind: HardwareKind::Cpu,
        index: 0,
        name: "test processor".into(),
        vendor: "maker".into(),
        uuid: uuid.map(str::to_owned),
        driver: None,
        memory_bytes: 2 * 2 * 256 * 256,
        throughput: vec![Throughput {
            precision: Precision::F32,
            multiply_adds_per_second: RATE,
        }],
        fingerprint: HardwareDigest::from_bytes([7; 32]),
    }
}

/// A challenge as its provider sees it.
pub struct Challenge {
    pub opened: ChallengeOpened,
    reference: Reference,
    bookkeeping: Bookkeeping,
    results: Vec<Vec<i32>>,
}

impl Challenge {
    pub async fn open(network: &Network, account: &Account, claim: HardwareClaim) -> Self {
        Self::new(request(network, account, claim).await.ok())
    }

    pub fn new(opened: ChallengeOpened) -> Self {
        let dimension = Dimension::new(opened.parameters.dimension).unwrap();
        assert_eq!(dimension, Dimension::SMALLEST);
        Self {
            reference: Reference::new(&Matrices::new(opened.setup_seed.bytes(), dimension)),
            bookkeeping: Bookkeeping::new(opened.challenge, dimension),
            results: Vec::new(),
            opened,
        }
    }

    pub fn id(&self) -> ChallengeId {
        self.opened.challenge
    }

    pub fn do_stage(&mut self, round_seed: &ChallengeSeed) -> Vec<UnitsRoot> {
        self.bookkeeping.begin_stage(round_seed);
        let rounds = self.opened.parameters.stages[0].rounds;
        let root = |_| {
            let result = self.reference.result(&self.bookkeeping.order());
            let values = fold::fold(&result, Dimension::SMALLEST, Precision::F32.into());
            self.results.push(result);
            self.bookkeeping.commit(&values)
        };
        (0..rounds).map(root).collect()
    }

    pub fn fold_memory(&mut self, nonce: &ChallengeSeed) -> Vec<UnitsRoot> {
        self.bookkeeping.begin_residency(nonce);
        let weights = Weights::new(nonce.bytes());
        let kept = self.opened.parameters.resident_rounds as usize;
        let first = self.results.len() - kept;
        let root = |result: &Vec<i32>| {
            let values = residency::fold(result, Dimension::SMALLEST, &weights);
            self.bookkeeping.commit_resident(&values)
        };
        self.results[first..].iter().map(root).collect()
    }

    pub fn prove(&self, units: &[UnitPosition], resident_units: &[UnitPosition]) -> Vec<u8> {
        self.bookkeeping.prove(units, resident_units).unwrap().encode()
    }
}

pub async fn request(network: &Network, account: &Account, claim: HardwareClaim) -> Reply {
    let challenge = ChallengeId::from_bytes(random());
    account
        .post(
            network,
            "/v1/hardware/challenges",
            &ChallengeRequest { challenge, claim },
        )
        .await
}

pub async fn step(
    network: &Network,
    account: &Account,
    challenge: ChallengeId,
    step: &ChallengeStep,
) -> Reply {
    let path = format!("/v1/hardware/challenges/{challenge}/steps");
    account.post(network, &path, step).await
}

pub async fn upload(network: &Network, account: &Account, challenge: ChallengeId, proof: Vec<u8>) -> Reply {
    let path = format!("/v1/hardware/challenges/{challenge}/proof");
    account.call(network, "POST", &path, proof).await
}

/// Echoes and says that it is ready; the answer comes when the stage begins.
pub async fn prepare(network: &Network, account: &Account, challenge: &Challenge) -> NextStep {
    let mut next = challenge.opened.next.clone();
    while let NextStep::Echo { nonce } = next {
        next = step(network, account, challenge.id(), &ChallengeStep::Echo { nonce })
            .await
            .ok();
    }
    assert!(matches!(next, NextStep::Prepare { .. }), "{next:?}");
    // Nobody joins the group any more once a second has gone by.
    network.clock.advance(1_000);
    step(network, account, challenge.id(), &ChallengeStep::Ready)
        .await
        .ok()
}

/// Commits to the stage after so long, and to the memory. The answer says what to open.
pub async fn commit(
    network: &Network,
    account: &Account,
    challenge: &mut Challenge,
    after_ms: u64,
) -> NextStep {
    let mut next = prepare(network, account, challenge).await;
    loop {
        let taken = match next {
            NextStep::Wait { .. } => ChallengeStep::Wait,
            NextStep::Stage {
                stage, round_seed, ..
            } => {
                let roots = challenge.do_stage(&round_seed);
                network.clock.advance(after_ms);
                ChallengeStep::StageCommitment { stage, roots }
            }
            NextStep::Residency { nonce, .. } => {
                network.clock.advance(10);
                ChallengeStep::ResidencyCommitment {
                    roots: challenge.fold_memory(&nonce),
                }
            }
            other => return other,
        };
        next = step(network, account, challenge.id(), &taken).await.ok();
    }
}

/// Waits for the verdict.
pub async fn verdict(
    network: &Network,
    account: &Account,
    challenge: ChallengeId,
    mut next: NextStep,
) -> NextStep {
    while matches!(next, NextStep::Verifying) {
        next = step(network, account, challenge, &ChallengeStep::Wait).await.ok();
    }
    next
}

/// The whole course, in so long as the claim says; gives the certificate.
pub async fn certify(network: &Network, account: &Account, claim: HardwareClaim) -> String {
    let mut challenge = Challenge::open(network, account, claim).await;
    let open = commit(network, account, &mut challenge, HONEST_MS).await;
    let NextStep::Open {
        units,
        resident_units,
        ..
    } = open
    else {
        panic!("{open:?}")
    };
    let proof = challenge.prove(&units, &resident_units);
    let next = upload(network, account, challenge.id(), proof).await.ok();
    match verdict(network, account, challenge.id(), next).await {
        NextStep::Certified { certificate } => certificate,
        other => panic!("{other:?}"),
    }
}

pub fn refused(next: &NextStep) -> &str {
    match next {
        NextStep::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}
