//! The highest voucher of every channel, what was settled of it, and what the coordinator refused: the memory that
//! a node must not lose. Replays the records of the voucher file.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::voucher::Voucher;

/// How long a channel without open claims is remembered after its end, in milliseconds: one day.
pub const REMEMBER_AFTER_END_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a ticket says that is needed after the ticket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChannelTerms {
    /// Who settles.
    pub coordinator: AccountId,
    /// Who pays.
    pub consumer: AccountId,
    /// Until when vouchers are settled, Unix milliseconds.
    pub redeem_by_ms: u64,
    /// The coordinator's share, in 1/10,000.
    pub fee_basis_points: u16,
}

impl From<&TicketClaims> for ChannelTerms {
    fn from(ticket: &TicketClaims) -> Self {
        Self {
            coordinator: ticket.iss,
            consumer: ticket.sub,
            redeem_by_ms: ticket.redeem_by_ms,
            fee_basis_points: ticket.fee_basis_points,
        }
    }
}

/// A record of the voucher file. The order of the variants is the file's format: add at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum VoucherRecord {
    /// A higher voucher came.
    Kept {
        /// The voucher.
        voucher: Box<Signed<Voucher>>,
        /// The terms of its channel.
        terms: ChannelTerms,
    },
    /// The coordinator has settled this much of a channel in all.
    Settled {
        /// The channel.
        channel: ChannelId,
        /// How much in all.
        settled: Credits,
    },
    /// The coordinator refused a channel's voucher for good.
    Refused {
        /// The channel.
        channel: ChannelId,
        /// Why, for people.
        reason: String,
    },
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptChannel {
    /// The highest voucher.
    pub voucher: Signed<Voucher>,
    /// Its terms.
    pub terms: ChannelTerms,
    /// How much the coordinator has settled in all.
    pub settled: Credits,
    /// Why the coordinator refused the voucher for good, where it did.
    pub refused: Option<String>,
}

impl KeptChannel {
    /// Everything promised.
    #[must_use]
    pub const fn promised(&self) -> Credits {
        self.voucher.content_unchecked().cumulative
    }

    /// Promised, not settled, and not refused.
    #[must_use]
    pub const fn pending(&self) -> Credits {
        match self.refused {
            None => self.promised().saturating_sub(self.settled),
            Some(_) => Credits::ZERO,
        }
    }

    /// Promised, not settled, and refused for good.
    #[must_use]
    pub const fn lost(&self) -> Credits {
        match self.refused {
            None => Credits::ZERO,
            Some(_) => self.promised().saturating_sub(self.settled),
        }
    }
}

/// All channels that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoucherBook {
    channels: BTreeMap<ChannelId, KeptChannel>,
}

impl VoucherBook {
    /// Takes a record over. Returns whether it changed anything: repeated and outdated records do not.
    pub fn apply(&mut self, record: &VoucherRecord) -> bool {
        match record {
            VoucherRecord::Kept { voucher, terms } => self.keep(voucher, *terms),
            VoucherRecord::Settled { channel, settled } => {
                self.channels.get_mut(channel).is_some_and(|kept| {
                    let grows = *settled > kept.settled;
                    kept.settled = kept.settled.max(*settled);
                    grows
                })
            }
            VoucherRecord::Refused { channel, reason } => {
                self.channels.get_mut(channel).is_some_and(|kept| {
                    let first = kept.refused.is_none();
                    kept.refused.get_or_insert_with(|| reason.clone());
                    first
                })
            }
        }
    }

    fn keep(&mut self, voucher: &Signed<Voucher>, terms: ChannelTerms) -> bool {
        let content = voucher.content_unchecked();
        match self.channels.get_mut(&content.channel) {
            Some(kept) if content.cumulative <= kept.promised() => false,
            Some(kept) => {
                kept.voucher = voucher.clone();
                true
            }
            None => {
                let kept = KeptChannel {
                    voucher: voucher.clone(),
                    terms,
                    settled: Credits::ZERO,
                    refused: None,
                };
                self.channels.insert(content.channel, kept);
                true
            }
        }
    }

    /// Forgets channels that have ended long ago and have no open claims.
    pub fn forget_ended(&mut self, now_ms: u64) {
        self.channels.retain(|_, kept| {
            let forget_at = kept.terms.redeem_by_ms.saturating_add(REMEMBER_AFTER_END_MS);
            now_ms < forget_at || !kept.pending().is_zero()
        });
    }

