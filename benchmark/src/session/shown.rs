//! What a measured time shows, in integers.

use gristmill_protocol::hardware::{HardwareKind, Precision};

use super::policy::Policy;

/// How much of a measured time is put down to the way to and fro: the quickest echo, but at most
/// [`Policy::credit_max_ms`] and a tenth of the time, because whoever wants more can delay its echoes.
#[must_use]
pub fn credit_ms(policy: &Policy, quickest_echo_ms: u64, elapsed_ms: u64) -> u64 {
    quickest_echo_ms.min(policy.credit_max_ms).min(elapsed_ms / 10)
}

/// By when work has to be done that is claimed at a rate: a quarter more than it would take, and the way to and fro.
#[must_use]
pub fn deadline_ms(policy: &Policy, multiply_adds: u128, claimed_rate: u64, quickest_echo_ms: u64) -> u64 {
    let at_claimed = multiply_adds
        .saturating_mul(1_000 * 5)
        .div_ceil(u128::from(claimed_rate.max(1)) * 4);
    let at_claimed = u64::try_from(at_claimed).unwrap_or(u64::MAX);
    at_claimed.saturating_add(quickest_echo_ms.min(policy.credit_max_ms))
}

/// The rate that was reached, in multiply-adds per second.
#[must_use]
pub fn rate_shown(multiply_adds: u128, elapsed_ms: u64, credit_ms: u64) -> u64 {
    let counted_ms = elapsed_ms.saturating_sub(credit_ms).max(1);
    let rate = multiply_adds.saturating_mul(1_000) / u128::from(counted_ms);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// How many times as fast as shown in a precision a device of this kind may compute the same integers, by units that it did not
/// show. The table with its sources is in `docs/PROOF.md`, why these numbers in
/// `docs/decisions/0016-hardware-certificates.md`.
const fn hidden_speed(kind: HardwareKind, shown: Precision) -> u64 {
    match (kind, shown) {
        // Everything that a GPU of NVIDIA has for inference was shown, but int8 and FP8.
        (HardwareKind::Cuda, Precision::Bf16) => 1,
        (HardwareKind::Cuda, Precision::Tf32) => 8,
        (HardwareKind::Cuda, Precision::F32) => 64,
        (HardwareKind::Metal | HardwareKind::Cpu, _) => 2,
    }
}

/// The fastest that a device may compute, in multiply-adds per second: the best rate that it has shown, times what it may hide.
/// That depends on the precision of its fastest units, which is one that reaches three quarters of the best at least:
/// two that are equally fast change places from one challenge to the next.
#[must_use]
pub fn fastest_rate(kind: HardwareKind, shown: impl Iterator<Item = (Precision, u64)> + Clone) -> u64 {
    let Some(best) = shown.clone().map(|(_, rate)| rate).max() else {
        return u64::MAX;
    };
    let reaches = |rate: u64| u128::from(rate) * 4 >= u128::from(best) * 3;
    let hidden = shown
        .filter(|(_, rate)| reaches(*rate))
        .map(|(precision, _)| hidden_speed(kind, precision));
    best.saturating_mul(hidden.min().unwrap_or(1))
}

/// The memory that was shown by folding what stayed in it, after what could have been computed anew meanwhile is
/// taken off.
///
/// `fastest_rate` is what the function of this name says. A quarter is added to it, because the timed rounds spend some of their time outside of the
/// multiplication. `multiply_adds` is what all of it cost to compute.
#[must_use]
pub fn memory_shown(resident_bytes: u64, multiply_adds: u128, fastest_rate: u64, counted_ms: u64) -> u64 {
    let anew = u128::from(fastest_rate).saturating_mul(u128::from(counted_ms)) / 1_000;
    let anew = anew.saturating_add(anew / 4);
    let kept = multiply_adds.saturating_sub(anew);
    // Both factors are far below 2^64: 8,192 results of dimension 16,384 are 2^55 multiply-adds and 2^42 bytes.
    let shown = u128::from(resident_bytes).saturating_mul(kept) / multiply_adds.max(1);
    u64::try_from(shown).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_credit_is_capped_both_ways() {
        let policy = Policy::default();
        assert_eq!(credit_ms(&policy, 20, 3_000), 20);
        assert_eq!(credit_ms(&policy, 900, 30_000), 250);
        assert_eq!(credit_ms(&policy, 200, 1_000), 100);
    }

    #[test]
    fn the_deadline_is_a_quarter_more_and_one_millisecond_counts() {
        let policy = Policy::default();
        assert_eq!(deadline_ms(&policy, 8_000, 1_000, 0), 10_000);
        assert_eq!(deadline_ms(&policy, 8_001, 1_000, 0), 10_002);
        assert_eq!(deadline_ms(&policy, 8_000, 1_000, 7), 10_007);
        assert_eq!(deadline_ms(&policy, 8_000, 1_000, 70_000), 10_250);
        assert_eq!(deadline_ms(&policy, u128::MAX, 1, 0), u64::MAX);
    }

    #[test]
    fn memory_is_what_could_not_have_been_computed_anew() {
        assert_eq!(memory_shown(1_000, 100_000, 10_000, 0), 1_000);
        // Two seconds at 10,000 and a quarter: 25,000 of 100,000.
        assert_eq!(memory_shown(1_000, 100_000, 10_000, 2_000), 750);
        assert_eq!(memory_shown(1_000, 100_000, 10_000, 8_000), 0);
        assert_eq!(memory_shown(1_000, 0, 10_000, 8_000), 0);
    }

    /// What a device shows that holds a part of what is asked for and computes the rest anew, `hidden` times as fast as
    /// the best that it showed: in percent, of the 100 that are asked for.
    fn shown_percent(kind: HardwareKind, fastest: Precision, holds_percent: u64, hidden: u64) -> u64 {
        let (asked_bytes, rate, work) = (100, 1_000_000, 100_000_000_u64);
        let anew = work / 100 * (100 - holds_percent);
        let counted_ms = (anew * 1_000).div_ceil(rate * hidden);
        memory_shown(
            asked_bytes,
            work.into(),
            rate * hidden_speed(kind, fastest),
            counted_ms,
        )
    }

    #[test]
    fn who_hides_a_faster_way_within_the_table_gains_no_memory() {
        for (kind, fastest, hidden) in [
            (HardwareKind::Cuda, Precision::F32, 64),
            (HardwareKind::Cuda, Precision::Tf32, 8),
            (HardwareKind::Cuda, Precision::Bf16, 1),
            (HardwareKind::Metal, Precision::F32, 2),
            (HardwareKind::Cpu, Precision::F32, 2),
        ] {
            for holds_percent in [0, 10, 50, 90, 99] {
                let shown = shown_percent(kind, fastest, holds_percent, hidden);
                assert!(
                    shown <= holds_percent,
                    "{kind} {fastest}: {shown} of {holds_percent}"
                );
            }
        }
    }

    #[test]
    fn what_may_be_hidden_depends_on_the_fastest_units_that_were_shown() {
        let of = |rates: &[(Precision, u64)]| fastest_rate(HardwareKind::Cuda, rates.iter().copied());
        assert_eq!(of(&[(Precision::F32, 100)]), 6_400);
        assert_eq!(of(&[(Precision::F32, 100), (Precision::Tf32, 100)]), 800);
        assert_eq!(of(&[(Precision::Bf16, 300), (Precision::F32, 100)]), 300);
        assert_eq!(of(&[(Precision::Bf16, 75), (Precision::F32, 100)]), 100);
        assert_eq!(
            of(&[(Precision::Bf16, 74), (Precision::F32, 100)]),
            6_400,
            "named, not shown"
        );
        assert_eq!(of(&[]), u64::MAX);
        assert_eq!(of(&[(Precision::F32, u64::MAX)]), u64::MAX);
    }

    /// The numbers that `docs/PROOF.md` names as what is left.
    #[test]
    fn what_a_way_beyond_the_table_gains_is_as_the_documents_say() {
        let of = |holds, hidden| shown_percent(HardwareKind::Cuda, Precision::Bf16, holds, hidden);
        assert_eq!((of(50, 2), of(20, 2), of(19, 2)), (68, 50, 49));
        assert_eq!((of(50, 4), of(0, 4)), (84, 68));
    }

    proptest! {
        #[test]
        fn longer_shows_less(work in 1u128..1 << 60, ms in 1u64..1 << 40, more in 0u64..1 << 40, rate in 1u64..1 << 56) {
            prop_assert!(rate_shown(work, ms + more, 0) <= rate_shown(work, ms, 0));
            prop_assert!(memory_shown(1 << 40, work, rate, ms + more) <= memory_shown(1 << 40, work, rate, ms));
            prop_assert!(memory_shown(1 << 40, work, rate, ms) <= 1 << 40);
        }

        #[test]
        fn whoever_is_in_time_is_at_most_a_quarter_slower(work in 1u128..1 << 60, rate in 1u64..1 << 50, echo in 0u64..1_000) {
            let policy = Policy::default();
            let deadline = deadline_ms(&policy, work, rate, echo);
            prop_assume!(deadline > 10_000);
            let shown = rate_shown(work, deadline, credit_ms(&policy, echo, deadline));
            // One more for the millisecond that the deadline is rounded up by.
            prop_assert!(u128::from(shown + 1) * 5 * 1_001 >= u128::from(rate) * 4 * 1_000, "{shown} {rate}");
        }
    }
}
