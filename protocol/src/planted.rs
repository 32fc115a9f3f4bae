//! Errors that can be planted into the rules of this crate and of the ledger, to see the simulator find them.
//!
//! Each is of a kind that happens: a comparison left out, something counted twice, a bound off by one. They exist
//! only with the feature `planted-bugs`, which nothing but the test of the simulator turns on. Without it [`is`] is
//! constantly false, and what stands behind it is not compiled in.

#[cfg(feature = "planted-bugs")]
mod switch;

#[cfg(feature = "planted-bugs")]
pub use switch::{Planted, is, plant};

/// Whether this error is planted. It is not: this program was built without the feature `planted-bugs`.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

macro_rules! bugs {
    ($($(#[doc = $sentence:literal])+ $name:ident,)+) => {
        /// An error that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $sentence])+ $name,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What is wrong with it planted.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($sentence),+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// A provider takes a voucher over less than it has, and forgets the higher one.
    OlderVoucherTaken,
    /// A provider extends a part of the credit window more than the whole of it.
    WindowTooWide,
    /// A provider delivers more than the channel's limit.
    ChannelLimitIgnored,
    /// A provider counts what it delivered of a cancelled job a second time.
    CancelledOutputCountedTwice,
    /// A voucher that lets a provider go on does not wake it.
    VoucherWakesNobody,
    /// A provider's session does not end, and keeps its slot.
    SessionNeverEnds,
    /// A consumer pays for a part of the window as soon as its job is accepted.
    PaidBeforeOutput,
    /// A consumer sends its next voucher only when it owes two windows.
    VoucherTooLate,
    /// A consumer pays for tokens that there cannot be in so much text.
    MeterNotChecked,
    /// A consumer's channel keeps what was set aside for a job when the job has ended.
    ReservationKept,
    /// A board takes a listing that is older than the one it has.
    StaleListingTaken,
    /// A board takes listings of a provider as fast as they come.
    ListingIntervalIgnored,
    /// A listing stays on the board when its time is over.
    ListingNeverExpires,
    /// A listing is taken for its provider's whoever signed it.
    ForgedListingTaken,
    /// A circuit breaker that opened once never lets anything through again.
    BreakerStaysOpen,
    /// A provider that was tried for a request is asked again for the same one.
    TriedProviderAskedAgain,
    /// Of all who offer a model, only the cheapest one is ever looked at.
    OnlyCheapestLookedAt,
    /// A client waits a day before it asks everybody once more.
    RetryWaitsADay,
    /// A client asks nobody once more, and tells the program at once.
    NeverRetried,
    /// The ledger adds vouchers up instead of taking the highest: one that comes again is paid again.
    VouchersAddedUp,
    /// The ledger pays vouchers above the channel's limit.
    SettledAboveLimit,
    /// The ledger rounds its fee at each settlement and not once over all.
    FeeRoundedEachTime,
    /// The ledger pays the provider in full, and its fee out of nothing.
    FeeFromNothing,
    /// The ledger gives an account a starter grant each time it asks under a new name.
    StarterGrantedAgain,
    /// The ledger gives starter grants beyond the budget of the day.
    StarterBudgetIgnored,
    /// The ledger lets channels expire an hour early.
    ExpiredTooEarly,
    /// The ledger does not add the coordinator's downtime to the time in which channels can be redeemed.
    DowntimeForgotten,
    /// The ledger returns the rest of a channel's hold again when the channel is closed again.
    HoldReturnedAgain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_sentence_of_its_own() {
        let sentences: std::collections::BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.sentence()).collect();
        assert_eq!(sentences.len(), Bug::ALL.len());
        assert!(
            sentences
                .iter()
                .all(|sentence| sentence.ends_with('.') && !sentence.starts_with(' '))
        );
        assert!(
            Bug::ALL.iter().all(|bug| !is(*bug)),
            "nothing is planted unless somebody does"
        );
    }
}
