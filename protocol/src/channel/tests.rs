use super::*;
use crate::jws::Audience;

fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

fn ticket(limit: u32) -> TicketClaims {
    TicketClaims {
        iss: keypair(1).account(),
        sub: keypair(2).account(),
        aud: Audience::One(keypair(3).account()),
        jti: ChannelId::from_bytes([4; 16]),
        iat: 0,
        exp: 1,
        limit: Credits::micro(limit),
        fee_basis_points: 0,
        redeem_by_ms: 1_000,
    }
}

fn request() -> RequestId {
    RequestId::from_random([9; 16])
}

fn consumer(limit: u32) -> ConsumerChannel {
    ConsumerChannel::new(
        keypair(2),
        ticket(limit).jti,
        Credits::micro(limit),
        Credits::ZERO,
    )
}

fn provider(limit: u32, window: u32) -> ProviderChannel {
    ProviderChannel::new(&ticket(limit), Credits::micro(window), None)
}

#[test]
fn vouchers_grow_and_repeats_change_nothing() {
    let (mut consumer, mut provider) = (consumer(1_000), provider(1_000, 100));
    consumer.receive(Credits::micro(30)).unwrap();
    let first = consumer.promise(&request(), [1; 32]).unwrap();
    consumer.receive(Credits::micro(30)).unwrap();
    let second = consumer.promise(&request(), [1; 32]).unwrap();
    assert_eq!(consumer.promise(&request(), [1; 32]), None);
    for (voucher, raises, vouchered) in [(&second, true, 60), (&first, false, 60), (&second, false, 60)] {
        assert_eq!(provider.accept(voucher), Ok(raises));
        assert_eq!(provider.vouchered(), Credits::micro(vouchered));
    }
}

#[test]
fn vouchers_of_others_or_above_the_limit_are_refused() {
    let mut provider = provider(1_000, 100);
    let voucher = |key: u8, channel: u8, cumulative: u32| {
        keypair(key).sign(Voucher {
            channel: ChannelId::from_bytes([channel; 16]),
            cumulative: Credits::micro(cumulative),
            request_id: request(),
            transcript: [0; 32],
        })
    };
    assert!(matches!(
        provider.accept(&voucher(5, 4, 10)),
        Err(VoucherError::Signature { .. })
    ));
    assert!(matches!(
        provider.accept(&voucher(2, 5, 10)),
        Err(VoucherError::OtherChannel { .. })
    ));
    assert!(matches!(
        provider.accept(&voucher(2, 4, 1_001)),
        Err(VoucherError::AboveLimit { .. })
    ));
    assert_eq!(provider.accept(&voucher(2, 4, 1_000)), Ok(true));
}

#[test]
fn nothing_is_delivered_beyond_the_window_or_the_limit() {
    let mut provider = provider(150, 100);
    provider.admit(Credits::micro(25)).unwrap();
    assert!(provider.may_deliver(Credits::micro(75), Credits::ZERO));
    assert!(!provider.may_deliver(Credits::micro(76), Credits::ZERO));
    assert!(provider.may_deliver(Credits::micro(100), Credits::micro(25)));
    provider.deliver(Credits::micro(100)).unwrap();
    provider.release(Credits::micro(25));
    assert!(!provider.may_deliver(Credits::micro(1), Credits::ZERO));
    assert!(provider.fits_limit(Credits::micro(50)));
    assert!(!provider.fits_limit(Credits::micro(51)));
}

#[test]
fn admission_tells_the_reasons_apart() {
    let mut channel = provider(1_000, 100);
    assert!(matches!(
        channel.admit(Credits::micro(26)),
        Err(AdmissionRefusal::InputAboveWindow { .. })
    ));
    channel.admit(Credits::micro(20)).unwrap();
    assert_eq!(
        channel.admit(Credits::micro(6)),
        Err(AdmissionRefusal::WindowTaken)
    );
    channel.release(Credits::micro(20));
    channel.deliver(Credits::micro(51)).unwrap();
    assert_eq!(
        channel.admit(Credits::micro(1)),
        Err(AdmissionRefusal::WindowTaken),
        "the job that runs will pay"
    );
    channel.end_job(Credits::ZERO);
    assert!(matches!(
        channel.admit(Credits::micro(1)),
        Err(AdmissionRefusal::Exhausted { .. })
    ));
}

#[test]
fn state_lost_on_either_side_is_found_again() {
    let (mut remembering, mut provider) = (consumer(1_000), provider(1_000, 100));
    remembering.receive(Credits::micro(70)).unwrap();
    let voucher = remembering.promise(&request(), [1; 32]).unwrap();
    // The provider lost the voucher: it gets it again.
    let again = remembering.reconcile(None, &request()).unwrap().unwrap();
    assert_eq!(provider.accept(&again), Ok(true));
    // The consumer lost everything: the provider's copy brings it back.
    let mut forgetful = consumer(1_000);
    assert_eq!(forgetful.reconcile(Some(&voucher), &request()), Ok(None));
    assert_eq!(forgetful.promised(), Credits::micro(70));
    // A voucher by somebody else does not.
    let forged = keypair(8).sign(voucher.content_unchecked().clone());
    assert!(consumer(1_000).reconcile(Some(&forged), &request()).is_err());
    assert!(
        remembering.reconcile(Some(&forged), &request()).is_err(),
        "not because its content is known either"
    );
}

#[test]
fn payment_for_forgotten_work_buys_no_later_work() {
    let mut consumer = consumer(1_000);
    consumer.receive(Credits::micro(70)).unwrap();
    let voucher = consumer.promise(&request(), [1; 32]).unwrap();
    let mut restarted = provider(1_000, 100);
    restarted.accept(&voucher).unwrap();
    assert_eq!(restarted.unpaid(), Credits::ZERO);
    assert!(!restarted.may_deliver(Credits::micro(101), Credits::ZERO));
}

#[test]
fn reservations_bound_what_jobs_may_cost() {
    let mut consumer = consumer(100);
    consumer.reserve(Credits::micro(60)).unwrap();
    assert!(consumer.reserve(Credits::micro(41)).is_err());
    consumer.receive(Credits::micro(10)).unwrap();
    consumer.release(Credits::micro(60));
    assert_eq!(consumer.left(), Credits::micro(90));
    assert!(consumer.receive(Credits::micro(91)).is_err());
    assert_eq!(consumer.owed(), Credits::micro(10));
}
