//! Whole numbers that PostgreSQL's own integers are too small for, as `NUMERIC`: times and spans of 64 bits without
//! a sign, and the deadlines computed from them.

use std::error::Error;

use bytes::{Buf, BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// A whole number as `NUMERIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i128);

const BASE: u128 = 10_000;
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
/// Digits of the largest number that is read: what `i128` holds for certain.
const DIGITS_MAX: usize = 9;

impl From<u64> for Whole {
    fn from(number: u64) -> Self {
        Self(number.into())
    }
}

impl Whole {
    /// The number, if it is one of 64 bits without a sign.
    pub(super) fn unsigned(self) -> Result<u64, String> {
        u64::try_from(self.0).map_err(|_| format!("{} is no number of 64 bits", self.0))
    }
}

impl ToSql for Whole {
    fn to_sql(&self, _: &Type, buffer: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let mut digits = Vec::new();
        let mut rest = self.0.unsigned_abs();
        while rest > 0 {
            digits.push(u16::try_from(rest % BASE)?);
            rest /= BASE;
        }
        let weight = i16::try_from(digits.len())? - 1;
        buffer.put_i16(weight + 1);
        buffer.put_i16(weight.max(0));
        buffer.put_u16(if self.0 < 0 { NEGATIVE } else { POSITIVE });
        buffer.put_i16(0);
        digits.iter().rev().for_each(|digit| buffer.put_u16(*digit));
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Whole {
    fn from_sql(_: &Type, mut raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        if raw.len() < 8 {
            return Err("the number is cut off".into());
        }
        let count = usize::from(raw.get_u16());
        let weight = raw.get_i16();
        let sign = raw.get_u16();
        raw.get_u16();
        let whole_digits = usize::try_from(i32::from(weight) + 1).unwrap_or(0);
        if count > whole_digits || whole_digits > DIGITS_MAX || raw.len() != 2 * count {
            return Err("the number is not whole or too large".into());
        }
        let mut number = 0_i128;
        for position in 0..whole_digits {
            // Zeros at the end are left out.
            let digit = if position < count { raw.get_u16() } else { 0 };
            number = number * i128::from(u16::try_from(BASE)?) + i128::from(digit);
        }
        match sign {
            POSITIVE => Ok(Self(number)),
            NEGATIVE => Ok(Self(-number)),
            _ => Err("this is not a number".into()),
        }
    }

    accepts!(NUMERIC);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(number: i128) -> i128 {
        let mut bytes = BytesMut::new();
        Whole(number).to_sql(&Type::NUMERIC, &mut bytes).unwrap();
        Whole::from_sql(&Type::NUMERIC, &bytes).unwrap().0
    }

    #[test]
    fn edges_come_back() {
        for number in [0, 1, 9_999, 10_000, 10_001, 100_000_000] {
            assert_eq!(there_and_back(number), number);
            assert_eq!(there_and_back(-number), -number);
        }
        for number in [i128::from(u64::MAX), -i128::from(u64::MAX), i64::MIN.into()] {
            assert_eq!(there_and_back(number), number);
        }
    }

    proptest! {
        #[test]
        fn all_come_back(number: u64, negative: bool) {
            let number = if negative { -i128::from(number) } else { number.into() };
            prop_assert_eq!(there_and_back(number), number);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Whole::from_sql(&Type::NUMERIC, &bytes);
        }
    }
}
