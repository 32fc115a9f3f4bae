//! What is signed as a JSON Web Token: the coordinator's tickets and receipts, and the calls of accounts to it.

use serde::{Deserialize, Serialize};

use crate::credits::Credits;
use crate::identity::{AccountId, Keypair};
use crate::ids::ChannelId;
use crate::job::RequestId;
use crate::jws::{self, Audience, Claims, NEVER_SECONDS, TokenError};

/// Longest life of a caller token in seconds.
pub const CALLER_TOKEN_MAX_SECONDS: u64 = 60;

/// A coordinator's word that `limit` is held for one provider until `redeem_by_ms`. Type
/// `gristmill-ticket+jwt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// The coordinator.
    pub iss: AccountId,
    /// The consumer whose credits are held.
    pub sub: AccountId,
    /// The provider that can redeem.
    pub aud: Audience,
    /// The channel that the ticket opens.
    pub jti: ChannelId,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds: the end of the channel, rounded down.
    pub exp: u64,
    /// What is held, in microcredits.
    pub limit: Credits,
    /// The coordinator's share of what is settled, in 1/10,000.
    pub fee_basis_points: u16,
    /// Until when vouchers are settled, Unix milliseconds.
    pub redeem_by_ms: u64,
}

impl Claims for TicketClaims {
    const TYPE: &'static str = "gristmill-ticket+jwt";
    const LEEWAY_MS: u64 = 0;

    fn issuer(&self) -> &AccountId {
        &self.iss
    }
    fn audience(&self) -> &Audience {
        &self.aud
    }
    fn issued_at(&self) -> u64 {
        // A provider's clock that is behind the coordinator's must not refuse a fresh ticket: the expiry is
        // what protects it.
        0
    }
    fn expires_at(&self) -> u64 {
        self.exp
    }
}

impl TicketClaims {
    /// Checks a ticket as the provider that shall accept it does, without asking anybody.
    ///
    /// # Errors
    /// [`TokenError`] naming what is wrong.
    pub fn verify(
        token: &str,
        coordinator: &AccountId,
        provider: &AccountId,
        now_ms: u64,
    ) -> Result<Self, TokenError> {
        jws::verify(token, coordinator, provider, now_ms)
    }
}

/// A coordinator's proof that a settlement is in its ledger. Holds for ever. Type `gristmill-receipt+jwt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptClaims {
    /// The coordinator.
    pub iss: AccountId,
    /// The provider that was paid.
    pub sub: AccountId,
    /// Consumer and provider: both can check it.
    pub aud: Audience,
    /// The name of the receipt: `rcpt_` and the number of the record in the journal.
    pub jti: String,
    /// Unix seconds of the record.
    pub iat: u64,
    /// The end of the year 9999: receipts do not expire.
    pub exp: u64,
    /// The channel that paid.
    pub channel: ChannelId,
    /// Who paid.
    pub consumer: AccountId,
    /// Everything settled on the channel so far, this settlement included.
    pub settled: Credits,
    /// What this settlement took from the consumer.
    pub paid: Credits,
    /// The part of `paid` that went to the coordinator.
    pub fee: Credits,
    /// The request whose voucher was settled.
    pub request_id: RequestId,
    /// The number of the record in the journal.
    pub sequence: u64,
    /// The hash of the record's leaf in the Merkle log (RFC 6962, SHA-256), in hexadecimal digits. The leaf is number
    /// `sequence - 1`.
    pub record_hash: String,
}

impl Claims for ReceiptClaims {
    const TYPE: &'static str = "gristmill-receipt+jwt";
    const LEEWAY_MS: u64 = 60_000;

    fn issuer(&self) -> &AccountId {
        &self.iss
    }
    fn audience(&self) -> &Audience {
        &self.aud
    }
    fn issued_at(&self) -> u64 {
        self.iat
    }
    fn expires_at(&self) -> u64 {
        self.exp
    }
}

impl ReceiptClaims {
    /// The expiry that every receipt carries.
    pub const EXPIRES_AT: u64 = NEVER_SECONDS;

    /// Checks a receipt as one of its parties, offline.
    ///
    /// # Errors
    /// [`TokenError`] naming what is wrong.
    pub fn verify(
        token: &str,
        coordinator: &AccountId,
        party: &AccountId,
        now_ms: u64,
    ) -> Result<Self, TokenError> {
        jws::verify(token, coordinator, party, now_ms)
    }
}

