//! Job streams between two meshes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gristmill_protocol::codec::{
    CONTROL_FRAME_MAX_BYTES, DATA_FRAME_MAX_BYTES, DecodeError, PAYLOAD_MAX_BYTES,
};
use gristmill_protocol::job::{ConsumerFrame, JobFailed, ProviderFrame};
use gristmill_transport::{MeshConfig, OpenJobError, ProviderJobStream, ReceiveError, SendError};
use proptest::prelude::*;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::support::{
    JobPair, PATIENCE, account, chunk, connected, job_pair, open_frame, quic_only, soon, start, tcp_only,
    texts, until,
};

mod frames;

/// Bytes of a frame's version and message beside a chunk's payload.
fn chunk_overhead() -> usize {
    use gristmill_transport::job_stream::JobFrame as _;
    chunk(Vec::new()).encode().len() - 4
}

async fn round_trip(config: MeshConfig) {
    let JobPair {
        mut consumer,
        mut provider,
        consumer_mesh,
        provider_mesh,
        ..
    } = job_pair(config).await;
    for size in [0, 1, 1000, 65_000, PAYLOAD_MAX_BYTES] {
        // Together: a frame may be larger than what the stream takes ahead of its reader.
        let part = ConsumerFrame::BodyPart(vec![7; size]);
        let (sent, received) = tokio::join!(consumer.send(&part, PATIENCE), provider.receive(PATIENCE));
        sent.unwrap();
        assert_eq!(received.unwrap(), part);
        let answer = chunk(vec![9; size]);
        let (sent, received) = tokio::join!(provider.send(&answer, PATIENCE), consumer.receive(PATIENCE));
        sent.unwrap();
        assert_eq!(received.unwrap(), answer);
    }
    provider.close(PATIENCE).await.unwrap();
    assert!(matches!(
        consumer.receive(PATIENCE).await,
        Err(ReceiveError::Closed)
    ));
    // The other direction is still open, as for a last voucher.
    consumer.send(&ConsumerFrame::Cancel, PATIENCE).await.unwrap();
    assert_eq!(provider.receive(PATIENCE).await.unwrap(), ConsumerFrame::Cancel);
    drop(consumer);
    assert!(matches!(
        provider.receive(PATIENCE).await,
        Err(ReceiveError::Closed)
    ));
    soon(consumer_mesh.shutdown()).await;
    soon(provider_mesh.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_travel_both_ways_over_quic() {
    round_trip(quic_only()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_travel_both_ways_over_tcp() {
    round_trip(tcp_only()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_serves_where_quic_is_blocked() {
    let (consumer, _) = start(1, MeshConfig::default()).await;
    let (provider, mut incoming) = start(2, tcp_only()).await;
    // A UDP socket that takes packets and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut addresses = vec![format!(
        "/ip4/127.0.0.1/udp/{}/quic-v1",
        silent.local_addr().unwrap().port()
    )];
    addresses.extend(texts(&provider.listen_addresses()));
    let mut stream = soon(consumer.open_job(account(2), &addresses)).await.unwrap();
    stream.send(&open_frame("over-tcp"), PATIENCE).await.unwrap();
    let (_, mut served) = soon(incoming.next()).await.unwrap();
    assert_eq!(served.receive(PATIENCE).await.unwrap(), open_frame("over-tcp"));
}

/// What a slow reader can hold up: the windows of stream and connection, the buffers of both ends, and slack.
const HELD_UP_MAX_BYTES: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_stops_the_writer() {
    const TOTAL: usize = 100 << 20;
    const FRAME: usize = 128 << 10;
    let JobPair {
        consumer,
        provider,
        consumer_mesh: _a,
        provider_mesh: _b,
        ..
    } = job_pair(quic_only()).await;
    let (mut sender, _provider_receiver) = provider.split();
    let (_consumer_sender, mut receiver) = consumer.split();
    let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let writer = tokio::spawn({
        let sent = Arc::clone(&sent);
        async move {
            let frame = chunk(vec![5; FRAME]);
            for _ in 0..TOTAL / FRAME {
                sender.send(&frame, PATIENCE).await.unwrap();
                sent.fetch_add(FRAME, Ordering::SeqCst);
            }
            sender.close(PATIENCE).await.unwrap();
        }
    });
    let mut most_held_up = 0;
    loop {
        let done = received.load(Ordering::SeqCst);
        if done % (10 << 20) == 0 {
            // Reads nothing until the writer stands still, twice looked at.
            let mut before = usize::MAX;
            while before != sent.load(Ordering::SeqCst) {
                before = sent.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        most_held_up = most_held_up.max(sent.load(Ordering::SeqCst).saturating_sub(done));
        match receiver.receive(PATIENCE).await {
            Ok(ProviderFrame::Chunk(chunk)) => {
                received.fetch_add(chunk.payload.len(), Ordering::SeqCst);
            }
            Err(ReceiveError::Closed) => break,
            other => panic!("{other:?}"),
        }
    }
    writer.await.unwrap();
    assert_eq!(received.load(Ordering::SeqCst), TOTAL);
    assert!(
        most_held_up > 0 && most_held_up <= HELD_UP_MAX_BYTES,
        "{most_held_up} bytes were held up"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_not_read_times_out_and_can_go_on() {
    let JobPair {
        mut consumer,
        mut provider,
        consumer_mesh: _a,
        provider_mesh: _b,
        ..
    } = job_pair(quic_only()).await;
    let frame = |index: usize| chunk(vec![index as u8; 200_000]);
    let mut sent = 0;
    let interrupted = loop {
        match provider.send(&frame(sent), Duration::from_millis(300)).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "nothing stops the writer");
    };
    assert!(matches!(interrupted, SendError::Timeout(_)), "{interrupted:?}");
    let reader = tokio::spawn(async move {
        let mut frames = Vec::new();
        while let Ok(frame) = consumer.receive(PATIENCE).await {
            frames.push(frame);
        }
        frames
    });
    // The interrupted frame is completed, none is lost, none comes twice.
    provider.send(&frame(sent + 1), PATIENCE).await.unwrap();
    provider.close(PATIENCE).await.unwrap();
    let frames = soon(reader).await.unwrap();
    assert!(
        frames
            .iter()
            .eq((0..sent + 2).map(frame).collect::<Vec<_>>().iter())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiving_times_out_and_loses_nothing() {
    let JobPair {
        mut consumer,
        mut provider,
        consumer_mesh: _a,
        provider_mesh: _b,
        ..
    } = job_pair(quic_only()).await;
    let timeout = consumer.receive(Duration::from_millis(50)).await;
    assert!(matches!(timeout, Err(ReceiveError::Timeout(waited)) if waited == Duration::from_millis(50)));
    provider.send(&chunk(vec![1; 10]), PATIENCE).await.unwrap();
    assert_eq!(consumer.receive(PATIENCE).await.unwrap(), chunk(vec![1; 10]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_streams_all_arrives_at_the_limits_and_not_one_over() {
    const LIMIT: usize = 40;
    let config = MeshConfig {
        incoming_streams_per_peer_max: LIMIT,
        incoming_streams_max: LIMIT + 1,
        ..quic_only()
    };
    let (consumer, _) = start(1, config.clone()).await;
    let (other, _) = start(3, config.clone()).await;
    let (provider, mut incoming) = start(2, config).await;
    let addresses = texts(&provider.listen_addresses());
    let open = async |mesh: &gristmill_transport::Mesh| {
        let mut stream = soon(mesh.open_job(account(2), &addresses)).await.unwrap();
        stream.send(&open_frame("burst"), PATIENCE).await.unwrap();
        stream
    };
    let mut streams = futures::future::join_all((0..LIMIT).map(|_| open(&consumer))).await;
    let mut served = Vec::new();
    for _ in 0..LIMIT {
        served.push(soon(incoming.next()).await.unwrap());
    }
    // One over the peer's limit is dropped.
    let mut over = open(&consumer).await;
    assert!(matches!(
        over.receive(PATIENCE).await,
        Err(ReceiveError::Closed | ReceiveError::Io(_))
    ));
    // Another peer still has the last place, and then all are taken.
    let _last = open(&other).await;
    served.push(soon(incoming.next()).await.unwrap());
    let mut over = open(&other).await;
    assert!(matches!(
        over.receive(PATIENCE).await,
        Err(ReceiveError::Closed | ReceiveError::Io(_))
    ));
    // The others work, and a place that is given back is used again.
    for ((_, provider), consumer) in served.iter_mut().zip(&mut streams) {
        assert_eq!(provider.receive(PATIENCE).await.unwrap(), open_frame("burst"));
        provider.send(&chunk(vec![1]), PATIENCE).await.unwrap();
        let _ = consumer;
    }
    for consumer in &mut streams {
        assert_eq!(consumer.receive(PATIENCE).await.unwrap(), chunk(vec![1]));
    }
    served.remove(0);
    let _again = open(&consumer).await;
    assert_eq!(soon(incoming.next()).await.unwrap().0, account(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_connection_is_reused() {
    let JobPair {
        consumer_mesh,
        provider_mesh,
        mut incoming,
        consumer: _c,
        provider: _p,
    } = job_pair(quic_only()).await;
    connected(&provider_mesh, account(1)).await;
    // No address is needed, and wrong ones do no harm.
    let nowhere = vec!["/ip4/127.0.0.1/udp/1/quic-v1".to_owned()];
    for addresses in [vec![], nowhere] {
        let mut stream = soon(consumer_mesh.open_job(account(2), &addresses))
            .await
            .unwrap();
        stream.send(&open_frame("again"), PATIENCE).await.unwrap();
        let (_, mut served) = soon(incoming.next()).await.unwrap();
        assert_eq!(served.receive(PATIENCE).await.unwrap(), open_frame("again"));
    }
    // The provider can open jobs to the consumer's own mesh the same way, over the same connection.
    assert!(soon(provider_mesh.open_job(account(1), &[])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_providers_are_typed_errors() {
    let config = MeshConfig {
        open_timeout: Duration::from_millis(500),
        ..quic_only()
    };
    let (consumer, _) = start(1, config).await;
    let (stranger, _) = start(9, quic_only()).await;
    let open = async |provider, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|text| (*text).to_owned()).collect();
        soon(consumer.open_job(account(provider), &addresses))
            .await
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(open(1, &[]).await, OpenJobError::OwnAccount(account(1)));
    assert!(matches!(open(2, &[]).await, OpenJobError::Unreachable { .. }));
    assert!(matches!(
        open(2, &["nonsense", "/ip4/1.2.3.4"]).await,
        OpenJobError::Unreachable { .. }
    ));
    let closed = "/ip4/127.0.0.1/tcp/1";
    assert!(matches!(
        open(2, &[closed]).await,
        OpenJobError::Unreachable { .. }
    ));
    // Somebody else lives there: the handshake tells.
    let elsewhere = stranger.listen_addresses()[0].to_string();
    assert!(matches!(
        open(2, &[&elsewhere]).await,
        OpenJobError::Unreachable { .. }
    ));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent_address = format!(
        "/ip4/127.0.0.1/udp/{}/quic-v1",
        silent.local_addr().unwrap().port()
    );
    assert!(matches!(
        open(3, &[&silent_address]).await,
        OpenJobError::Timeout { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_jobs_ends_the_stream() {
    let (consumer, _) = start(1, quic_only()).await;
    let (provider, incoming) = start(2, quic_only()).await;
    drop(incoming);
    let addresses = texts(&provider.listen_addresses());
    let mut stream = soon(consumer.open_job(account(2), &addresses)).await.unwrap();
    let _ = stream.send(&open_frame("nobody"), PATIENCE).await;
    assert!(matches!(
        stream.receive(PATIENCE).await,
        Err(ReceiveError::Closed | ReceiveError::Io(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_is_noticed() {
    let JobPair {
        mut consumer,
        provider,
        consumer_mesh,
        provider_mesh,
        incoming,
    } = job_pair(quic_only()).await;
    drop((provider, incoming));
    provider_mesh.shutdown().await;
    assert!(matches!(
        consumer.receive(PATIENCE).await,
        Err(ReceiveError::Closed | ReceiveError::Io(_))
    ));
    until(async || consumer_mesh.connected_peers().is_empty()).await;
}

#[test]
fn a_peer_that_vanishes_without_a_word_is_noticed() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (here, there) = (runtime(), runtime());
    let (provider, mut incoming) = there.block_on(start(2, quic_only()));
    let addresses = texts(&provider.listen_addresses());
    here.block_on(async {
        let (consumer, _) = start(1, quic_only()).await;
        let mut stream = soon(consumer.open_job(account(2), &addresses)).await.unwrap();
        stream.send(&open_frame("last"), PATIENCE).await.unwrap();
        let (_, served) = there
            .spawn(async move { soon(incoming.next()).await.unwrap() })
            .await
            .unwrap();
        // Every task of the peer ends where it stands, as in a crash: nothing is said to anybody.
        there.shutdown_background();
        let short = stream.receive(Duration::from_millis(10)).await;
        assert!(short.is_err(), "{short:?}");
        assert!(matches!(
            stream.receive(PATIENCE).await,
            Err(ReceiveError::Closed | ReceiveError::Io(_))
        ));
        until(async || consumer.connected_peers().is_empty()).await;
        drop((served, provider));
    });
}
