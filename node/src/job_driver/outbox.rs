//! Frames on their way to a consumer. Sending waits for the stream, and the job must hear the consumer meanwhile.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use gristmill_protocol::job::{ConsumerFrame, ProviderFrame};
use gristmill_transport::job_stream::{FrameReceiver, FrameSender};
use gristmill_transport::{ReceiveError, SendError};

/// How many frames may wait before the engine's output waits too.
const WAITING_FRAMES: usize = 4;
/// How long a consumer that has been told the end is heard out.
const HEAR_OUT: Duration = Duration::from_secs(2);

type Sending = Pin<Box<dyn Future<Output = (FrameSender<ProviderFrame>, Result<(), SendError>)> + Send>>;

/// Frames in order, one of them being sent.
pub(super) struct Outbox {
    sender: Option<FrameSender<ProviderFrame>>,
    sending: Option<Sending>,
    waiting: VecDeque<ProviderFrame>,
    timeout: Duration,
}

impl Outbox {
    pub(super) const fn new(sender: FrameSender<ProviderFrame>, timeout: Duration) -> Self {
        Self {
            sender: Some(sender),
            sending: None,
            waiting: VecDeque::new(),
            timeout,
        }
    }

    /// Sends a frame after those before it. What a session says at once is bounded by its credit window.
    pub(super) fn push(&mut self, frame: ProviderFrame) {
        self.waiting.push_back(frame);
    }

    /// Whether everything was sent.
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_none() && self.waiting.is_empty()
    }

    /// Whether the engine may go on.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_FRAMES
    }

    /// Sends the next frame. May be dropped and called again, as in `select!`: the frame stays on its way.
    pub(super) async fn send_next(&mut self) -> Result<(), SendError> {
        if self.sending.is_none()
            && let Some(frame) = self.waiting.pop_front()
            && let Some(mut sender) = self.sender.take()
        {
            let timeout = self.timeout;
            self.sending = Some(Box::pin(async move {
                let result = sender.send(&frame, timeout).await;
                (sender, result)
            }));
        }
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let (sender, result) = sending.await;
        self.sending = None;
        self.sender = Some(sender);
        result
    }

    /// Sends everything that is left, and ends the direction.
    pub(super) async fn finish(mut self) {
        let timeout = self.timeout;
        let finish = async {
            while !self.is_idle() {
                self.send_next().await?;
            }
            match &mut self.sender {
                Some(sender) => sender.close(timeout).await,
                None => Ok(()),
            }
        };
        if let Err(error) = finish.await {
            tracing::debug!(%error, "the consumer did not hear the end of the job");
        }
    }
}

/// Listens to a consumer after the end for a moment: until it closes the stream, which lets everything sent to it
/// arrive, or until it has had its time.
pub(super) async fn hear_out(
    mut receiver: FrameReceiver<ConsumerFrame>,
    mut hear: impl FnMut(ConsumerFrame),
) {
    let listen = async {
        loop {
            match receiver.receive(HEAR_OUT).await {
                Ok(frame) => hear(frame),
                Err(
                    ReceiveError::Closed
                    | ReceiveError::Timeout(_)
                    | ReceiveError::Decode(_)
                    | ReceiveError::Io(_),
                ) => {
                    return;
                }
            }
        }
    };
    let _ = tokio::time::timeout(HEAR_OUT, listen).await;
}
