//! Payload throughput: the same bytes through a job stream of two mesh peers, and through a raw quinn stream.
//!
//! Two more figures tell where a difference comes from: a bare libp2p stream (the same transport without the swarm,
//! the stream negotiation and our frames), and raw quinn with the cipher that libp2p prefers.

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Args;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use gristmill_protocol::codec::PAYLOAD_MAX_BYTES;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::job::{Chunk, ConsumerFrame, ProviderFrame};
use gristmill_protocol::usage::Usage;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{Clock, Mesh, MeshConfig};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer as _, StreamMuxerBox};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportEvent};
use libp2p::quic;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use super::report::{median, print, processor_seconds};

const WAIT: Duration = Duration::from_secs(60);
const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Mebibytes in one measurement
    #[arg(long, default_value_t = 256)]
    mebibytes: u64,
    /// Measurements of each, in turn
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Bytes of payload in one frame
    #[arg(long, default_value_t = PAYLOAD_MAX_BYTES)]
    payload_bytes: usize,
}

/// What went how fast, and what it cost.
#[derive(Clone, Copy)]
struct Transfer {
    mebibytes_per_second: f64,
    /// Of both ends, in user and system mode; `NaN` where the system does not tell.
    processor_seconds_per_gibibyte: f64,
}

/// Runs from the first payload byte asked for to the last one received.
struct Stopwatch {
    started: Instant,
    processor_seconds: f64,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            started: Instant::now(),
            processor_seconds: processor_seconds().unwrap_or(f64::NAN),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of bytes is far below 2^53")]
    fn stop(&self, bytes: u64) -> Transfer {
        let used = processor_seconds().unwrap_or(f64::NAN) - self.processor_seconds;
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        Transfer {
            mebibytes_per_second: mebibytes / self.started.elapsed().as_secs_f64(),
            processor_seconds_per_gibibyte: used * 1024.0 / mebibytes,
        }
    }
}

/// The measurements of one way to send.
struct Figures {
    name: &'static str,
    key: &'static str,
    transfers: Vec<Transfer>,
}

impl Figures {
    const fn of(name: &'static str, key: &'static str) -> Self {
        Self {
            name,
            key,
            transfers: Vec::new(),
        }
    }

    fn speeds(&self) -> Vec<f64> {
        self.transfers
            .iter()
            .map(|transfer| transfer.mebibytes_per_second)
            .collect()
    }

    fn median(&self) -> Transfer {
        let costs: Vec<f64> = self
            .transfers
            .iter()
            .map(|transfer| transfer.processor_seconds_per_gibibyte)
            .collect();
        Transfer {
            mebibytes_per_second: median(&self.speeds()),
            processor_seconds_per_gibibyte: median(&costs),
        }
    }

    /// Each measurement beside the one of the same round.
    fn ratios_to(&self, other: &Self) -> Vec<f64> {
        self.speeds()
            .iter()
            .zip(other.speeds())
            .map(|(own, other)| own / other)
            .collect()
    }

    fn row(&self) -> (&'static str, String) {
        let median = self.median();
        let cost = median.processor_seconds_per_gibibyte;
        (
            self.name,
            format!(
                "{:>5.0} MiB/s  {cost:.2} processor s/GiB",
                median.mebibytes_per_second
            ),
        )
    }

