//! Whether a job is taken, from what its consumer said and what the node knows, without asking anybody.

use gristmill_protocol::channel::ProviderChannel;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{JobRefused, OpenJob, RefusalCode, TICKET_MAX_BYTES};
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::listing::Offer;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::session::provider::ProviderTerms;
use gristmill_protocol::tokens::TicketClaims;
use gristmill_transport::coordinator_client::verify_by_any;

/// How long a ticket must still hold for a new job, so that the job's vouchers can be handed in before its end.
pub const TICKET_MARGIN_MS: u64 = 30_000;
/// When it may be worth asking a full node again.
const BUSY_RETRY_AFTER_MS: u32 = 1_000;
/// When it may be worth asking again a node that does not know its coordinator yet.
const JOINING_RETRY_AFTER_MS: u32 = 5_000;

/// What a node knows about itself when a job comes.
#[derive(Clone, Copy, Debug)]
pub struct Premises<'a> {
    /// The own account.
    pub provider: &'a AccountId,
    /// The keys of the coordinator whose tickets count; `None` until it has been reached.
    pub coordinator: Option<&'a LogKeys>,
    /// What is on offer.
    pub offers: &'a [Offer],
    /// How many jobs run at once.
    pub slots: u32,
    /// How many jobs wait for a slot at most.
    pub queue_length: u32,
    /// How many jobs run or wait now.
    pub jobs: u32,
    /// Most bytes of a request body.
    pub body_max_bytes: u64,
    /// Why no job is taken at all, where none is.
    pub closed: Option<&'a str>,
    /// What the job's ticket says, where the very same one was checked with the coordinator's keys before.
    pub known_ticket: Option<&'a TicketClaims>,
}

/// A job that is taken, as far as its channel allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What the ticket says. Its issuer is the coordinator's first key, whichever key signed: that one names the
    /// coordinator for ever.
    pub ticket: TicketClaims,
    /// The place of the offer in [`Premises::offers`].
    pub offer: usize,
    /// What to agree to.
    pub terms: ProviderTerms,
}

/// Decides about a job. Its channel has a say of its own afterwards, in
/// [`ProviderSession::accept`](gristmill_protocol::session::provider::ProviderSession::accept).
///
/// # Errors
/// [`JobRefused`] with the code that lets the consumer choose what to do next.
pub fn admit(
    open: &OpenJob,
    peer: &AccountId,
    premises: &Premises<'_>,
    now_ms: u64,
) -> Result<Admitted, JobRefused> {
    if let Some(reason) = premises.closed {
        return Err(JobRefused::new(RefusalCode::ShuttingDown, 0, reason));
    }
    let ticket = check_ticket(open, peer, premises, now_ms)?;
    let offer = premises
        .offers
        .iter()
        .position(|offer| offer.kind == open.kind && offer.model == open.model)
        .ok_or_else(|| refuse_model(open, premises.offers))?;
    let price = &premises.offers[offer].price;
    if !price.within(&open.price_cap) {
        let reason = format!(
            "the price of '{}' here is above the cap of the request",
            open.model
        );
        return Err(JobRefused::new(RefusalCode::PriceAboveCap, 0, &reason));
    }
    if open.body_bytes > premises.body_max_bytes {
        let (actual, most) = (open.body_bytes, premises.body_max_bytes);
        let reason = format!("the request has {actual} bytes; this provider takes at most {most}");
        return Err(JobRefused::new(RefusalCode::BodyTooLarge, 0, &reason));
    }
    if premises.jobs >= premises.slots.saturating_add(premises.queue_length) {
        let reason = format!("{} jobs run or wait here already", premises.jobs);
        return Err(JobRefused::new(RefusalCode::Busy, BUSY_RETRY_AFTER_MS, &reason));
    }
    let terms = ProviderTerms {
        request_id: open.request_id.clone(),
        kind: open.kind,
        price: price.clone(),
        body_bytes: open.body_bytes,
        position: premises.jobs.saturating_add(1).saturating_sub(premises.slots),
    };
    Ok(Admitted { ticket, offer, terms })
}

/// Checks that a ticket is about the same hold as the channel, over `limit`, that the node knows under its name.
///
/// # Errors
/// [`JobRefused`] where it is not.
pub fn check_channel(
    ticket: &TicketClaims,
    channel: &ProviderChannel,
    limit: Credits,
) -> Result<(), JobRefused> {
    if *channel.consumer() == ticket.sub && limit == ticket.limit {
        Ok(())
    } else {
        let reason = format!(
            "channel {} is known here with another consumer or limit",
            ticket.jti
        );
        Err(JobRefused::new(RefusalCode::InvalidTicket, 0, &reason))
    }
}

