//! The way to the first output: one provider, and a second one beside it where the first is late. Who gives output
//! first goes on; the other one is cancelled before it has delivered anything that is paid for.

use std::convert::Infallible;

use super::attempt::Attempt;
use super::{Failed, Job};
use crate::coordinator_link::Terms;
use crate::core::router::Route;
use crate::core::verdict::Verdict;

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
        let end = RaceEnd::default();
        let provider = route.provider;
        let late = self.second_route(&route, terms);
        let mut first = Box::pin(self.ask(route.clone(), terms));
        let second = tokio::select! {
            biased;
            asked = &mut first => return end.with(asked),
            second = late => second,
        };
        tracing::debug!(late = %provider, asked = %second.provider, "the first output is late; another provider is asked too");
        let mut second = Box::pin(self.ask(second, terms));
        tokio::select! {
            biased;
            asked = &mut first => match end.with(asked) {
                end @ RaceEnd { winner: Some(_), .. } => end,
                end => end.with(second.await),
            },
            asked = &mut second => match end.with(asked) {
                end @ RaceEnd { winner: Some(_), .. } => end,
                end => end.with(first.await),
            },
        }
    }

    /// Whom else to ask, once the first output is late. Waits for ever where nobody shall be.
    async fn second_route(&self, _first: &Route, _terms: &Terms) -> Route {
        let never: Infallible = std::future::pending().await;
        match never {}
    }
}