    fn json(&self) -> Value {
        let median = self.median();
        json!({
            "mebibytes_per_second": median.mebibytes_per_second,
            "processor_seconds_per_gibibyte": median.processor_seconds_per_gibibyte,
        })
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (total, frame) = (arguments.mebibytes << 20, arguments.payload_bytes);
    let mut figures = [
        Figures::of("job stream", "job_stream"),
        Figures::of("raw quinn", "raw_quinn"),
        Figures::of("bare libp2p stream", "bare_libp2p_stream"),
        Figures::of("raw quinn with libp2p's cipher", "raw_quinn_with_libp2p_cipher"),
    ];
    // The first round warms all up and is not counted.
    for round in 0..=arguments.rounds {
        let transfers = [
            job_stream_transfer(total, frame).await?,
            quinn_transfer(total, frame, aws_lc_rs::default_provider()).await?,
            libp2p_transfer(total, frame).await?,
            quinn_transfer(total, frame, provider_with_libp2p_cipher()).await?,
        ];
        let mut line = format!("  round {round}:");
        for (figures, transfer) in figures.iter_mut().zip(transfers) {
            line += &format!(" {} {:.0} MiB/s,", figures.name, transfer.mebibytes_per_second);
            if round > 0 {
                figures.transfers.push(transfer);
            }
        }
        eprintln!("{}", line.trim_end_matches(','));
    }
    report(frame, &figures);
    Ok(())
}

fn report(payload_bytes: usize, figures: &[Figures; 4]) {
    let [job_stream, quinn, _, quinn_same_cipher] = figures;
    let ratios = job_stream.ratios_to(quinn);
    let ratio_same_cipher = median(&job_stream.ratios_to(quinn_same_cipher));
    let mut rows: Vec<_> = figures.iter().map(Figures::row).collect();
    rows.push((
        "job stream to raw quinn (target 0.9)",
        format!("{:.2}", median(&ratios)),
    ));
    rows.push((
        "job stream to raw quinn with libp2p's cipher",
        format!("{ratio_same_cipher:.2}"),
    ));
    let mut json = json!({
        "bench": "stream",
        "payload_bytes": payload_bytes,
        "ratio": median(&ratios),
        "ratios": ratios,
        "ratio_with_libp2p_cipher": ratio_same_cipher,
    });
    for figures in figures {
        json[figures.key] = figures.json();
    }
    print(
        "Payload throughput on loopback, both ends in one process",
        &rows,
        &json,
    );
}

fn clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn job_stream_transfer(total: u64, payload_bytes: usize) -> anyhow::Result<Transfer> {
    let listen: Multiaddr = LISTEN.parse()?;
    let config = || MeshConfig {
        listen: vec![listen.clone()],
        ..MeshConfig::default()
    };
    let (provider, mut jobs) = Mesh::start(&Keypair::from_secret(&[1; 32]), config(), clock()).await?;
    let (consumer, _incoming) = Mesh::start(&Keypair::from_secret(&[2; 32]), config(), clock()).await?;
    let addresses: Vec<String> = provider
        .listen_addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    let sender = tokio::spawn(async move {
        let (_, mut stream) = jobs.next().await.context("no stream came")?;
        stream.receive(WAIT).await?;
        let payload = vec![7; payload_bytes];
        let mut left = total;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(payload_bytes);
            let chunk = Chunk {
                payload: payload[..take].to_vec(),
                ends_message: false,
                meter: Usage::new(),
            };
            stream.send(&ProviderFrame::Chunk(chunk), WAIT).await?;
            left -= take as u64;
        }
        stream.close(WAIT).await?;
        anyhow::Ok(jobs)
    });
    let mut stream = consumer.open_job(provider.account(), &addresses).await?;
    stream.send(&ConsumerFrame::Cancel, WAIT).await?;
    let stopwatch = Stopwatch::start();
    let mut received = 0;
    while received < total {
        if let ProviderFrame::Chunk(chunk) = stream.receive(WAIT).await? {
            received += chunk.payload.len() as u64;
        }
    }
    let transfer = stopwatch.stop(total);
    ensure!(received == total, "{received} of {total} bytes arrived");
    drop(sender.await??);
    provider.shutdown().await;
    consumer.shutdown().await;
    Ok(transfer)
}

type QuicTransport = quic::tokio::Transport;
type QuicEvent =
    TransportEvent<<QuicTransport as Transport>::ListenerUpgrade, <QuicTransport as Transport>::Error>;

fn quic_transport(secret: u8) -> anyhow::Result<QuicTransport> {
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes([secret; 32])?;
    let mut config = quic::Config::new(&keypair);
    // The windows that the mesh has. Those of libp2p by default are ten times as large, and no faster.
    config.max_stream_data = 1 << 20;
    config.max_connection_data = 16 << 20;
    Ok(QuicTransport::new(config))
}

