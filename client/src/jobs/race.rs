//! The way to the first output: one provider, and a second one beside it where the first is late, as the market's
//! [`HedgePlan`] says. Who gives output first goes on; the other one is cancelled, and paid for what it had sent by then,
//! which is nothing or, where its meter counts the prompt, that.

use std::time::Duration;

use gristmill_protocol::routing::hedge::{HedgeCost, HedgeDecision, HedgePlan};
use gristmill_protocol::routing::score::likely_cost;
use tokio::time::{Instant, sleep_until};

use super::attempt::Attempt;
use super::{Failed, Job};
use crate::coordinator_link::Terms;
use crate::core::records::RecordEvent;
use crate::core::router::Route;
use crate::core::verdict::Verdict;
use crate::wallet::lock;

/// What asking one provider came to.
type Asked = Result<Attempt, (Route, Verdict)>;

/// Who gave output first, if anybody did, and who failed before that.
#[derive(Default)]
pub(super) struct RaceEnd {
    pub(super) winner: Option<Attempt>,
    pub(super) failures: Vec<Failed>,
}

impl RaceEnd {
    fn with(mut self, asked: Asked) -> Self {
        match asked {
            Ok(attempt) => self.winner = Some(attempt),
            Err((route, verdict)) => self.failures.push(Failed {
                route,
                verdict,
                delivered: None,
            }),
        }
        self
    }
}

impl Job {
    /// Asks a provider, and a second one where its first output is late.
    pub(super) async fn first_output(&self, route: Route, terms: &Terms) -> RaceEnd {
        let (end, began) = (RaceEnd::default(), Instant::now());
        let provider = route.provider;
        let late = self.second_route(&route, terms, began);
        let mut first = Box::pin(self.ask(route.clone(), terms));
        let second = tokio::select! {
            biased;
            asked = &mut first => return end.with(asked),
            second = late => second,
        };
        tracing::debug!(late = %provider, asked = %second.provider, "the first output is late; another provider is asked too");
        let mut second = Box::pin(self.ask(second, terms));
        // Dropping the slower one cancels its job.
        tokio::select! {
            biased;
            asked = &mut first => match end.with(asked) {
                end @ RaceEnd { winner: Some(_), .. } => end,
                end => end.with(second.await),
            },
            asked = &mut second => match end.with(asked) {
                end @ RaceEnd { winner: Some(_), .. } => {
                    let waited_ms = began.elapsed().as_secs_f64() * 1_000.0;
                    self.market.note(provider, RecordEvent::WasLate { waited_ms });
                    end
                }
                end => end.with(first.await),
            },
        }
    }

    /// Whom else to ask, once the first output is late. Waits for ever where nobody shall be.
    async fn second_route(&self, first: &Route, terms: &Terms, began: Instant) -> Route {
        let mut plan = self.hedge_plan(first);
        loop {
            let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            match plan.decide(elapsed_ms) {
                HedgeDecision::WaitUntil { elapsed_ms } => {
                    sleep_until(began + Duration::from_millis(elapsed_ms)).await;
                }
                HedgeDecision::Start => {
                    plan.done();
                    if let Some(second) = self.second(first, terms) {
                        return second;
                    }
                }
                HedgeDecision::Never => std::future::pending().await,
            }
        }
    }

    /// When the first output is late. Only of text is it known how long that usually takes: a picture comes when it is
    /// done.
    fn hedge_plan(&self, first: &Route) -> HedgePlan {
        let request = self.request();
        match self.market.settings.hedging {
            Some(bounds) if request.kind.is_generated_text() => {
                let standing = self.market.standing(&first.provider);
                HedgePlan::new(&standing, request.body.len() as u64, bounds)
            }
            _ => HedgePlan::NEVER,
        }
    }

    /// The second provider, where there is one at a fair price and not too many jobs are hedged already.
    fn second(&self, first: &Route, terms: &Terms) -> Option<Route> {
        if !lock(&self.market.records).may_hedge() {
            return None;
        }
        let constraints = self.constraints().ok()?;
        let second = self.fitting(&constraints, terms, Some(first.provider)).ok()?;
        let needs = self.needs(&constraints);
        let cost = HedgeCost {
            first: likely_cost(&first.offer.price, &needs),
            second: likely_cost(&second.offer.price, &needs),
            budget: self.course.left(),
        };
        cost.is_fair().then(|| {
            lock(&self.market.records).hedge_began();
            second
        })
    }
}
