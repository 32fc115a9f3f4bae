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

/// A pipe in memory: one end speaks frames, the other raw bytes.
fn raw_pair() -> (ProviderJobStream, tokio::io::DuplexStream) {
    let (frames, raw) = tokio::io::duplex(2 << 20);
    (ProviderJobStream::over(frames.compat()), raw)
}

#[tokio::test]
async fn frames_pass_at_their_limit_and_not_one_byte_over() {
    use gristmill_transport::ConsumerJobStream;
    let (left, right) = tokio::io::duplex(4 << 20);
    let (mut consumer, mut provider) = (
        ConsumerJobStream::over(left.compat()),
        ProviderJobStream::over(right.compat()),
    );
    let largest = DATA_FRAME_MAX_BYTES - chunk_overhead();
    provider.send(&chunk(vec![1; largest]), PATIENCE).await.unwrap();
    assert_eq!(consumer.receive(PATIENCE).await.unwrap(), chunk(vec![1; largest]));
    let refused = provider.send(&chunk(vec![1; largest + 1]), PATIENCE).await;
    assert!(
        matches!(refused, Err(SendError::TooLarge { actual, limit: DATA_FRAME_MAX_BYTES }) if actual == DATA_FRAME_MAX_BYTES + 1)
    );
    // A control frame has a smaller limit, although the same number of bytes may be announced.
    let failed = |reason: usize| {
        ProviderFrame::Failed(JobFailed {
            status: 500,
            code: String::new(),
            reason: "x".repeat(reason),
            param: None,
        })
    };
    let overhead = {
        use gristmill_transport::job_stream::JobFrame as _;
        failed(0).encode().len() - 4
    };
    let largest = CONTROL_FRAME_MAX_BYTES - overhead;
    provider.send(&failed(largest), PATIENCE).await.unwrap();
    assert_eq!(consumer.receive(PATIENCE).await.unwrap(), failed(largest));
    assert!(matches!(
        provider.send(&failed(largest + 1), PATIENCE).await,
        Err(SendError::TooLarge {
            limit: CONTROL_FRAME_MAX_BYTES,
            ..
        })
    ));
    // Refused frames left nothing behind.
    provider.send(&chunk(vec![2]), PATIENCE).await.unwrap();
    assert_eq!(consumer.receive(PATIENCE).await.unwrap(), chunk(vec![2]));
}

#[tokio::test]
async fn oversize_and_malformed_frames_are_refused() {
    use gristmill_transport::job_stream::JobFrame as _;
    use tokio::io::AsyncWriteExt as _;
    let too_long = u32::try_from(DATA_FRAME_MAX_BYTES + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    let control = {
        let mut open = open_frame("large");
        if let ConsumerFrame::Open(open) = &mut open {
            open.ticket = "x".repeat(CONTROL_FRAME_MAX_BYTES);
        }
        open.encode()
    };
    let mut other_version = ConsumerFrame::Cancel.encode();
    other_version[4] = 9;
    type Expected = fn(&DecodeError) -> bool;
    let cases: [(Vec<u8>, Expected); 5] = [
        (too_long, |error| {
            matches!(
                error,
                DecodeError::TooLarge {
                    limit: DATA_FRAME_MAX_BYTES,
                    ..
                }
            )
        }),
        (control, |error| {
            matches!(
                error,
                DecodeError::TooLarge {
                    limit: CONTROL_FRAME_MAX_BYTES,
                    ..
                }
            )
        }),
        (vec![0, 0, 0, 0], |error| {
            matches!(error, DecodeError::Malformed(_))
        }),
        (vec![0, 0, 0, 3, 1, 255, 255], |error| {
            matches!(error, DecodeError::Malformed(_))
        }),
        (other_version, |error| matches!(error, DecodeError::Version(9))),
    ];
    for (bytes, expected) in cases {
        let (mut provider, mut raw) = raw_pair();
        raw.write_all(&bytes).await.unwrap();
        match provider.receive(PATIENCE).await {
            Err(ReceiveError::Decode(error)) if expected(&error) => {}
            other => panic!("{other:?} for {:?}…", &bytes[..4]),
        }
    }
}

#[tokio::test]
async fn a_stream_cut_in_a_frame_is_no_clean_end() {
    use gristmill_transport::job_stream::JobFrame as _;
    use tokio::io::AsyncWriteExt as _;
    let frame = ConsumerFrame::BodyPart(vec![1; 100]).encode();
    for cut in 1..frame.len() {
        let (mut provider, mut raw) = raw_pair();
        raw.write_all(&frame[..cut]).await.unwrap();
        drop(raw);
        assert!(
            matches!(provider.receive(PATIENCE).await, Err(ReceiveError::Io(_))),
            "cut at {cut}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes of frames are cut up on their way, the same frames come out.
    #[test]
    fn frames_survive_any_fragmentation(
        sizes in proptest::collection::vec(0usize..40_000, 1..12),
        cuts in proptest::collection::vec(1usize..20_000, 1..30),
    ) {
        use gristmill_transport::job_stream::JobFrame as _;
        use tokio::io::AsyncWriteExt as _;
        let frames: Vec<_> = sizes.iter().map(|size| ConsumerFrame::BodyPart(vec![*size as u8; *size])).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let received = runtime.block_on(async {
            let (mut provider, mut raw) = raw_pair();
            let writer = tokio::spawn(async move {
                let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                    raw.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                }
            });
            let mut received = Vec::new();
            while let Ok(frame) = provider.receive(PATIENCE).await {
                received.push(frame);
            }
            writer.await.unwrap();
            received
        });
        prop_assert_eq!(received, frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        use tokio::io::AsyncWriteExt as _;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut provider, mut raw) = raw_pair();
            raw.write_all(&bytes).await.unwrap();
            drop(raw);
            while provider.receive(PATIENCE).await.is_ok() {}
        });
    }
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
