//! The one task of a process that writes: takes what is waiting, commits it as one transaction, and only then answers.
//! What is in doubt because a connection broke is found out; what the database has no time for is tried again, for a
//! bounded time.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::batch::{self, Answer, BatchError, Request, Undecided};
use super::connection::{Connection, Connector};
use super::failure::Failure;
use super::tables;
use crate::entry::CheckedEntry;
use crate::outcome::Posted;
use crate::store::{PostError, random_salts};

/// How often a batch that met another one is tried.
const CONFLICTS_MAX: u32 = 50;
/// Between two attempts, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// What the handles ask of the writer.
pub(super) enum Command {
    /// Write this and answer.
    Post(Box<Post>),
    /// Take no more, finish what is waiting.
    Stop,
}

/// An entry to write.
pub(super) struct Post {
    pub(super) entry: CheckedEntry,
    pub(super) time_ms: u64,
    pub(super) answer: oneshot::Sender<Result<Posted, PostError>>,
}

/// How the writer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriterState {
    /// At work.
    Running,
    /// The last batch was not written: the database is away or refuses.
    Failing(String),
    /// It has given everything free.
    Ended,
}

/// The one task that writes.
pub(super) struct Writer {
    pub(super) connector: Connector,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) batch_entries: usize,
    /// How long a batch waits for a database that was there before; one that was not there is tried once.
    pub(super) patience: Duration,
    pub(super) state: watch::Sender<WriterState>,
    pub(super) connection: Option<Connection>,
}

impl Writer {
    /// Works until it is told to stop and nothing is waiting, or nobody is left who could post.
    pub(super) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            let mut batch = Vec::new();
            self.take(command, &mut batch);
            while batch.len() < self.batch_entries
                && let Ok(command) = self.commands.try_recv()
            {
                self.take(command, &mut batch);
            }
            if !batch.is_empty() {
                self.write(batch).await;
            }
        }
        self.connection = None;
        self.state.send_replace(WriterState::Ended);
    }

    fn take(&mut self, command: Command, batch: &mut Vec<Post>) {
        match command {
            Command::Post(post) => batch.push(*post),
            Command::Stop => self.commands.close(),
        }
    }

    async fn write(&mut self, batch: Vec<Post>) {
        let (requests, waiting): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|post| {
                let Post {
                    entry,
                    time_ms,
                    answer,
                } = post;
                (Request { entry, time_ms }, answer)
            })
            .unzip();
        let answers = self.commit(&requests).await;
        self.tell(answers.as_ref().err());
        // Whoever has stopped waiting will post again and be told then.
        match answers {
            Ok(answers) => waiting.into_iter().zip(answers).for_each(|(waiting, answer)| {
                let _ = waiting.send(answer.map_err(PostError::Refused));
            }),
            Err(failure) => {
                let error = post_error(failure);
                waiting.into_iter().for_each(|waiting| {
                    let _ = waiting.send(Err(error.clone()));
                });
            }
        }
    }

    /// Commits a batch, or says why it is not known to be committed.
    async fn commit(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Failure> {
        let patience = match *self.state.borrow() {
            WriterState::Running => self.patience,
            WriterState::Failing(_) | WriterState::Ended => Duration::ZERO,
        };
        let deadline = Instant::now() + patience;
        let mut undecided = None;
        let mut conflicts = 0;
        let mut wait = FIRST_WAIT;
        loop {
            let failure = match self.attempt(requests, &mut undecided).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Conflict(_) => {
                    conflicts += 1;
                    conflicts < CONFLICTS_MAX
                }
                Failure::Unreachable(_) => Instant::now() < deadline,
                Failure::DiskFull(_) | Failure::Refused(_) | Failure::Damaged(_) => false,
            };
            if !again {
                return Err(failure);
            }
            tokio::time::sleep(apart(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(
        &mut self,
        requests: &[Request],
        undecided: &mut Option<Undecided>,
    ) -> Result<Vec<Answer>, Failure> {
        let salts = random_salts(requests.len()).map_err(Failure::Refused)?;
        let connection = match self
            .connection
            .take()
            .filter(|connection| !connection.is_closed())
        {
            Some(connection) => connection,
            None => connect(&self.connector).await?,
        };
        let result = batch::commit(&connection, requests, &salts, undecided).await;
        let answers = match result {
            Ok(answers) if answers.len() == requests.len() => Ok(answers),
            Ok(_) => Err(Failure::damaged("not every entry of a batch was answered")),
            Err(BatchError::NotCommitted(failure)) => Err(failure),
            Err(BatchError::Unknown(failure, unknown)) => {
                tracing::warn!(
                    reason = failure.clone().reason(),
                    "whether a batch was committed is not known yet; asking again"
                );
                *undecided = Some(*unknown);
                Err(failure)
            }
        };
        // A connection that answers is kept, whatever the answer was.
        if !matches!(answers, Err(Failure::Unreachable(_))) {
            self.connection = Some(connection);
        }
        answers
    }

    fn tell(&self, failure: Option<&Failure>) {
        let state = match failure {
            None => WriterState::Running,
            Some(failure) => WriterState::Failing(failure.clone().reason()),
        };
        self.state.send_if_modified(|before| {
            let changed = *before != state;
            match &state {
                WriterState::Failing(reason) if changed => {
                    tracing::error!(reason, "the ledger's database takes no entries");
                }
                WriterState::Running if changed => {
                    tracing::info!("the ledger's database takes entries again");
                }
                _ => {}
            }
            *before = state;
            changed
        });
    }
}

/// A connection that is ready to write batches.
pub(super) async fn connect(connector: &Connector) -> Result<Connection, Failure> {
    let connection = connector.connect().await?;
    connection.prepare(batch::STATEMENTS).await?;
    connection.prepare(tables::STATEMENTS).await?;
    Ok(connection)
}

fn post_error(failure: Failure) -> PostError {
    match failure {
        Failure::Unreachable(reason) | Failure::Conflict(reason) => PostError::Unavailable { reason },
        Failure::DiskFull(reason) => PostError::DiskFull { reason },
        Failure::Refused(reason) | Failure::Damaged(reason) => PostError::ReadOnly { reason },
    }
}

/// Between a half and all of this time, other parts of it in other processes.
fn apart(wait: Duration) -> Duration {
    let share = std::process::id() % 64;
    wait / 2 + wait / 128 * share
}
