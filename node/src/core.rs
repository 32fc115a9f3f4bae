//! What a node decides, as functions and state machines of `(event, now) -> effects`: no clock, no sockets, no
//! files. The drivers around it translate.

pub mod admission;
pub mod catalogue;
pub mod earnings;
pub mod known_tickets;
pub mod listing_plan;
pub mod metering;
pub mod redemption;
pub mod voucher_book;
