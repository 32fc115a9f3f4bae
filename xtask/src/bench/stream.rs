//! Payload throughput: the same bytes through a job stream of two mesh peers, and through a raw quinn stream.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Args;
use gristmill_protocol::codec::PAYLOAD_MAX_BYTES;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::job::{Chunk, ConsumerFrame, ProviderFrame};
use gristmill_protocol::usage::Usage;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{Clock, Mesh, MeshConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::json;

use super::report::{median, print};

const WAIT: Duration = Duration::from_secs(60);

/// How much is measured.
#[derive(Debug, Args)]
pub struct Arguments {
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

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let total = arguments.mebibytes << 20;
    let (mut ours, mut raw, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms both up and is not counted.
    for round in 0..=arguments.rounds {
        let through_quinn = quinn_throughput(total, arguments.payload_bytes).await?;
        let through_stream = stream_throughput(total, arguments.payload_bytes).await?;
        eprintln!(
            "  round {round}: job stream {through_stream:.0} MiB/s, raw quinn {through_quinn:.0} MiB/s"
        );
        if round > 0 {
            ours.push(through_stream);
            raw.push(through_quinn);
            ratios.push(through_stream / through_quinn);
        }
    }
    print(
        "Payload throughput on loopback, both ends in one process",
        &[
            ("job stream", format!("{:.0} MiB/s", median(&ours))),
            ("raw quinn", format!("{:.0} MiB/s", median(&raw))),
            ("ratio (target 0.9)", format!("{:.2}", median(&ratios))),
        ],
        &json!({
            "bench": "stream",
            "payload_bytes": arguments.payload_bytes,
            "job_stream_mebibytes_per_second": median(&ours),
            "raw_quinn_mebibytes_per_second": median(&raw),
            "ratio": median(&ratios),
            "ratios": ratios,
        }),
    );
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of mebibytes is far below 2^53"
)]
fn mebibytes_per_second(bytes: u64, elapsed: Duration) -> f64 {
    (bytes as f64 / f64::from(1 << 20)) / elapsed.as_secs_f64()
}

fn clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    })
}

async fn stream_throughput(total: u64, payload_bytes: usize) -> anyhow::Result<f64> {
    let listen: Multiaddr = "/ip4/127.0.0.1/udp/0/quic-v1".parse()?;
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
    let started = Instant::now();
    let mut received = 0;
    while received < total {
        if let ProviderFrame::Chunk(chunk) = stream.receive(WAIT).await? {
            received += chunk.payload.len() as u64;
        }
    }
    let elapsed = started.elapsed();
    ensure!(received == total, "{received} of {total} bytes arrived");
    drop(sender.await??);
    provider.shutdown().await;
    consumer.shutdown().await;
    Ok(mebibytes_per_second(total, elapsed))
}

async fn quinn_throughput(total: u64, payload_bytes: usize) -> anyhow::Result<f64> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let certificate = CertificateDer::from(certified.cert);
    let key = PrivatePkcs8KeyDer::from(certified.key_pair.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
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
    let started = Instant::now();
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
    let elapsed = started.elapsed();
    drop(receive);
    connection.close(0u32.into(), b"");
    let _ = sender.await?;
    Ok(mebibytes_per_second(total, elapsed))
}
