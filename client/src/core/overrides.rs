//! What a program says of routing with a single request: in headers `x-gristmill-…`, or in an object `gristmill` of
//! the body, which is what the `extra_body` of OpenAI's SDKs sends. The object never reaches a provider.
//!
//! Where both are given, both hold: headers are often a program's default, and nobody's restriction is lost.

use std::str::FromStr;

use bytes::Bytes;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::PrivacyTier;
use gristmill_protocol::routing::constraints::{Constraints, REGIONS_MAX, Region};
use serde_json::value::RawValue;

use crate::core::failure::ApiFailure;

mod members;

/// The object in the body.
const OBJECT: &str = "gristmill";
/// Its name as JSON. Whoever writes it with escapes has to do without.
const QUOTED_OBJECT: &str = "\"gristmill\"";
/// What the names of the headers begin with.
pub const HEADER_PREFIX: &str = "x-gristmill-";
/// The shortest and the longest time that a request may be given, in milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

/// What a single request says of its routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingOverrides {
    /// Whom it may go to.
    pub constraints: Constraints,
    /// Within how many milliseconds it has to be answered.
    pub timeout_ms: Option<u64>,
}

/// What can be said. The header of each is [`HEADER_PREFIX`] and its name with `-` for `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    MaxPrice,
    Region,
    Privacy,
    Provider,
    OnlyVerified,
    TimeoutMs,
}

impl Field {
    const ALL: [Self; 6] = [
        Self::MaxPrice,
        Self::Region,
        Self::Privacy,
        Self::Provider,
        Self::OnlyVerified,
        Self::TimeoutMs,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::MaxPrice => "max_price",
            Self::Region => "region",
            Self::Privacy => "privacy",
            Self::Provider => "provider",
            Self::OnlyVerified => "only_verified",
            Self::TimeoutMs => "timeout_ms",
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Self::MaxPrice => "credits per million of any unit, such as \"0.5\"",
            Self::Region => "up to 16 ISO 3166 codes such as \"CH\" or \"CH,DE-BY\"",
            Self::Privacy => "\"standard\", \"nothing_kept\" or \"dedicated\"",
            Self::Provider => "a provider's account, which begins with 12D3Koo",
            Self::OnlyVerified => "true or false",
            Self::TimeoutMs => "milliseconds from 100 to 3600000",
        }
    }

    fn set(self, overrides: &mut RoutingOverrides, text: &str) -> Option<()> {
        let constraints = &mut overrides.constraints;
        match self {
            Self::MaxPrice => constraints.max_price_per_million = Some(Credits::from_str(text).ok()?),
            Self::Region => {
                let regions: Result<Vec<Region>, _> = text.split(',').map(str::parse).collect();
                constraints.regions = regions.ok().filter(|regions| regions.len() <= REGIONS_MAX)?;
            }
            Self::Privacy => constraints.privacy = PrivacyTier::from_str(text).ok()?,
            Self::Provider => constraints.provider = Some(AccountId::from_str(text).ok()?),
            Self::OnlyVerified => constraints.only_verified = bool::from_str(text).ok()?,
            Self::TimeoutMs => {
                let timeout_ms = u64::from_str(text).ok()?;
                overrides.timeout_ms = Some(timeout_ms).filter(|ms| TIMEOUT_MS.contains(ms));
                overrides.timeout_ms?;
            }
        }
        Some(())
    }
}

/// The failure of a value that makes no sense. What was sent is not repeated: it may be anything.
fn not_allowed(field: Field, place: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{place}' must be {}", field.allowed())).at(place)
}

