//! What travels between an account and a coordinator over HTTP, as JSON. The coordinator generates its OpenAPI
//! description from these types.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::credits::Credits;
use crate::handover::SignedHandover;
use crate::identity::{AccountId, Signed};
use crate::ids::{ChannelId, GrantId};
use crate::log::entry_bundle::ENTRY_MAX_BYTES;
use crate::log::note::VerifierKey;
use crate::voucher::Voucher;

/// Most vouchers in one settlement call.
pub const VOUCHERS_PER_CALL_MAX: usize = 1_000;
/// Most receipts in one page.
pub const RECEIPTS_PER_PAGE_MAX: usize = 1_000;
/// Most bytes of a call's body.
pub const CALL_BODY_MAX_BYTES: usize = 1024 * 1024;
/// Most cosignatures that a coordinator keeps for one checkpoint.
pub const COSIGNATURES_PER_CHECKPOINT_MAX: usize = 16;
/// Most bytes of an encoded voucher.
const VOUCHER_MAX_BYTES: usize = 1_024;
/// Most bytes of an encoded hand-over of the signing key.
const HANDOVER_MAX_BYTES: usize = 1_024;

/// `GET /v1/network`: what one needs to know before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkInfo {
    /// What the operator calls the network.
    pub name: String,
    /// The account that signs tickets and receipts.
    pub coordinator: AccountId,
    /// The version of the coordinator's program.
    pub version: String,
    /// Multiaddresses of mesh peers to begin with, each with its `/p2p` part.
    pub bootstrap: Vec<String>,
    /// The coordinator's share of what is settled, in 1/10,000.
    pub fee_basis_points: u16,
    /// What a new account is given, in microcredits; zero: nothing.
    pub starter_grant: Credits,
    /// The largest limit of a channel, in microcredits.
    pub channel_limit_max: Credits,
    /// The longest life of a channel, in milliseconds.
    pub channel_life_max_ms: u64,
    /// The Merkle log of everything in the ledger.
    pub log: LogInfo,
}

/// Which log a coordinator keeps, and who signs for it. Its tiles and checkpoints are at `/log/` as C2SP tlog-tiles
/// lays them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogInfo {
    /// The name of the log, the first line of its checkpoints. It never changes.
    pub origin: String,
    /// The account of the log's first signing key, which the origin names.
    pub account: AccountId,
    /// The key that signs checkpoints now, as C2SP signed-note writes it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub verifier_key: VerifierKey,
    /// The hand-overs from the first key to the one that signs now, in order, as [`handover_text`] writes them.
    pub keys: Vec<String>,
}

/// `POST /v1/accounts` and `GET /v1/account`: an account's balances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountView {
    /// Whose they are.
    pub account: AccountId,
    /// What can be spent, in microcredits.
    pub available: Credits,
    /// What open channels hold, in microcredits.
    pub held: Credits,
    /// Whether a starter grant was given.
    pub starter_granted: bool,
    /// Whether the operator froze it: it opens no channels and none is opened for it.
    #[serde(default)]
    pub frozen: bool,
}

/// `POST /v1/channels`: hold credits for a provider. Repeating it with the same channel and content gives the same
/// ticket again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, bincode::Encode)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenChannelRequest {
    /// The name of the channel, drawn at random by the consumer.
    pub channel: ChannelId,
    /// Who can redeem.
    pub provider: AccountId,
    /// How much to hold, in microcredits.
    pub limit: Credits,
    /// How long the channel lives, in milliseconds.
    pub life_ms: u64,
}

impl OpenChannelRequest {
    /// BLAKE3 over who asks and what: what makes a repeated request the same request.
    #[must_use]
    pub fn digest(&self, consumer: &AccountId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill/open-channel/1");
        hasher.update(consumer.public_key());
        hasher.update(&codec::encode(self));
        *hasher.finalize().as_bytes()
    }
}

/// The answer to [`OpenChannelRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenChannelAnswer {
    /// The ticket, a compact JWS of type `gristmill-ticket+jwt`.
    pub ticket: String,
    /// The channel as the ledger has it.
    pub channel: ChannelView,
}

