//! The bytes of the index's files. Pure. All integers are little-endian.
//!
//! ```text
//! rows      slot 0       magic "GRSTINDX" | version u32 | salt u32 | zeros | crc32c u32            64 bytes
//!           slot n       segment u32 | offset u32 | bytes u24 | kind u8 | party u32 x 2
//!                        | (newest settlement u40 | newest other u40) x 2 | amount u56 x 2
//!                        | first 6 bytes of the record's hash | crc32c u32                         64 bytes
//! accounts  slot 0       magic "GRSTACCT" | version u32 | salt u32 | zeros | crc32c u32            40 bytes
//!           slot n       account 32 bytes | zeros | crc32c u32                                     40 bytes
//! ```
//!
//! Slot `n` of the rows is the entry with sequence `n`, slot `n` of the accounts the one that rows call `n`. A checksum
//! covers the slot before it and starts from the salt and the slot's number, so that neither a slot in a wrong place
//! nor one of an older index passes for one of this. A row never crosses the border of a disk's sector.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::hash::LogHash;

use crate::journal::Location;

/// Bytes of a slot of the rows.
pub(super) const ROW_BYTES: usize = 64;
/// Bytes of a slot of the accounts.
pub(super) const ACCOUNT_BYTES: usize = 40;
/// The version of both formats.
const VERSION: u32 = 1;
const ROWS_MAGIC: &[u8; 8] = b"GRSTINDX";
const ACCOUNTS_MAGIC: &[u8; 8] = b"GRSTACCT";
const CHECKSUM_BYTES: usize = 4;
const HASH_START_BYTES: usize = 6;
const SETTLEMENT: u8 = 1;
const OTHER: u8 = 0;

/// The newest entries of an account up to some point; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Newest {
    /// The newest payment that it made or received.
    pub(super) settlement: u64,
    /// The newest entry that is no payment.
    pub(super) other: u64,
}

/// An account that an entry concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party {
    /// Its slot; the first is 1.
    pub(super) number: u32,
    /// What concerned it before this entry.
    pub(super) before: Newest,
}

/// The first bytes of a record's hash: enough to tell a record from one that came to stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HashStart([u8; HASH_START_BYTES]);

/// What the index keeps of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Where its record is.
    pub(super) location: Location,
    /// The first bytes of its record's hash.
    pub(super) hash_start: HashStart,
    /// Whether it is a payment.
    pub(super) is_settlement: bool,
    /// Whom it concerns, in the order of the outcome.
    pub(super) parties: [Option<Party>; 2],
    /// What of its outcome is not in its record.
    pub(super) amounts: [Credits; 2],
}

impl Newest {
    /// The newer of both.
    pub(super) fn of_all(self) -> u64 {
        self.settlement.max(self.other)
    }

    /// As it is after an entry of this kind.
    pub(super) const fn followed_by(self, sequence: u64, is_settlement: bool) -> Self {
        let Self { settlement, other } = self;
        if is_settlement {
            Self {
                settlement: sequence,
                other,
            }
        } else {
            Self {
                settlement,
                other: sequence,
            }
        }
    }
}

impl HashStart {
    pub(super) fn of(hash: &LogHash) -> Self {
        Self(hash.bytes().first_chunk().copied().unwrap_or_default())
    }
}

impl Row {
    /// What it says about the account with this number, if it is a party.
    pub(super) fn party(&self, number: u32) -> Option<Party> {
        self.parties
            .iter()
            .flatten()
            .find(|party| party.number == number)
            .copied()
    }

    /// The row's bytes; `None` where a number is too large for its field.
    pub(super) fn encode(&self, salt: u32, sequence: u64) -> Option<[u8; ROW_BYTES]> {
        let mut slot = SlotWriter::new();
        slot.put(self.location.segment.into(), 4)?;
        slot.put(self.location.offset, 4)?;
        slot.put(self.location.bytes.into(), 3)?;
        slot.put(u64::from(if self.is_settlement { SETTLEMENT } else { OTHER }), 1)?;
        for party in &self.parties {
            slot.put(party.map_or(0, |party| party.number).into(), 4)?;
        }
        for party in &self.parties {
            let before = party.map(|party| party.before).unwrap_or_default();
            slot.put(before.settlement, 5)?;
            slot.put(before.other, 5)?;
        }
        for amount in self.amounts {
            slot.put(amount.microcredits(), 7)?;
        }
        slot.put_bytes(&self.hash_start.0);
        Some(slot.seal(salt, sequence))
    }

