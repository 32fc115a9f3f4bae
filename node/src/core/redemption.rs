//! Which vouchers to hand in, and when: in batches, before their channels end, and with patience for a coordinator
//! that is away.

use gristmill_protocol::coordinator_api::VOUCHERS_PER_CALL_MAX;
use gristmill_protocol::identity::{AccountId, Signed};
use gristmill_protocol::voucher::Voucher;

use crate::core::voucher_book::{KeptChannel, VoucherBook};

/// How long before its end a channel's voucher is handed in whatever the interval says.
pub const URGENT_BEFORE_END_MS: u64 = 20_000;
/// The first wait after a failed hand-in; doubles with each.
pub const BACK_OFF_MS: u64 = 1_000;
/// The longest wait after a failed hand-in.
pub const BACK_OFF_MAX_MS: u64 = 60_000;

/// Decides when vouchers are handed in.
#[derive(Clone, Debug)]
pub struct RedemptionPlan {
    interval_ms: u64,
    next_ms: u64,
    failures: u32,
}

impl RedemptionPlan {
    /// A plan that hands in every `interval_ms`, beginning one interval from now.
    #[must_use]
    pub const fn new(interval_ms: u64, now_ms: u64) -> Self {
        Self {
            interval_ms,
            next_ms: now_ms.saturating_add(interval_ms),
            failures: 0,
        }
    }

    /// When to look next, Unix milliseconds; `None` while nothing is pending.
    #[must_use]
    pub fn wake_ms(&self, book: &VoucherBook, coordinator: &AccountId) -> Option<u64> {
        let ends = pending(book, coordinator)
            .map(|kept| kept.terms.redeem_by_ms)
            .min()?;
        let urgent = ends.saturating_sub(URGENT_BEFORE_END_MS);
        Some(if self.failures > 0 {
            self.next_ms
        } else {
            self.next_ms.min(urgent)
        })
    }

    /// Notes that a hand-in went through.
    pub const fn succeeded(&mut self, now_ms: u64) {
        self.failures = 0;
        self.next_ms = now_ms.saturating_add(self.interval_ms);
    }

    /// Notes that a hand-in failed as a whole. `jitter` spreads nodes that lost the coordinator together.
    pub fn failed(&mut self, now_ms: u64, jitter: u16) {
        let doubled = BACK_OFF_MS.saturating_mul(1 << self.failures.min(16));
        let wait = doubled.min(BACK_OFF_MAX_MS);
        let spread = wait * u64::from(jitter) / u64::from(u16::MAX) / 2;
        self.failures = self.failures.saturating_add(1);
        self.next_ms = now_ms.saturating_add(wait).saturating_add(spread);
    }
}

/// The vouchers of one hand-in: those of channels that end first, first.
#[must_use]
pub fn batch(book: &VoucherBook, coordinator: &AccountId) -> Vec<Signed<Voucher>> {
    let mut kept: Vec<_> = pending(book, coordinator).collect();
    kept.sort_by_key(|kept| kept.terms.redeem_by_ms);
    kept.into_iter()
        .take(VOUCHERS_PER_CALL_MAX)
        .map(|kept| kept.voucher.clone())
        .collect()
}

