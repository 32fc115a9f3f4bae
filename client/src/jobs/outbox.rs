//! The sending side of a job stream: the opening and the body, then vouchers as they are due. It goes on its own
//! while the receiving side waits for the provider or for the program.
//!
//! Only the highest voucher counts, so one place is enough for those that wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::job::{ConsumerFrame, OpenJob};
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::SendError;
use gristmill_transport::job_stream::FrameSender;
use tokio::sync::Notify;

use crate::wallet::lock;

/// How long a provider may take no data.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Waiting {
    voucher: Option<Box<Signed<Voucher>>>,
    is_cancelled: bool,
    is_closed: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

enum Next {
    Send(Box<ConsumerFrame>),
    Close,
    Wait,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut lock(&self.waiting));
        self.changed.notify_one();
    }

    /// Vouchers first: what was received is paid whatever comes after.
    fn next(&self) -> Next {
        let mut waiting = lock(&self.waiting);
        if let Some(voucher) = waiting.voucher.take() {
            return Next::Send(Box::new(ConsumerFrame::Voucher(*voucher)));
        }
        if std::mem::take(&mut waiting.is_cancelled) {
            return Next::Send(Box::new(ConsumerFrame::Cancel));
        }
        if waiting.is_closed {
            Next::Close
        } else {
            Next::Wait
        }
    }
}

/// The work of sending everything.
type Sending = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>;

/// The frames that wait to be sent, and the work of sending them.
pub(crate) struct Outbox {
    shared: Arc<Shared>,
    /// `None` once everything was sent, or nothing more can be.
    sending: Option<Sending>,
}

impl Outbox {
    /// Sends the opening and the body without waiting for an answer in between.
    pub(crate) fn new(
        sender: FrameSender<ConsumerFrame>,
        open: OpenJob,
        body: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let sending = send_all(sender, open, body, shared.clone());
        Self {
            shared,
            sending: Some(Box::pin(sending)),
        }
    }

    /// Puts a frame where it is sent next.
    pub(crate) fn put(&self, frame: ConsumerFrame) {
        self.shared.change(|waiting| match frame {
            ConsumerFrame::Voucher(voucher) => waiting.voucher = Some(Box::new(voucher)),
            ConsumerFrame::Cancel => waiting.is_cancelled = true,
            // The opening and the body are on their way from the beginning.
            ConsumerFrame::Open(_) | ConsumerFrame::BodyPart(_) => {}
        });
    }

    /// Goes on sending while something else is waited for.
    pub(crate) async fn alongside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        tokio::select! {
            biased;
            () = self.progress() => other.await,
            output = &mut other => output,
        }
    }

    /// Ready when nothing can be sent any more.
    async fn progress(&mut self) {
        let Some(sending) = &mut self.sending else {
            return std::future::pending().await;
        };
        if let Err(error) = sending.await {
            // The receiving side hears why, or that the stream is gone.
            tracing::debug!(%error, "the provider takes no more frames");
        }
        self.sending = None;
    }

    /// Sends what waits and ends the stream. What can't be sent at once is left to the future that comes back.
    pub(crate) fn close(&mut self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        self.shared.change(|waiting| waiting.is_closed = true);
        if self.progress().now_or_never().is_some() {
            return None;
        }
        let sending = self.sending.take()?;
        Some(async move {
            if let Err(error) = sending.await {
                tracing::debug!(%error, "the last voucher may not have arrived; the next job on the channel brings it");
            }
        })
    }
}

async fn send_all(
    mut sender: FrameSender<ConsumerFrame>,
    open: OpenJob,
    body: impl Iterator<Item = Vec<u8>> + Send,
    shared: Arc<Shared>,
) -> Result<(), SendError> {
    sender.send(&ConsumerFrame::Open(open), SEND_TIMEOUT).await?;
    for part in body {
        let stops = {
            let waiting = lock(&shared.waiting);
            waiting.is_cancelled || waiting.is_closed
        };
        if stops {
            break;
        }
        sender.send(&ConsumerFrame::BodyPart(part), SEND_TIMEOUT).await?;
    }
    loop {
        match shared.next() {
            Next::Send(frame) => sender.send(&frame, SEND_TIMEOUT).await?,
            Next::Close => return sender.close(SEND_TIMEOUT).await,
            Next::Wait => shared.changed.notified().await,
        }
    }
}