    /// Reads the row of this sequence; `None` where there is none, or a damaged one.
    pub(super) fn decode(bytes: &[u8; ROW_BYTES], salt: u32, sequence: u64) -> Option<Self> {
        let mut slot = SlotReader::open(bytes, salt, sequence)?;
        let location = Location {
            segment: slot.take_u32()?,
            offset: slot.take(4)?,
            bytes: u32::try_from(slot.take(3)?).ok()?,
        };
        let is_settlement = match u8::try_from(slot.take(1)?).ok()? {
            SETTLEMENT => true,
            OTHER => false,
            _ => return None,
        };
        let numbers = [slot.take_u32()?, slot.take_u32()?];
        let mut parties = [None; 2];
        for (party, number) in parties.iter_mut().zip(numbers) {
            let before = Newest {
                settlement: slot.take(5)?,
                other: slot.take(5)?,
            };
            *party = (number > 0).then_some(Party { number, before });
        }
        let amounts = [slot.take_credits()?, slot.take_credits()?];
        let hash_start = HashStart(slot.rest.first_chunk().copied()?);
        Some(Self {
            location,
            hash_start,
            is_settlement,
            parties,
            amounts,
        })
    }
}

/// The slot of an account.
pub(super) fn encode_account(account: &AccountId, salt: u32, number: u32) -> [u8; ACCOUNT_BYTES] {
    let mut slot = SlotWriter::new();
    slot.put_bytes(account.public_key());
    slot.seal(salt, number.into())
}

/// Reads the slot of the account with this number; `None` where there is none, or a damaged one.
pub(super) fn decode_account(bytes: &[u8; ACCOUNT_BYTES], salt: u32, number: u32) -> Option<AccountId> {
    let slot = SlotReader::open(bytes, salt, number.into())?;
    slot.rest.first_chunk().copied().map(AccountId::from_public_key)
}

/// Slot 0 of the rows.
pub(super) fn encode_rows_header(salt: u32) -> [u8; ROW_BYTES] {
    header(ROWS_MAGIC, salt)
}

/// The salt in slot 0 of the rows; `None` where it is damaged or of another version.
pub(super) fn decode_rows_header(bytes: &[u8; ROW_BYTES]) -> Option<u32> {
    salt_of(bytes).filter(|salt| *bytes == encode_rows_header(*salt))
}

/// Slot 0 of the accounts.
pub(super) fn encode_accounts_header(salt: u32) -> [u8; ACCOUNT_BYTES] {
    header(ACCOUNTS_MAGIC, salt)
}

fn header<const SLOT: usize>(magic: &[u8; 8], salt: u32) -> [u8; SLOT] {
    let mut slot = SlotWriter::new();
    slot.put_bytes(magic);
    slot.put_bytes(&VERSION.to_le_bytes());
    slot.put_bytes(&salt.to_le_bytes());
    slot.seal(salt, 0)
}

fn salt_of(header: &[u8]) -> Option<u32> {
    header
        .get(12..)
        .and_then(|rest| rest.first_chunk())
        .map(|salt| u32::from_le_bytes(*salt))
}

/// A slot that is being filled from its start.
struct SlotWriter<const SLOT: usize> {
    bytes: [u8; SLOT],
    used: usize,
}

impl<const SLOT: usize> SlotWriter<SLOT> {
    const fn new() -> Self {
        Self {
            bytes: [0; SLOT],
            used: 0,
        }
    }

    /// Puts a number into the next `width` bytes; `None` where it is too large for them.
    fn put(&mut self, number: u64, width: usize) -> Option<()> {
        let bytes = number.to_le_bytes();
        let (kept, cut) = bytes.split_at_checked(width)?;
        cut.iter().all(|byte| *byte == 0).then_some(())?;
        self.put_bytes(kept);
        Some(())
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    fn seal(mut self, salt: u32, number: u64) -> [u8; SLOT] {
        let (content, checksum_place) = self.bytes.split_at_mut(SLOT - CHECKSUM_BYTES);
        checksum_place.copy_from_slice(&checksum(salt, number, content).to_le_bytes());
        self.bytes
    }
}

/// What is still to be read of a slot whose checksum holds.
struct SlotReader<'slot> {
    rest: &'slot [u8],
}

impl<'slot> SlotReader<'slot> {
    fn open(bytes: &'slot [u8], salt: u32, number: u64) -> Option<Self> {
        let (rest, stored) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        (u32::from_le_bytes(*stored) == checksum(salt, number, rest)).then_some(Self { rest })
    }

