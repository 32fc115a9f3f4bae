//! The places in channels and in the sessions of both sides.

use gristmill_protocol::channel::{ConsumerChannel, ProviderChannel};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{Chunk, JobAccepted, JobKind, ProviderFrame, RequestId};
use gristmill_protocol::jws::Audience;
use gristmill_protocol::planted::Bug;
use gristmill_protocol::session::consumer::{
    ConsumerEvent, ConsumerSession, ConsumerTerms, ConsumerTimeouts,
};
use gristmill_protocol::session::provider::{
    ProviderEffect, ProviderEvent, ProviderSession, ProviderTerms, ProviderTimeouts,
};
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::usage::{Price, Usage};
use gristmill_protocol::voucher::Voucher;

use super::Place;

pub(super) const PLACES: &[Place] = &[
    (Bug::OlderVoucherTaken, || {
        let mut channel = provider_channel();
        channel.accept(&voucher(50)).unwrap();
        channel.accept(&voucher(20)).unwrap();
        channel.vouchered() != Credits::micro(50)
    }),
    (Bug::WindowTooWide, || {
        let above = WINDOW.checked_add(Credits::micro(1)).unwrap();
        provider_channel().may_deliver(above, Credits::ZERO)
    }),
    (Bug::ChannelLimitIgnored, || {
        let above = LIMIT.checked_add(Credits::micro(1)).unwrap();
        provider_channel().fits_limit(above)
    }),
    (Bug::CancelledOutputCountedTwice, || {
        let mut channel = provider_channel();
        let mut session = answering(&mut channel);
        let before = channel.delivered();
        session.handle(ProviderEvent::Cancel, &mut channel, 0);
        channel.delivered() != before
    }),
    (Bug::VoucherWakesNobody, || {
        let mut channel = provider_channel();
        let mut session = answering(&mut channel);
        let output = ProviderEvent::EngineOutput {
            message: ANSWER.to_vec(),
            meter: Usage::tokens(0, 5_000),
        };
        session.handle(output, &mut channel, 0);
        let before = channel.delivered();
        let paid = ProviderEvent::Voucher(Box::new(voucher(500)));
        session.handle(paid, &mut channel, 0);
        channel.delivered() == before
    }),
    (Bug::SessionNeverEnds, || {
        let mut channel = provider_channel();
        let mut session = answering(&mut channel);
        let effects = session.handle(ProviderEvent::StreamClosed, &mut channel, 0);
        !effects
            .iter()
            .any(|effect| matches!(effect, ProviderEffect::End(_)))
    }),
    (Bug::PaidBeforeOutput, || {
        let mut channel = consumer_channel();
        let _session = accepted(&mut channel);
        !channel.promised().is_zero()
    }),
    (Bug::VoucherTooLate, || {
        let mut channel = consumer_channel();
        channel.receive(WINDOW).unwrap();
        !channel.voucher_due(WINDOW)
    }),
    (Bug::MeterNotChecked, || {
        let mut channel = consumer_channel();
        let mut session = accepted(&mut channel);
        let chunk = Chunk {
            payload: ANSWER.to_vec(),
            ends_message: true,
            meter: Usage::tokens(0, 100),
        };
        let frame = ConsumerEvent::Frame(Box::new(ProviderFrame::Chunk(chunk)));
        session.handle(frame, &mut channel, 0);
        !session.has_ended()
    }),
    (Bug::ReservationKept, || {
        let mut channel = consumer_channel();
        let mut session = asking(&mut channel);
        session.handle(ConsumerEvent::StreamClosed, &mut channel, 0);
        channel.left() != LIMIT
    }),
];

const LIMIT: Credits = Credits::micro(10_000);
const WINDOW: Credits = Credits::micro(1_000);
const ANSWER: &[u8] = br#"{"choices":[{"delta":{"content":"y"}}]}"#;

fn consumer() -> Keypair {
    Keypair::from_secret(&[2; 32])
}

fn provider() -> Keypair {
    Keypair::from_secret(&[3; 32])
}

fn ticket() -> TicketClaims {
    TicketClaims {
        iss: Keypair::from_secret(&[1; 32]).account(),
        sub: consumer().account(),
        aud: Audience::One(provider().account()),
        jti: ChannelId::from_bytes([4; 16]),
        iat: 0,
        exp: 1_000_000,
        limit: LIMIT,
        fee_basis_points: 100,
        redeem_by_ms: 1_000_000_000,
    }
}

fn price() -> Price {
    Price::per_million_tokens(Credits::ZERO, Credits::micro(1_000_000))
}

fn request() -> RequestId {
    RequestId::from_random([5; 16])
}

fn voucher(cumulative: u32) -> Signed<Voucher> {
    consumer().sign(Voucher {
        channel: ticket().jti,
        cumulative: Credits::micro(cumulative),
        request_id: request(),
        transcript: [0; 32],
    })
}

fn provider_channel() -> ProviderChannel {
    ProviderChannel::new(&ticket(), WINDOW, None)
}

fn consumer_channel() -> ConsumerChannel {
    ConsumerChannel::new(consumer(), ticket().jti, LIMIT, Credits::ZERO)
}

fn asking(channel: &mut ConsumerChannel) -> ConsumerSession {
    let terms = ConsumerTerms {
        request_id: request(),
        kind: JobKind::ChatCompletions,
        provider: provider().account(),
        price_cap: price(),
        body_bytes: 1,
        cost_max: Credits::micro(500),
        message_max_bytes: 1 << 20,
    };
    ConsumerSession::open(terms, ConsumerTimeouts::default(), channel, 0).unwrap()
}

fn accepted(channel: &mut ConsumerChannel) -> ConsumerSession {
    let mut session = asking(channel);
    let accepted = JobAccepted {
        price: price(),
        position: 0,
        credit_window: WINDOW,
        highest_voucher: None,
    };
    let frame = ConsumerEvent::Frame(Box::new(ProviderFrame::Accepted(accepted)));
    session.handle(frame, channel, 0);
    session
}

/// A provider's session that has delivered a part of the answer.
fn answering(channel: &mut ProviderChannel) -> ProviderSession {
    let terms = ProviderTerms {
        request_id: request(),
        kind: JobKind::ChatCompletions,
        price: price(),
        body_bytes: 1,
        position: 0,
    };
    let timeouts = ProviderTimeouts::default();
    let (mut session, _) = ProviderSession::accept(provider(), terms, timeouts, channel, 0).unwrap();
    session.handle(ProviderEvent::BodyPart(vec![b'x']), channel, 0);
    let output = ProviderEvent::EngineOutput {
        message: ANSWER.to_vec(),
        meter: Usage::tokens(0, 20),
    };
    session.handle(output, channel, 0);
    session
}
