//! Jobs that are cancelled: what is on its way by then is paid, on both sides' books, and no more than that.

use super::*;
use crate::job::Chunk;
use crate::session::consumer::ConsumerFailure;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whenever a job is cancelled: what had been sent by then is paid, and the channel is as free as if it had never
    /// been cancelled.
    #[test]
    fn cancelled_jobs_leave_nothing_unpaid_and_nothing_reserved(seed: u64, jobs in 1u8..6) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(false, true);
        for _ in 0..jobs {
            // Never above what is set aside for a job: nobody pays for that.
            world.open(rng.random_range(0..100), rng.random_range(0..20));
        }
        for _ in 0..20_000 {
            let index = rng.random_range(0..world.streams.len());
            match rng.random_range(0..1_000) {
                0..300 => world.deliver_to_provider(index, false),
                300..600 => world.deliver_to_consumer(index),
                600..995 => world.run_engine(index, rng.random_range(0..40)),
                _ => world.consumer_event(index, ConsumerEvent::Cancel),
            }
        }
        for stream in &world.streams {
            let outcome = stream.consumer_outcome.as_ref().expect("every job ends");
            let reason = stream.provider_outcome.as_ref().expect("on both sides").reason;
            prop_assert!(outcome.result.is_ok() || outcome.result == Err(ConsumerFailure::Cancelled));
            prop_assert!(matches!(reason, ProviderEnd::Completed | ProviderEnd::ConsumerLeft));
        }
        prop_assert_eq!(world.provider.unpaid(), Credits::ZERO);
        prop_assert_eq!(world.provider.delivered(), world.consumer.promised());
        prop_assert_eq!(world.consumer.left(), LIMIT.saturating_sub(world.consumer.promised()));
    }
}

/// Found with fifty flooding jobs at once: what their providers had sent and nobody read filled the channel up.
#[test]
fn a_channel_never_fills_up_with_cancelled_jobs() {
    let mut world = World::new(false, true);
    for job in 0..100 {
        world.open(10, 50);
        assert!(world.streams[job].provider.is_some(), "job {job} was refused");
        world.deliver_to_provider(job, false);
        for _ in 0..4 {
            world.run_engine(job, 20);
        }
        // The provider's yes and the first chunk are read, and the others are on their way.
        world.deliver_to_consumer(job);
        world.deliver_to_consumer(job);
        world.consumer_event(job, ConsumerEvent::Cancel);
        while world.streams[job].consumer.is_some() || world.streams[job].provider.is_some() {
            world.deliver_to_provider(job, false);
            world.deliver_to_consumer(job);
        }
        assert_eq!(world.provider.unpaid(), Credits::ZERO);
    }
}

/// A provider that goes on after a cancel is paid its window and no more, and not waited for.
#[test]
fn who_does_not_stop_when_cancelled_is_paid_no_more_than_its_window() {
    let mut world = World::new(false, true);
    world.open(10, 1_000);
    for _ in 0..4 {
        world.deliver_to_provider(0, false);
        world.run_engine(0, 5);
        world.deliver_to_consumer(0);
    }
    world.consumer_event(0, ConsumerEvent::Cancel);
    let promised = world.consumer.promised();
    for _ in 0..1_000 {
        // Vouchers and the cancel never arrive.
        world.streams[0].to_provider.clear();
        world.run_engine(0, 30);
        world.deliver_to_consumer(0);
    }
    world.now_ms += ConsumerTimeouts::default().last_word_ms;
    world.consumer_event(0, ConsumerEvent::Tick);
    assert_eq!(
        world.streams[0].consumer_outcome.as_ref().unwrap().result,
        Err(ConsumerFailure::Cancelled)
    );
    let since_cancel = world.consumer.promised().saturating_sub(promised);
    assert!(
        since_cancel <= WINDOW && !since_cancel.is_zero(),
        "{since_cancel}"
    );
}

/// The same where the provider does not even keep to its window.
#[test]
fn who_sends_more_than_its_window_after_a_cancel_is_left_at_it() {
    let mut world = World::new(false, true);
    world.open(10, 0);
    world.deliver_to_consumer(0);
    world.consumer_event(0, ConsumerEvent::Cancel);
    let text = "y".repeat(100);
    let payload = format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#).into_bytes();
    for chunk in 1..=10 {
        let frame = ProviderFrame::Chunk(Chunk {
            payload: payload.clone(),
            ends_message: true,
            meter: Usage::tokens(3, chunk * 100),
        });
        world.consumer_event(0, ConsumerEvent::Frame(Box::new(frame)));
    }
    assert!(world.streams[0].consumer_outcome.is_some(), "it is left");
    assert!(world.consumer.promised() <= WINDOW && !world.consumer.promised().is_zero());
}

/// What is of no use is paid for as far as it came.
#[test]
fn after_a_rejection_nothing_more_is_paid() {
    let mut world = World::new(false, true);
    world.open(10, 50);
    world.deliver_to_provider(0, false);
    for _ in 0..4 {
        world.run_engine(0, 20);
    }
    world.deliver_to_consumer(0);
    world.deliver_to_consumer(0);
    world.consumer_event(0, ConsumerEvent::Reject);
    let promised = world.consumer.promised();
    world.deliver_to_consumer(0);
    assert!(world.streams[0].consumer_outcome.is_some() && !promised.is_zero());
    assert_eq!(world.consumer.promised(), promised);
}
