//! Whatever a coordinator lies about, peers that watch it catch it, over real gossip on loopback; and nobody is
//! accused who tells the truth.

use gristmill_protocol::log::evidence::Evidence;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::witness::kept_checkpoint;

use crate::liar::{COORDINATOR, View, Watcher, checkpoint, leaves, log_keys, other_leaf, receipt};
use crate::support::{account, connected, soon, until};

fn nobody() -> Vec<Multiaddr> {
    Vec::new()
}

/// Two peers that know each other; each is shown another history.
async fn two_views(
    one: Vec<gristmill_protocol::log::hash::LogHash>,
    other: Vec<gristmill_protocol::log::hash::LogHash>,
) -> ([View; 2], [Watcher; 2]) {
    let views = [View::of(one).await, View::of(other).await];
    let first = Watcher::start(1, &views[0], nobody()).await;
    let second = Watcher::start(2, &views[1], first.mesh.bootstrap_addresses()).await;
    connected(&first.mesh, account(2)).await;
    (views, [first, second])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_between_two_peers_is_caught() {
    let honest = leaves(700);
    let mut forked = honest.clone();
    forked[100] = other_leaf();
    let (views, watchers) = two_views(honest[..300].to_vec(), forked[..500].to_vec()).await;
    watchers[0].accepts(300).await;
    watchers[1].accepts(500).await;
    // As long as one log is behind what the other one shows, nothing may be proved yet; both go on.
    views[0].now().leaves = honest.clone();
    views[1].now().leaves = forked;
    for watcher in &watchers {
        let evidence = watcher.raises_the_alarm().await;
        assert!(matches!(
            evidence,
            Evidence::NotAnExtension { .. } | Evidence::TwoRoots { .. }
        ));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_roots_of_one_size_are_caught() {
    let honest = leaves(300);
    let mut other = honest.clone();
    other[299] = other_leaf();
    let (_views, watchers) = two_views(honest, other).await;
    for watcher in &watchers {
        let evidence = watcher.raises_the_alarm().await;
        assert!(matches!(evidence, Evidence::TwoRoots { .. }), "{evidence:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_travels_to_those_who_were_told_the_truth() {
    // The first two are shown different logs, the third one is shown that of the first one, and is not connected to
    // the second one. A newcomer is told as well.
    let honest = leaves(300);
    let mut other = honest.clone();
    other[7] = other_leaf();
    let (views, watchers) = two_views(honest, other).await;
    let third = Watcher::start(3, &views[0], watchers[0].mesh.bootstrap_addresses()).await;
    let evidence = third.raises_the_alarm().await;
    assert!(matches!(evidence, Evidence::TwoRoots { .. }));
    let newcomer = Watcher::start(4, &views[0], third.mesh.bootstrap_addresses()).await;
    newcomer.raises_the_alarm().await;
    // Spreading evidence is nothing to be blamed for.
    for (judge, judged) in [(&third, account(1)), (&newcomer, account(3))] {
        let score = judge.mesh.gossip_score(judged).await.unwrap();
        assert!(score >= 0.0, "{score}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reordered_records_are_caught() {
    let view = View::of(leaves(300)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(300).await;
    let mut reordered = leaves(310);
    reordered.swap(20, 21);
    view.now().leaves = reordered;
    let evidence = watcher.raises_the_alarm().await;
    assert!(matches!(evidence, Evidence::NotAnExtension { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_record_is_caught_by_whoever_has_its_receipt() {
    let all = leaves(300);
    let mut dropped = all.clone();
    dropped.remove(41);
    let view = View::of(dropped).await;
    let mut watcher = Watcher::start(1, &view, nobody()).await;
    let bystander = Watcher::start(2, &view, watcher.mesh.bootstrap_addresses()).await;
    let receipts = [7, 40, 42].map(|sequence| receipt(&all, sequence)).to_vec();
    watcher.witness.prove(receipts).await;
    let evidence = watcher.raises_the_alarm().await;
    assert!(matches!(evidence, Evidence::BrokenReceipt { .. }));
    assert_eq!(bystander.raises_the_alarm().await, evidence);
    // The records that are there are proved all the same.
    let proved = soon(watcher.proofs.recv()).await.unwrap();
    let proved: Vec<_> = proved.iter().map(|proved| proved.sequence).collect();
    assert_eq!(proved, [7, 40]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_rewritten_behind_a_checkpoint_is_caught_also_after_a_restart() {
    let view = View::of(leaves(300)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(300).await;
    let watcher = watcher
        .restart(|| {
            let mut rewritten = leaves(900);
            rewritten[0] = other_leaf();
            view.now().leaves = rewritten;
        })
        .await;
    let evidence = watcher.raises_the_alarm().await;
    assert!(matches!(evidence, Evidence::NotAnExtension { .. }));
    // What was found once is known after the next restart, whatever the coordinator shows then.
    let watcher = watcher.restart(|| view.now().leaves = leaves(300)).await;
    watcher.raises_the_alarm().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_refuses_proofs_is_told_of_but_not_accused() {
    let view = View::of(leaves(300)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(300).await;
    {
        let mut shown = view.now();
        shown.shows_tiles = false;
        shown.leaves = leaves(400);
    }
    until(async || view.now().tiles_asked > 0).await;
    until(async || {
        watcher.let_pass_ms(5_000);
        watcher
            .witness
            .status()
            .withheld
            .is_some_and(|withheld| withheld.size == 400)
    })
    .await;
    let status = watcher.witness.status();
    assert!(status.distrust().is_none(), "it proves no lie");
    assert_eq!(
        status.checkpoint.unwrap().size,
        300,
        "and nothing is taken on trust"
    );
    // Once it shows them, all is well.
    view.now().shows_tiles = true;
    until(async || {
        watcher.let_pass_ms(5_000);
        watcher.witness.status().withheld.is_none()
    })
    .await;
    watcher.accepts(400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tiles_prove_nothing_and_are_not_remembered() {
    let view = View::of(leaves(300)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(300).await;
    {
        let mut shown = view.now();
        shown.tiles_are_true = false;
        shown.leaves = leaves(400);
    }
    let asked = view.now().tiles_asked;
    until(async || {
        watcher.let_pass_ms(1_000);
        view.now().tiles_asked > asked + 3
    })
    .await;
    let status = watcher.witness.status();
    assert!(status.alarms.is_empty(), "anybody could have made them up");
    assert_eq!(status.checkpoint.unwrap().size, 300);
    view.now().tiles_are_true = true;
    until(async || {
        watcher.let_pass_ms(1_000);
        watcher.witness.status().checkpoint.unwrap().size == 400
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_whose_record_never_comes_is_told_of() {
    let view = View::of(leaves(300)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(300).await;
    watcher.witness.prove(vec![receipt(&leaves(301), 301)]).await;
    until(async || {
        watcher.let_pass_ms(5_000);
        watcher.witness.status().receipts.missing == 1
    })
    .await;
    assert!(watcher.witness.distrust().is_none());
    view.now().leaves = leaves(301);
    let status = watcher.sees(|status| status.receipts.proved == 1).await;
    assert_eq!((status.receipts.missing, status.receipts.waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_coordinators_are_never_accused() {
    let mut view = View::of(leaves(1)).await;
    let mut first = Watcher::start(1, &view, nobody()).await;
    let second = Watcher::start(2, &view, first.mesh.bootstrap_addresses()).await;
    let third = Watcher::start(3, &view, second.mesh.bootstrap_addresses()).await;
    let all = leaves(2_000);
    for (round, size) in [2, 255, 256, 257, 600, 601, 1_999].into_iter().enumerate() {
        view.now().leaves = all[..size].to_vec();
        first.witness.prove(vec![receipt(&all, size as u64)]).await;
        if round % 2 == 1 {
            view.kill().await;
            view.come_back().await;
        }
        for watcher in [&first, &second, &third] {
            watcher.accepts(size as u64).await;
        }
        if round == 3 {
            first = first.restart(|| {}).await;
        }
    }
    for watcher in [&first, &second, &third] {
        let status = watcher.witness.status();
        assert!(
            status.alarms.is_empty() && status.withheld.is_none(),
            "{status:?}"
        );
        assert_eq!(status.receipts.missing, 0);
        let kept = kept_checkpoint(watcher.folder(), &log_keys()).unwrap().unwrap();
        assert_eq!(kept.checkpoint, checkpoint(&all[..1_999], COORDINATOR));
        assert!(
            watcher
                .sees(|status| status.cosigned.is_some())
                .await
                .cosigned
                .is_some()
        );
    }
    assert!(!view.now().cosigned.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_followed_while_the_witness_runs_and_old_words_still_count() {
    let view = View::of(leaves(10)).await;
    let mut watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(10).await;
    {
        let mut shown = view.now();
        shown.keys = vec![COORDINATOR, COORDINATOR + 1];
        shown.leaves = leaves(300);
    }
    watcher.accepts(300).await;
    assert_eq!(
        watcher.client.coordinator().await.unwrap(),
        account(COORDINATOR + 1)
    );
    let status = watcher
        .sees(|status| status.signer == Some(account(COORDINATOR + 1)))
        .await;
    assert!(status.alarms.is_empty());
    // A receipt that the first key signed is as good as before, and the new key's checkpoint proves it.
    watcher.witness.prove(vec![receipt(&leaves(300), 5)]).await;
    let proved = soon(watcher.proofs.recv()).await.unwrap();
    assert_eq!(proved[0].sequence, 5);
    // What is known survives a restart.
    let watcher = watcher.restart(|| {}).await;
    assert_eq!(
        watcher.client.coordinator().await.unwrap(),
        account(COORDINATOR + 1)
    );
    view.now().leaves = leaves(301);
    watcher.accepts(301).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_coordinator_at_the_same_address_is_not_followed() {
    let view = View::of(leaves(10)).await;
    let watcher = Watcher::start(1, &view, nobody()).await;
    watcher.accepts(10).await;
    {
        let mut shown = view.now();
        shown.keys = vec![COORDINATOR + 9];
        shown.leaves = leaves(20);
    }
    assert!(watcher.client.network().await.is_err());
    let watcher = watcher.restart(|| {}).await;
    assert!(watcher.client.network().await.is_err());
    let status = watcher
        .sees(|status| status.signer == Some(account(COORDINATOR)))
        .await;
    assert!(status.checkpoint.is_none_or(|kept| kept.size == 10));
}