async fn next_event(transport: &mut QuicTransport) -> QuicEvent {
    poll_fn(|context| Pin::new(&mut *transport).poll(context)).await
}

async fn libp2p_transfer(total: u64, payload_bytes: usize) -> anyhow::Result<Transfer> {
    let (mut server, mut client) = (quic_transport(1)?, quic_transport(2)?);
    server.listen_on(ListenerId::next(), LISTEN.parse()?)?;
    let address = loop {
        if let TransportEvent::NewAddress { listen_addr, .. } = next_event(&mut server).await {
            break listen_addr;
        }
    };
    let sender = tokio::spawn(async move {
        let accepting = loop {
            if let TransportEvent::Incoming { upgrade, .. } = next_event(&mut server).await {
                break upgrade;
            }
        };
        let mut connection = StreamMuxerBox::new(accepting.await?.1);
        let mut stream = poll_fn(|context| Pin::new(&mut connection).poll_inbound(context)).await?;
        stream.read_exact(&mut [0]).await?;
        let payload = vec![7; payload_bytes];
        let mut left = total;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(payload_bytes);
            stream.write_all(&payload[..take]).await?;
            left -= take as u64;
        }
        stream.close().await?;
        // The reader's end of the stream tells that everything arrived.
        stream.read_to_end(&mut Vec::new()).await?;
        anyhow::Ok(())
    });
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::Reuse,
    };
    let mut connection = StreamMuxerBox::new(client.dial(address, options)?.await?.1);
    let mut stream = poll_fn(|context| Pin::new(&mut connection).poll_outbound(context)).await?;
    stream.write_all(&[1]).await?;
    let stopwatch = Stopwatch::start();
    let mut received = 0;
    let mut frame = vec![0; payload_bytes];
    while received < total {
        let wanted = usize::try_from(total - received)
            .unwrap_or(usize::MAX)
            .min(payload_bytes);
        stream.read_exact(&mut frame[..wanted]).await?;
        received += wanted as u64;
    }
    let transfer = stopwatch.stop(total);
    stream.close().await?;
    sender.await??;
    Ok(transfer)
}

/// The default provider with the order of cipher suites that libp2p-tls has: ChaCha20-Poly1305 first.
fn provider_with_libp2p_cipher() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

async fn quinn_transfer(
    total: u64,
    payload_bytes: usize,
    provider: CryptoProvider,
) -> anyhow::Result<Transfer> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let certificate = CertificateDer::from(certified.cert);
    let key = PrivatePkcs8KeyDer::from(certified.key_pair.serialize_der());
    let provider = Arc::new(provider);
    let versions = &[&rustls::version::TLS13];
    let server_tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client_tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls)?));
    let client_config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls)?));
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let server = quinn::Endpoint::server(server_config, loopback)?;
    let client = quinn::Endpoint::client(loopback)?;
    let address = server.local_addr()?;
    let sender = tokio::spawn(async move {
        let connection = server.accept().await.context("no connection came")?.await?;
        let (mut send, mut receive) = connection.accept_bi().await?;
        receive.read_chunk(1, true).await?;
        let payload = vec![7; payload_bytes];
        let mut left = total;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(payload_bytes);
            send.write_all(&payload[..take]).await?;
            left -= take as u64;
        }
        send.finish()?;
        send.stopped().await?;
        anyhow::Ok(connection)
    });
    let connection = client.connect_with(client_config, address, "localhost")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[1]).await?;
    let stopwatch = Stopwatch::start();
    let mut received = 0;
    // As the job stream does: whole frames into a buffer of the reader's own.
    let mut frame = vec![0; payload_bytes];
    while received < total {
        let wanted = usize::try_from(total - received)
            .unwrap_or(usize::MAX)
            .min(payload_bytes);
        receive.read_exact(&mut frame[..wanted]).await?;
        received += wanted as u64;
    }
    let transfer = stopwatch.stop(total);
    drop(receive);
    connection.close(0u32.into(), b"");
    let _ = sender.await?;
    Ok(transfer)
}
