//! A rate: so many at once, and so many more each second.

const MILLI: u64 = 1_000;

/// Tokens that come back over time. Times are of any clock in milliseconds; one that goes back gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenBucket {
    /// Thousandths of tokens.
    left: u64,
    most: u64,
    per_second: u64,
    counted_at_ms: u64,
}

impl TokenBucket {
    /// A bucket that holds so many tokens and has all of them, with so many coming back each second.
    pub(super) fn full((most, per_second): (u32, u32)) -> Self {
        Self {
            left: u64::from(most) * MILLI,
            most: u64::from(most) * MILLI,
            per_second: per_second.into(),
            counted_at_ms: 0,
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        self.left = self.left_at(now_ms);
        self.counted_at_ms = self.counted_at_ms.max(now_ms);
        let rest = self.left.checked_sub(MILLI);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    /// Whether all tokens are back.
    pub(super) fn is_full(&self, now_ms: u64) -> bool {
        self.left_at(now_ms) == self.most
    }

    fn left_at(&self, now_ms: u64) -> u64 {
        // One per second is a thousandth per millisecond.
        let come_back = now_ms
            .saturating_sub(self.counted_at_ms)
            .saturating_mul(self.per_second);
        self.left.saturating_add(come_back).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_so_many_more_each_second() {
        let mut bucket = TokenBucket::full((3, 2));
        let taken = |bucket: &mut TokenBucket, now_ms| (0..10).filter(|_| bucket.take(now_ms)).count();
        assert_eq!(taken(&mut bucket, 5_000), 3);
        assert_eq!(taken(&mut bucket, 5_499), 0);
        assert_eq!(taken(&mut bucket, 5_500), 1);
        assert_eq!(
            taken(&mut bucket, 4_000),
            0,
            "a clock that went back gives nothing"
        );
        assert!(!bucket.is_full(6_999));
        assert!(bucket.is_full(7_000));
        assert_eq!(taken(&mut bucket, 60_000), 3, "never more than its most");
    }
}