/// `GET /v1/channels/{channel}` and `POST /v1/channels/{channel}/close`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelView {
    /// The name of the channel.
    pub channel: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// Who earns.
    pub provider: AccountId,
    /// What was held at the opening, in microcredits.
    pub limit: Credits,
    /// What was settled so far, in microcredits.
    pub settled: Credits,
    /// The coordinator's share, in 1/10,000.
    pub fee_basis_points: u16,
    /// Until when vouchers are settled, Unix milliseconds. Grows by the coordinator's downtime.
    pub redeem_by_ms: u64,
    /// Whether vouchers are still settled.
    pub open: bool,
}

/// `POST /v1/settlements`: hands in vouchers, in any order, as often as one likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// Vouchers as [`voucher_text`] writes them, at most [`VOUCHERS_PER_CALL_MAX`].
    pub vouchers: Vec<String>,
}

/// The answer to [`SettleRequest`], one result per voucher, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettleAnswer {
    /// What became of each voucher.
    pub results: Vec<SettlementResult>,
    /// For each voucher, the number (from zero) of the leaf in the Merkle log with the settlement that paid it; none
    /// where it was refused. Left out where there are no vouchers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_indices: Vec<Option<u64>>,
}

/// What became of a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SettlementResult {
    /// Credits moved.
    Settled {
        /// The channel.
        channel: ChannelId,
        /// Everything settled on it so far, in microcredits.
        settled: Credits,
        /// The receipt, a compact JWS of type `gristmill-receipt+jwt`.
        receipt: String,
    },
    /// As much or more was settled before; nothing to do.
    Unchanged {
        /// The channel.
        channel: ChannelId,
        /// Everything settled on it so far, in microcredits.
        settled: Credits,
    },
    /// Not settled.
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
}

/// `GET /v1/receipts?before=N&limit=N`: the caller's receipts as consumer or provider, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceiptsPage {
    /// Compact JWSs of type `gristmill-receipt+jwt`.
    pub receipts: Vec<String>,
    /// For each receipt, the proof that its record is in the log (C2SP tlog-proof, without cosignatures); none where
    /// the record is so new that no checkpoint covers it.
    pub proofs: Vec<Option<String>>,
    /// What to give as `before` for the next page, where there is one.
    pub next: Option<u64>,
}

/// `GET /v1/receipts/{sequence}`: one receipt with all that proves it, for its consumer and its provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReceiptView {
    /// A compact JWS of type `gristmill-receipt+jwt`: the same bytes at any time.
    pub receipt: String,
    /// The record's entry in the log in base64 with padding: its sequence and time as 64-bit little-endian integers,
    /// 16 bytes of salt, and the entry. SHA-256 over a zero byte and these bytes is the leaf hash.
    pub log_entry: String,
    /// The proof that the record is in the log (C2SP tlog-proof); none where no checkpoint covers it yet, which takes
    /// about a second.
    pub proof: Option<String>,
}

/// `POST /v1/cosignatures`: a witness's word on a checkpoint of the last seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CosignatureRequest {
    /// The size of the log at the checkpoint.
    pub size: u64,
    /// The caller's signature line under the checkpoint: C2SP tlog-cosignature, `cosignature/v1`, by the key
    /// `gristmill/witness/<account>`.
    pub cosignature: String,
}

/// The answer to [`CosignatureRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CosignatureAnswer {
    /// The size of the log at the checkpoint.
    pub size: u64,
    /// How many witnesses' cosignatures the checkpoint has now.
    pub cosignatures: u64,
}

/// `POST /v1/grants`: issues credits. Only the operator's key may call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The name of the grant; repeating it does nothing.
    pub grant: GrantId,
    /// Who is given.
    pub account: AccountId,
    /// How much, in microcredits.
    pub amount: Credits,
    /// Why, for the journal.
    pub reason: String,
}

/// `GET /v1/listings`: the living listings that the coordinator has heard, for peers that have just joined.
/// Each is signed by its provider; the coordinator can leave one out but not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListingsAnswer {
    /// Sealed listings in base64url without padding.
    pub listings: Vec<String>,
}

/// `GET /.well-known/jwks.json`: the keys that sign tickets and receipts (RFC 7517, RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// An Ed25519 public key as a JSON Web Key (RFC 8037 section 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The public key in base64url.
    pub x: String,
    /// The account, as in the header of tokens.
    pub kid: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub key_use: String,
}

