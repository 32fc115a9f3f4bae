//! The steps of a challenge, and what the coordinator answers to each.

use serde::{Deserialize, Serialize};

use crate::hardware::{ChallengeSeed, UnitsRoot};

/// What a provider has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChallengeStep {
    /// It heard a nonce: from this the coordinator measures the way to and fro.
    Echo {
        /// The nonce that it heard last.
        nonce: ChallengeSeed,
    },
    /// The matrices are in the device's memory, nothing is timed before.
    Ready,
    /// Nothing but wait, as it was told to.
    Wait,
    /// The rounds of a stage are done.
    StageCommitment {
        /// Which stage, from 0.
        stage: u32,
        /// One root for each round, in order.
        roots: Vec<UnitsRoot>,
    },
    /// What stayed in memory is folded anew.
    ResidencyCommitment {
        /// One root for each resident result, in order.
        roots: Vec<UnitsRoot>,
    },
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnitPosition {
    /// Which stage, from 0.
    pub stage: u32,
    /// Which round of the stage, from 0; of what stayed in memory, which resident result, from 0.
    pub round: u32,
    /// The row of the unit, below an eighth of the dimension.
    pub row: u32,
    /// The column of the unit, below an eighth of the dimension.
    pub column: u32,
}

/// What is next in a challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "next", rename_all = "snake_case")]
pub enum NextStep {
    /// Send [`ChallengeStep::Echo`] with this nonce at once.
    Echo {
        /// The nonce.
        nonce: ChallengeSeed,
    },
    /// Make the matrices from the seed, then send [`ChallengeStep::Ready`].
    Prepare {
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// The devices that are challenged together are not there yet: send [`ChallengeStep::Wait`] at once. The answer
    /// comes as soon as there is something to do; meanwhile the clock does not run.
    Wait {
        /// How many devices are waited for.
        missing: u32,
    },
    /// Do the rounds of a stage, then send [`ChallengeStep::StageCommitment`]. The clock runs.
    Stage {
        /// Which stage, from 0.
        stage: u32,
        /// From which the chain of the stage begins.
        round_seed: ChallengeSeed,
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// Fold every resident result with weights from the nonce, then send [`ChallengeStep::ResidencyCommitment`]. The
    /// clock runs.
    Residency {
        /// The nonce.
        nonce: ChallengeSeed,
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// Upload a proof that opens these units.
    Open {
        /// Units of the stages, in the order of the proof.
        units: Vec<UnitPosition>,
        /// Units of what stayed in memory, in the order of the proof. Their stage is the last one.
        resident_units: Vec<UnitPosition>,
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// The proof is being verified: ask again with [`ChallengeStep::Wait`].
    Verifying,
    /// The hardware is shown.
    Certified {
        /// The certificate, a compact JWS of type `gristmill-hardware+jwt`.
        certificate: String,
    },
    /// The challenge is over without a certificate.
    Refused {
        /// For programs: `late`, `slower_than_claimed`, `proof`, `together`, `uuid_taken`, `replaced`, …
        code: String,
        /// For people.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator_api::CALL_BODY_MAX_BYTES;
    use crate::hardware::{OPENINGS_MAX, ROUNDS_MAX};

    #[test]
    fn the_largest_messages_fit_into_a_call() {
        let roots = vec![UnitsRoot::from_bytes([0xff; 32]); ROUNDS_MAX as usize];
        let step = ChallengeStep::StageCommitment { stage: 2, roots };
        let body = serde_json::to_vec(&step).unwrap();
        assert!(body.len() <= CALL_BODY_MAX_BYTES, "{}", body.len());
        assert_eq!(serde_json::from_slice::<ChallengeStep>(&body).unwrap(), step);
        let unit = UnitPosition {
            stage: 2,
            round: 8_191,
            row: 2_047,
            column: 2_047,
        };
        let units = vec![unit; OPENINGS_MAX as usize];
        let open = NextStep::Open {
            units: units.clone(),
            resident_units: units,
            within_ms: u64::MAX,
        };
        assert!(serde_json::to_vec(&open).unwrap().len() <= CALL_BODY_MAX_BYTES);
    }

    #[test]
    fn steps_are_told_apart_by_their_tag() {
        let json = |step: &ChallengeStep| serde_json::to_string(step).unwrap();
        assert_eq!(json(&ChallengeStep::Ready), r#"{"step":"ready"}"#);
        for bad in [
            "{}",
            r#"{"step":"begin"}"#,
            r#"{"step":"stage_commitment","stage":0}"#,
            r#"{"step":"residency_commitment","roots":["00"]}"#,
            r#"{"step":"echo","nonce":7}"#,
        ] {
            assert!(serde_json::from_str::<ChallengeStep>(bad).is_err(), "{bad}");
        }
    }
}
