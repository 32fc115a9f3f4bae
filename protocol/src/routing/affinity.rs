//! Keeps a conversation where its prefix is: a provider that has read the beginning of a prompt has its key-value
//! cache and need not read it again.
//!
//! Of prompts only digests are kept, in memory, for a while, and not many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::AccountId;

/// How long a provider is expected to keep what it read, in milliseconds.
pub const CACHE_LIFE_MS: u64 = 600_000;
/// Most digests that are remembered.
const DIGESTS_MAX: usize = 8_192;
/// Most prefixes of one prompt that are looked for.
const PREFIXES_MAX: usize = 64;
/// A shorter prefix is read anew as fast as it is found, in bytes: some 256 tokens.
pub const PREFIX_MIN_BYTES: u64 = 1_024;

type Digest = [u8; 16];

/// The digests of a prompt's beginnings: after its first message, after its second, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixDigests(Vec<Digest>);

impl PrefixDigests {
    /// Of the parts of a prompt in order: its messages as they were written, or the pieces of a text. Beginnings
    /// that are too short to matter have none, and of very many only the first and the last ones do.
    #[must_use]
    pub fn of<'a>(model: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill 2026 prefix affinity 1");
        let mut digests: Vec<Digest> = Vec::new();
        let mut length_bytes = 0u64;
        hasher.update(&(model.len() as u64).to_le_bytes());
        hasher.update(model.as_bytes());
        for part in parts {
            length_bytes += part.len() as u64;
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
            if length_bytes < PREFIX_MIN_BYTES {
                continue;
            }
            if digests.len() == PREFIXES_MAX {
                digests.remove(1);
            }
            let mut digest = Digest::default();
            hasher.finalize_xof().fill(&mut digest);
            digests.push(digest);
        }
        Self(digests)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    provider: AccountId,
    read_at_ms: u64,
    turn: u64,
}

/// Who has read what lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct PrefixAffinity {
    holders: BTreeMap<Digest, Holder>,
    /// The digests by when they were remembered last, to forget the oldest.
    turns: BTreeMap<u64, Digest>,
    next_turn: u64,
}

/// A [`PrefixAffinity`] as it is written down: a list, since not every format has maps with such keys.
#[derive(Serialize, Deserialize)]
struct Written {
    holders: Vec<(Digest, Holder)>,
    next_turn: u64,
}

impl From<PrefixAffinity> for Written {
    fn from(affinity: PrefixAffinity) -> Self {
        Self {
            holders: affinity.holders.into_iter().collect(),
            next_turn: affinity.next_turn,
        }
    }
}

impl From<Written> for PrefixAffinity {
    fn from(written: Written) -> Self {
        let turn_of = |(digest, holder): &(Digest, Holder)| (holder.turn, *digest);
        Self {
            turns: written.holders.iter().map(turn_of).collect(),
            holders: written.holders.into_iter().collect(),
            next_turn: written.next_turn,
        }
    }
}

impl PrefixAffinity {
    /// A provider has read this prompt. Kept are the whole, where the next message of a conversation goes on, and
    /// its first part, which conversations may share.
    pub fn remember(&mut self, prefix: &PrefixDigests, provider: AccountId, now_ms: u64) {
        let PrefixDigests(digests) = prefix;
        if let [first, .., _] = digests.as_slice() {
            self.insert(*first, provider, now_ms);
        }
        if let Some(whole) = digests.last() {
            self.insert(*whole, provider, now_ms);
        }
    }

    /// Who read the longest beginning of this prompt, and not too long ago.
    #[must_use]
    pub fn holder(&self, prefix: &PrefixDigests, now_ms: u64) -> Option<AccountId> {
        let PrefixDigests(digests) = prefix;
        let longest_first = digests.iter().rev();
        longest_first
            .filter_map(|digest| self.holders.get(digest))
            .find(|holder| now_ms.abs_diff(holder.read_at_ms) < CACHE_LIFE_MS)
            .map(|holder| holder.provider)
    }