/// Channels of this coordinator with something to hand in. What another coordinator promised is its affair.
fn pending<'book>(
    book: &'book VoucherBook,
    coordinator: &'book AccountId,
) -> impl Iterator<Item = &'book KeptChannel> {
    book.channels()
        .map(|(_, kept)| kept)
        .filter(move |kept| kept.terms.coordinator == *coordinator && !kept.pending().is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::voucher_book::tests::{kept, refused, settled};
    use gristmill_protocol::identity::Keypair;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn coordinator() -> AccountId {
        Keypair::from_secret(&[1; 32]).account()
    }

    fn book(records: impl IntoIterator<Item = crate::core::voucher_book::VoucherRecord>) -> VoucherBook {
        let mut book = VoucherBook::default();
        for record in records {
            book.apply(&record);
        }
        book
    }

    #[test]
    fn only_open_claims_on_this_coordinator_are_handed_in_the_most_urgent_first() {
        let all = [
            kept(1, 10, NOW + 900),
            kept(2, 10, NOW + 100),
            kept(3, 10, NOW + 500),
            kept(4, 10, NOW),
            kept(5, 10, NOW),
            settled(1, 9),
            settled(4, 10),
            refused(5),
        ];
        let channels: Vec<_> = batch(&book(all), &coordinator())
            .iter()
            .map(|voucher| voucher.content_unchecked().channel.bytes()[0])
            .collect();
        assert_eq!(channels, [2, 3, 1]);
        let other = Keypair::from_secret(&[7; 32]).account();
        assert!(batch(&book([kept(1, 10, NOW)]), &other).is_empty());
    }

    #[test]
    fn a_call_takes_so_many_and_no_more() {
        let mut book = VoucherBook::default();
        for number in 0..=u16::try_from(VOUCHERS_PER_CALL_MAX).unwrap() {
            let (high, low) = ((number >> 8) as u8, (number & 255) as u8);
            let mut bytes = [0; 16];
            (bytes[0], bytes[1]) = (high, low);
            let crate::core::voucher_book::VoucherRecord::Kept { voucher, terms } = kept(0, 10, NOW) else {
                panic!("kept() makes a kept voucher");
            };
            let content = Voucher {
                channel: gristmill_protocol::ids::ChannelId::from_bytes(bytes),
                ..voucher.content_unchecked().clone()
            };
            let voucher = Keypair::from_secret(&[2; 32]).sign(content);
            book.apply(&crate::core::voucher_book::VoucherRecord::Kept {
                voucher: Box::new(voucher),
                terms,
            });
        }
        assert_eq!(book.len(), VOUCHERS_PER_CALL_MAX + 1);
        assert_eq!(batch(&book, &coordinator()).len(), VOUCHERS_PER_CALL_MAX);
    }

    #[test]
    fn a_channel_that_ends_soon_does_not_wait_for_the_interval() {
        let plan = RedemptionPlan::new(30_000, NOW);
        assert_eq!(plan.wake_ms(&VoucherBook::default(), &coordinator()), None);
        let calm = book([kept(1, 10, NOW + 3_600_000)]);
        assert_eq!(plan.wake_ms(&calm, &coordinator()), Some(NOW + 30_000));
        let urgent = book([kept(1, 10, NOW + 25_000)]);
        assert_eq!(plan.wake_ms(&urgent, &coordinator()), Some(NOW + 5_000));
    }

    #[test]
    fn failures_are_waited_out_longer_and_longer_even_where_it_is_urgent() {
        let mut plan = RedemptionPlan::new(30_000, NOW);
        let urgent = book([kept(1, 10, NOW)]);
        let mut waits = Vec::new();
        for _ in 0..8 {
            plan.failed(NOW, 0);
            waits.push(plan.wake_ms(&urgent, &coordinator()).unwrap() - NOW);
        }
        assert_eq!(
            waits,
            [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
        plan.failed(NOW, u16::MAX);
        assert_eq!(plan.wake_ms(&urgent, &coordinator()), Some(NOW + 90_000));
        plan.succeeded(NOW);
        assert_eq!(
            plan.wake_ms(&book([kept(1, 10, u64::MAX)]), &coordinator()),
            Some(NOW + 30_000)
        );
    }

    proptest! {
        /// Whatever fails in between, everything pending is handed in some day and the waits stay bounded.
        #[test]
        fn waits_are_bounded(outcomes in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..200)) {
            let (mut plan, mut now) = (RedemptionPlan::new(30_000, NOW), NOW);
            let book = book([kept(1, 10, u64::MAX)]);
            for (good, jitter) in outcomes {
                let wake = plan.wake_ms(&book, &coordinator()).unwrap();
                prop_assert!(wake >= now && wake - now <= BACK_OFF_MAX_MS * 3 / 2);
                now = wake;
                if good { plan.succeeded(now) } else { plan.failed(now, jitter) }
            }
        }
    }
}
