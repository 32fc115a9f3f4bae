//! Devices that were slower in a challenge than a moment before are measured and shown again, a few times.
//!
//! The coordinator challenges the devices of one owner together, so all of them are shown again with the one that was
//! too slow: otherwise it would wait for the others until it is given up.

use futures::future::join_all;

use super::claiming::ClaimPercent;
use super::show::ShowError;

/// Most challenges in a row for each device. A coordinator counts how many begin in an hour, 128 for each account
/// unless its operator says otherwise: three each leave room for a machine of many devices, and for an owner's own tries.
pub const ATTEMPTS_MAX: u32 = 3;

/// A device is shown again, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Which device, by its number in the order in which they were given.
    pub device: usize,
    /// Which attempt begins, the first one being 1; [`ATTEMPTS_MAX`] is the last.
    pub attempt: u32,
    /// How many percent of what is measured now are claimed.
    pub percent: ClaimPercent,
    /// What the coordinator said of the attempt before.
    pub reason: String,
}

impl std::fmt::Display for Again {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "slower than it was measured a moment ago ({}); measured again, {} % of that is claimed now, attempt {} of \
             {ATTEMPTS_MAX}",
            self.reason,
            self.percent.get(),
            self.attempt
        )
    }
}

/// Whether a coordinator refused a device because of time. Only then another attempt can end otherwise.
fn is_too_slow(error: &ShowError) -> bool {
    matches!(error, ShowError::Refused { code, .. }
        if ["slower_than_claimed", "memory_not_shown", "late"].contains(&code.as_str()))
}

/// Shows `count` devices at once with `show`, which is given a device's number and how much of what it measures it
/// claims; all that a coordinator judged are shown again where one of them was too slow. `again` hears of each that was.
///
/// What a device has once got it keeps, also where a later attempt fails.
pub async fn show_within_attempts<T, Shown>(
    count: usize,
    percent: ClaimPercent,
    show: impl Fn(usize, ClaimPercent) -> Shown,
    mut again: impl FnMut(&Again),
) -> Vec<Result<T, ShowError>>
where
    Shown: Future<Output = Result<T, ShowError>>,
{
    let mut percents = vec![percent; count];
    let mut outcomes = join_all((0..count).map(|device| show(device, percent))).await;
    for attempt in 2..=ATTEMPTS_MAX {
        let is_slow = |outcome: &Result<T, ShowError>| outcome.as_ref().is_err_and(is_too_slow);
        let is_judged =
            |outcome: &Result<T, ShowError>| matches!(outcome, Ok(_) | Err(ShowError::Refused { .. }));
        if !outcomes.iter().any(is_slow) || outcomes.iter().any(is_interrupted) {
            break;
        }
        for (device, outcome) in outcomes.iter().enumerate() {
            if let Err(error) = outcome
                && is_too_slow(error)
            {
                percents[device] = percents[device].lowered();
                again(&Again {
                    device,
                    attempt,
                    percent: percents[device],
                    reason: error.to_string(),
                });
            }
        }
        let judged: Vec<usize> = (0..count)
            .filter(|&device| is_judged(&outcomes[device]))
            .collect();
        let shown = join_all(judged.iter().map(|&device| show(device, percents[device]))).await;
        for (device, outcome) in judged.into_iter().zip(shown) {
            if outcome.is_ok() || outcomes[device].is_err() {
                outcomes[device] = outcome;
            }
        }
    }
    outcomes
}

