//! What a provider gossips: a signed [`Listing`] of [`Offer`]s.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::{self, DecodeError, LISTING_MAX_BYTES};
use crate::hardware::CERTIFICATE_MAX_BYTES;
use crate::identity::{AccountId, InvalidSignature, Keypair, Signed, SignedContent};
use crate::job::JobKind;
use crate::planted::{self, Bug};
use crate::usage::Price;

mod opened;

pub use opened::OpenedListing;

/// The gossip topic of listings.
pub const LISTINGS_TOPIC: &str = "/gristmill/listings/1";
/// Longest life of a listing in milliseconds.
pub const LISTING_TTL_MAX_MS: u64 = 10 * 60 * 1000;
/// Shortest time between two listings of one provider in milliseconds.
pub const LISTING_INTERVAL_MIN_MS: u64 = 5_000;
/// How far a provider's clock may be ahead of ours in milliseconds.
pub const CLOCK_SKEW_MAX_MS: u64 = 60_000;
/// Most offers in one listing.
pub const OFFERS_MAX: usize = 32;
/// Most addresses in one listing.
pub const ADDRESSES_MAX: usize = 16;
/// Most coordinators that a listing accepts tickets of.
pub const COORDINATORS_MAX: usize = 8;
/// Most bytes of a model's name.
pub const MODEL_NAME_MAX_BYTES: usize = 128;
/// Most certificates of hardware in one listing: those of a machine with eight devices, where they fit beside the
/// offers. Each has at most [`CERTIFICATE_MAX_BYTES`], which leaves room for 32 offers of the usual size.
pub const CERTIFICATES_MAX: usize = 8;
/// Most bytes of an address, a region or a quantization.
pub const SHORT_TEXT_MAX_BYTES: usize = 256;

/// What an offer can honour beyond a plain request. The numbers are the wire format: never reuse one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `tools` and `tool_choice`.
    Tools,
    /// `response_format` of type `json_object` or `json_schema`.
    StructuredOutput,
    /// `logprobs` and `top_logprobs`.
    Logprobs,
    /// `n` above one.
    ManyChoices,
    /// `logit_bias`.
    LogitBias,
    /// Image parts in messages.
    ImageInput,
    /// `dimensions` of embeddings.
    Dimensions,
    /// A partial assistant message is continued (`continue_final_message`).
    Continuation,
    /// Every request field is handed to an upstream server verbatim; what it can do is its own affair.
    Passthrough,
    /// `tool_choice` that forces a call: `required` or a named function; and `parallel_tool_calls: false`.
    ForcedTools,
    /// `response_format` of type `json_schema` with `strict`: the answer is always of the schema.
    StrictSchema,
    /// `seed`: the same request gives the same answer.
    Seed,
    /// Prompts and inputs as lists of tokens.
    TokenInput,
    /// `echo` of completions: the prompt comes before the answer.
    Echo,
    /// `suffix` of completions: the answer stands before a text.
    Suffix,
    /// Audio parts in messages.
    AudioInput,
}

/// What a provider promises about the prompts and answers that pass through it. A promise, not a proof: whoever
/// owns the machine can read them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PrivacyTier {
    /// Nothing is promised.
    #[default]
    Standard,
    /// They are in memory only while the job runs, neither logged nor kept by anything behind the node.
    NothingKept,
    /// As before, and the machine is used by its operator for nothing else and by nobody else.
    Dedicated,
}

/// A text that names no [`PrivacyTier`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no privacy tier; there are 'standard', 'nothing_kept' and 'dedicated'")]
pub struct UnknownPrivacyTier(String);

impl PrivacyTier {
    /// The name in listings, settings and requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::NothingKept => "nothing_kept",
            Self::Dedicated => "dedicated",
        }
    }
}

impl fmt::Display for PrivacyTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for PrivacyTier {
    type Err = UnknownPrivacyTier;

    fn from_str(text: &str) -> Result<Self, UnknownPrivacyTier> {
        [Self::Standard, Self::NothingKept, Self::Dedicated]
            .into_iter()
            .find(|tier| tier.name() == text)
            .ok_or_else(|| UnknownPrivacyTier(text.chars().take(64).collect()))
    }
}

/// One model or capability at one price.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Offer {
    /// What kind of job it serves.
    pub kind: JobKind,
    /// The name by which consumers ask for the model.
    pub model: String,
    /// BLAKE3 over the weight files, where the provider has them.
    pub weights_digest: Option<[u8; 32]>,
    /// How the weights are stored; empty where unknown.
    pub quantization: String,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// What it can honour beyond a plain request, ascending, each once.
    pub capabilities: Vec<Capability>,
    /// The price.
    pub price: Price,
}

