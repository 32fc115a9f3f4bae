//! Requests: when they come, and who is asked.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::job::JobKind;
use gristmill_protocol::routing::affinity::PrefixDigests;
use gristmill_protocol::routing::candidates::{Asker, Needs, NoRoute};
use gristmill_protocol::routing::choice::{Route, choose};
use gristmill_protocol::routing::constraints::Constraints;
use gristmill_protocol::routing::hedge::{HedgeBounds, HedgeCost, HedgeDecision, HedgePlan};
use gristmill_protocol::routing::retry::{RetryPlan, RoundEnd};
use gristmill_protocol::usage::{Unit, Usage};

use super::{Consumer, Job};
use crate::engine::Breach;
use crate::people::coordinator::amount;
use crate::people::demand::Request;
use crate::people::job_text::{self, INPUT_TOKENS_MAX};
use crate::people::whole;
use crate::world::event::{ATTEMPTS_MAX, JobId, Timer};
use crate::world::scene::Scene;
use crate::world::tally::Unserved;

impl Consumer {
    /// A program asks.
    pub(super) fn ask(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let config = self.config(scene);
        let now_us = scene.now_us();
        let world = scene.world;
        let Some(demand) = world.demands.get(usize::from(self.group)) else {
            return Ok(());
        };
        let next_us = demand.next_request_us(now_us, config.utc_offset_minutes, scene.random());
        scene.after(next_us - now_us, Timer::Ask);
        let mut request = demand.request(scene.random());
        request.input_tokens = request.input_tokens.clamp(1, INPUT_TOKENS_MAX);
        request.output_tokens = request.output_tokens.max(1);
        let job = JobId::new(scene.node(), self.jobs_asked);
        self.jobs_asked += 1;
        scene.tally.asked += 1;
        scene.tell(Some(job), || {
            let Request {
                input_tokens,
                output_tokens,
                ..
            } = request;
            format!(
                "A program asks {}: {input_tokens} tokens of prompt, {output_tokens} of answer.",
                request.model.name()
            )
        });
        let patience_us = config.patience_s.get() * 1_000_000;
        let deadline_ms = scene.now_ms() + patience_us / 1_000;
        let asked = Job {
            request,
            asked_us: scene.now_us(),
            retries: RetryPlan::new(Some(deadline_ms)),
            tried: BTreeSet::new(),
            busy: BTreeSet::new(),
            failed: BTreeSet::new(),
            busy_wait_ms: None,
            attempts: 0,
            attempts_ever: 0,
            live: Vec::new(),
            hedge: HedgePlan::NEVER,
            got: 0,
            first_us: None,
            cost_max: 0,
            is_over: false,
        };
        self.jobs.insert(job, asked);
        scene.after(patience_us, Timer::GiveUp(job));
        self.route(job, scene)
    }

    /// Asks the next provider, or waits, or gives up.
    pub(super) fn route(&mut self, job: JobId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let most = whole(self.config(scene).attempts.get());
        let Some(asked) = self.jobs.get(&job) else {
            return Ok(());
        };
        if asked.is_over || !asked.live.is_empty() {
            return Ok(());
        }
        if asked.attempts >= most || asked.attempts_ever >= ATTEMPTS_MAX {
            return self.round_is_over(job, None, scene);
        }
        match self.choose(job, scene) {
            Ok(route) => self.begin_attempt(job, route, scene),
            Err(no_route) => self.round_is_over(job, Some(&no_route), scene),
        }
    }

    fn choose(&self, job: JobId, scene: &mut Scene<'_, '_>) -> Result<Route, NoRoute> {
        let config = self.config(scene);
        let (Some(asked), Some(board)) = (self.jobs.get(&job), self.board.awake()) else {
            return Err(NoRoute::NothingOnOffer);
        };
        let capabilities = BTreeMap::new();
        let constraints = Constraints {
            max_price_per_million: (config.max_price.get() > 0).then(|| amount(config.max_price.get())),
            only_verified: self.only_verified,
            ..Constraints::default()
        };
        let prefix = PrefixDigests::default();
        let funded = self.funded(scene.now_ms());
        let body_bytes = job_text::body_bytes(asked.request.input_tokens) as u64;
        let needs = Needs {
            kind: JobKind::ChatCompletions,
            model: asked.request.model.name(),
            capabilities: &capabilities,
            body_bytes,
            output_tokens_max: Some(u64::from(asked.request.output_tokens)),
            choices: 1,
            context_length_above: 0,
            constraints: &constraints,
            prefix: &prefix,
        };
        let asker = Asker {
            account: scene.account(),
            coordinator: scene.world.coordinator_account(),
            tried: &asked.tried,
            funded: &funded,
        };
        let now_ms = scene.now_ms();
        let route = choose(board, &needs, &asker, &self.records, now_ms, scene.random())?;
        if let Some(listing) = board.listing(&route.provider, now_ms) {
            scene
                .tally
                .listing_age_ms
                .add(now_ms.saturating_sub(listing.issued_at_ms));
        }
        let price = route.offer.price.coefficient(Unit::OutputToken);
        scene.tally.price.add(price.microcredits());
        Ok(route)
    }

