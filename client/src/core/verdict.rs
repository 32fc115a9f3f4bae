//! What to do when a provider did not deliver: ask another one, open another channel, or tell the program.

use gristmill_protocol::job::{JobFailed, JobRefused, RefusalCode};
use gristmill_protocol::session::consumer::ConsumerFailure;

use crate::core::failure::ApiFailure;
use crate::core::records::RecordEvent;

/// Seconds until other providers may be there.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The status of an engine with too much to do, as some services say it.
const OVERLOADED: u16 = 529;
/// How long a provider that dropped a stream is left alone, in milliseconds.
const DROPPED_STREAM_PAUSE_MS: u64 = 200;

/// What a failed attempt means.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What to do, as long as nothing of the answer has reached the program.
    pub action: Action,
    /// What is noted about the provider.
    pub record: Option<RecordEvent>,
    /// Whether the same provider may do better a little later: where the connection to it broke or could not be made,
    /// and where its engine says that it has too much to do. What it got wrong by itself it gets wrong again, and who
    /// let its time pass has had it.
    pub may_pass: bool,
    /// What the program is told where nothing else can be done.
    pub failure: ApiFailure,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the program: no other provider would do better.
    TellProgram,
    /// Ask another provider.
    AskAnother,
    /// Ask another provider, or this one again after so many milliseconds where there is none.
    AskAnotherOrWait(u64),
    /// Ask another provider whose offer has a longer context.
    AskLongerContext,
    /// Ask the same provider once more, with another channel.
    OpenAnotherChannel,
}

impl Verdict {
    const fn new(action: Action, record: Option<RecordEvent>, failure: ApiFailure) -> Self {
        Self {
            action,
            record,
            may_pass: false,
            failure,
        }
    }

    const fn that_may_pass(mut self) -> Self {
        self.may_pass = true;
        self
    }

    /// The verdict on a provider that could not be reached.
    #[must_use]
    pub fn on_unreachable() -> Self {
        let message = "the providers on offer can't be reached now; others may come";
        let failure = ApiFailure::no_provider_available(message, RETRY_AFTER_SECONDS);
        Self::new(Action::AskAnother, Some(RecordEvent::Failed), failure).that_may_pass()
    }

    /// The verdict on a provider whose answer makes no sense.
    #[must_use]
    pub const fn on_unusable(failure: ApiFailure) -> Self {
        Self::new(Action::AskAnother, Some(RecordEvent::Failed), failure)
    }

    /// The verdict on a provider that ended the stream of one of several jobs before it had said anything: peers do
    /// so when they have as many streams as they allow.
    #[must_use]
    pub fn on_dropped_stream() -> Self {
        let failure = ApiFailure::no_provider_available("every provider of this model is busy", 1);
        let record = RecordEvent::Busy {
            retry_after_ms: DROPPED_STREAM_PAUSE_MS,
        };
        Self::new(
            Action::AskAnotherOrWait(DROPPED_STREAM_PAUSE_MS),
            Some(record),
            failure,
        )
    }

    /// The verdict on a provider that refused one channel: if it refuses another one too, it is left alone, since
    /// each one holds credits until it ends.
    #[must_use]
    pub fn after_another_channel(self) -> Self {
        match self.action {
            Action::OpenAnotherChannel => {
                Self::new(Action::AskAnother, Some(RecordEvent::Misbehaved), self.failure)
            }
            _ => self,
        }
    }

    /// The verdict where a provider can't be paid: another one may have a channel already.
    #[must_use]
    pub const fn on_no_funds(failure: ApiFailure) -> Self {
        Self::new(Action::AskAnother, None, failure)
    }

