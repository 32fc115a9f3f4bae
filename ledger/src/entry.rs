//! What may be written into the ledger. An entry is a request to the book; once journaled it is history.

use bincode::{Decode, Encode};
use gristmill_protocol::codec::{self, DecodeError};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::handover::SignedHandover;
use gristmill_protocol::identity::{AccountId, Signed};
use gristmill_protocol::ids::{ChannelId, EntryId, GrantId};
use gristmill_protocol::voucher::Voucher;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// Most bytes of the reason of a grant or a freeze.
pub const REASON_MAX_BYTES: usize = 1_024;
/// Most bytes of an encoded entry: room for the longest reason and everything else an entry holds.
pub const ENTRY_MAX_BYTES: usize = 4 * 1_024;
/// The whole, in basis points (1/10,000): no fee can be higher.
pub const BASIS_POINTS_MAX: u16 = 10_000;

/// Random bytes before the entry in its record.
pub type Salt = [u8; SALT_BYTES];
/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

/// One entry. The order of the variants is the journal's format: only ever add at the end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Entry {
    /// New credits for an account.
    Grant(Grant),
    /// Part of a consumer's credits is put aside for one provider.
    OpenChannel(OpenChannel),
    /// A voucher is paid out of a channel.
    Settle(Settle),
    /// A channel ends and what is left of it returns to its consumer.
    CloseChannel(CloseChannel),
    /// The coordinator is back after an interruption.
    Started(Started),
    /// An account opens no more channels, and none is opened for it.
    Freeze(Freeze),
    /// A frozen account is as others again.
    Unfreeze(Freeze),
    /// Another key signs for the coordinator from now on.
    RotateKey(Box<SignedHandover>),
}

/// New credits for an account: a transfer from issuance to available. Idempotent by `id`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// The grant's name: the same id never grants twice.
    pub id: GrantId,
    /// Who receives.
    pub account: AccountId,
    /// How much; not zero.
    pub amount: Credits,
    /// On whose account.
    pub kind: GrantKind,
    /// Why, for the operator's records; at most [`REASON_MAX_BYTES`].
    pub reason: String,
    /// Most that all starter grants of one UTC day may come to, in microcredits; without meaning for other grants.
    pub starter_daily_budget: Credits,
}

/// What a grant is given for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// So that a new account can try the market; an account gets at most one, ever.
    Starter,
    /// The operator's decision; any number.
    Operator,
}

/// A hold of `limit` for one provider: a transfer from available to held. Idempotent by `channel` and
/// `request_digest`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenChannel {
    /// The channel's name, drawn by the consumer.
    pub channel: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// Who can be paid.
    pub provider: AccountId,
    /// Most that can be paid; not zero.
    pub limit: Credits,
    /// The coordinator's share of what is paid, in 1/10,000; at most [`BASIS_POINTS_MAX`].
    pub fee_basis_points: u16,
    /// Until when the provider can redeem, Unix time in milliseconds, not counting later downtime.
    pub redeem_by_ms: u64,
    /// BLAKE3 of the consumer's request: tells a repeated request from another one under the same name.
    pub request_digest: [u8; 32],
}

/// Payment up to a voucher's cumulative amount: transfers from held to the provider and to fees.
///
/// The signed voucher itself is kept, so that an auditor can check that the consumer promised every payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settle {
    /// The channel that pays.
    pub channel: ChannelId,
    /// The consumer's promise.
    pub voucher: Signed<Voucher>,
}

/// The end of a channel: a transfer of the rest from held to available.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CloseChannel {
    /// The channel.
    pub channel: ChannelId,
    /// Why it ends.
    pub reason: CloseReason,
}

/// Why a channel ends. A consumer alone can't end one: it could leave before the provider has redeemed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// The provider will not redeem any more.
    Provider,
    /// The time to redeem is over.
    Expired,
}

/// The coordinator is back: every open channel can be redeemed longer by the time in which it could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Started {
    /// How long the coordinator could not be reached, in milliseconds.
    pub downtime_ms: u64,
}

/// An account is frozen, or no longer. Idempotent by `id`.
///
/// A frozen account opens no channels and none is opened for it; what it promised before is still paid, because
/// others have served it on that promise.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Freeze {
    /// The entry's name: the same id never takes effect twice.
    pub id: EntryId,
    /// Whose account.
    pub account: AccountId,
    /// Why, for everybody who reads the journal; at most [`REASON_MAX_BYTES`] and not empty.
    pub reason: String,
}