impl RoutingOverrides {
    /// Of a request's headers, given as name in small letters and value.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the header and what it may be. An unknown header of ours is an
    /// error too: a restriction with a typing error in its name would restrict nothing.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Self, ApiFailure> {
        let mut overrides = Self::default();
        let mut seen = Vec::new();
        for (name, value) in headers {
            let Some(ours) = name.strip_prefix(HEADER_PREFIX) else {
                continue;
            };
            let named = |field: &Field| field.name().replace('_', "-") == ours;
            let Some(field) = Field::ALL.into_iter().find(named) else {
                let message = format!(
                    "there is no header '{HEADER_PREFIX}{}'; {}",
                    shown(ours),
                    known_headers()
                );
                return Err(ApiFailure::invalid_request(message));
            };
            if seen.contains(&field) {
                return Err(
                    ApiFailure::invalid_request(format!("the header '{name}' stands twice")).at(name),
                );
            }
            seen.push(field);
            let text = std::str::from_utf8(value).map_err(|_| not_allowed(field, name))?;
            field
                .set(&mut overrides, text.trim())
                .ok_or_else(|| not_allowed(field, name))?;
        }
        Ok(overrides)
    }

    /// Of the body's object `gristmill`, and the body without it: all other bytes stay as they are.
    ///
    /// A body that is no JSON object is left for its reader to judge.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field and what it may be.
    pub fn take_from_body(body: Bytes) -> Result<(Bytes, Self), ApiFailure> {
        // Nearly every request: not even looked at as JSON. (Prompts may speak of us too; those are looked at.)
        let is_named = std::str::from_utf8(&body).is_ok_and(|text| text.contains(QUOTED_OBJECT));
        if !is_named {
            return Ok((body, Self::default()));
        }
        let Some(found) = members::find(&body, OBJECT) else {
            return Ok((body, Self::default()));
        };
        if found.is_repeated {
            return Err(ApiFailure::invalid_request(format!("'{OBJECT}' stands twice")).at(OBJECT));
        }
        let overrides = Self::from_object(&body[found.value])?;
        let mut rest = body[..found.member.start].to_vec();
        rest.extend_from_slice(&body[found.member.end..]);
        Ok((rest.into(), overrides))
    }

    fn from_object(object: &[u8]) -> Result<Self, ApiFailure> {
        let wrong = || {
            let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
            let message = format!("'{OBJECT}' must be an object with any of: {}", names.join(", "));
            ApiFailure::invalid_request(message).at(OBJECT)
        };
        let mut overrides = Self::default();
        let mut seen = Vec::new();
        for (name, value) in members::all(object).ok_or_else(wrong)? {
            let Some(field) = Field::ALL.into_iter().find(|field| field.name() == name) else {
                return Err(wrong());
            };
            let place = format!("{OBJECT}.{}", field.name());
            if seen.contains(&field) {
                return Err(ApiFailure::invalid_request(format!("'{place}' stands twice")).at(&place));
            }
            seen.push(field);
            if value.get() == "null" {
                continue;
            }
            text_of(field, value)
                .and_then(|text| field.set(&mut overrides, &text))
                .ok_or_else(|| not_allowed(field, &place))?;
        }
        Ok(overrides)
    }

    /// What holds where both hold: every restriction, and the shorter time.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 where nobody could meet both.
    pub fn and(self, other: Self) -> Result<Self, ApiFailure> {
        let timeout_ms = match (self.timeout_ms, other.timeout_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        let constraints = self.constraints.and(other.constraints).map_err(|conflict| {
            ApiFailure::invalid_request(conflict.to_string()).at(&format!("{OBJECT}.{}", conflict.0.field()))
        })?;
        Ok(Self {
            constraints,
            timeout_ms,
        })
    }
}

/// The text of a value: of a string what it says; of a number or a truth value, where the field is one, how it was
/// written.
fn text_of(field: Field, value: &RawValue) -> Option<String> {
    let raw = value.get();
    if raw.starts_with('"') {
        let is_text = !matches!(field, Field::OnlyVerified | Field::TimeoutMs);
        return is_text.then(|| serde_json::from_str(raw).ok())?;
    }
    matches!(field, Field::MaxPrice | Field::OnlyVerified | Field::TimeoutMs).then(|| raw.to_owned())
}

