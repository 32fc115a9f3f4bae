//! A stream whose protocol its peer has yet to confirm.
//!
//! libp2p's streams begin optimistically: what is sent goes out with the name of the protocol, and the first read waits
//! for the peer's confirmation (multistream-select 1.0, lazy). Where that read fails, the stream is gone, and polling
//! it again panics. One half of a job stream does not know of the other's failure, so this remembers it for both.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirmation {
    Awaited,
    Given,
    /// With the error of the read that waited for it.
    Failed(io::ErrorKind),
}

/// A stream that fails, where the one in it would panic.
pub(super) struct Confirmed<Io> {
    io: Io,
    confirmation: Confirmation,
}

impl<Io: Unpin> Confirmed<Io> {
    pub(super) const fn new(io: Io) -> Self {
        Self {
            io,
            confirmation: Confirmation::Awaited,
        }
    }

    fn usable(&mut self) -> io::Result<Pin<&mut Io>> {
        match self.confirmation {
            Confirmation::Failed(kind) => Err(kind.into()),
            Confirmation::Awaited | Confirmation::Given => Ok(Pin::new(&mut self.io)),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Confirmed<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.usable()?.poll_read(context, buffer));
        if self.confirmation == Confirmation::Awaited {
            self.confirmation = match &read {
                Ok(_) => Confirmation::Given,
                Err(error) => Confirmation::Failed(error.kind()),
            };
        }
        Poll::Ready(read)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Confirmed<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.usable()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.usable()?.poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.usable()?.poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use std::collections::VecDeque;

    /// As libp2p's: panics when it is used after the first read failed. The reads are given.
    struct Lazy {
        reads: VecDeque<io::Result<usize>>,
        is_confirmed: bool,
        is_invalid: bool,
    }

    impl Lazy {
        fn new(reads: impl IntoIterator<Item = io::Result<usize>>) -> Confirmed<Self> {
            Confirmed::new(Self {
                reads: reads.into_iter().collect(),
                is_confirmed: false,
                is_invalid: false,
            })
        }

        fn check(&self) {
            assert!(!self.is_invalid, "polled after its negotiation failed");
        }
    }

    impl AsyncRead for Lazy {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            self.check();
            let read = self.reads.pop_front().unwrap();
            self.is_confirmed |= read.is_ok();
            self.is_invalid = !self.is_confirmed;
            Poll::Ready(read)
        }
    }

    impl AsyncWrite for Lazy {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.check();
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.check();
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.check();
            Poll::Ready(Ok(()))
        }
    }

    fn broken() -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }

    #[tokio::test]
    async fn after_a_failed_confirmation_everything_fails() {
        let mut stream = Lazy::new([broken()]);
        stream.write_all(b"open").await.unwrap();
        for _ in 0..2 {
            let error = stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        for failed in [
            stream.write_all(b"voucher").await,
            stream.flush().await,
            stream.close().await,
        ] {
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn after_its_confirmation_a_direction_that_broke_leaves_the_other_one_be() {
        let mut stream = Lazy::new([Ok(1), broken()]);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
        stream.read(&mut [0; 8]).await.unwrap_err();
        stream.write_all(b"voucher").await.unwrap();
        stream.close().await.unwrap();
    }
}
