//! What this peer has to say about logs: its newest checkpoints and the evidence it has. All of it is said once, and
//! once more when somebody new listens, since gossip does not repeat what was said before a peer came.

use super::checkpoints::{Announcement, CheckpointContent, CheckpointMessage};

/// Most announcements that are kept.
const ANNOUNCEMENTS_MAX: usize = 32;
/// How long this peer waits before it says everything once more for newcomers, in milliseconds.
const ROUND_EVERY_MS: u64 = 10_000;

#[derive(Debug)]
struct Entry {
    origin: String,
    content: CheckpointContent,
    round: u64,
    unsent: bool,
}

/// The announcements of a peer.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    entries: Vec<Entry>,
    somebody_came: bool,
    last_round_ms: Option<u64>,
}

impl Announcements {
    /// Takes an announcement. A checkpoint takes the place of the one of its log before.
    pub(super) fn add(&mut self, announcement: Announcement) {
        let Announcement {
            origin,
            is_news,
            content,
        } = announcement;
        let is_checkpoint = matches!(content, CheckpointContent::Checkpoint(_));
        self.entries.retain(|entry| {
            let replaced = is_checkpoint
                && entry.origin == origin
                && matches!(entry.content, CheckpointContent::Checkpoint(_));
            !replaced && entry.content != content
        });
        if self.entries.len() >= ANNOUNCEMENTS_MAX {
            self.entries.remove(0);
        }
        // Whoever came between its being heard here and now has not been told. The next checkpoint makes up for an
        // older one, nothing does for evidence.
        self.somebody_came |= !is_news && !is_checkpoint;
        self.entries.push(Entry {
            origin,
            content,
            round: 0,
            unsent: is_news,
        });
    }

    /// Somebody new listens.
    pub(super) const fn somebody_came(&mut self) {
        self.somebody_came = true;
    }

    /// Begins another round where it is due. `round` is drawn at random.
    pub(super) fn begin_round(&mut self, now_ms: u64, round: u64) {
        let rested = |at_ms: u64| now_ms.saturating_sub(at_ms) >= ROUND_EVERY_MS;
        if self.somebody_came && self.last_round_ms.is_none_or(rested) {
            self.somebody_came = false;
            self.last_round_ms = Some(now_ms);
            for entry in &mut self.entries {
                // What was never sent is new to everybody as it is.
                if !entry.unsent {
                    (entry.round, entry.unsent) = (round, true);
                }
            }
        }
    }

    /// Sends what is unsent. `send` tells whether somebody got it.
    pub(super) fn send(&mut self, mut send: impl FnMut(Vec<u8>) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| entry.unsent) {
            let message = CheckpointMessage {
                round: entry.round,
                content: entry.content.clone(),
            };
            entry.unsent = !send(message.encode());
        }
    }

    /// Whether everything was sent.
    pub(super) fn all_sent(&self) -> bool {
        self.entries.iter().all(|entry| !entry.unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
    use gristmill_protocol::log::evidence::Evidence;
    use gristmill_protocol::log::hash::leaf_hash;

    fn announcement(log: u8, size: u64, is_news: bool) -> Announcement {
        let keypair = Keypair::from_secret(&[log; 32]);
        let origin = origin_of(&keypair.account());
        let checkpoint = Checkpoint::new(&origin, size, leaf_hash(b"root"));
        let note = SignedCheckpoint::sign(&checkpoint, &keypair).unwrap().into_note();
        Announcement {
            origin,
            is_news,
            content: CheckpointContent::Checkpoint(note),
        }
    }

    fn heard_evidence() -> Announcement {
        let keypair = Keypair::from_secret(&[1; 32]);
        let origin = origin_of(&keypair.account());
        let [one, other] = [b"one".as_slice(), b"other"].map(|root| {
            SignedCheckpoint::sign(&Checkpoint::new(&origin, 5, leaf_hash(root)), &keypair).unwrap()
        });
        Announcement {
            origin,
            is_news: false,
            content: CheckpointContent::Evidence(Evidence::two_roots(
                &LogKeys::new(keypair.account()),
                &one,
                &other,
            )),
        }
    }

    fn sent(announcements: &mut Announcements) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        announcements.send(|message| {
            sent.push(message);
            true
        });
        sent
    }

    #[test]
    fn everything_is_said_once_and_what_nobody_heard_again() {
        let mut announcements = Announcements::default();
        announcements.add(announcement(1, 5, true));
        announcements.send(|_| false);
        assert!(!announcements.all_sent());
        announcements.add(announcement(1, 6, true));
        announcements.add(announcement(2, 6, true));
        announcements.add(announcement(3, 6, false));
        assert_eq!(
            sent(&mut announcements).len(),
            2,
            "the newest of each log, and what others said is not said again"
        );
        assert!(announcements.all_sent());
        assert!(sent(&mut announcements).is_empty());
    }

    #[test]
    fn newcomers_are_told_everything_but_not_at_any_rate() {
        let mut announcements = Announcements::default();
        announcements.add(announcement(1, 5, true));
        announcements.add(announcement(3, 6, false));
        let first = sent(&mut announcements);
        announcements.begin_round(1_000, 7);
        assert!(sent(&mut announcements).is_empty(), "nobody came");
        announcements.somebody_came();
        announcements.begin_round(1_000, 7);
        let second = sent(&mut announcements);
        assert_eq!(second.len(), 2);
        assert!(
            !second.contains(&first[0]),
            "gossip must take it for another message"
        );
        announcements.somebody_came();
        announcements.begin_round(10_999, 8);
        assert!(sent(&mut announcements).is_empty());
        announcements.begin_round(11_000, 8);
        assert_eq!(sent(&mut announcements).len(), 2);
    }

    #[test]
    fn evidence_of_others_is_said_to_whoever_came_before_it_was_taken() {
        let mut announcements = Announcements::default();
        announcements.somebody_came();
        announcements.begin_round(1_000, 7);
        assert!(sent(&mut announcements).is_empty());
        announcements.add(heard_evidence());
        announcements.begin_round(11_000, 8);
        assert_eq!(sent(&mut announcements).len(), 1);
        announcements.begin_round(30_000, 9);
        assert!(sent(&mut announcements).is_empty(), "once, until somebody comes");
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut announcements = Announcements::default();
        for log in 0..=u8::try_from(ANNOUNCEMENTS_MAX).unwrap() {
            announcements.add(announcement(log, 1, true));
        }
        assert_eq!(sent(&mut announcements).len(), ANNOUNCEMENTS_MAX);
    }
}