fn known_headers() -> String {
    let names: Vec<String> = Field::ALL
        .iter()
        .map(|field| format!("{HEADER_PREFIX}{}", field.name().replace('_', "-")))
        .collect();
    format!("there are {}", names.join(", "))
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const PROVIDER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

    fn headers(headers: &[(&str, &str)]) -> Result<RoutingOverrides, ApiFailure> {
        RoutingOverrides::from_headers(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn body(text: &str) -> Result<(String, RoutingOverrides), ApiFailure> {
        RoutingOverrides::take_from_body(Bytes::copy_from_slice(text.as_bytes()))
            .map(|(rest, overrides)| (String::from_utf8(rest.to_vec()).unwrap(), overrides))
    }

    fn all() -> RoutingOverrides {
        RoutingOverrides {
            constraints: Constraints {
                max_price_per_million: Some(Credits::micro(500_000)),
                regions: vec!["CH".parse().unwrap(), "DE-BY".parse().unwrap()],
                privacy: PrivacyTier::NothingKept,
                provider: Some(PROVIDER.parse().unwrap()),
                only_verified: true,
            },
            timeout_ms: Some(30_000),
        }
    }

    #[test]
    fn headers_and_body_say_the_same() {
        let by_headers = headers(&[
            ("content-type", "application/json"),
            ("x-gristmill-max-price", "0.5"),
            ("x-gristmill-region", "CH, DE-BY"),
            ("x-gristmill-privacy", "nothing_kept"),
            ("x-gristmill-provider", PROVIDER),
            ("x-gristmill-only-verified", "true"),
            ("x-gristmill-timeout-ms", "30000"),
        ]);
        assert_eq!(by_headers, Ok(all()));
        let object = json!({"max_price": "0.5", "region": "CH, DE-BY", "privacy": "nothing_kept",
            "provider": PROVIDER, "only_verified": true, "timeout_ms": 30_000});
        let (rest, by_body) = body(&json!({"model": "a", "gristmill": object}).to_string()).unwrap();
        assert_eq!((rest.as_str(), by_body), (r#"{"model":"a"}"#, all()));
        let number = body(r#"{"gristmill":{"max_price":0.5,"region":null}}"#).unwrap();
        assert_eq!(
            number.1.constraints.max_price_per_million,
            Some(Credits::micro(500_000))
        );
    }

    #[test]
    fn all_other_bytes_stay_as_they_are() {
        for (text, rest) in [
            (r#"{"gristmill":{}}"#, "{}"),
            (r#"{"gristmill":{},"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"gristmill":{}}"#, r#"{"a":1}"#),
            (r#"{"a":1,"gristmill":{},"b":2}"#, r#"{"a":1,"b":2}"#),
            (
                " { \"a\" : 1.50 ,\n \"gristmill\" : { } \n, \"b\":[2] } \n",
                " { \"a\" : 1.50 ,\n  \"b\":[2] } \n",
            ),
            (
                " { \"a\" : 1.50 ,\n \"gristmill\" : { } \n} \n",
                " { \"a\" : 1.50  \n} \n",
            ),
            // Elsewhere it is none of ours.
            (
                r#"{"messages":[{"gristmill":{"x":1}}]}"#,
                r#"{"messages":[{"gristmill":{"x":1}}]}"#,
            ),
            (
                r#"{"content":"say \"gristmill\""}"#,
                r#"{"content":"say \"gristmill\""}"#,
            ),
            (r#"["gristmill"]"#, r#"["gristmill"]"#),
            (r#"{"gristmill":"#, r#"{"gristmill":"#),
        ] {
            assert_eq!(
                body(text).unwrap(),
                (rest.to_owned(), RoutingOverrides::default()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_names_the_place_and_what_is_allowed() {
        for (object, param) in [
            (r#"{"max_price":"-1"}"#, "gristmill.max_price"),
            (r#"{"max_price":true}"#, "gristmill.max_price"),
            (r#"{"max_price":1e-3}"#, "gristmill.max_price"),
            (r#"{"region":"Switzerland"}"#, "gristmill.region"),
            (r#"{"region":""}"#, "gristmill.region"),
            (r#"{"region":["CH"]}"#, "gristmill.region"),
            (r#"{"privacy":"secret"}"#, "gristmill.privacy"),
            (r#"{"provider":"somebody"}"#, "gristmill.provider"),
            (r#"{"only_verified":"yes"}"#, "gristmill.only_verified"),
            (r#"{"only_verified":1}"#, "gristmill.only_verified"),
            (r#"{"timeout_ms":99}"#, "gristmill.timeout_ms"),
            (r#"{"timeout_ms":3600001}"#, "gristmill.timeout_ms"),
            (r#"{"timeout_ms":1.5}"#, "gristmill.timeout_ms"),
            (r#"{"timeout_ms":500,"timeout_ms":500}"#, "gristmill.timeout_ms"),
            (r#"{"max_prize":"1"}"#, "gristmill"),
            ("[]", "gristmill"),
            ("null", "gristmill"),
        ] {
            let failure = body(&format!(r#"{{"gristmill":{object}}}"#)).unwrap_err();
            assert_eq!(
                (failure.status, failure.param.as_deref()),
                (400, Some(param)),
                "{object}"
            );
        }
        let failure = body(r#"{"gristmill":{"privacy":"secret"}}"#).unwrap_err();
        assert!(failure.message.contains("\"nothing_kept\"") && !failure.message.contains("secret"));
        let twice = body(r#"{"gristmill":{},"gristmill":{}}"#).unwrap_err();
        assert_eq!(twice.param.as_deref(), Some("gristmill"));
        let typing_error = headers(&[("x-gristmill-regoin", "CH")]).unwrap_err();
        assert!(
            typing_error.message.contains("x-gristmill-region"),
            "{typing_error}"
        );
        let twice = headers(&[("x-gristmill-region", "CH"), ("x-gristmill-region", "DE")]).unwrap_err();
        assert_eq!(twice.param.as_deref(), Some("x-gristmill-region"));
        let codes = ["CH"; 17].join(",");
        assert!(headers(&[("x-gristmill-region", &codes)]).is_err());
        assert!(headers(&[("x-gristmill-region", &codes[3..])]).is_ok());
    }

    #[test]
    fn both_hold_where_both_are_given() {
        let one = headers(&[("x-gristmill-max-price", "1"), ("x-gristmill-timeout-ms", "500")]).unwrap();
        let two = body(r#"{"gristmill":{"max_price":"2","timeout_ms":400,"only_verified":true}}"#)
            .unwrap()
            .1;
        let both = one.clone().and(two.clone()).unwrap();
        assert_eq!(
            both.constraints.max_price_per_million,
            Some(Credits::micro(1_000_000))
        );
        assert_eq!(
            (both.timeout_ms, both.constraints.only_verified),
            (Some(400), true)
        );
        assert_eq!(two.and(one), Ok(both));
        let swiss = headers(&[("x-gristmill-region", "CH")]).unwrap();
        let german = body(r#"{"gristmill":{"region":"DE"}}"#).unwrap().1;
        let conflict = swiss.and(german).unwrap_err();
        assert_eq!(
            (conflict.status, conflict.param.as_deref()),
            (400, Some("gristmill.region"))
        );
    }

    proptest! {
        /// Wherever the object stands, what is left reads as the same JSON without it.
        #[test]
        fn the_rest_reads_as_before(
            before in proptest::collection::vec("[a-f]{1,3}", 0..4),
            after in proptest::collection::vec("[g-m]{1,3}", 0..4),
            blanks in "[ \n\t]{0,3}",
            value in "(1|true|\"gristmill\"|\\{\"gristmill\":\\{\\}\\}|\\[\\])",
        ) {
            let names = |names: &[String]| names.iter().map(|name| format!("\"{name}\":{value}")).collect::<Vec<_>>();
            let members = [names(&before), vec!["\"gristmill\":{}".to_owned()], names(&after)].concat();
            let text = format!("{blanks}{{{blanks}{}{blanks}}}", members.join(&format!("{blanks},{blanks}")));
            let (rest, _) = body(&text).unwrap();
            let mut expected: Value = serde_json::from_str(&text).unwrap();
            expected.as_object_mut().unwrap().shift_remove("gristmill");
            prop_assert_eq!(serde_json::from_str::<Value>(&rest).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let text = [b"{\"gristmill\":".as_slice(), &bytes].concat();
            let _ = RoutingOverrides::take_from_body(text.into());
            let _ = RoutingOverrides::from_headers(std::iter::once(("x-gristmill-region", bytes.as_slice())));
        }
    }
}
