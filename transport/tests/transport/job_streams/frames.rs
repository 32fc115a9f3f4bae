//! Frames over a pipe in memory: their limits, and whatever else comes.

use super::*;

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
