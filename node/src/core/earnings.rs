//! What a node has earned, from its receipts and its vouchers: book-keeping for its owner.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use gristmill_protocol::civil_date::CivilDate;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::tokens::ReceiptClaims;
use serde::Serialize;

use crate::core::voucher_book::VoucherBook;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// A verified receipt: the coordinator's proof, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KeptReceipt {
    /// The number of the settlement in the coordinator's journal.
    pub sequence: u64,
    /// When it was settled, Unix seconds.
    pub settled_at: u64,
    /// Who settled.
    pub coordinator: AccountId,
    /// The channel that paid.
    pub channel: ChannelId,
    /// Who paid.
    pub consumer: AccountId,
    /// What the consumer paid, in microcredits.
    pub paid: Credits,
    /// The part of it that went to the coordinator, in microcredits.
    pub fee: Credits,
    /// Everything settled on the channel so far, in microcredits.
    pub settled: Credits,
    /// The receipt itself, a compact JWS of type `gristmill-receipt+jwt`.
    pub token: String,
}

impl KeptReceipt {
    /// What a receipt that was verified says.
    #[must_use]
    pub fn new(claims: &ReceiptClaims, token: String) -> Self {
        Self {
            sequence: claims.sequence,
            settled_at: claims.iat,
            coordinator: claims.iss,
            channel: claims.channel,
            consumer: claims.consumer,
            paid: claims.paid,
            fee: claims.fee,
            settled: claims.settled,
            token,
        }
    }
}

/// What came in, over some receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Income {
    /// What was earned: paid by consumers, less the coordinator's fee. In microcredits.
    pub earned: Credits,
    /// The coordinator's fee, in microcredits.
    pub fee: Credits,
    /// Over how many receipts.
    pub receipts: u64,
}

impl Income {
    fn add(&mut self, receipt: &KeptReceipt) {
        self.earned = self
            .earned
            .saturating_add(receipt.paid.saturating_sub(receipt.fee));
        self.fee = self.fee.saturating_add(receipt.fee);
        self.receipts += 1;
    }
}

/// Everything that was settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earnings {
    total: Income,
    by_day: BTreeMap<String, Income>,
    by_channel: BTreeMap<ChannelId, (AccountId, Income, Credits)>,
    seen: BTreeSet<(AccountId, u64)>,
}

impl Earnings {
    /// Counts a receipt once. Returns whether it was new.
    pub fn add(&mut self, receipt: &KeptReceipt) -> bool {
        if !self.seen.insert((receipt.coordinator, receipt.sequence)) {
            return false;
        }
        self.total.add(receipt);
        self.by_day
            .entry(utc_date(receipt.settled_at))
            .or_default()
            .add(receipt);
        let (_, income, settled) = self.by_channel.entry(receipt.channel).or_insert((
            receipt.consumer,
            Income::default(),
            Credits::ZERO,
        ));
        income.add(receipt);
        *settled = (*settled).max(receipt.settled);
        true
    }

    /// Whether a settlement's receipt is here.
    #[must_use]
    pub fn has(&self, coordinator: &AccountId, sequence: u64) -> bool {
        self.seen.contains(&(*coordinator, sequence))
    }

    /// What the receipts of a channel say that was settled on it: less than the coordinator says where one is
    /// missing.
    #[must_use]
    pub fn receipted(&self, channel: &ChannelId) -> Credits {
        self.by_channel
            .get(channel)
            .map_or(Credits::ZERO, |(_, income, _)| {
                income.earned.saturating_add(income.fee)
            })
    }

    /// Everything in total.
    #[must_use]
    pub const fn total(&self) -> Income {
        self.total
    }

    /// The whole picture, with what is still to come.
    #[must_use]
    pub fn summary(&self, book: &VoucherBook) -> EarningsSummary {
        let mut channels: BTreeMap<ChannelId, ChannelEarnings> = self
            .by_channel
            .iter()
            .map(|(channel, (consumer, income, _))| {
                (
                    *channel,
                    ChannelEarnings {
                        income: *income,
                        ..ChannelEarnings::new(*channel, *consumer)
                    },
                )
            })
            .collect();
        for (channel, kept) in book.channels() {
            let earnings = channels
                .entry(*channel)
                .or_insert_with(|| ChannelEarnings::new(*channel, kept.terms.consumer));
            earnings.pending = kept.pending();
            earnings.lost = kept.lost();
            earnings.redeem_by_ms = Some(kept.terms.redeem_by_ms);
        }
        let sum = |amount: fn(&ChannelEarnings) -> Credits| {
            channels
                .values()
                .map(amount)
                .fold(Credits::ZERO, Credits::saturating_add)
        };
        EarningsSummary {
            total: self.total,
            pending: sum(|channel| channel.pending),
            lost: sum(|channel| channel.lost),
            days: self
                .by_day
                .iter()
                .map(|(date, income)| DayEarnings {
                    date: date.clone(),
                    income: *income,
                })
                .collect(),
            channels: channels.into_values().collect(),
        }
    }
}