    /// The verdict on a session that ended without a whole answer.
    #[must_use]
    pub fn on(failure: &ConsumerFailure) -> Self {
        let another = |record, failure| Self::new(Action::AskAnother, Some(record), failure);
        match failure {
            ConsumerFailure::Refused(refused) => on_refusal(refused),
            ConsumerFailure::Failed(failed) => on_engine(failed),
            ConsumerFailure::Misbehaved(_) => another(
                RecordEvent::Misbehaved,
                ApiFailure::provider_failed(failure.to_string()),
            ),
            ConsumerFailure::AboveReservation(_) => another(
                RecordEvent::Failed,
                ApiFailure::budget_exhausted(failure.to_string()),
            ),
            ConsumerFailure::Disconnected => another(
                RecordEvent::Failed,
                ApiFailure::provider_failed(failure.to_string()),
            )
            .that_may_pass(),
            ConsumerFailure::TimedOut => another(
                RecordEvent::Failed,
                ApiFailure::provider_timeout(failure.to_string()),
            ),
            ConsumerFailure::Cancelled => Self::new(Action::TellProgram, None, ApiFailure::shutting_down()),
        }
    }
}

fn on_refusal(refused: &JobRefused) -> Verdict {
    let unavailable = |message: &str| ApiFailure::no_provider_available(message, RETRY_AFTER_SECONDS);
    let failed = Some(RecordEvent::Failed);
    match refused.code {
        RefusalCode::Busy => {
            let retry_after_ms = u64::from(refused.retry_after_ms).max(100);
            let seconds = refused.retry_after_ms.div_ceil(1_000);
            let failure = ApiFailure::no_provider_available("every provider of this model is busy", seconds);
            let record = Some(RecordEvent::Busy { retry_after_ms });
            Verdict::new(Action::AskAnotherOrWait(retry_after_ms), record, failure)
        }
        RefusalCode::ChannelExhausted | RefusalCode::InvalidTicket => Verdict::new(
            Action::OpenAnotherChannel,
            None,
            ApiFailure::provider_failed(format!(
                "the provider does not take our payment: {}",
                refused.reason
            )),
        ),
        RefusalCode::InvalidRequest => Verdict::new(
            Action::TellProgram,
            None,
            ApiFailure::invalid_request(refused.reason.clone()),
        ),
        RefusalCode::BodyTooLarge => Verdict::new(
            Action::AskAnother,
            None,
            ApiFailure::new(413, "request_too_large", refused.reason.clone()),
        ),
        RefusalCode::ModelNotFound => Verdict::new(
            Action::AskAnother,
            failed,
            unavailable("the model has just gone off the market"),
        ),
        RefusalCode::PriceAboveCap => Verdict::new(
            Action::AskAnother,
            failed,
            unavailable("the provider has just raised its price"),
        ),
        RefusalCode::ShuttingDown => Verdict::new(
            Action::AskAnother,
            failed,
            unavailable("the provider is shutting down"),
        ),
        RefusalCode::NotTicketHolder => Verdict::new(
            Action::AskAnother,
            failed,
            ApiFailure::provider_failed("the provider says that the ticket is somebody else's"),
        ),
    }
}