/// Everything a provider says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Listing {
    /// Who offers.
    pub provider: AccountId,
    /// Grows with every listing of a provider, across restarts: milliseconds of its clock will do.
    pub sequence: u64,
    /// Unix time in milliseconds.
    pub issued_at_ms: u64,
    /// How long it holds, in milliseconds, at most [`LISTING_TTL_MAX_MS`]. Zero: the provider leaves.
    pub ttl_ms: u64,
    /// Multiaddresses at which job streams are accepted, without the `/p2p` part.
    pub addresses: Vec<String>,
    /// Coordinators whose tickets the provider accepts.
    pub coordinators: Vec<AccountId>,
    /// Where the provider says it is: an ISO 3166 code or empty.
    pub region: String,
    /// What it promises about prompts and answers.
    pub privacy: PrivacyTier,
    /// What it offers.
    pub offers: Vec<Offer>,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// How many of those are free now.
    pub free_slots: u16,
    /// Certificates of the provider's devices by coordinators, as tokens. Whoever forwards the listing does not look
    /// into them; consumers check them with the keys of their coordinator, and those that do not hold count as none.
    pub certificates: Vec<String>,
}

impl SignedContent for Listing {
    const NAME: &'static str = "listing";
    const VERSION: u16 = 2;
}

/// Why a listing was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListingError {
    /// The bytes are no listing.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Not signed by the provider that it names.
    #[error("listing of {provider}: {source}")]
    Signature {
        /// Who the listing claims to be of.
        provider: AccountId,
        /// What is wrong.
        source: InvalidSignature,
    },
    /// A field is outside its bounds.
    #[error("listing of {provider}: {field} is out of bounds")]
    OutOfBounds {
        /// Whose listing it is.
        provider: AccountId,
        /// Which field.
        field: &'static str,
    },
    /// Issued further in the future than clocks may differ.
    #[error("listing of {provider} was issued {ahead_ms} ms in the future; one of the clocks is wrong")]
    FromTheFuture {
        /// Whose listing it is.
        provider: AccountId,
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
}