/// What an account signs with each call to the coordinator: one method, one path, one body, for a minute. Type
/// `gristmill-caller+jwt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerClaims {
    /// The account that calls.
    pub iss: AccountId,
    /// The same account.
    pub sub: AccountId,
    /// The coordinator.
    pub aud: Audience,
    /// Random; the coordinator accepts it once.
    pub jti: String,
    /// Unix seconds.
    pub iat: u64,
    /// Unix seconds, at most [`CALLER_TOKEN_MAX_SECONDS`] after `iat`.
    pub exp: u64,
    /// The HTTP method, in capitals.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// BLAKE3 of the body, in hexadecimal digits.
    pub body_digest: String,
}

impl Claims for CallerClaims {
    const TYPE: &'static str = "gristmill-caller+jwt";
    const LEEWAY_MS: u64 = 30_000;

    fn issuer(&self) -> &AccountId {
        &self.iss
    }
    fn audience(&self) -> &Audience {
        &self.aud
    }
    fn issued_at(&self) -> u64 {
        self.iat
    }
    fn expires_at(&self) -> u64 {
        self.exp
    }
}

/// The call that a caller token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The HTTP method, in capitals.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The body; empty where there is none.
    pub body: &'a [u8],
}

impl Call<'_> {
    fn body_digest(&self) -> String {
        blake3::hash(self.body).to_hex().to_string()
    }

    /// Signs the call. `nonce` is fresh randomness.
    #[must_use]
    pub fn sign(&self, keypair: &Keypair, coordinator: AccountId, nonce: [u8; 16], now_ms: u64) -> String {
        let (account, iat) = (keypair.account(), now_ms / 1000);
        let claims = CallerClaims {
            iss: account,
            sub: account,
            aud: Audience::One(coordinator),
            jti: hex::encode(nonce),
            iat,
            exp: iat + CALLER_TOKEN_MAX_SECONDS,
            method: self.method.to_owned(),
            path: self.path.to_owned(),
            body_digest: self.body_digest(),
        };
        jws::sign(&claims, keypair)
    }

    /// Checks that a token stands for this very call. The coordinator also refuses a `jti` that it has seen.
    ///
    /// # Errors
    /// [`TokenError`] naming what is wrong.
    pub fn verify(
        &self,
        token: &str,
        coordinator: &AccountId,
        now_ms: u64,
    ) -> Result<CallerClaims, TokenError> {
        let claims: CallerClaims = jws::verify_self_issued(token, coordinator, now_ms)?;
        if claims.sub != claims.iss {
            return Err(TokenError::Malformed("its subject is not its issuer"));
        }
        if claims.exp.saturating_sub(claims.iat) > CALLER_TOKEN_MAX_SECONDS {
            return Err(TokenError::Malformed("it lives for more than 60 seconds"));
        }
        if claims.jti.is_empty() || claims.jti.len() > 64 {
            return Err(TokenError::Malformed("its jti is empty or over 64 bytes"));
        }
        if claims.method != self.method || claims.path != self.path {
            return Err(TokenError::Malformed("it is for another method or path"));
        }
        if claims.body_digest != self.body_digest() {
            return Err(TokenError::Malformed("it is for another body"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn ticket() -> TicketClaims {
        TicketClaims {
            iss: keypair(1).account(),
            sub: keypair(2).account(),
            aud: Audience::One(keypair(3).account()),
            jti: ChannelId::from_bytes([4; 16]),
            iat: NOW / 1000,
            exp: NOW / 1000 + 600,
            limit: Credits::micro(1_000_000),
            fee_basis_points: 250,
            redeem_by_ms: NOW + 600_000,
        }
    }

    fn check(token: &str) -> Result<TicketClaims, TokenError> {
        TicketClaims::verify(token, &keypair(1).account(), &keypair(3).account(), NOW)
    }

    /// Signs any header and payload with the coordinator's key.
    fn signed(header: &str, payload: &str) -> String {
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = keypair(1).sign_bytes(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.bytes()))
    }

    #[test]
    fn tickets_come_back_and_are_the_same_bytes_again() {
        let token = jws::sign(&ticket(), &keypair(1));
        assert_eq!(check(&token), Ok(ticket()));
        assert_eq!(token, jws::sign(&ticket(), &keypair(1)));
    }

    #[test]
    fn each_wrong_party_and_time_has_its_own_error() {
        let token = jws::sign(&ticket(), &keypair(1));
        let (one, three) = (keypair(1).account(), keypair(3).account());
        let other = keypair(9).account();
        assert_eq!(
            TicketClaims::verify(&token, &other, &three, NOW),
            Err(TokenError::Signature)
        );
        assert!(matches!(
            TicketClaims::verify(&token, &one, &other, NOW),
            Err(TokenError::Audience { .. })
        ));
        let late = TicketClaims::verify(&token, &one, &three, NOW + 600_000);
        assert_eq!(late, Err(TokenError::Expired { ago_ms: 0 }));
        assert!(TicketClaims::verify(&token, &one, &three, NOW + 599_999).is_ok());
    }

    #[test]
    fn confusions_are_refused() {
        let payload = serde_json::to_string(&ticket()).unwrap();
        let good = r#"{"typ":"gristmill-ticket+jwt","alg":"EdDSA"}"#;
        assert!(check(&signed(good, &payload)).is_ok());
        for header in [
            r#"{"typ":"gristmill-ticket+jwt","alg":"none"}"#,
            r#"{"typ":"gristmill-ticket+jwt","alg":"HS256"}"#,
            r#"{"typ":"gristmill-ticket+jwt","alg":"eddsa"}"#,
            r#"{"typ":"gristmill-receipt+jwt","alg":"EdDSA"}"#,
            r#"{"typ":"JWT","alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"typ":"gristmill-ticket+jwt"}"#,
            r#"{"typ":"gristmill-ticket+jwt","alg":"EdDSA","alg":"EdDSA"}"#,
            r#"{"typ":"gristmill-ticket+jwt","alg":"EdDSA","crit":["b64"],"b64":false}"#,
            "[]",
            "",
        ] {
            assert!(check(&signed(header, &payload)).is_err(), "{header}");
        }
        for (from, to) in [
            (r#""exp":1800000600"#, r#""exp":"1800000600""#),
            (r#""exp":1800000600"#, r#""exp":null"#),
            (r#""exp":1800000600"#, r#""exp":[1800000600]"#),
            (r#""exp":1800000600,"#, ""),
            (r#""exp":1800000600"#, r#""exp":-1"#),
            (r#""limit":1000000"#, r#""limit":1000000,"limit":9"#),
        ] {
            assert!(payload.contains(from));
            assert!(check(&signed(good, &payload.replace(from, to))).is_err(), "{to}");
        }
    }

    #[test]
    fn a_key_in_the_header_changes_nothing() {
        let forger = keypair(66);
        let jwk = URL_SAFE_NO_PAD.encode(forger.account().public_key());
        let header = format!(
            r#"{{"typ":"gristmill-ticket+jwt","alg":"EdDSA","kid":"{}","jwk":{{"kty":"OKP","crv":"Ed25519","x":"{jwk}"}}}}"#,
            forger.account()
        );
        let payload = serde_json::to_string(&ticket()).unwrap();
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let token = format!(
            "{input}.{}",
            URL_SAFE_NO_PAD.encode(forger.sign_bytes(input.as_bytes()).bytes())
        );
        assert_eq!(check(&token), Err(TokenError::Signature));
    }

    #[test]
    fn caller_tokens_stand_for_one_call() {
        let coordinator = keypair(1).account();
        let call = Call {
            method: "POST",
            path: "/v1/channels",
            body: b"{}",
        };
        let token = call.sign(&keypair(2), coordinator, [7; 16], NOW);
        assert_eq!(
            call.verify(&token, &coordinator, NOW).unwrap().iss,
            keypair(2).account()
        );
        for other in [
            Call {
                method: "GET",
                ..call
            },
            Call {
                path: "/v1/channels?x",
                ..call
            },
            Call { body: b"{ }", ..call },
        ] {
            assert!(other.verify(&token, &coordinator, NOW).is_err(), "{other:?}");
        }
        assert!(matches!(
            call.verify(&token, &coordinator, NOW + 90_000),
            Err(TokenError::Expired { .. })
        ));
        assert!(matches!(
            call.verify(&token, &coordinator, NOW - 31_000),
            Err(TokenError::FromTheFuture { .. })
        ));
        assert!(matches!(
            call.verify(&token, &keypair(5).account(), NOW),
            Err(TokenError::Audience { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(position in 0usize..400, change in 1u8..=255) {
            let mut token = jws::sign(&ticket(), &keypair(1)).into_bytes();
            let position = position % token.len();
            token[position] ^= change;
            if let Ok(text) = String::from_utf8(token) {
                prop_assert!(check(&text).is_err());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,300}") {
            prop_assert!(check(&text).is_err());
        }
    }
}
