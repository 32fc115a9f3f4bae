//! Answers over HTTP: a failure with its status, a whole answer, or a stream that keeps its connection alive.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::core::failure::ApiFailure;
use crate::core::translation::{Translated, Translation};
use crate::jobs::JobEvent;
use crate::proxy::idempotency::{EVENT_STREAM, JSON, Recording};

/// Tells OpenAI's SDKs whether to repeat a request by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A failure as programs read it.
pub(super) fn failure_response(failure: &ApiFailure) -> Response {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, json_body(failure.to_json().into())).into_response();
    let headers = response.headers_mut();
    if let Some(seconds) = failure.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.is_useless_to_repeat {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110 section 11.6.1 asks for it with every 401.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // For the layer that says the same in another service's words.
    response.extensions_mut().insert(failure.clone());
    response
}

/// A body of JSON.
pub(super) fn json_body(json: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], json).into_response()
}

/// Waits for the whole answer.
pub(super) async fn whole(mut events: mpsc::Receiver<JobEvent>) -> Result<Bytes, ApiFailure> {
    let mut answer = None;
    loop {
        match events.recv().await {
            Some(JobEvent::Accepted | JobEvent::Withdrawn) => {}
            Some(JobEvent::Piece(piece)) => answer = Some(piece),
            Some(JobEvent::Ended(outcome)) => {
                outcome?;
                return answer.ok_or_else(ApiFailure::internal);
            }
            Some(JobEvent::BrokeOff(_)) | None => return Err(ApiFailure::internal()),
        }
    }
}