    fn insert(&mut self, digest: Digest, provider: AccountId, now_ms: u64) {
        let holder = Holder {
            provider,
            read_at_ms: now_ms,
            turn: self.next_turn,
        };
        self.next_turn += 1;
        if let Some(before) = self.holders.insert(digest, holder) {
            self.turns.remove(&before.turn);
        }
        self.turns.insert(holder.turn, digest);
        if self.holders.len() > DIGESTS_MAX
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.holders.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountId = AccountId::from_public_key([1; 32]);
    const B: AccountId = AccountId::from_public_key([2; 32]);

    const TEXT: &[u8] = &[7; 3_000];

    fn message(text: &str) -> String {
        format!("{text:=<600}")
    }

    fn prompt(messages: &[&str]) -> PrefixDigests {
        let messages: Vec<String> = messages.iter().map(|text| message(text)).collect();
        PrefixDigests::of("guide", messages.iter().map(String::as_bytes))
    }

    #[test]
    fn the_next_turn_goes_where_the_last_one_went() {
        let mut affinity = PrefixAffinity::default();
        affinity.remember(&prompt(&["system", "one"]), A, 0);
        affinity.remember(&prompt(&["system", "two"]), B, 0);
        let next = |turn| affinity.holder(&prompt(&["system", turn, "answer", "more"]), 1_000);
        assert_eq!(
            (next("one"), next("two"), next("three")),
            (Some(A), Some(B), None)
        );
    }

    #[test]
    fn a_first_part_that_is_shared_is_enough_where_nothing_longer_is_known() {
        let mut affinity = PrefixAffinity::default();
        let long = message("instructions").repeat(2);
        let with = |rest: &str| PrefixDigests::of("guide", [long.as_bytes(), rest.as_bytes()]);
        affinity.remember(&with("one"), A, 0);
        assert_eq!(affinity.holder(&with("two"), 0), Some(A));
        let other_model = PrefixDigests::of("other", [long.as_bytes(), b"one"]);
        assert_eq!(affinity.holder(&other_model, 0), None);
    }

    #[test]
    fn short_prompts_have_no_digests_and_borders_between_parts_count() {
        assert_eq!(
            PrefixDigests::of("guide", [&[0u8; 1_023][..]]),
            PrefixDigests::default()
        );
        assert_ne!(
            PrefixDigests::of("guide", [&[0u8; 1_024][..]]),
            PrefixDigests::default()
        );
        let split = |at| {
            let (head, tail) = TEXT.split_at(at);
            PrefixDigests::of("guide", [head, tail])
        };
        assert_ne!(split(1_500).0.last(), split(1_501).0.last());
    }

    #[test]
    fn what_is_old_is_not_expected_to_be_there() {
        let mut affinity = PrefixAffinity::default();
        let prompt = prompt(&["system", "one"]);
        affinity.remember(&prompt, A, 0);
        assert_eq!(affinity.holder(&prompt, CACHE_LIFE_MS - 1), Some(A));
        assert_eq!(affinity.holder(&prompt, CACHE_LIFE_MS), None);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let mut affinity = PrefixAffinity::default();
        let first = prompt(&["first", "one"]);
        affinity.remember(&first, A, 0);
        for index in 0..DIGESTS_MAX {
            affinity.remember(&prompt(&["other", &index.to_string()]), B, 1);
        }
        assert_eq!(
            (affinity.holders.len(), affinity.turns.len()),
            (DIGESTS_MAX, DIGESTS_MAX)
        );
        assert_eq!(affinity.holder(&first, 1), None);
        let many: Vec<String> = (0..1_000).map(|index| message(&index.to_string())).collect();
        let digests = PrefixDigests::of("guide", many.iter().map(String::as_bytes));
        assert_eq!(digests.0.len(), PREFIXES_MAX);
        let begun = PrefixDigests::of("guide", many[..2].iter().map(String::as_bytes));
        assert_eq!(digests.0[0], begun.0[0], "the first part is kept");
    }
}
