//! Checkpoints on the mesh.

use gristmill_protocol::log::evidence::Evidence;
use gristmill_transport::mesh::{AnnounceError, CHECKPOINT_MESSAGE_MAX_BYTES, Heard, LogFeed};
use gristmill_transport::{Mesh, Published};

use crate::hostile::HostilePeer;
use crate::liar::{COORDINATOR, checkpoint, leaves, log_keys, other_leaf};
use crate::support::{account, connected, heard_by, knowing, quic_only, soon, start, until};

/// Three peers in a row that watch the log: the outer ones know the middle one only.
async fn row() -> ([Mesh; 3], [LogFeed; 3]) {
    let (middle, _) = start(2, quic_only()).await;
    let (left, _) = start(1, knowing(middle.bootstrap_addresses())).await;
    let (right, _) = start(3, knowing(middle.bootstrap_addresses())).await;
    for outer in [&left, &right] {
        heard_by(outer, account(2)).await;
        heard_by(&middle, outer.account()).await;
    }
    let meshes = [left, middle, right];
    let mut feeds = meshes.each_ref().map(|mesh| mesh.watch_log(&log_keys()));
    // Gossip forwards to those whose subscription has arrived. What the middle one says itself, it says again to
    // whoever subscribes later.
    let first = checkpoint(&leaves(1), COORDINATOR);
    meshes[1].publish_checkpoint(first.note().clone()).await.unwrap();
    for outer in [0, 2] {
        let heard = soon(feeds[outer].next()).await.unwrap();
        assert!(matches!(heard, Heard::Checkpoint { checkpoint, .. } if checkpoint == first));
    }
    (meshes, feeds)
}

fn two_roots(size: u64) -> Evidence {
    let mut other = leaves(size);
    other[0] = other_leaf();
    Evidence::two_roots(
        &log_keys(),
        &checkpoint(&leaves(size), COORDINATOR),
        &checkpoint(&other, COORDINATOR),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_and_evidence_reach_a_third_peer_through_the_middle_one() {
    let ([left, middle, _right], [_left_feed, mut middle_feed, mut right_feed]) = row().await;
    let sent = checkpoint(&leaves(7), COORDINATOR);
    left.publish_checkpoint(sent.note().clone()).await.unwrap();
    let heard = soon(right_feed.next()).await.unwrap();
    let (from_left, from_middle) = (account(1), account(2));
    let expected = |from| Heard::Checkpoint {
        checkpoint: sent.clone(),
        from,
    };
    assert_eq!(heard, expected(from_middle));
    assert_eq!(soon(middle_feed.next()).await.unwrap(), expected(from_left));
    middle.publish_evidence(two_roots(5)).await.unwrap();
    assert_eq!(
        soon(right_feed.next()).await.unwrap(),
        Heard::Evidence(Box::new(two_roots(5)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_are_told_what_was_said_before_they_came() {
    let (first, _) = start(1, quic_only()).await;
    let _feed = first.watch_log(&log_keys());
    let sent = checkpoint(&leaves(7), COORDINATOR);
    assert_eq!(
        first.publish_checkpoint(sent.note().clone()).await,
        Ok(Published::Waiting)
    );
    for byte in [2, 3] {
        let (newcomer, _) = start(byte, quic_only()).await;
        let mut feed = newcomer.watch_log(&log_keys());
        newcomer
            .add_bootstrap(first.bootstrap_addresses()[0].clone())
            .await
            .unwrap();
        let heard = soon(feed.next()).await.unwrap();
        assert!(matches!(heard, Heard::Checkpoint { checkpoint, .. } if checkpoint == sent));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_would_refuse_is_not_said() {
    let (mesh, _) = start(1, quic_only()).await;
    let note = checkpoint(&leaves(7), COORDINATOR).into_note();
    assert_eq!(
        mesh.publish_checkpoint(note.clone()).await,
        Err(AnnounceError::NotWatched)
    );
    assert_eq!(
        mesh.publish_evidence(two_roots(5)).await,
        Err(AnnounceError::NotWatched)
    );
    let feed = mesh.watch_log(&log_keys());
    let by_another = checkpoint(&leaves(7), COORDINATOR + 1).into_note();
    assert!(matches!(
        mesh.publish_checkpoint(by_another).await,
        Err(AnnounceError::Checkpoint(_))
    ));
    drop(feed);
    assert_eq!(
        mesh.publish_checkpoint(note).await,
        Err(AnnounceError::NotWatched)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_messages_cost_score_and_end_with_nobody_listening() {
    let (middle, _) = start(2, quic_only()).await;
    let mut feed = middle.watch_log(&log_keys());
    let hostile = soon(HostilePeer::join_watching(
        66,
        middle.bootstrap_addresses()[0].clone(),
    ))
    .await;
    heard_by(&middle, account(66)).await;
    let score = async || middle.gossip_score(account(66)).await.unwrap();
    hostile.send_checkpoint(b"no message at all".to_vec()).await;
    until(async || score().await < 0.0).await;
    let after_one = score().await;
    hostile
        .send_checkpoint(vec![0; CHECKPOINT_MESSAGE_MAX_BYTES])
        .await;
    until(async || score().await < after_one - 20.0).await;
    hostile.send_checkpoint(vec![1; 100]).await;
    until(async || score().await < -60.0).await;
    // Nothing of it was told: the first thing heard is what an honest peer says now.
    let (honest, _) = start(3, knowing(middle.bootstrap_addresses())).await;
    let _watching = honest.watch_log(&log_keys());
    let sent = checkpoint(&leaves(7), COORDINATOR);
    honest.publish_checkpoint(sent.note().clone()).await.unwrap();
    let heard = soon(feed.next()).await.unwrap();
    assert!(matches!(heard, Heard::Checkpoint { checkpoint, .. } if checkpoint == sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_watch_other_logs_do_not_blame_for_this_one() {
    let (first, _) = start(1, quic_only()).await;
    let _feed = first.watch_log(&log_keys());
    let (second, _) = start(2, knowing(first.bootstrap_addresses())).await;
    connected(&second, account(1)).await;
    heard_by(&first, account(2)).await;
    for size in 1..20 {
        let note = checkpoint(&leaves(size), COORDINATOR).into_note();
        first.publish_checkpoint(note).await.unwrap();
    }
    // A listing by the same way shows that all of it has had its chance.
    first.publish_listing(crate::support::sealed(1, 1)).await.unwrap();
    crate::support::hears(&second, 1, 1).await;
    assert!(second.gossip_score(account(1)).await.unwrap() >= 0.0);
}
