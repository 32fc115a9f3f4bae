//! The two directions of a job stream.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::poll_fn;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncWrite};
use gristmill_protocol::codec::{DATA_FRAME_MAX_BYTES, DecodeError, LENGTH_PREFIX_BYTES, frame_body_bytes};
use tokio::time::timeout as within;

use super::budget::StreamPermit;
use super::{JobFrame, ReceiveError, SendError, StreamIo};

/// The read buffer of a stream that has received only small frames.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// The sending half of a job stream.
pub struct FrameSender<Frame> {
    writer: WriteHalf<Box<dyn StreamIo>>,
    /// The frame being written, and how much of it the stream took: an interrupted send is completed by the next.
    unsent: Vec<u8>,
    written: usize,
    _permit: Option<Arc<StreamPermit>>,
    frames: PhantomData<fn(Frame)>,
}

impl<Frame: JobFrame> FrameSender<Frame> {
    pub(super) fn new(writer: WriteHalf<Box<dyn StreamIo>>, permit: Option<Arc<StreamPermit>>) -> Self {
        Self {
            writer,
            unsent: Vec::new(),
            written: 0,
            _permit: permit,
            frames: PhantomData,
        }
    }

    /// Sends one frame in one write and waits until the stream took it: where the peer reads slowly, so does this.
    ///
    /// A call that timed out or was dropped leaves the frame to the next call, which completes it first.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] before anything is sent, [`SendError::Timeout`] where the peer reads too slowly,
    /// [`SendError::Io`] where the stream is broken.
    pub async fn send(&mut self, frame: &Frame, timeout: Duration) -> Result<(), SendError> {
        let encoded = frame.encode();
        let (actual, limit) = (
            encoded.len().saturating_sub(LENGTH_PREFIX_BYTES),
            frame.limit_bytes(),
        );
        if actual > limit {
            return Err(SendError::TooLarge { actual, limit });
        }
        let send = async {
            poll_fn(|context| self.poll_write_unsent(context)).await?;
            (self.unsent, self.written) = (encoded, 0);
            poll_fn(|context| self.poll_write_unsent(context)).await
        };
        within(timeout, send)
            .await
            .map_err(|_| SendError::Timeout(timeout))?
            .map_err(SendError::Io)
    }

    /// Ends this direction. The peer receives [`ReceiveError::Closed`] after everything sent before.
    ///
    /// # Errors
    /// [`SendError::Timeout`] or [`SendError::Io`] where what was sent before could not be delivered.
    pub async fn close(&mut self, timeout: Duration) -> Result<(), SendError> {
        let close = async {
            poll_fn(|context| self.poll_write_unsent(context)).await?;
            poll_fn(|context| Pin::new(&mut self.writer).poll_close(context)).await
        };
        within(timeout, close)
            .await
            .map_err(|_| SendError::Timeout(timeout))?
            .map_err(SendError::Io)
    }

    fn poll_write_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.unsent.len() {
            let rest = &self.unsent[self.written..];
            let taken = ready!(Pin::new(&mut self.writer).poll_write(context, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
        }
        ready!(Pin::new(&mut self.writer).poll_flush(context))?;
        (self.unsent, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<Frame> std::fmt::Debug for FrameSender<Frame> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "FrameSender({} bytes unsent)",
            self.unsent.len() - self.written
        )
    }
}

/// The receiving half of a job stream.
pub struct FrameReceiver<Frame> {
    reader: ReadHalf<Box<dyn StreamIo>>,
    buffer: ReadBuffer,
    _permit: Option<Arc<StreamPermit>>,
    frames: PhantomData<fn() -> Frame>,
}

impl<Frame: JobFrame> FrameReceiver<Frame> {
    pub(super) fn new(reader: ReadHalf<Box<dyn StreamIo>>, permit: Option<Arc<StreamPermit>>) -> Self {
        Self {
            reader,
            buffer: ReadBuffer::default(),
            _permit: permit,
            frames: PhantomData,
        }
    }

    /// Receives the next frame. Safe to drop and call again, as in `select!`: no byte is lost.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] where the peer ended the stream, [`ReceiveError::Timeout`] where no whole frame
    /// came in time, [`ReceiveError::Decode`] where the peer broke the protocol, [`ReceiveError::Io`] where the
    /// connection broke.
    pub async fn receive(&mut self, timeout: Duration) -> Result<Frame, ReceiveError> {
        let receive = poll_fn(|context| self.poll_receive(context));
        within(timeout, receive)
            .await
            .unwrap_or(Err(ReceiveError::Timeout(timeout)))
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, ReceiveError>> {
        loop {
            if let Some(body) = self.buffer.next_body()? {
                return Poll::Ready(Frame::decode(body).map_err(ReceiveError::Decode));
            }
            let read = ready!(Pin::new(&mut self.reader).poll_read(context, self.buffer.room()))?;
            if read == 0 {
                return Poll::Ready(Err(self.buffer.end_of_stream()));
            }
            self.buffer.filled += read;
        }
    }
}

impl<Frame> std::fmt::Debug for FrameReceiver<Frame> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "FrameReceiver({} bytes unread)",
            self.buffer.filled - self.buffer.taken
        )
    }
}

/// Bytes received and not yet taken as frames: at most one frame and its prefix beyond what one read gave.
#[derive(Default)]
struct ReadBuffer {
    bytes: Vec<u8>,
    taken: usize,
    filled: usize,
}

impl ReadBuffer {
    /// The body of the next frame, where all of it is here.
    fn next_body(&mut self) -> Result<Option<&[u8]>, DecodeError> {
        let unread = &self.bytes[self.taken..self.filled];
        let Some((prefix, rest)) = unread.split_first_chunk::<LENGTH_PREFIX_BYTES>() else {
            return Ok(None);
        };
        let body_bytes = frame_body_bytes(*prefix, DATA_FRAME_MAX_BYTES)?;
        if rest.len() < body_bytes {
            return Ok(None);
        }
        let start = self.taken + LENGTH_PREFIX_BYTES;
        self.taken = start + body_bytes;
        Ok(Some(&self.bytes[start..self.taken]))
    }

    /// Where to read to. Never empty. Doubles only when full, so that a peer which announces much and sends
    /// little costs little.
    fn room(&mut self) -> &mut [u8] {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        }
        if self.filled == self.bytes.len() {
            if self.taken > 0 {
                self.bytes.copy_within(self.taken..self.filled, 0);
                (self.taken, self.filled) = (0, self.filled - self.taken);
            } else {
                let most = LENGTH_PREFIX_BYTES + DATA_FRAME_MAX_BYTES;
                let larger = (self.bytes.len() * 2).clamp(READ_BUFFER_BYTES, most);
                self.bytes.resize(larger, 0);
            }
        }
        &mut self.bytes[self.filled..]
    }

    fn end_of_stream(&self) -> ReceiveError {
        if self.taken == self.filled {
            ReceiveError::Closed
        } else {
            ReceiveError::Io(io::ErrorKind::UnexpectedEof.into())
        }
    }
}
