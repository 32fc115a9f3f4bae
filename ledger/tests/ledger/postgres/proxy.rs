//! A wire between a store and its database that loses a commit, or the answer to one, when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const COMMIT: &[u8] = b"COMMIT\0";
/// "Ready for the next query, in no transaction": the commit is through.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// What happens to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Loses {
    /// It and its answer arrive.
    Nothing,
    /// It never reaches the database: the connection is cut before it.
    Commit,
    /// The database commits, and the connection is cut before anybody hears so.
    Answer,
}

pub(super) struct Proxy {
    pub(super) port: u16,
    next: Arc<AtomicU8>,
    listener: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Carries to this port, from a free one or from the one that another proxy had.
    pub(super) async fn start(database_port: u16, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(AtomicU8::new(Loses::Nothing as u8));
        let shared = Arc::clone(&next);
        let listener = tokio::spawn(async move {
            // With the listener, what it carries ends too.
            let mut carrying = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", database_port)).await.unwrap();
                carrying.spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, next, listener }
    }

    pub(super) fn next_commit_loses(&self, loses: Loses) {
        self.next.store(loses as u8, Ordering::SeqCst);
    }

    /// Nobody is there any more.
    pub(super) async fn stop(mut self) {
        self.listener.abort();
        let _ = (&mut self.listener).await;
    }

    pub(super) fn is_done(&self) -> bool {
        self.next.load(Ordering::SeqCst) == Loses::Nothing as u8
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Carries bytes both ways until one side ends or a commit is lost.
async fn carry(mut client: TcpStream, mut server: TcpStream, next: Arc<AtomicU8>) {
    let (mut asked, mut answered) = ([0; 64 * 1024], [0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let asked = &asked[..length];
                if asked.windows(COMMIT.len()).any(|part| part == COMMIT) {
                    let loses = next.swap(Loses::Nothing as u8, Ordering::SeqCst);
                    if loses == Loses::Commit as u8 {
                        return;
                    }
                    if loses == Loses::Answer as u8 {
                        server.write_all(asked).await.unwrap();
                        let mut tail = Vec::new();
                        while !tail.ends_with(READY) {
                            let length = server.read(&mut answered).await.unwrap();
                            assert!(length > 0, "the database ended first");
                            tail.extend_from_slice(&answered[..length]);
                        }
                        return;
                    }
                }
                if server.write_all(asked).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() { return }
            }
        }
    }
}