    /// The records that give this book again, and nothing else.
    pub fn records(&self) -> impl Iterator<Item = VoucherRecord> + '_ {
        self.channels.iter().flat_map(|(channel, kept)| {
            let channel = *channel;
            let voucher = VoucherRecord::Kept {
                voucher: Box::new(kept.voucher.clone()),
                terms: kept.terms,
            };
            let settled = (!kept.settled.is_zero()).then_some(VoucherRecord::Settled {
                channel,
                settled: kept.settled,
            });
            let refused = kept
                .refused
                .clone()
                .map(|reason| VoucherRecord::Refused { channel, reason });
            [Some(voucher), settled, refused].into_iter().flatten()
        })
    }

    /// One channel.
    #[must_use]
    pub fn channel(&self, channel: &ChannelId) -> Option<&KeptChannel> {
        self.channels.get(channel)
    }

    /// All channels, by name.
    pub fn channels(&self) -> impl Iterator<Item = (&ChannelId, &KeptChannel)> {
        self.channels.iter()
    }

    /// How many channels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::job::RequestId;
    use proptest::prelude::*;

    pub(crate) fn kept(channel: u8, cumulative: u32, redeem_by_ms: u64) -> VoucherRecord {
        let consumer = Keypair::from_secret(&[2; 32]);
        let terms = ChannelTerms {
            coordinator: Keypair::from_secret(&[1; 32]).account(),
            consumer: consumer.account(),
            redeem_by_ms,
            fee_basis_points: 200,
        };
        let voucher = consumer.sign(Voucher {
            channel: ChannelId::from_bytes([channel; 16]),
            cumulative: Credits::micro(cumulative),
            request_id: RequestId::from_random([9; 16]),
            transcript: [0; 32],
        });
        VoucherRecord::Kept {
            voucher: Box::new(voucher),
            terms,
        }
    }

    pub(crate) fn settled(channel: u8, amount: u32) -> VoucherRecord {
        VoucherRecord::Settled {
            channel: ChannelId::from_bytes([channel; 16]),
            settled: Credits::micro(amount),
        }
    }

    pub(crate) fn refused(channel: u8) -> VoucherRecord {
        VoucherRecord::Refused {
            channel: ChannelId::from_bytes([channel; 16]),
            reason: "closed".into(),
        }
    }

    fn replay(records: impl IntoIterator<Item = VoucherRecord>) -> VoucherBook {
        let mut book = VoucherBook::default();
        records.into_iter().for_each(|record| {
            book.apply(&record);
        });
        book
    }

    #[test]
    fn only_the_highest_voucher_counts() {
        let mut book = VoucherBook::default();
        assert!(book.apply(&kept(1, 50, 0)));
        assert!(!book.apply(&kept(1, 50, 0)) && !book.apply(&kept(1, 40, 0)));
        assert!(book.apply(&settled(1, 30)) && !book.apply(&settled(1, 20)));
        let channel = book.channel(&ChannelId::from_bytes([1; 16])).unwrap();
        assert_eq!(
            (channel.promised(), channel.pending()),
            (Credits::micro(50), Credits::micro(20))
        );
        assert!(
            !book.apply(&settled(2, 5)) && !book.apply(&refused(2)),
            "unknown channels stay unknown"
        );
    }

    #[test]
    fn refused_claims_are_lost_not_pending() {
        let book = replay([kept(1, 50, 0), settled(1, 30), refused(1)]);
        let channel = book.channel(&ChannelId::from_bytes([1; 16])).unwrap();
        assert_eq!(
            (channel.pending(), channel.lost()),
            (Credits::ZERO, Credits::micro(20))
        );
    }

    #[test]
    fn channels_with_open_claims_are_never_forgotten() {
        let mut book = replay([
            kept(1, 50, 1_000),
            kept(2, 50, 1_000),
            settled(2, 50),
            kept(3, 50, 1_000),
            refused(3),
        ]);
        book.forget_ended(1_000 + REMEMBER_AFTER_END_MS - 1);
        assert_eq!(book.len(), 3);
        book.forget_ended(1_000 + REMEMBER_AFTER_END_MS);
        assert_eq!(
            book.channels().map(|(id, _)| *id).collect::<Vec<_>>(),
            [ChannelId::from_bytes([1; 16])]
        );
    }

    fn any_record() -> impl Strategy<Value = VoucherRecord> {
        prop_oneof![
            (0u8..4, 1u32..100).prop_map(|(channel, cumulative)| kept(channel, cumulative, 7)),
            (0u8..4, 1u32..100).prop_map(|(channel, amount)| settled(channel, amount)),
            (0u8..4).prop_map(refused),
        ]
    }

    proptest! {
        #[test]
        fn its_records_give_the_same_book_again(records in proptest::collection::vec(any_record(), 0..40)) {
            let book = replay(records);
            prop_assert_eq!(replay(book.records()), book);
        }

        #[test]
        fn records_sent_twice_change_nothing(records in proptest::collection::vec(any_record(), 0..40)) {
            let mut book = replay(records.clone());
            let before = book.clone();
            for record in &records {
                if !matches!(record, VoucherRecord::Settled { .. } | VoucherRecord::Refused { .. }) {
                    prop_assert!(!book.apply(record));
                }
            }
            prop_assert_eq!(book, before);
        }
    }
}