/// Waits for the first piece of a stream or its failure, so that failures still have a status; after an acceptance
/// for `headers_after` only, since programs give up on silent connections. Who accepted and failed has not accepted:
/// otherwise a failure after some rounds would have no status. A stream takes the recording with it.
pub(super) async fn stream(
    mut events: mpsc::Receiver<JobEvent>,
    keep_alive: Duration,
    headers_after: Duration,
    translation: Translation,
    recording: &mut Option<Recording>,
) -> Result<Response, ApiFailure> {
    let (mut accepted_at, mut acceptances) = (None, 0_usize);
    let first = loop {
        let give_up = async {
            match accepted_at {
                Some(accepted_at) => sleep_until(accepted_at + headers_after).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            () = give_up => break None,
        };
        match event {
            Some(JobEvent::Accepted) => {
                acceptances += 1;
                accepted_at.get_or_insert_with(Instant::now);
            }
            Some(JobEvent::Withdrawn) => {
                acceptances = acceptances.saturating_sub(1);
                accepted_at = accepted_at.filter(|_| acceptances > 0);
            }
            Some(event @ (JobEvent::Piece(_) | JobEvent::BrokeOff(_))) => break Some(event),
            Some(JobEvent::Ended(Err(failure))) => return Err(translation.at_own_field(failure)),
            Some(JobEvent::Ended(Ok(()))) | None => return Err(ApiFailure::internal()),
        }
    };
    let events = EventBody {
        recording: recording.take(),
        translation,
        first,
        events,
        has_ended: false,
        keep_alive,
        silence: Box::pin(sleep(keep_alive)),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// The body of a stream. Dropping it, as the server does when the program goes away, cancels the job.
struct EventBody {
    /// Stands first and so is dropped first: when the provider hears of a cancellation, the key is free.
    recording: Option<Recording>,
    translation: Translation,
    first: Option<JobEvent>,
    events: mpsc::Receiver<JobEvent>,
    has_ended: bool,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
}

impl EventBody {
    /// Comments that keep the connection alive are no part of the answer and not recorded.
    fn record(&mut self, piece: &Translated) {
        if let Some(recording) = &self.recording {
            recording.piece(&piece.bytes);
        }
        // At its end and not after it: programs leave as soon as they have read it.
        if piece.is_end
            && let Some(recording) = self.recording.take()
        {
            recording.streamed();
        }
    }

    fn ended(&mut self, failure: &ApiFailure) -> Bytes {
        self.has_ended = true;
        self.recording = None;
        self.translation.failed(failure)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.has_ended {
            let event = match self.first.take() {
                Some(first) => Poll::Ready(Some(first)),
                None => self.events.poll_recv(context),
            };
            match event {
                Poll::Ready(Some(JobEvent::Accepted | JobEvent::Withdrawn)) => {}
                Poll::Ready(Some(JobEvent::Piece(piece))) => {
                    let piece = self.translation.piece(piece);
                    self.record(&piece);
                    if !piece.bytes.is_empty() {
                        return Poll::Ready(Some(piece.bytes));
                    }
                }
                Poll::Ready(Some(JobEvent::BrokeOff(piece))) => {
                    self.has_ended = true;
                    self.recording = None;
                    return Poll::Ready(Some(self.translation.piece(piece).bytes));
                }
                Poll::Ready(Some(JobEvent::Ended(Ok(())))) => self.has_ended = true,
                Poll::Ready(Some(JobEvent::Ended(Err(failure)))) => {
                    return Poll::Ready(Some(self.ended(&failure)));
                }
                Poll::Ready(None) => return Poll::Ready(Some(self.ended(&ApiFailure::internal()))),
                Poll::Pending => {
                    if self.silence.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Bytes::from_static(self.translation.keep_alive())));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Stream for EventBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.poll_piece(context);
        if piece.is_ready() {
            let silent_until = Instant::now() + self.keep_alive;
            self.silence.as_mut().reset(silent_until);
        }
        piece.map(|piece| piece.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn piece(text: &'static str) -> JobEvent {
        JobEvent::Piece(Bytes::from_static(text.as_bytes()))
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_before_the_first_piece_has_a_status() {
        let (sender, events) = mpsc::channel(4);
        sender.send(JobEvent::Accepted).await.unwrap();
        sender
            .send(JobEvent::Ended(Err(ApiFailure::provider_failed("gone"))))
            .await
            .unwrap();
        let failure = stream(events, SECOND, SECOND, Translation::Verbatim, &mut None)
            .await
            .unwrap_err();
        assert_eq!(failure.status, 502);
        let response = failure_response(&failure.retry_after(7));
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (502, &"7".parse().unwrap())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_gets_headers_and_comments_and_still_its_failure() {
        let (sender, events) = mpsc::channel(4);
        sender.send(JobEvent::Accepted).await.unwrap();
        let began = Instant::now();
        let response = stream(events, 2 * SECOND, 10 * SECOND, Translation::Verbatim, &mut None)
            .await
            .unwrap();
        assert_eq!(began.elapsed(), 10 * SECOND);
        assert_eq!(
            response.headers()["content-type"],
            "text/event-stream; charset=utf-8"
        );
        let body = tokio::spawn(text(response));
        sleep(5 * SECOND).await;
        sender
            .send(JobEvent::Ended(Err(ApiFailure::provider_failed("gone"))))
            .await
            .unwrap();
        let body = body.await.unwrap();
        let error = "data: {\"error\":{\"message\":\"gone\",\"type\":\"server_error\",\"param\":null,\
                     \"code\":\"provider_failed\"}}\n\ndata: [DONE]\n\n";
        assert_eq!(body, format!(": ping\n: ping\n{error}"));
    }

    /// Seen on a loaded machine: rounds took longer than an acceptance keeps the headers back, and a 429 came as an
    /// event of a stream.
    #[tokio::test(start_paused = true)]
    async fn a_failure_after_rounds_of_providers_that_had_accepted_has_a_status() {
        let (sender, events) = mpsc::channel(4);
        let rounds = async move {
            for _ in 0..4 {
                sender.send(JobEvent::Accepted).await.unwrap();
                sleep(SECOND / 2).await;
                sender.send(JobEvent::Withdrawn).await.unwrap();
                sleep(SECOND).await;
            }
            let failure = ApiFailure::too_many_requests();
            sender.send(JobEvent::Ended(Err(failure))).await.unwrap();
        };
        let mut none = None;
        let answered = stream(events, SECOND, SECOND, Translation::Verbatim, &mut none);
        let (answered, ()) = tokio::join!(answered, rounds);
        assert_eq!(answered.unwrap_err().status, 429);
        // Beside one that failed another one may still be at work.
        let (sender, events) = mpsc::channel(4);
        for event in [JobEvent::Accepted, JobEvent::Accepted, JobEvent::Withdrawn] {
            sender.send(event).await.unwrap();
        }
        let began = Instant::now();
        let answered = stream(events, SECOND, SECOND, Translation::Verbatim, &mut None).await;
        assert!(answered.is_ok() && began.elapsed() == SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_vanishes_is_an_error_and_not_an_end() {
        let (sender, events) = mpsc::channel(4);
        sender.send(piece("data: {}\n\n")).await.unwrap();
        drop(sender);
        let body = text(
            stream(events, SECOND, SECOND, Translation::Verbatim, &mut None)
                .await
                .unwrap(),
        )
        .await;
        assert!(
            body.starts_with("data: {}\n\ndata: {\"error\"") && body.ends_with("data: [DONE]\n\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_whole_answer_comes_once_and_going_away_is_noticed() {
        let (sender, events) = mpsc::channel(4);
        sender.send(piece("{}")).await.unwrap();
        sender.send(JobEvent::Ended(Ok(()))).await.unwrap();
        assert_eq!(whole(events).await.unwrap(), "{}");
        let (sender, events) = mpsc::channel(4);
        sender.send(piece("data: {}\n\n")).await.unwrap();
        let response = stream(events, SECOND, SECOND, Translation::Verbatim, &mut None)
            .await
            .unwrap();
        assert!(!sender.is_closed());
        drop(response);
        assert!(sender.is_closed());
    }
}