/// An entry whose own content is valid: bounds hold and a voucher's signature is its signer's.
///
/// Only such an entry can be applied to a [`Book`](crate::book::Book), so none with a forged voucher gets in.
/// Checking is separate from applying because it costs a thousand times as much and can run on many threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedEntry(Entry);

impl Entry {
    /// Checks everything that does not depend on the state of the book.
    ///
    /// # Errors
    /// The [`Refusal`] that names what is wrong with the entry itself.
    pub fn check(self) -> Result<CheckedEntry, Refusal> {
        self.check_bounds()?;
        if let Self::Settle(settle) = &self {
            settle.voucher.verify().map_err(|_| Refusal::InvalidSignature {
                channel: settle.channel,
            })?;
        }
        if let Self::RotateKey(handover) = &self {
            handover.verify()?;
        }
        Ok(CheckedEntry(self))
    }

    fn check_bounds(&self) -> Result<(), Refusal> {
        match self {
            Self::Grant(grant) if grant.amount.is_zero() => Err(Refusal::ZeroAmount),
            Self::Grant(grant) => check_reason(&grant.reason),
            Self::Freeze(freeze) | Self::Unfreeze(freeze) if freeze.reason.is_empty() => {
                Err(Refusal::NoReason)
            }
            Self::Freeze(freeze) | Self::Unfreeze(freeze) => check_reason(&freeze.reason),
            Self::OpenChannel(open) if open.limit.is_zero() => Err(Refusal::ZeroAmount),
            Self::OpenChannel(open) if open.fee_basis_points > BASIS_POINTS_MAX => Err(Refusal::FeeTooHigh {
                basis_points: open.fee_basis_points,
            }),
            Self::Settle(settle) => settle.check_bounds(),
            Self::OpenChannel(_) | Self::CloseChannel(_) | Self::Started(_) | Self::RotateKey(_) => Ok(()),
        }
    }

    /// The name under which it takes effect once and for ever, where it has one besides its channel's.
    #[must_use]
    pub fn name(&self) -> Option<EntryId> {
        match self {
            Self::Grant(grant) => Some(grant.id.into()),
            Self::Freeze(freeze) | Self::Unfreeze(freeze) => Some(freeze.id),
            Self::OpenChannel(_)
            | Self::Settle(_)
            | Self::CloseChannel(_)
            | Self::Started(_)
            | Self::RotateKey(_) => None,
        }
    }

    /// The channel that it is about.
    #[must_use]
    pub const fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::OpenChannel(open) => Some(open.channel),
            Self::Settle(settle) => Some(settle.channel),
            Self::CloseChannel(close) => Some(close.channel),
            Self::Grant(_) | Self::Started(_) | Self::Freeze(_) | Self::Unfreeze(_) | Self::RotateKey(_) => {
                None
            }
        }
    }

    /// The accounts that it names itself; those of its channel, if that exists, are concerned too.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountId> {
        match self {
            Self::Grant(grant) => vec![grant.account],
            Self::OpenChannel(open) => vec![open.consumer, open.provider],
            Self::Freeze(freeze) | Self::Unfreeze(freeze) => vec![freeze.account],
            Self::Settle(_) | Self::CloseChannel(_) | Self::Started(_) | Self::RotateKey(_) => Vec::new(),
        }
    }

    /// The bytes that the journal keeps.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What a record of the ledger holds: a salt, so that nobody can guess the entry from the record's hash, and
    /// the entry.
    #[must_use]
    pub fn encode_salted(&self, salt: &Salt) -> Vec<u8> {
        let mut content = salt.to_vec();
        content.extend_from_slice(&self.encode());
        content
    }

    /// The entry that a record of the ledger holds.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not exactly a salt and an entry.
    pub fn decode_salted(content: &[u8]) -> Result<Self, DecodeError> {
        match content.split_first_chunk::<SALT_BYTES>() {
            Some((_, entry)) => Self::decode(entry),
            None => Err(DecodeError::Malformed("shorter than a salt".into())),
        }
    }

    /// An entry from the bytes that the journal kept.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not exactly one entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, ENTRY_MAX_BYTES>(bytes)
    }
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.len() > REASON_MAX_BYTES {
        return Err(Refusal::ReasonTooLong {
            actual_bytes: reason.len(),
        });
    }
    Ok(())
}

