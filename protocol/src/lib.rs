//! What the parties of the Gristmill market say to each other. Pure: types, signatures, codecs, tokens and the
//! state machines of both sides. Nothing here reads a clock, draws randomness or opens anything.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod board;
pub mod channel;
pub mod civil_date;
pub mod codec;
pub mod content;
pub mod coordinator_api;
pub mod credits;
pub mod form;
pub mod handover;
pub mod hardware;
pub mod identity;
pub mod ids;
pub mod job;
pub mod jws;
pub mod listing;
pub mod log;
pub mod operator_api;
pub mod planted;
pub mod routing;
pub mod session;
pub mod tokens;
pub mod trace;
pub mod usage;
pub mod voucher;

/// Describes a type that is written as text in the OpenAPI document.
#[cfg(feature = "openapi")]
#[macro_export]
#[doc(hidden)]
macro_rules! text_schema {
    ($name:ident, $purpose:expr, $example:expr) => {
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($purpose))
                    .examples([$example])
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {}
    };
}