fn on_engine(failed: &JobFailed) -> Verdict {
    let failure = ApiFailure::from_engine(failed);
    let (action, record) = match (failed.status, failed.code.as_str()) {
        // 402 is said by the provider's session, not by an engine: the channel, not the request, is at fault.
        (402, "budget_exhausted") => (Action::OpenAnotherChannel, None),
        (402, _) => (Action::AskAnother, Some(RecordEvent::Failed)),
        (429, _) => (
            Action::AskAnotherOrWait(1_000),
            Some(RecordEvent::Busy {
                retry_after_ms: 1_000,
            }),
        ),
        (400 | 413 | 422, "context_length_exceeded") => (Action::AskLongerContext, None),
        (408, _) => (Action::AskAnother, Some(RecordEvent::Failed)),
        (400..=499, _) => (Action::TellProgram, None),
        _ => (Action::AskAnother, Some(RecordEvent::Failed)),
    };
    let verdict = Verdict::new(action, record, failure);
    match failed.status {
        408 | OVERLOADED | 503 => verdict.that_may_pass(),
        _ => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;

    fn refusal(code: RefusalCode) -> Verdict {
        Verdict::on(&ConsumerFailure::Refused(JobRefused::new(
            code, 1_500, "so it is",
        )))
    }

    fn engine(status: u16, code: &str) -> Verdict {
        Verdict::on(&ConsumerFailure::Failed(JobFailed::new(
            status, code, "so it is", None,
        )))
    }

    #[test]
    fn refusals_lead_to_somebody_else_unless_the_request_is_at_fault() {
        assert_eq!(refusal(RefusalCode::Busy).action, Action::AskAnotherOrWait(1_500));
        assert_eq!(refusal(RefusalCode::Busy).failure.retry_after_seconds, Some(2));
        assert_eq!(refusal(RefusalCode::InvalidRequest).action, Action::TellProgram);
        assert_eq!(
            refusal(RefusalCode::ChannelExhausted).action,
            Action::OpenAnotherChannel
        );
        assert_eq!(refusal(RefusalCode::BodyTooLarge).failure.status, 413);
        for code in [
            RefusalCode::ModelNotFound,
            RefusalCode::ShuttingDown,
            RefusalCode::PriceAboveCap,
        ] {
            assert_eq!(refusal(code).action, Action::AskAnother, "{code:?}");
            assert_eq!(refusal(code).failure.status, 503, "{code:?}");
        }
    }

    #[test]
    fn an_engines_no_is_final_and_its_breakdown_is_not() {
        for (status, code, action, told) in [
            (400, "invalid_value", Action::TellProgram, 400),
            (404, "model_not_found", Action::TellProgram, 404),
            (400, "context_length_exceeded", Action::AskLongerContext, 400),
            (402, "budget_exhausted", Action::OpenAnotherChannel, 402),
            (429, "rate_limit_exceeded", Action::AskAnotherOrWait(1_000), 429),
            (500, "server_error", Action::AskAnother, 500),
            (504, "timeout", Action::AskAnother, 504),
            (0, "", Action::AskAnother, 502),
        ] {
            let verdict = engine(status, code);
            assert_eq!(
                (verdict.action, verdict.failure.status),
                (action, told),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn only_what_waiting_mends_may_pass() {
        for status in [408, 503, 529] {
            assert!(engine(status, "overloaded").may_pass, "{status}");
        }
        assert!(Verdict::on_unreachable().may_pass);
        assert!(Verdict::on(&ConsumerFailure::Disconnected).may_pass);
        for status in [400, 402, 500, 501, 502, 504] {
            assert!(!engine(status, "broken").may_pass, "{status}");
        }
        for code in [
            RefusalCode::ShuttingDown,
            RefusalCode::ModelNotFound,
            RefusalCode::PriceAboveCap,
        ] {
            assert!(!refusal(code).may_pass, "{code:?}");
        }
        assert!(
            !Verdict::on(&ConsumerFailure::TimedOut).may_pass,
            "it had its time"
        );
        let nonsense = ApiFailure::provider_failed("no chunk");
        assert!(!Verdict::on_unusable(nonsense).may_pass);
    }

    #[test]
    fn who_refuses_every_channel_is_left_alone() {
        let first = refusal(RefusalCode::InvalidTicket);
        assert_eq!((first.action, first.record), (Action::OpenAnotherChannel, None));
        let second = first.after_another_channel();
        assert_eq!(
            (second.action, second.record),
            (Action::AskAnother, Some(RecordEvent::Misbehaved))
        );
        let busy = refusal(RefusalCode::Busy);
        assert_eq!(busy.clone().after_another_channel(), busy);
    }

    #[test]
    fn lies_weigh_more_than_accidents() {
        let misbehaved = Verdict::on(&ConsumerFailure::Misbehaved("its meter ran backwards".into()));
        assert_eq!(misbehaved.record, Some(RecordEvent::Misbehaved));
        for failure in [
            ConsumerFailure::Disconnected,
            ConsumerFailure::TimedOut,
            ConsumerFailure::AboveReservation(Credits::micro(5)),
        ] {
            let verdict = Verdict::on(&failure);
            assert_eq!(
                (verdict.action, verdict.record),
                (Action::AskAnother, Some(RecordEvent::Failed))
            );
        }
    }
}