    /// Nobody is left in this round: waits for the next one, as the market's plan says, or tells the program.
    fn round_is_over(
        &mut self,
        job: JobId,
        no_route: Option<&NoRoute>,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let now_ms = scene.now_ms();
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        let may_come_back = matches!(
            no_route,
            None | Some(NoRoute::AllTried | NoRoute::AllFailing { .. })
        );
        let mut wait_ms = None;
        if let Some(retry_after_ms) = asked.busy_wait_ms.take() {
            wait_ms = asked
                .retries
                .next_wait_ms(RoundEnd::Busy { retry_after_ms }, now_ms, scene.random());
        }
        let has_others = no_route.is_none();
        if wait_ms.is_none() && may_come_back && (has_others || !asked.failed.is_empty()) {
            let is_alone = !has_others && asked.failed.union(&asked.busy).count() == 1;
            let end = RoundEnd::Failed {
                status: 503,
                is_alone,
            };
            wait_ms = asked.retries.next_wait_ms(end, now_ms, scene.random());
        }
        let Some(wait_ms) = wait_ms.filter(|_| asked.attempts_ever < ATTEMPTS_MAX) else {
            let why = if may_come_back {
                Unserved::NobodyLeft
            } else {
                Unserved::NoOffer
            };
            let why = if asked.got > 0 { Unserved::BrokeOff } else { why };
            self.end_unserved(job, why, scene);
            return Ok(());
        };
        for back in std::mem::take(&mut asked.busy)
            .into_iter()
            .chain(std::mem::take(&mut asked.failed))
        {
            asked.tried.remove(&back);
        }
        asked.attempts = 0;
        scene.tally.retries += 1;
        scene.tell(Some(job), || {
            format!("Nobody is left to ask; it waits for {wait_ms} ms.")
        });
        scene.after(wait_ms * 1_000, Timer::Retry(job));
        Ok(())
    }

    /// Plans when to ask a second provider.
    pub(super) fn plan_hedge(&mut self, job: JobId, scene: &mut Scene<'_, '_>) {
        let now_ms = scene.now_ms();
        let hedging = self.config(scene).hedging;
        let Some(asked) = self.jobs.get_mut(&job) else {
            return;
        };
        if !hedging || asked.got > 0 {
            asked.hedge = HedgePlan::NEVER;
            return;
        }
        if let [first] = asked.live.as_slice() {
            let standing = self.records.standing(&first.account, now_ms);
            let body_bytes = job_text::body_bytes(first.input_tokens) as u64;
            asked.hedge = HedgePlan::new(&standing, body_bytes, HedgeBounds::default());
            if let HedgeDecision::WaitUntil { elapsed_ms } = asked.hedge.decide(0) {
                scene.after(elapsed_ms * 1_000, Timer::Hedge(job));
            }
        }
    }

    /// The first output may be late.
    pub(super) fn hedge(&mut self, job: JobId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let now_us = scene.now_us();
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        let [first] = asked.live.as_slice() else {
            return Ok(());
        };
        if asked.is_over || asked.first_us.is_some() || first.session.is_none() {
            return Ok(());
        }
        let elapsed_ms = now_us.saturating_sub(first.sent_us) / 1_000;
        match asked.hedge.decide(elapsed_ms) {
            HedgeDecision::Never => return Ok(()),
            HedgeDecision::WaitUntil { elapsed_ms: until_ms } => {
                scene.after((until_ms - elapsed_ms).max(1) * 1_000, Timer::Hedge(job));
                return Ok(());
            }
            HedgeDecision::Start => {}
        }
        asked.hedge.done();
        if !self.records.may_hedge() || asked.attempts_ever >= ATTEMPTS_MAX {
            return Ok(());
        }
        let usage = Usage::tokens(u64::from(first.input_tokens), u64::from(first.output_tokens));
        let first_cost = first.price.cost(&usage).unwrap_or_default();
        let Ok(route) = self.choose(job, scene) else {
            return Ok(());
        };
        let cost = HedgeCost {
            first: first_cost,
            second: route.offer.price.cost(&usage).unwrap_or_default(),
            budget: None,
        };
        if cost.is_fair() {
            self.records.hedge_began();
            scene.tally.hedges += 1;
            scene.tell(Some(job), || {
                format!("No output after {elapsed_ms} ms: a second provider is asked.")
            });
            self.begin_attempt(job, route, scene)?;
        }
        Ok(())
    }
}
