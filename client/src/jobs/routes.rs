//! Whom to ask next.

use std::collections::BTreeSet;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::routing::constraints::Constraints;

use super::{Job, explain};
use crate::coordinator_link::{LinkState, Terms};
use crate::core::failure::ApiFailure;
use crate::core::router::{Asker, Needs, NoRoute, Route, choose, constraints_of};
use crate::wallet::lock;

impl Job {
    /// The best provider to ask next. Where there is none, the coordinator may know more than gossip has brought.
    pub(super) async fn route(&self) -> Result<(Route, Terms), ApiFailure> {
        let market = &self.market;
        if market.link.terms().is_none() {
            market.link.refresh_listings().await;
        }
        let Some(terms) = market.link.terms() else {
            let reason = match market.link.state() {
                LinkState::Away(reason) => reason,
                _ => "it has not answered yet".to_owned(),
            };
            return Err(ApiFailure::coordinator_unavailable(&reason));
        };
        let constraints = self.constraints()?;
        let explain = |none| explain::no_route(none, self.request(), &constraints);
        match self.fitting(&constraints, &terms, None) {
            Ok(route) => Ok((route, terms)),
            Err(_) if self.rounds.tried().is_empty() => {
                market.link.refresh_listings().await;
                let chosen = self.fitting(&constraints, &terms, None);
                chosen.map(|route| (route, terms)).map_err(explain)
            }
            Err(none) => Err(explain(none)),
        }
    }

    /// What the request is restricted to.
    pub(super) fn constraints(&self) -> Result<Constraints, ApiFailure> {
        let cap = self.market.settings.max_price_per_million;
        constraints_of(&self.context.overrides, cap)
            .map_err(|conflict| ApiFailure::invalid_request(conflict.to_string()))
    }

    /// The best provider that suits what is still to be written; not `other_than`, who is being asked already.
    pub(super) fn fitting(
        &self,
        constraints: &Constraints,
        terms: &Terms,
        other_than: Option<AccountId>,
    ) -> Result<Route, NoRoute> {
        let mut out = self.rounds.tried().clone();
        out.extend(other_than);
        self.fitting_beside(constraints, terms, out)
    }

    /// Whether somebody could be asked in a later round, as far as can be told now.
    pub(super) fn may_be_asked_later(&self) -> bool {
        self.is_there_beside(self.rounds.tried_for_good())
    }

    /// Whether there is somebody who was not asked yet.
    pub(super) fn has_others(&self) -> bool {
        self.is_there_beside(self.rounds.tried().clone())
    }

    fn is_there_beside(&self, out: BTreeSet<AccountId>) -> bool {
        let (Some(terms), Ok(constraints)) = (self.market.link.terms(), self.constraints()) else {
            return false;
        };
        self.fitting_beside(&constraints, &terms, out).is_ok()
    }

    fn fitting_beside(
        &self,
        constraints: &Constraints,
        terms: &Terms,
        mut out: BTreeSet<AccountId>,
    ) -> Result<Route, NoRoute> {
        loop {
            let route = self.choose(constraints, terms, &out)?;
            let suits = self
                .continuing
                .as_ref()
                .is_none_or(|continuing| continuing.rest.suits(&route.offer, &continuing.before));
            if suits {
                return Ok(route);
            }
            out.insert(route.provider);
        }
    }

    fn choose(
        &self,
        constraints: &Constraints,
        terms: &Terms,
        tried: &BTreeSet<AccountId>,
    ) -> Result<Route, NoRoute> {
        let market = &self.market;
        let needs = self.needs(constraints);
        let asker = Asker {
            account: market.account,
            coordinator: terms.coordinator,
            tried,
            funded: &market.wallet.funded(terms.coordinator),
        };
        let now_ms = market.now_ms();
        let records = lock(&market.records);
        let random = &mut *lock(&market.random);
        market
            .mesh
            .with_board(|board| choose(board, &needs, &asker, &records, now_ms, random))
    }

    /// What the request needs of an offer.
    pub(super) fn needs<'a>(&'a self, constraints: &'a Constraints) -> Needs<'a> {
        let request = self.request();
        Needs {
            kind: request.kind,
            model: &request.model,
            capabilities: &request.needs,
            body_bytes: request.body.len() as u64,
            output_tokens_max: request
                .output_tokens_max
                .map(|most| most.saturating_mul(request.choices)),
            choices: request.choices,
            context_length_above: self.context_length_above,
            constraints,
            prefix: &self.prefix,
        }
    }
}