fn check_ticket(
    open: &OpenJob,
    peer: &AccountId,
    premises: &Premises<'_>,
    now_ms: u64,
) -> Result<TicketClaims, JobRefused> {
    let invalid = |reason: &str| JobRefused::new(RefusalCode::InvalidTicket, 0, reason);
    let Some(coordinator) = premises.coordinator else {
        let reason = "this provider has not reached its coordinator yet";
        return Err(JobRefused::new(RefusalCode::Busy, JOINING_RETRY_AFTER_MS, reason));
    };
    if open.ticket.len() > TICKET_MAX_BYTES {
        return Err(invalid(&format!("a ticket has at most {TICKET_MAX_BYTES} bytes")));
    }
    let ticket = match premises.known_ticket {
        Some(known) => known.clone(),
        None => {
            let verify = |key: &AccountId| TicketClaims::verify(&open.ticket, key, premises.provider, now_ms);
            let verified = verify_by_any(coordinator, verify);
            let ticket = verified.map_err(|error| invalid(&describe(&error, coordinator.newest())))?;
            let iss = *coordinator.first();
            TicketClaims { iss, ..ticket }
        }
    };
    if ticket.sub != *peer {
        let reason = format!(
            "the ticket is for {}, the stream was opened by {peer}",
            ticket.sub
        );
        return Err(JobRefused::new(RefusalCode::NotTicketHolder, 0, &reason));
    }
    let left_ms = ends_at_ms(&ticket).saturating_sub(now_ms);
    if left_ms < TICKET_MARGIN_MS {
        return Err(invalid(&format!(
            "the ticket ends in {left_ms} ms, and a new job needs {TICKET_MARGIN_MS} ms; open another channel"
        )));
    }
    Ok(ticket)
}

/// When a ticket stops to hold for this node, Unix milliseconds: the earlier of its two ends.
#[must_use]
pub fn ends_at_ms(ticket: &TicketClaims) -> u64 {
    ticket.redeem_by_ms.min(ticket.exp.saturating_mul(1_000))
}

fn describe(error: &TokenError, coordinator: &AccountId) -> String {
    match error {
        // A wrong issuer shows as a signature that does not hold, since the key is fixed beforehand.
        TokenError::Signature => {
            format!("the ticket is not signed by {coordinator}, the coordinator of this provider")
        }
        other => other.to_string(),
    }
}

