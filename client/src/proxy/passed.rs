//! Answers that are passed on as they came. JSON and plain text come whole, so that failures have a status; sound
//! and streams of events go on as they come, and a failure then breaks the connection: there are no words for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use crate::core::failure::ApiFailure;
use crate::core::passthrough::{is_kept, read_head};
use crate::jobs::JobEvent;
use crate::proxy::idempotency::Recording;

/// Browsers must not take a stranger's answer for anything else than it says it is.
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// The answer, from its head on. One that goes on as it comes takes the recording with it.
pub(super) async fn passed(
    mut events: mpsc::Receiver<JobEvent>,
    recording: &mut Option<Recording>,
) -> Result<Response, ApiFailure> {
    let head = read_head(&next_piece(&mut events).await?.ok_or_else(ApiFailure::internal)?)?;
    let first = next_piece(&mut events).await?.unwrap_or_default();
    let body = if is_kept(&head.content_type) {
        // The whole of it is one piece.
        if next_piece(&mut events).await?.is_some() {
            return Err(ApiFailure::internal());
        }
        if let Some(recording) = recording.take() {
            recording.piece(&first);
            recording.passed(head.content_type.clone().into());
        }
        Body::from(first)
    } else {
        Body::from_stream(PassedBody {
            recording: recording.take(),
            content_type: head.content_type.clone(),
            first: Some(first),
            events,
            has_ended: false,
        })
    };
    let content_type = HeaderValue::from_str(&head.content_type).map_err(|_| ApiFailure::internal())?;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, body).into_response())
}

/// The next piece, or nothing where the answer is complete.
async fn next_piece(events: &mut mpsc::Receiver<JobEvent>) -> Result<Option<Bytes>, ApiFailure> {
    loop {
        match events.recv().await {
            Some(JobEvent::Accepted | JobEvent::Withdrawn) => {}
            Some(JobEvent::Piece(piece)) => return Ok(Some(piece)),
            Some(JobEvent::Ended(outcome)) => return outcome.map(|()| None),
            Some(JobEvent::BrokeOff(_)) | None => return Err(ApiFailure::internal()),
        }
    }
}

/// The body of an answer that goes on as it comes. Dropping it cancels the job.
struct PassedBody {
    /// Stands first and so is dropped first: when the provider hears of a cancellation, the key is free.
    recording: Option<Recording>,
    content_type: String,
    first: Option<Bytes>,
    events: mpsc::Receiver<JobEvent>,
    has_ended: bool,
}

impl PassedBody {
    fn piece(&self, piece: Bytes) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(recording) = &self.recording {
            recording.piece(&piece);
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Stream for PassedBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return self.piece(first);
        }
        while !self.has_ended {
            match self.events.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(JobEvent::Accepted | JobEvent::Withdrawn)) => {}
                Poll::Ready(Some(JobEvent::Piece(piece))) => return self.piece(piece),
                Poll::Ready(Some(JobEvent::Ended(Ok(())))) => {
                    self.has_ended = true;
                    let content_type = std::mem::take(&mut self.content_type);
                    if let Some(recording) = self.recording.take() {
                        recording.passed(content_type.into());
                    }
                }
                Poll::Ready(Some(JobEvent::Ended(Err(_)) | JobEvent::BrokeOff(_)) | None) => {
                    self.has_ended = true;
                    self.recording = None;
                    return Poll::Ready(Some(Err(io::Error::other("the answer broke off"))));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &'static [u8]) -> JobEvent {
        JobEvent::Piece(Bytes::from_static(bytes))
    }

    async fn run(events: Vec<JobEvent>) -> Result<Response, ApiFailure> {
        let (sender, receiver) = mpsc::channel(8);
        for event in events {
            sender.send(event).await.unwrap();
        }
        passed(receiver, &mut None).await
    }

    async fn bytes(response: Response) -> Result<Bytes, axum::Error> {
        axum::body::to_bytes(response.into_body(), 1 << 20).await
    }

    const SOUND: &[u8] = br#"{"content_type":"audio/mpeg"}"#;
    const JSON: &[u8] = br#"{"content_type":"application/json"}"#;

    #[tokio::test]
    async fn sound_goes_on_as_it_comes_and_breaks_where_it_breaks() {
        let whole = vec![
            JobEvent::Accepted,
            piece(SOUND),
            piece(b"a\0"),
            piece(b"b"),
            JobEvent::Ended(Ok(())),
        ];
        let response = run(whole).await.unwrap();
        assert_eq!(response.headers()["content-type"], "audio/mpeg");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(bytes(response).await.unwrap(), &b"a\0b"[..]);
        let failure = JobEvent::Ended(Err(ApiFailure::provider_failed("gone")));
        assert!(
            bytes(run(vec![piece(SOUND), piece(b"a"), failure]).await.unwrap())
                .await
                .is_err()
        );
        assert!(
            bytes(run(vec![piece(SOUND), piece(b"a")]).await.unwrap())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_fails_before_the_body_has_a_status() {
        let failure = || JobEvent::Ended(Err(ApiFailure::provider_failed("gone")));
        assert_eq!(run(vec![failure()]).await.unwrap_err().status, 502);
        assert_eq!(run(vec![piece(SOUND), failure()]).await.unwrap_err().status, 502);
        assert_eq!(run(vec![piece(JSON), failure()]).await.unwrap_err().status, 502);
        let whole = vec![piece(JSON), piece(b"{}"), JobEvent::Ended(Ok(()))];
        assert_eq!(bytes(run(whole).await.unwrap()).await.unwrap(), "{}");
    }
}
