//! Tickets, receipts and views, made from what the ledger recorded and nothing else: asked again at any later time,
//! the same record gives the same bytes.

use gristmill_ledger::outcome::{Opened, Posted, Settlement};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::jws::{self, Audience};
use gristmill_protocol::tokens::{ReceiptClaims, TicketClaims};

/// The ticket of a channel, from the record of its opening.
#[must_use]
pub fn ticket(posted: &Posted, opened: &Opened, coordinator: &Keypair) -> String {
    let claims = TicketClaims {
        iss: coordinator.account(),
        sub: opened.consumer,
        aud: Audience::One(opened.provider),
        jti: opened.channel,
        iat: posted.time_ms / 1_000,
        exp: opened.redeem_by_ms / 1_000,
        limit: opened.limit,
        fee_basis_points: opened.fee_basis_points,
        redeem_by_ms: opened.redeem_by_ms,
    };
    jws::sign(&claims, coordinator)
}

/// The receipt of a settlement, from its record.
#[must_use]
pub fn receipt(posted: &Posted, settlement: &Settlement, coordinator: &Keypair) -> String {
    let claims = ReceiptClaims {
        iss: coordinator.account(),
        sub: settlement.provider,
        aud: Audience::Many(vec![settlement.consumer, settlement.provider]),
        jti: format!("rcpt_{}", posted.sequence),
        iat: posted.time_ms / 1_000,
        exp: ReceiptClaims::EXPIRES_AT,
        channel: settlement.channel,
        consumer: settlement.consumer,
        settled: settlement.settled_after,
        paid: settlement.amount,
        fee: settlement.fee,
        request_id: settlement.request_id.clone(),
        sequence: posted.sequence,
        record_hash: posted.record_hash.to_string(),
    };
    jws::sign(&claims, coordinator)
}