impl Jwk {
    /// The key of an account.
    #[must_use]
    pub fn of(account: &AccountId) -> Self {
        Self {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x: URL_SAFE_NO_PAD.encode(account.public_key()),
            kid: account.to_string(),
            alg: "EdDSA".into(),
            key_use: "sig".into(),
        }
    }
}

/// The body of every failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// For programs: `insufficient_credits`, `conflict`, `not_found`, `unauthorized`, `invalid_request`, …
    pub code: String,
    /// For people.
    pub message: String,
}

/// A signed voucher as text: base64url of its encoding.
#[must_use]
pub fn voucher_text(voucher: &Signed<Voucher>) -> String {
    URL_SAFE_NO_PAD.encode(codec::encode(voucher))
}

/// Reads what [`voucher_text`] wrote. The signature is not checked here.
///
/// # Errors
/// [`DecodeError`] where the text is no voucher.
pub fn voucher_from_text(text: &str) -> Result<Signed<Voucher>, DecodeError> {
    let bytes = bytes_from_text(text, VOUCHER_MAX_BYTES, &URL_SAFE_NO_PAD)?;
    codec::decode::<_, VOUCHER_MAX_BYTES>(&bytes)
}

/// A hand-over of the signing key as text: base64url of its encoding.
#[must_use]
pub fn handover_text(handover: &SignedHandover) -> String {
    URL_SAFE_NO_PAD.encode(codec::encode(handover))
}

/// Reads what [`handover_text`] wrote. The signatures are not checked here: see [`crate::handover::follow`].
///
/// # Errors
/// [`DecodeError`] where the text is no hand-over.
pub fn handover_from_text(text: &str) -> Result<SignedHandover, DecodeError> {
    let bytes = bytes_from_text(text, HANDOVER_MAX_BYTES, &URL_SAFE_NO_PAD)?;
    codec::decode::<_, HANDOVER_MAX_BYTES>(&bytes)
}

/// A record's entry in the log as text: base64 with padding.
#[must_use]
pub fn log_entry_text(entry: &[u8]) -> String {
    STANDARD.encode(entry)
}

/// Reads what [`log_entry_text`] wrote.
///
/// # Errors
/// [`DecodeError`] where the text is not base64, or longer than an entry can be.
pub fn log_entry_from_text(text: &str) -> Result<Vec<u8>, DecodeError> {
    bytes_from_text(text, ENTRY_MAX_BYTES, &STANDARD)
}

/// A sealed listing as text.
#[must_use]
pub fn listing_text(sealed: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sealed)
}

/// Reads what [`listing_text`] wrote. The listing is not checked here.
///
/// # Errors
/// [`DecodeError`] where the text is not base64url or too long.
pub fn listing_from_text(text: &str) -> Result<Vec<u8>, DecodeError> {
    bytes_from_text(text, codec::LISTING_MAX_BYTES, &URL_SAFE_NO_PAD)
}

/// The bytes of a text in base64, if they can't be over `limit` by much.
fn bytes_from_text(text: &str, limit: usize, base64: &GeneralPurpose) -> Result<Vec<u8>, DecodeError> {
    if text.len() > limit * 2 {
        return Err(DecodeError::TooLarge {
            actual: text.len(),
            limit: limit * 2,
        });
    }
    base64
        .decode(text)
        .map_err(|_| DecodeError::Malformed("not base64".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::KeyHandover;
    use crate::identity::Keypair;

    #[test]
    fn hand_overs_come_back_from_text_and_other_texts_do_not() {
        let [old, new] = [1, 2].map(|byte| Keypair::from_secret(&[byte; 32]));
        let agreed = KeyHandover {
            log: old.account(),
            old: old.account(),
            new: new.account(),
            agreed_at_ms: u64::MAX,
        };
        let handover = SignedHandover {
            by_old: old.sign(agreed),
            by_new: new.sign(agreed),
        };
        let text = handover_text(&handover);
        assert_eq!(handover_from_text(&text), Ok(handover));
        assert!(handover_from_text(&log_entry_text(&[0xff; 3])).is_err());
        for other in ["", "!", &text[1..], &format!("{text}AAAA"), &"A".repeat(2_049)] {
            assert!(handover_from_text(other).is_err(), "{other}");
        }
    }
}