/// The owner or a job wants the devices: nothing is begun any more.
const fn is_interrupted<T>(outcome: &Result<T, ShowError>) -> bool {
    matches!(
        outcome,
        Err(ShowError::Prover(super::ProverError::Interrupted(_)))
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::Interruption;
    use super::*;

    fn refused(code: &str) -> ShowError {
        ShowError::Refused {
            code: code.to_owned(),
            message: format!("it was {code}"),
        }
    }

    type Outcomes = Vec<Result<&'static str, ShowError>>;

    /// Shows devices whose outcomes are given attempt after attempt, and gives what they ended with, what was claimed
    /// of each, and what was told.
    fn play(devices: Vec<Outcomes>) -> (Outcomes, Vec<(usize, u32)>, Vec<Again>) {
        let devices: Vec<_> = devices
            .into_iter()
            .map(|outcomes| RefCell::new(outcomes.into_iter()))
            .collect();
        let (claimed, told) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let show = |device: usize, percent: ClaimPercent| {
            claimed.borrow_mut().push((device, percent.get()));
            let outcome = devices[device]
                .borrow_mut()
                .next()
                .expect("it is not shown again");
            async { outcome }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let percent = ClaimPercent::new(90).unwrap();
        let outcomes = runtime.block_on(show_within_attempts(devices.len(), percent, show, |again| {
            told.borrow_mut().push(again.clone());
        }));
        (outcomes, claimed.into_inner(), told.into_inner())
    }

    #[test]
    fn a_device_that_was_too_slow_claims_less_and_is_shown_again() {
        let slow = || Err(refused("slower_than_claimed"));
        let (outcomes, claimed, told) =
            play(vec![vec![slow(), Err(refused("memory_not_shown")), Ok("shown")]]);
        assert!(matches!(outcomes[..], [Ok("shown")]));
        assert_eq!(claimed, [(0, 90), (0, 60), (0, 40)]);
        assert_eq!(told.len(), 2);
        let said = told[0].to_string();
        assert!(
            said.contains("it was slower_than_claimed") && said.contains("60 %") && said.contains("2 of 3"),
            "{said}"
        );
    }

    #[test]
    fn attempts_come_to_an_end_and_the_last_reason_is_told() {
        let late = || Err(refused("late"));
        let (outcomes, claimed, told) = play(vec![vec![late(), late(), Err(refused("slower_than_claimed"))]]);
        assert!(
            matches!(&outcomes[..], [Err(ShowError::Refused { code, .. })] if code == "slower_than_claimed")
        );
        assert_eq!((claimed.len(), told.len()), (3, 2));
    }

    #[test]
    fn nothing_else_is_tried_again() {
        for error in [
            refused("proof"),
            refused("together"),
            refused("uuid_taken"),
            ShowError::Endless,
            ShowError::from(Interruption::GateClosed),
            ShowError::Challenger("429 too many".into()),
        ] {
            let text = error.to_string();
            let (outcomes, claimed, told) = play(vec![vec![Err(error)]]);
            assert_eq!(outcomes[0].as_ref().unwrap_err().to_string(), text);
            assert_eq!((claimed.len(), told.len()), (1, 0), "{text}");
        }
    }

    #[test]
    fn the_devices_that_a_coordinator_judged_are_shown_again_together() {
        let (outcomes, claimed, _) = play(vec![
            vec![Err(refused("slower_than_claimed")), Ok("slow one")],
            vec![Ok("first"), Ok("second")],
            vec![Err(refused("together")), Ok("newcomer")],
            vec![Err(ShowError::Endless)],
        ]);
        assert!(matches!(
            outcomes[..],
            [
                Ok("slow one"),
                Ok("second"),
                Ok("newcomer"),
                Err(ShowError::Endless)
            ]
        ));
        assert_eq!(claimed[4..], [(0, 60), (1, 90), (2, 90)]);
    }

    #[test]
    fn a_certificate_that_a_device_has_is_kept_and_a_job_ends_everything() {
        let slow = || Err(refused("slower_than_claimed"));
        let (outcomes, claimed, _) = play(vec![
            vec![slow(), Err(ShowError::from(Interruption::GateClosed))],
            vec![Ok("first"), Err(refused("late"))],
        ]);
        assert!(matches!(outcomes[..], [Err(ShowError::Prover(_)), Ok("first")]));
        assert_eq!(claimed.len(), 4);
        let (_, claimed, told) = play(vec![
            vec![slow()],
            vec![Err(ShowError::from(Interruption::Stopped))],
        ]);
        assert_eq!((claimed.len(), told.len()), (2, 0));
    }
}