/// What a node has earned and has still to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarningsSummary {
    /// What was settled.
    #[serde(flatten)]
    pub total: Income,
    /// Promised by vouchers and not settled yet, before the coordinator's fee. In microcredits.
    pub pending: Credits,
    /// Promised by vouchers that the coordinator refused for good. In microcredits.
    pub lost: Credits,
    /// By UTC day, earliest first.
    pub days: Vec<DayEarnings>,
    /// By channel.
    pub channels: Vec<ChannelEarnings>,
}

/// What came in on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DayEarnings {
    /// The UTC day, such as `2026-11-20`.
    pub date: String,
    /// What was settled.
    #[serde(flatten)]
    pub income: Income,
}

/// What came in on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelEarnings {
    /// The channel.
    pub channel: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// What was settled.
    #[serde(flatten)]
    pub income: Income,
    /// Promised and not settled yet, before the coordinator's fee. In microcredits.
    pub pending: Credits,
    /// Promised and refused for good. In microcredits.
    pub lost: Credits,
    /// Until when vouchers are settled, Unix milliseconds, where the node still remembers.
    pub redeem_by_ms: Option<u64>,
}

impl ChannelEarnings {
    fn new(channel: ChannelId, consumer: AccountId) -> Self {
        Self {
            channel,
            consumer,
            income: Income::default(),
            pending: Credits::ZERO,
            lost: Credits::ZERO,
            redeem_by_ms: None,
        }
    }
}

/// The UTC date of a Unix time in seconds, as ISO 8601 writes it.
#[must_use]
pub fn utc_date(unix_seconds: u64) -> String {
    CivilDate::of_day(unix_seconds / SECONDS_PER_DAY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::voucher_book::tests::{kept, refused, settled};
    use gristmill_protocol::identity::Keypair;
    use proptest::prelude::*;

    fn receipt(sequence: u64, channel: u8, paid: u32, day: u64) -> KeptReceipt {
        KeptReceipt {
            sequence,
            settled_at: day * SECONDS_PER_DAY,
            coordinator: Keypair::from_secret(&[1; 32]).account(),
            channel: ChannelId::from_bytes([channel; 16]),
            consumer: Keypair::from_secret(&[2; 32]).account(),
            paid: Credits::micro(paid),
            fee: Credits::micro(paid / 10),
            settled: Credits::micro(paid),
            token: String::new(),
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_800_000_000, "2027-01-15"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_799, "9999-12-31"),
        ] {
            assert_eq!(utc_date(seconds), date);
        }
    }

    #[test]
    fn a_receipt_counts_once() {
        let mut earnings = Earnings::default();
        assert!(earnings.add(&receipt(1, 1, 100, 0)) && !earnings.add(&receipt(1, 1, 100, 0)));
        assert_eq!(
            earnings.total(),
            Income {
                earned: Credits::micro(90),
                fee: Credits::micro(10),
                receipts: 1
            }
        );
        assert_eq!(
            earnings.receipted(&ChannelId::from_bytes([1; 16])),
            Credits::micro(100)
        );
    }

    #[test]
    fn the_summary_adds_what_is_still_to_come() {
        let mut earnings = Earnings::default();
        earnings.add(&receipt(1, 1, 100, 0));
        earnings.add(&receipt(2, 1, 50, 1));
        let mut book = VoucherBook::default();
        for record in [
            kept(1, 170, 9),
            settled(1, 150),
            kept(2, 40, 9),
            kept(3, 7, 9),
            refused(3),
        ] {
            book.apply(&record);
        }
        let summary = earnings.summary(&book);
        assert_eq!(
            (summary.pending, summary.lost),
            (Credits::micro(60), Credits::micro(7))
        );
        assert_eq!(
            summary
                .days
                .iter()
                .map(|day| day.date.as_str())
                .collect::<Vec<_>>(),
            ["1970-01-01", "1970-01-02"]
        );
        assert_eq!(summary.channels.len(), 3);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["earned"], 135);
        assert_eq!(json["channels"][0]["pending"], 20);
    }

    proptest! {
        #[test]
        fn days_and_channels_add_up_to_the_total(
            receipts in proptest::collection::vec((0u64..30, 0u8..4, 0u32..1_000_000, 0u64..400), 0..60),
        ) {
            let mut earnings = Earnings::default();
            for (sequence, channel, paid, day) in receipts {
                earnings.add(&receipt(sequence, channel, paid, day));
            }
            let summary = earnings.summary(&VoucherBook::default());
            let sum = |income: Vec<Income>| income.iter().fold((Credits::ZERO, Credits::ZERO, 0), |sum, part| {
                (sum.0.saturating_add(part.earned), sum.1.saturating_add(part.fee), sum.2 + part.receipts)
            });
            let total = (summary.total.earned, summary.total.fee, summary.total.receipts);
            prop_assert_eq!(sum(summary.days.iter().map(|day| day.income).collect()), total);
            prop_assert_eq!(sum(summary.channels.iter().map(|channel| channel.income).collect()), total);
        }
    }
}