impl Listing {
    /// Checks every bound that does not depend on the time.
    ///
    /// # Errors
    /// [`ListingError::OutOfBounds`] naming the field.
    pub fn check_bounds(&self) -> Result<(), ListingError> {
        let bound = |holds: bool, field: &'static str| {
            if holds {
                Ok(())
            } else {
                Err(ListingError::OutOfBounds {
                    provider: self.provider,
                    field,
                })
            }
        };
        let short = |text: &String| text.len() <= SHORT_TEXT_MAX_BYTES;
        bound(self.ttl_ms <= LISTING_TTL_MAX_MS, "ttl_ms")?;
        bound(
            self.addresses.len() <= ADDRESSES_MAX && self.addresses.iter().all(short),
            "addresses",
        )?;
        bound(self.coordinators.len() <= COORDINATORS_MAX, "coordinators")?;
        bound(short(&self.region), "region")?;
        bound(self.offers.len() <= OFFERS_MAX, "offers")?;
        bound(self.free_slots <= self.slots, "free_slots")?;
        let is_certificate =
            |token: &String| token.len() <= CERTIFICATE_MAX_BYTES && !token.chars().any(char::is_control);
        bound(
            self.certificates.len() <= CERTIFICATES_MAX && self.certificates.iter().all(is_certificate),
            "certificates",
        )?;
        let mut names = BTreeSet::new();
        for offer in &self.offers {
            let name_fits = !offer.model.is_empty() && offer.model.len() <= MODEL_NAME_MAX_BYTES;
            bound(name_fits && !offer.model.chars().any(char::is_control), "model")?;
            bound(short(&offer.quantization), "quantization")?;
            bound(offer.capabilities.is_sorted_by(|a, b| a < b), "capabilities")?;
            bound(names.insert((offer.kind, &offer.model)), "model (offered twice)")?;
        }
        Ok(())
    }

    /// Signs the listing into the bytes that travel on gossip.
    ///
    /// # Errors
    /// [`ListingError::OutOfBounds`] where a field is out of bounds, [`ListingError::Decode`] where the whole is
    /// over [`LISTING_MAX_BYTES`]: a listing that others would refuse is never sent.
    pub fn seal(self, keypair: &Keypair) -> Result<Vec<u8>, ListingError> {
        self.check_bounds()?;
        let bytes = codec::encode(&keypair.sign(self));
        if bytes.len() > LISTING_MAX_BYTES {
            return Err(DecodeError::TooLarge {
                actual: bytes.len(),
                limit: LISTING_MAX_BYTES,
            }
            .into());
        }
        Ok(bytes)
    }

    /// Opens what [`Listing::seal`] made: size, encoding, signature, bounds and clock, in this order.
    ///
    /// # Errors
    /// [`ListingError`] saying which of these failed.
    pub fn open(bytes: &[u8], now_ms: u64) -> Result<Self, ListingError> {
        let listing = Self::open_at_any_time(bytes)?;
        listing.check_clock(now_ms)?;
        Ok(listing)
    }

    /// Everything that [`Listing::open`] checks but the clock.
    fn open_at_any_time(bytes: &[u8]) -> Result<Self, ListingError> {
        let signed: Signed<Self> = codec::decode::<_, LISTING_MAX_BYTES>(bytes)?;
        let provider = signed.content_unchecked().provider;
        let listing = signed
            .verify_from(&provider)
            .or_else(|error| match planted::is(Bug::ForgedListingTaken) {
                true => Ok(signed.content_unchecked()),
                false => Err(error),
            })
            .map_err(|source| ListingError::Signature { provider, source })?;
        listing.check_bounds()?;
        Ok(listing.clone())
    }

    /// Checks that it was not issued further in the future than clocks may differ.
    ///
    /// # Errors
    /// [`ListingError::FromTheFuture`] where it was.
    pub const fn check_clock(&self, now_ms: u64) -> Result<(), ListingError> {
        let ahead_ms = self.issued_at_ms.saturating_sub(now_ms);
        if ahead_ms > CLOCK_SKEW_MAX_MS {
            let provider = self.provider;
            return Err(ListingError::FromTheFuture { provider, ahead_ms });
        }
        Ok(())
    }

    /// When it stops to hold, as Unix time in milliseconds.
    #[must_use]
    pub const fn expires_at_ms(&self) -> u64 {
        self.issued_at_ms.saturating_add(self.ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credits::Credits;
    use crate::usage::Unit;

    fn keypair() -> Keypair {
        Keypair::from_secret(&[1; 32])
    }

    /// An offer as nodes make them: with a price of three parts, a digest and four capabilities.
    fn offer(number: usize, name_bytes: usize) -> Offer {
        let mut price = Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000));
        price
            .per_million
            .insert(Unit::GpuMillisecond, Credits::micro(20_000));
        Offer {
            kind: JobKind::ChatCompletions,
            model: format!("{number:0>name_bytes$}"),
            weights_digest: Some([7; 32]),
            quantization: "q4_k_m".into(),
            context_length: 131_072,
            capabilities: vec![
                Capability::Tools,
                Capability::StructuredOutput,
                Capability::Continuation,
                Capability::Seed,
            ],
            price,
        }
    }

    fn listing(offers: usize, name_bytes: usize, certificates: Vec<String>) -> Listing {
        Listing {
            provider: keypair().account(),
            sequence: 1,
            issued_at_ms: 1,
            ttl_ms: 120_000,
            addresses: vec![
                "/ip4/203.0.113.200/udp/7410/quic-v1".into(),
                "/ip4/203.0.113.200/tcp/7410".into(),
            ],
            coordinators: vec![keypair().account()],
            region: "CH-ZH".into(),
            privacy: PrivacyTier::Standard,
            offers: (0..offers).map(|number| offer(number, name_bytes)).collect(),
            slots: 4,
            free_slots: 4,
            certificates,
        }
    }

    fn certificate(bytes: usize) -> String {
        "c".repeat(bytes)
    }

    #[test]
    fn a_full_listing_with_the_largest_certificate_fits_to_the_byte() {
        let full = |name_bytes| listing(OFFERS_MAX, name_bytes, vec![certificate(CERTIFICATE_MAX_BYTES)]);
        let name_bytes = (1..MODEL_NAME_MAX_BYTES)
            .take_while(|bytes| full(*bytes).seal(&keypair()).is_ok())
            .last()
            .unwrap();
        assert!(name_bytes >= 32, "names of {name_bytes} bytes");
        assert!(matches!(
            full(name_bytes + 1).seal(&keypair()),
            Err(ListingError::Decode(DecodeError::TooLarge { .. }))
        ));
        // To the byte: what is left goes into the region.
        let left = LISTING_MAX_BYTES - full(name_bytes).seal(&keypair()).unwrap().len();
        let with_region = |more: usize| Listing {
            region: "r".repeat("CH-ZH".len() + more),
            ..full(name_bytes)
        };
        let sealed = with_region(left).seal(&keypair()).unwrap();
        assert_eq!(sealed.len(), LISTING_MAX_BYTES);
        assert_eq!(Listing::open(&sealed, 1).unwrap(), with_region(left));
        assert!(with_region(left + 1).seal(&keypair()).is_err());
    }

    #[test]
    fn certificates_are_bounded_in_number_and_size_and_have_no_control_characters() {
        let seal = |certificates| listing(1, 5, certificates).seal(&keypair());
        assert!(seal(vec![certificate(64); CERTIFICATES_MAX]).is_ok());
        for wrong in [
            vec![certificate(64); CERTIFICATES_MAX + 1],
            vec![certificate(CERTIFICATE_MAX_BYTES + 1)],
            vec!["a\nb".to_owned()],
        ] {
            assert!(matches!(
                seal(wrong),
                Err(ListingError::OutOfBounds {
                    field: "certificates",
                    ..
                })
            ));
        }
        assert!(seal(vec![certificate(CERTIFICATE_MAX_BYTES)]).is_ok());
        // What is no certificate is no reason to refuse a listing: consumers find out.
        let sealed = seal(vec!["not a certificate".to_owned()]).unwrap();
        assert!(Listing::open(&sealed, 1).is_ok());
    }
}