impl Settle {
    fn check_bounds(&self) -> Result<(), Refusal> {
        let voucher = self.voucher.content_unchecked();
        if voucher.channel != self.channel {
            return Err(Refusal::OtherChannel {
                channel: self.channel,
                voucher_channel: voucher.channel,
            });
        }
        if voucher.cumulative.is_zero() {
            return Err(Refusal::ZeroAmount);
        }
        Ok(())
    }
}

impl CheckedEntry {
    /// An entry read back from a journal that only takes checked entries and guards them by checksums.
    ///
    /// Replaying at every start can do without verifying all signatures again; an audit can not.
    #[cfg(any(test, feature = "driver"))]
    pub(crate) const fn journaled(entry: Entry) -> Self {
        Self(entry)
    }

    /// The entry.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::job::RequestId;

    fn voucher(cumulative: u32) -> Voucher {
        Voucher {
            channel: ChannelId::from_bytes([7; 16]),
            cumulative: Credits::micro(cumulative),
            request_id: RequestId::from_random([1; 16]),
            transcript: [2; 32],
        }
    }

    fn grant(amount: u32, reason_bytes: usize) -> Entry {
        Entry::Grant(Grant {
            id: GrantId::from_bytes([1; 16]),
            account: AccountId::from_public_key([2; 32]),
            amount: Credits::micro(amount),
            kind: GrantKind::Operator,
            reason: "r".repeat(reason_bytes),
            starter_daily_budget: Credits::ZERO,
        })
    }

    fn open(limit: u32, fee_basis_points: u16) -> Entry {
        Entry::OpenChannel(OpenChannel {
            channel: ChannelId::from_bytes([7; 16]),
            consumer: AccountId::from_public_key([1; 32]),
            provider: AccountId::from_public_key([2; 32]),
            limit: Credits::micro(limit),
            fee_basis_points,
            redeem_by_ms: 1,
            request_digest: [0; 32],
        })
    }

    #[test]
    fn bounds_hold_at_n_and_break_at_n_plus_1() {
        let fee_too_high = Refusal::FeeTooHigh {
            basis_points: BASIS_POINTS_MAX + 1,
        };
        let reason_too_long = Refusal::ReasonTooLong {
            actual_bytes: REASON_MAX_BYTES + 1,
        };
        for (entry, expected) in [
            (grant(1, REASON_MAX_BYTES), Ok(())),
            (grant(1, REASON_MAX_BYTES + 1), Err(reason_too_long)),
            (grant(0, 0), Err(Refusal::ZeroAmount)),
            (open(1, BASIS_POINTS_MAX), Ok(())),
            (open(1, BASIS_POINTS_MAX + 1), Err(fee_too_high)),
            (open(0, 0), Err(Refusal::ZeroAmount)),
            (
                Entry::Started(Started {
                    downtime_ms: u64::MAX,
                }),
                Ok(()),
            ),
        ] {
            assert_eq!(entry.clone().check().map(|_| ()), expected, "{entry:?}");
        }
    }

    #[test]
    fn the_longest_entry_fits_its_bound() {
        let longest = grant(1, REASON_MAX_BYTES);
        assert!(longest.encode().len() <= ENTRY_MAX_BYTES);
        assert_eq!(Entry::decode(&longest.encode()), Ok(longest));
    }

    #[test]
    fn forged_and_misdirected_vouchers_are_refused() {
        let keypair = Keypair::from_secret(&[1; 32]);
        let channel = ChannelId::from_bytes([7; 16]);
        let signed = keypair.sign(voucher(5));
        assert!(
            Entry::Settle(Settle {
                channel,
                voucher: signed.clone()
            })
            .check()
            .is_ok()
        );

        // The last byte of the encoding is the last one of the signature.
        let mut bytes = Entry::Settle(Settle {
            channel,
            voucher: signed.clone(),
        })
        .encode();
        *bytes.last_mut().unwrap() ^= 1;
        let forged = Entry::decode(&bytes).unwrap();
        assert_eq!(forged.check(), Err(Refusal::InvalidSignature { channel }));

        let elsewhere = ChannelId::from_bytes([8; 16]);
        assert_eq!(
            Entry::Settle(Settle {
                channel: elsewhere,
                voucher: signed
            })
            .check(),
            Err(Refusal::OtherChannel {
                channel: elsewhere,
                voucher_channel: channel
            })
        );
        let nothing = Settle {
            channel,
            voucher: keypair.sign(voucher(0)),
        };
        assert_eq!(Entry::Settle(nothing).check(), Err(Refusal::ZeroAmount));
    }
}
