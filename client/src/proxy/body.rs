//! Reads a request's body within bounds of size and time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use crate::core::failure::ApiFailure;

/// Longest silence while a body is sent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// So much of a body that is too large is read and thrown away: many programs read no answer before they have sent
/// everything, and would see a broken connection instead of a reason.
const THROWN_AWAY_MAX_BYTES: usize = 64 << 20;
/// For so long.
const THROWING_AWAY_MAX: Duration = Duration::from_secs(10);

/// The whole body.
pub(super) async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ApiFailure> {
    let mut pieces = body.into_data_stream();
    let mut first = Bytes::new();
    let mut joined: Vec<u8> = Vec::new();
    loop {
        let piece = timeout(SILENCE_MAX, pieces.next())
            .await
            .map_err(|_| ApiFailure::body_timeout())?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            ApiFailure::invalid_request(format!("the request body could not be read: {error}"))
        })?;
        if first.len().max(joined.len()) + piece.len() > limit_bytes {
            drop(joined);
            throw_away(pieces).await;
            return Err(ApiFailure::too_large(limit_bytes));
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.into() })
}

async fn throw_away(mut pieces: axum::body::BodyDataStream) {
    let deadline = Instant::now() + THROWING_AWAY_MAX;
    let mut bytes = 0;
    while bytes < THROWN_AWAY_MAX_BYTES {
        match timeout_at(deadline, pieces.next()).await {
            Ok(Some(Ok(piece))) => bytes += piece.len(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    fn body(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())))
            .collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test]
    async fn bodies_are_joined_up_to_the_limit() {
        assert_eq!(read(body(&[]), 5).await.unwrap(), "");
        assert_eq!(read(body(&["abcde"]), 5).await.unwrap(), "abcde");
        assert_eq!(read(body(&["ab", "", "c", "de"]), 5).await.unwrap(), "abcde");
        assert_eq!(read(body(&["ab", "cdef"]), 5).await.unwrap_err().status, 413);
        assert_eq!(read(body(&["abcdef"]), 5).await.unwrap_err().status, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let silent = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
        assert_eq!(read(Body::from_stream(silent), 5).await.unwrap_err().status, 408);
    }
}
