//! What can't be passed: two loopback hops that only copy bytes, and the signature of each voucher made and checked.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::Context;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::super::processes::{this_thread, thread_seconds};

/// How often a signature is made and checked for its time.
const SIGNATURES: u32 = 2_000;

/// Two relays in a row on a thread of their own. Dropping them ends them.
pub(super) struct TwoHops {
    /// Where a program connects.
    pub(super) base_url: String,
    thread: u32,
    stop: CancellationToken,
}

impl TwoHops {
    /// Starts them in front of an upstream.
    pub(super) fn start(upstream: &str) -> anyhow::Result<Self> {
        let target = upstream.trim_start_matches("http://").to_owned();
        let (tell, told) = mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("two hops".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let started = async {
                    let second = relay(target).await?;
                    let first = relay(second).await?;
                    anyhow::Ok((
                        first,
                        this_thread().context("the system does not tell the thread")?,
                    ))
                };
                match runtime {
                    Ok(runtime) => runtime.block_on(async {
                        // Whoever asked may be gone.
                        let _ = tell.send(started.await);
                        stopped.cancelled().await;
                    }),
                    Err(error) => drop(tell.send(Err(error.into()))),
                }
            })?;
        let (address, thread) = told.recv().context("the relays ended before they had begun")??;
        Ok(Self {
            base_url: format!("http://{address}"),
            thread,
            stop,
        })
    }

    /// What both relays have used of the processor so far.
    pub(super) fn processor_seconds(&self) -> f64 {
        thread_seconds(self.thread).unwrap_or_default()
    }
}

impl Drop for TwoHops {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Copies every connection to `target`, and gives its own address.
async fn relay(target: String) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    // It ends with its runtime.
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(address.to_string())
}

/// What a voucher costs in signatures alone, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signatures {
    pub(super) sign_us: f64,
    pub(super) verify_us: f64,
}

impl Signatures {
    /// Takes the time on this thread.
    pub(super) fn measure() -> anyhow::Result<Self> {
        let consumer = Keypair::from_secret(&[7; 32]);
        let voucher = |number: u32| Voucher {
            channel: ChannelId::from_bytes([1; 16]),
            cumulative: Credits::micro(number),
            request_id: RequestId::from_random([2; 16]),
            transcript: [3; 32],
        };
        let started = Instant::now();
        let signed: Vec<_> = (0..SIGNATURES)
            .map(|number| consumer.sign(voucher(number)))
            .collect();
        let sign_us = started.elapsed().as_secs_f64() * 1e6 / f64::from(SIGNATURES);
        let started = Instant::now();
        for voucher in &signed {
            voucher.verify_from(&consumer.account())?;
        }
        let verify_us = started.elapsed().as_secs_f64() * 1e6 / f64::from(SIGNATURES);
        Ok(Self { sign_us, verify_us })
    }
}
