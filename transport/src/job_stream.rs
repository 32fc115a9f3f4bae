//! Job streams: typed frames over one libp2p stream, `/gristmill/job/1`.
//!
//! A frame is a four-byte length, a version byte and one message (`gristmill_protocol::codec`). The length is
//! checked before anything is allocated, and the read buffer grows only as bytes arrive. Nothing is queued: a
//! sender waits until the stream took its frame, so a slow reader stops its writer, end to end.
//!
//! Dropping a stream (both halves of a split one) ends it in both directions. The peer then receives
//! [`ReceiveError::Closed`] at the end of a frame, or [`ReceiveError::Io`] in the middle of one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use gristmill_protocol::codec::DecodeError;
use gristmill_protocol::job::{ConsumerFrame, ProviderFrame};
use thiserror::Error;

use self::confirmed::Confirmed;

mod confirmed;
mod frame;
mod halves;

pub(crate) mod behaviour;
pub(crate) mod budget;
mod handler;

pub use frame::JobFrame;
pub use halves::{FrameReceiver, FrameSender};

/// A consumer's end of a job stream.
pub type ConsumerJobStream = JobStream<ConsumerFrame, ProviderFrame>;
/// A provider's end of a job stream.
pub type ProviderJobStream = JobStream<ProviderFrame, ConsumerFrame>;

/// What a job stream runs over: a libp2p stream, or a pipe in memory.
pub trait StreamIo: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamIo for Io {}

/// Why a frame could not be received. Except after a timeout, nothing more can be received.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The peer ended the stream after a whole frame.
    #[error("the peer ended the stream")]
    Closed,
    /// Nothing, or not all of a frame, came in time. Receiving may be tried again; nothing was lost.
    #[error("no frame came within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The peer sent what is no frame of this stream.
    #[error("the peer sent an invalid frame: {0}")]
    Decode(#[from] DecodeError),
    /// The connection broke, or the stream ended in the middle of a frame.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Why a frame could not be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The peer did not read in time. The frame may have been sent in part; sending again continues it first.
    #[error("the peer took no data for {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The frame is over its limit; nothing was sent and the stream is as good as before.
    #[error("a frame of {actual} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// How many bytes the frame's version and message have.
        actual: usize,
        /// How many such a frame may have.
        limit: usize,
    },
    /// The peer ended the stream, or the connection broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
}

/// A job stream: sends one kind of frame and receives the other.
#[derive(Debug)]
pub struct JobStream<Outgoing, Incoming> {
    sender: FrameSender<Outgoing>,
    receiver: FrameReceiver<Incoming>,
}

impl<Outgoing: JobFrame, Incoming: JobFrame> JobStream<Outgoing, Incoming> {
    /// Frames over any stream of bytes.
    #[must_use]
    pub fn over(io: impl StreamIo) -> Self {
        Self::with_permit(io, None)
    }

    /// Frames over a stream that gives a place in a budget back when both halves are gone.
    pub(crate) fn with_permit(io: impl StreamIo, permit: Option<budget::StreamPermit>) -> Self {
        let (reader, writer) = (Box::new(Confirmed::new(io)) as Box<dyn StreamIo>).split();
        let permit = permit.map(Arc::new);
        Self {
            sender: FrameSender::new(writer, permit.clone()),
            receiver: FrameReceiver::new(reader, permit),
        }
    }

    /// Sends one frame and waits until the stream took it.
    ///
    /// # Errors
    /// As [`FrameSender::send`].
    pub async fn send(&mut self, frame: &Outgoing, timeout: Duration) -> Result<(), SendError> {
        self.sender.send(frame, timeout).await
    }

    /// Receives the next frame.
    ///
    /// # Errors
    /// As [`FrameReceiver::receive`].
    pub async fn receive(&mut self, timeout: Duration) -> Result<Incoming, ReceiveError> {
        self.receiver.receive(timeout).await
    }

    /// Ends the sending direction. The peer receives [`ReceiveError::Closed`] after everything sent before.
    ///
    /// # Errors
    /// As [`FrameSender::close`].
    pub async fn close(&mut self, timeout: Duration) -> Result<(), SendError> {
        self.sender.close(timeout).await
    }

    /// The two directions on their own, for two tasks. The stream lives until both are dropped.
    #[must_use]
    pub fn split(self) -> (FrameSender<Outgoing>, FrameReceiver<Incoming>) {
        (self.sender, self.receiver)
    }
}
