//! Who gets an answer: the program at the other end of an HTTP exchange, through a short queue. Where the program
//! reads slowly, the queue fills, the provider's frames are not read, and the provider stops.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::answer::Answer;
use crate::core::answer_stream::JobSummary;
use crate::core::continuation::Continuation;
use crate::core::failure::ApiFailure;

/// Pieces of an answer that may wait for the program.
const QUEUE_PIECES: usize = 16;

/// What a job tells the HTTP side.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JobEvent {
    /// A provider takes the job.
    Accepted,
    /// A provider that took the job has failed before anything came of it: it counts as not accepted.
    Withdrawn,
    /// A piece of the answer: events of a stream, or the whole.
    Piece(Bytes),
    /// The last piece of an answer that broke off: the failure and the end of the stream.
    BrokeOff(Bytes),
    /// Nothing more comes; where it is a failure, nothing came before.
    Ended(Result<(), ApiFailure>),
}

/// Why no more of an answer is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// The program went away, or the client ends.
    Gone,
    /// A message is no part of such an answer.
    Unusable(ApiFailure),
}

/// The way to the program.
pub(super) struct Recipient {
    events: mpsc::Sender<JobEvent>,
    stopping: CancellationToken,
    /// The answer, as far as it has come.
    answer: Answer,
    has_delivered: bool,
}

impl Recipient {
    pub(super) fn new(answer: Answer, stopping: CancellationToken) -> (Self, mpsc::Receiver<JobEvent>) {
        let (events, receiver) = mpsc::channel(QUEUE_PIECES);
        let recipient = Self {
            events,
            stopping,
            answer,
            has_delivered: false,
        };
        (recipient, receiver)
    }

    /// Begins anew with another provider. Only while nothing was delivered.
    pub(super) fn restart(&mut self, answer: Answer) {
        self.answer = answer;
    }

    /// Goes on with another provider where the last one broke off.
    pub(super) fn go_on(&mut self, continuation: &Continuation) {
        self.answer.go_on(continuation);
    }

    /// The answer, as far as it has come.
    pub(super) const fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Whether a part of the answer is on its way to the program.
    pub(super) const fn has_delivered(&self) -> bool {
        self.has_delivered
    }

    /// Whether the program went away, or the client ends.
    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed() || self.stopping.is_cancelled()
    }

    /// A provider takes the job.
    pub(super) async fn accepted(&self) -> Result<(), Stop> {
        self.send(JobEvent::Accepted).await
    }

    /// A provider that took the job has failed before anything came of it.
    pub(super) async fn withdrawn(&self) -> Result<(), Stop> {
        self.send(JobEvent::Withdrawn).await
    }

    /// A message of the answer, with how many tokens its provider has written by then.
    pub(super) async fn message(&mut self, message: Vec<u8>, tokens: u64) -> Result<(), Stop> {
        let mut piece = Vec::new();
        self.answer.message(message, &mut piece).map_err(Stop::Unusable)?;
        self.answer.count_tokens(tokens);
        self.deliver(piece).await
    }

    /// The answer is complete.
    pub(super) async fn complete(&mut self, summary: &JobSummary) -> Result<(), Stop> {
        let mut piece = Vec::new();
        self.answer
            .complete(summary, &mut piece)
            .map_err(Stop::Unusable)?;
        self.deliver(piece).await
    }

    /// Tells the program that there will be no more.
    pub(super) async fn end(self, outcome: Result<(), ApiFailure>) {
        let broken_off = match &outcome {
            Err(failure) if self.has_delivered => self.answer.broken_off(failure),
            _ => None,
        };
        let event = match broken_off {
            Some(piece) => JobEvent::BrokeOff(piece.into()),
            None => JobEvent::Ended(outcome),
        };
        // Where the program is gone there is nobody to tell.
        let _ = self.events.send(event).await;
    }

    /// Ready when the program went away, or the client ends.
    pub(super) async fn gone(&self) {
        tokio::select! {
            () = self.events.closed() => {}
            () = self.stopping.cancelled() => {}
        }
    }

    async fn deliver(&mut self, piece: Vec<u8>) -> Result<(), Stop> {
        if piece.is_empty() {
            return Ok(());
        }
        self.has_delivered = true;
        self.send(JobEvent::Piece(piece.into())).await
    }

    async fn send(&self, event: JobEvent) -> Result<(), Stop> {
        tokio::select! {
            sent = self.events.send(event) => sent.map_err(|_| Stop::Gone),
            () = self.stopping.cancelled() => Err(Stop::Gone),
        }
    }
}
