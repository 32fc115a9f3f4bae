//! Challenges and certificates of hardware, between the HTTP interface and the task that owns the machine.

use gristmill_benchmark::session::{AddressKey, Answer, CertifiedRecord, Event, Problem};
use gristmill_protocol::hardware::{
    CERTIFICATES_PER_PAGE_MAX, CertificateView, CertificatesPage, ChallengeOpened, ChallengeRequest,
    ChallengeStep, HardwareCertificate, HardwareStatus, NextStep, RenewalAnswer, RenewalRequest,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::log::checkpoint::LogKeys;

use super::Service;
use crate::core::rejection::Rejection;
use crate::hardware::{Hardware, Outcome, Overloaded};

/// Certificates of a page unless the caller says how many.
const CERTIFICATES_PER_PAGE: usize = 100;

impl Service {
    /// Begins a challenge for the caller.
    pub(crate) async fn open_challenge(
        &self,
        caller: AccountId,
        address: Option<AddressKey>,
        request: ChallengeRequest,
    ) -> Result<ChallengeOpened, Rejection> {
        let open = move |call| Event::Open {
            call,
            caller,
            address,
            request,
        };
        match settle(self.hardware()?.call(open).await)? {
            Answer::Opened(opened) => Ok(opened),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a step of a challenge of the caller.
    pub(crate) async fn challenge_step(
        &self,
        caller: AccountId,
        challenge: ChallengeId,
        step: ChallengeStep,
    ) -> Result<NextStep, Rejection> {
        let step = move |call| Event::Step {
            call,
            caller,
            challenge,
            step,
        };
        next(self.hardware()?.call(step).await)
    }

    /// Takes the proof of a challenge of the caller.
    pub(crate) async fn challenge_proof(
        &self,
        caller: AccountId,
        challenge: ChallengeId,
        proof: Vec<u8>,
    ) -> Result<NextStep, Rejection> {
        let proof = move |call| Event::Proof {
            call,
            caller,
            challenge,
            proof,
        };
        next(self.hardware()?.call(proof).await)
    }

    /// Refuses a proof that nobody waits for, before anything of it is read.
    pub(crate) async fn expect_proof(&self, challenge: ChallengeId) -> Result<(), Rejection> {
        match self.hardware()?.awaits_proof(challenge).await? {
            true => Ok(()),
            false => Err(Rejection::not_found(
                "no proof is awaited for this challenge; send the step 'wait' to hear what is next",
            )),
        }
    }

    /// Gives a certificate of the caller a later expiry, or demands a challenge.
    pub(crate) async fn renew_certificate(
        &self,
        caller: AccountId,
        request: RenewalRequest,
    ) -> Result<RenewalAnswer, Rejection> {
        let hardware = self.hardware()?;
        let keys = self.log_keys();
        let certificate =
            HardwareCertificate::open(&request.certificate, &keys, self.now_ms()).map_err(|error| {
                Rejection::invalid_request(format!("the certificate does not count: {error}"))
            })?;
        let certificate = Box::new(certificate);
        let renew = move |call| Event::Renew {
            call,
            caller,
            certificate,
        };
        match settle(hardware.call(renew).await)? {
            Answer::Renewal(renewal) => Ok(renewal),
            other => Err(unexpected(&other)),
        }
    }

    /// How the caller's devices stand.
    pub(crate) async fn hardware_status(&self, caller: AccountId) -> Result<HardwareStatus, Rejection> {
        Ok(self.hardware()?.status(caller).await?)
    }

    /// A page of the certificates that hold, for the operator.
    pub(crate) async fn certificates(
        &self,
        caller: AccountId,
        account: Option<AccountId>,
        after: Option<ChallengeId>,
        limit: Option<usize>,
    ) -> Result<CertificatesPage, Rejection> {
        if !self.is_operator(&caller) {
            return Err(Rejection::forbidden("only the operator can list certificates"));
        }
        let limit = limit.unwrap_or(CERTIFICATES_PER_PAGE);
        if !(1..=CERTIFICATES_PER_PAGE_MAX).contains(&limit) {
            return Err(Rejection::invalid_request(format!(
                "limit must be 1 to {CERTIFICATES_PER_PAGE_MAX}"
            )));
        }
        let mut records = self.hardware()?.certified().await?;
        records.retain(|record| {
            account.is_none_or(|account| record.certificate.sub == account)
                && after.is_none_or(|after| record.certificate.jti > after)
        });
        records.sort_by_key(|record| record.certificate.jti);
        let has_more = records.len() > limit;
        records.truncate(limit);
        let last = records.last().map(|record| record.certificate.jti);
        let now_ms = self.now_ms();
        let view = |record: CertifiedRecord| CertificateView {
            account: record.certificate.sub,
            renewable: !record.is_due(now_ms),
            certificate: record.certificate,
        };
        Ok(CertificatesPage {
            certificates: records.into_iter().map(view).collect(),
            next: last.filter(|_| has_more),
        })
    }

    /// How challenges ended, as Prometheus reads it: the content type and the text.
    pub(crate) fn hardware_metrics(&self) -> Result<(&'static str, String), Rejection> {
        Ok(self.hardware()?.metrics())
    }

    fn hardware(&self) -> Result<&Hardware, Rejection> {
        self.hardware.as_ref().ok_or_else(|| {
            Rejection::not_found(
                "this coordinator poses no challenges of hardware (hardware_challenges is off)",
            )
        })
    }

    fn log_keys(&self) -> LogKeys {
        let mut keys = LogKeys::new(self.signers.log());
        for key in self.signers.retired() {
            keys.add_key(key);
        }
        keys.add_key(self.operator());
        keys
    }
}

fn settle(called: Result<Outcome, Overloaded>) -> Result<Answer, Rejection> {
    Ok(called??)
}

fn next(called: Result<Outcome, Overloaded>) -> Result<NextStep, Rejection> {
    match settle(called)? {
        Answer::Next(next) => Ok(next),
        other => Err(unexpected(&other)),
    }
}

/// The machine answered another question: an error of this program.
fn unexpected(answer: &Answer) -> Rejection {
    let kind = match answer {
        Answer::Opened(_) => "opened",
        Answer::Next(_) => "next",
        Answer::Renewal(_) => "renewal",
    };
    tracing::error!(kind, "the challenge machine answered another question");
    Rejection::internal()
}

impl From<Overloaded> for Rejection {
    fn from(_: Overloaded) -> Self {
        Self::unavailable(
            "the coordinator takes no challenges at this moment; try again soon",
            2,
        )
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        let message = problem.to_string();
        match problem {
            Problem::Claim(_) | Problem::Roots { .. } => Self::invalid_request(message),
            Problem::NotFound => Self::not_found(message),
            Problem::Conflict(_) | Problem::OutOfTurn => Self::conflict(message),
            Problem::UuidTaken => Self::uuid_taken(message),
            Problem::OtherAccount => Self::forbidden(message),
            Problem::TooMany { .. } => Self::rate_limited(message, 60),
            Problem::Full => Self::unavailable(message, 5),
            Problem::NotKept => Self::unavailable(message, 5),
        }
    }
}