    fn take(&mut self, width: usize) -> Option<u64> {
        let (taken, rest) = self.rest.split_at_checked(width)?;
        self.rest = rest;
        let mut number = [0; 8];
        number.get_mut(..width)?.copy_from_slice(taken);
        Some(u64::from_le_bytes(number))
    }

    fn take_u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|number| u32::try_from(number).ok())
    }

    fn take_credits(&mut self) -> Option<Credits> {
        self.take(7)
            .and_then(|microcredits| Credits::from_microcredits(microcredits).ok())
    }
}

fn checksum(salt: u32, number: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &number.to_le_bytes()), content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: u32 = 0x1234_5678;

    fn row() -> Row {
        Row {
            location: Location {
                segment: 3,
                offset: 0x0102_0304,
                bytes: 0x0001_0020,
            },
            hash_start: HashStart([9; HASH_START_BYTES]),
            is_settlement: true,
            parties: [
                Some(Party {
                    number: 7,
                    before: Newest {
                        settlement: 41,
                        other: 40,
                    },
                }),
                None,
            ],
            amounts: [Credits::micro(5), Credits::MAX],
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let bytes = row().encode(SALT, 42).unwrap();
        assert_eq!(
            hex::encode(&bytes[..60]),
            concat!(
                "03000000",
                "04030201",
                "200001",
                "01",
                "07000000",
                "00000000",
                "2900000000",
                "2800000000",
                "0000000000",
                "0000000000",
                "05000000000000",
                "ffffffffffff1f",
                "090909090909"
            )
        );
        assert_eq!(Row::decode(&bytes, SALT, 42), Some(row()));
        assert_eq!(
            hex::encode(&encode_rows_header(SALT)[..20]),
            "47525354494e44580100000078563412000000 00".replace(' ', "")
        );
    }

    #[test]
    fn every_flipped_bit_other_place_and_other_salt_is_noticed() {
        let bytes = row().encode(SALT, 42).unwrap();
        for bit in 0..ROW_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Row::decode(&damaged, SALT, 42), None, "bit {bit}");
        }
        assert_eq!(Row::decode(&bytes, SALT, 43), None);
        assert_eq!(Row::decode(&bytes, SALT + 1, 42), None);
        assert_eq!(Row::decode(&[0; ROW_BYTES], SALT, 42), None);

        let account = AccountId::from_public_key([3; 32]);
        let slot = encode_account(&account, SALT, 2);
        assert_eq!(decode_account(&slot, SALT, 2), Some(account));
        assert_eq!(decode_account(&slot, SALT, 3), None);
        let header = encode_rows_header(SALT);
        assert_eq!(decode_rows_header(&header), Some(SALT));
        for bit in 0..ROW_BYTES * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_rows_header(&damaged), None, "bit {bit} of the header");
            if bit < ACCOUNT_BYTES * 8 {
                let mut damaged = slot;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode_account(&damaged, SALT, 2), None, "bit {bit} of an account");
            }
        }
    }

    #[test]
    fn numbers_fit_their_fields_at_n_and_not_at_n_plus_1() {
        let with = |change: fn(&mut Row)| {
            let mut changed = row();
            change(&mut changed);
            changed.encode(SALT, 42).is_some()
        };
        assert!(with(|row| row.location.offset = u64::from(u32::MAX)));
        assert!(!with(|row| row.location.offset = u64::from(u32::MAX) + 1));
        assert!(with(|row| row.location.bytes = (1 << 24) - 1));
        assert!(!with(|row| row.location.bytes = 1 << 24));
        let newest = |other| {
            let before = Newest { settlement: 0, other };
            Some(Party { number: 1, before })
        };
        let mut changed = row();
        changed.parties[1] = newest((1 << 40) - 1);
        assert!(changed.encode(SALT, 42).is_some());
        changed.parties[1] = newest(1 << 40);
        assert!(changed.encode(SALT, 42).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: [u8; 32], number: u64) {
            let mut slot = [0; ROW_BYTES];
            slot[..32].copy_from_slice(&bytes);
            prop_assert!(Row::decode(&slot, SALT, number).is_none());
            prop_assert!(decode_rows_header(&slot).is_none());
            // With a checksum that holds, too.
            let mut writer = SlotWriter::<ROW_BYTES>::new();
            writer.put_bytes(&bytes);
            writer.put_bytes(&bytes[..28]);
            let _ = Row::decode(&writer.seal(SALT, number), SALT, number);
        }
    }
}