fn refuse_model(open: &OpenJob, offers: &[Offer]) -> JobRefused {
    let same_kind = offers.iter().filter(|offer| offer.kind == open.kind);
    let names: Vec<_> = same_kind.map(|offer| offer.model.as_str()).collect();
    let here = if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    };
    let asked: String = open.model.chars().take(128).collect();
    let reason = format!(
        "'{asked}' is not on offer here for {}; on offer: {here}",
        open.kind
    );
    JobRefused::new(RefusalCode::ModelNotFound, 0, &reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::job::{JobKind, RequestId};
    use gristmill_protocol::jws::{self, Audience};
    use gristmill_protocol::usage::Price;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;
    const COORDINATOR: u8 = 1;
    const CONSUMER: u8 = 2;
    const PROVIDER: u8 = 3;
    const NEW_KEY: u8 = 4;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn account(byte: u8) -> AccountId {
        keypair(byte).account()
    }

    /// The coordinator's keys: it has handed over once.
    fn keys() -> LogKeys {
        let mut keys = LogKeys::new(account(COORDINATOR));
        keys.add_key(account(NEW_KEY));
        keys
    }

    fn price(output: u32) -> Price {
        Price::per_million_tokens(Credits::micro(100), Credits::micro(output))
    }

    fn ticket() -> TicketClaims {
        TicketClaims {
            iss: account(COORDINATOR),
            sub: account(CONSUMER),
            aud: Audience::One(account(PROVIDER)),
            jti: ChannelId::from_bytes([4; 16]),
            iat: NOW / 1000,
            exp: NOW / 1000 + 600,
            limit: Credits::micro(1_000_000),
            fee_basis_points: 250,
            redeem_by_ms: NOW + 600_000,
        }
    }

    fn offers() -> Vec<Offer> {
        let offer = |kind, model: &str| Offer {
            kind,
            model: model.into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: 512,
            capabilities: vec![],
            price: price(400),
        };
        vec![
            offer(JobKind::Embeddings, "small"),
            offer(JobKind::ChatCompletions, "large"),
        ]
    }

    fn open(ticket: &TicketClaims) -> OpenJob {
        OpenJob {
            ticket: jws::sign(ticket, &keypair(COORDINATOR)),
            request_id: RequestId::from_random([9; 16]),
            kind: JobKind::ChatCompletions,
            model: "large".into(),
            price_cap: price(400),
            body_bytes: 100,
            content_type: String::new(),
            trace_parent: None,
        }
    }

    /// Decides about a job after changing one thing about it.
    fn decide(
        change: impl FnOnce(&mut OpenJob, &mut AccountId, &mut Premises<'_>),
    ) -> Result<Admitted, JobRefused> {
        let (provider, coordinator, offers) = (account(PROVIDER), keys(), offers());
        let mut premises = Premises {
            provider: &provider,
            coordinator: Some(&coordinator),
            offers: &offers,
            slots: 2,
            queue_length: 3,
            jobs: 0,
            body_max_bytes: 100,
            closed: None,
            known_ticket: None,
        };
        let (mut open, mut peer) = (open(&ticket()), account(CONSUMER));
        change(&mut open, &mut peer, &mut premises);
        admit(&open, &peer, &premises, NOW)
    }

    fn code(decision: &Result<Admitted, JobRefused>) -> RefusalCode {
        decision.as_ref().unwrap_err().code
    }

    #[test]
    fn an_honest_job_is_taken_at_the_price_of_the_offer() {
        let admitted = decide(|_, _, _| {}).unwrap();
        assert_eq!((admitted.offer, admitted.terms.position), (1, 0));
        assert_eq!((admitted.terms.price, admitted.ticket), (price(400), ticket()));
    }

    #[test]
    fn tickets_of_the_key_before_a_hand_over_and_after_it_are_taken() {
        let by_new = TicketClaims {
            iss: account(NEW_KEY),
            ..ticket()
        };
        let signed = jws::sign(&by_new, &keypair(NEW_KEY));
        let admitted = decide(|open, _, _| open.ticket = signed).unwrap();
        assert_eq!(
            admitted.ticket,
            ticket(),
            "the coordinator is known by its first key"
        );
        // Whoever signs says so: the old key can't speak for the new one.
        let posing = jws::sign(&by_new, &keypair(COORDINATOR));
        assert_eq!(
            code(&decide(|open, _, _| open.ticket = posing)),
            RefusalCode::InvalidTicket
        );
    }

    #[test]
    fn a_known_ticket_is_held_against_peer_and_time_again() {
        // For ever: what it is set into lives longer than this function can tell.
        let kept = |ticket: TicketClaims| -> &'static TicketClaims { Box::leak(Box::new(ticket)) };
        let known = kept(ticket());
        let unread = "not looked at".to_owned();
        let admitted = decide(|open, _, premises| {
            open.ticket = unread.clone();
            premises.known_ticket = Some(known);
        });
        assert_eq!(admitted.unwrap().ticket, *known);
        let of_another = decide(|_, peer, premises| {
            *peer = account(9);
            premises.known_ticket = Some(known);
        });
        assert_eq!(code(&of_another), RefusalCode::NotTicketHolder);
        let ended = kept(TicketClaims {
            exp: NOW / 1_000 + 10,
            ..ticket()
        });
        let too_late = decide(|_, _, premises| premises.known_ticket = Some(ended));
        assert_eq!(code(&too_late), RefusalCode::InvalidTicket);
    }

    #[test]
    fn every_reason_has_its_code() {
        use RefusalCode::*;
        let signed_by = |byte: u8, claims: TicketClaims| jws::sign(&claims, &keypair(byte));
        let stranger = account(9);
        type Change = Box<dyn Fn(&mut OpenJob, &mut AccountId, &mut Premises<'_>)>;
        let table: Vec<(&str, RefusalCode, Change)> = vec![
            (
                "stopping",
                ShuttingDown,
                Box::new(|_, _, premises| premises.closed = Some("stopping")),
            ),
            (
                "joining",
                Busy,
                Box::new(|_, _, premises| premises.coordinator = None),
            ),
            (
                "no ticket",
                InvalidTicket,
                Box::new(|open, _, _| open.ticket = "x".into()),
            ),
            (
                "huge",
                InvalidTicket,
                Box::new(|open, _, _| open.ticket = "x".repeat(TICKET_MAX_BYTES + 1)),
            ),
            (
                "wrong issuer",
                InvalidTicket,
                Box::new(move |open, _, _| open.ticket = signed_by(9, ticket())),
            ),
            (
                "wrong audience",
                InvalidTicket,
                Box::new(move |open, _, _| {
                    let foreign = TicketClaims {
                        aud: Audience::One(stranger),
                        ..ticket()
                    };
                    open.ticket = jws::sign(&foreign, &keypair(COORDINATOR));
                }),
            ),
            (
                "not the holder",
                NotTicketHolder,
                Box::new(move |_, peer, _| *peer = stranger),
            ),
            (
                "other kind",
                ModelNotFound,
                Box::new(|open, _, _| open.kind = JobKind::Embeddings),
            ),
            (
                "other model",
                ModelNotFound,
                Box::new(|open, _, _| open.model = "largest".into()),
            ),
            (
                "dear",
                PriceAboveCap,
                Box::new(|open, _, _| open.price_cap = price(399)),
            ),
            (
                "large",
                BodyTooLarge,
                Box::new(|open, _, _| open.body_bytes = 101),
            ),
            ("full", Busy, Box::new(|_, _, premises| premises.jobs = 5)),
        ];
        for (name, expected, change) in table {
            let decision = decide(change);
            assert_eq!(code(&decision), expected, "{name}");
            assert!(!decision.unwrap_err().reason.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_ticket_holds_to_its_margin_and_not_beyond() {
        let ending = |left_ms: u64| {
            let end = NOW + left_ms;
            // The one end is in whole seconds, the other is not.
            let claims = TicketClaims {
                exp: end.div_ceil(1000),
                redeem_by_ms: end,
                ..ticket()
            };
            decide(|job, _, _| job.ticket = jws::sign(&claims, &keypair(COORDINATOR)))
        };
        assert!(ending(TICKET_MARGIN_MS).is_ok());
        let refused = ending(TICKET_MARGIN_MS - 1).unwrap_err();
        assert_eq!(refused.code, RefusalCode::InvalidTicket);
        assert!(
            refused.reason.contains("29999 ms") && refused.reason.contains("another channel"),
            "{refused:?}"
        );
        let expired = ending(0).unwrap_err();
        assert!(expired.reason.contains("expired"), "{expired:?}");
    }

    #[test]
    fn positions_count_those_that_must_finish_first() {
        for (jobs, position) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3)] {
            assert_eq!(
                decide(|_, _, premises| premises.jobs = jobs)
                    .unwrap()
                    .terms
                    .position,
                position
            );
        }
    }

    #[test]
    fn a_known_channel_must_be_the_tickets() {
        let channel = ProviderChannel::new(&ticket(), Credits::micro(100), None);
        let limit = ticket().limit;
        assert_eq!(check_channel(&ticket(), &channel, limit), Ok(()));
        for other in [
            TicketClaims {
                sub: account(9),
                ..ticket()
            },
            TicketClaims {
                limit: Credits::micro(2_000_000),
                ..ticket()
            },
        ] {
            assert_eq!(
                check_channel(&other, &channel, limit).unwrap_err().code,
                RefusalCode::InvalidTicket
            );
        }
    }

    proptest! {
        /// Whatever is taken, the ticket was the coordinator's, for this provider and this peer, and there was room.
        #[test]
        fn nothing_is_taken_without_ticket_price_and_room(
            signer in 1u8..4, sub in 1u8..4, aud in 1u8..5, peer in 1u8..4,
            left_ms in 0u64..120_000, cap in 300u32..500, jobs in 0u32..8, body in 0u64..200,
        ) {
            let claims = TicketClaims {
                iss: account(signer),
                sub: account(sub),
                aud: Audience::One(account(aud)),
                exp: NOW / 1000 + left_ms / 1000,
                redeem_by_ms: NOW + left_ms,
                ..ticket()
            };
            let decision = decide(|open, account_of_peer, premises| {
                open.ticket = jws::sign(&claims, &keypair(signer));
                open.price_cap = price(cap);
                open.body_bytes = body;
                *account_of_peer = account(peer);
                premises.jobs = jobs;
            });
            let fine = signer == COORDINATOR && aud == PROVIDER && sub == peer
                && left_ms / 1000 * 1000 >= TICKET_MARGIN_MS && cap >= 400 && jobs < 5 && body <= 100;
            prop_assert_eq!(decision.is_ok(), fine);
        }

        #[test]
        fn arbitrary_tickets_are_refused(text in ".{0,400}") {
            let decision = decide(|open, _, _| open.ticket = text);
            prop_assert_eq!(code(&decision), RefusalCode::InvalidTicket);
        }
    }
}
