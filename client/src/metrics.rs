//! What monitoring is told: requests in the names of OpenTelemetry's conventions for generative AI, and what is the
//! market's own: cost, circuit breakers, the witness's alarms, the budget. `GET /metrics` reads it.
//!
//! Labels are few: models that somebody has answered for, and words of this program. Neither keys nor ids.

use std::time::Duration;

use gristmill_protocol::routing::breaker::BreakerState;
use gristmill_protocol::usage::Unit;
use gristmill_telemetry::exposition::exposition;
use gristmill_telemetry::genai::{GenAiMetrics, Operation, Side};
use gristmill_telemetry::{Counter, Family, Gauge, Registry};

use crate::core::finished_request::FinishedRequest;
use crate::core::providers::{HardwareSums, Verification};
use crate::market::Market;
use crate::wallet::lock;

/// One label and its value.
type Label = [(&'static str, String); 1];

/// Words for what went wrong that programs are told by this program. Engines make up words of their own.
const ERRORS: [&str; 22] = [
    "budget_exhausted",
    "client_closed_request",
    "context_length_exceeded",
    "coordinator_distrusted",
    "coordinator_unavailable",
    "forbidden",
    "idempotency_key_reused",
    "idempotency_key_used",
    "insufficient_credits",
    "internal_error",
    "invalid_api_key",
    "invalid_request",
    "model_not_found",
    "no_provider_available",
    "provider_failed",
    "provider_timeout",
    "rate_limit_exceeded",
    "request_in_progress",
    "request_too_large",
    "shutting_down",
    "timeout",
    "unsupported_parameter",
];

/// The metrics of a client.
pub(crate) struct Metrics {
    registry: Registry,
    requests: GenAiMetrics,
    cost: Family<Label, Counter>,
    breakers: Family<Label, Gauge>,
    providers: Family<Label, Gauge>,
    verified_devices: Gauge,
    verified_memory: Gauge,
    running: Gauge,
    witness_alarms: Gauge,
    spent_today: Gauge,
    budget_alarm: Gauge,
    rate_limited: Counter,
    unwritten: Counter,
    dropped_spans: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = GenAiMetrics::register(Side::Client, &mut registry);
        let metrics = Self {
            requests,
            cost: Family::default(),
            breakers: Family::default(),
            providers: Family::default(),
            verified_devices: Gauge::default(),
            verified_memory: Gauge::default(),
            running: Gauge::default(),
            witness_alarms: Gauge::default(),
            spent_today: Gauge::default(),
            budget_alarm: Gauge::default(),
            rate_limited: Counter::default(),
            unwritten: Counter::default(),
            dropped_spans: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "gristmill_cost_microcredits",
            "What requests did cost",
            metrics.cost.clone(),
        );
        for (name, help, gauge) in [
            (
                "gristmill_verified_devices",
                "Devices of providers on offer whose certificate holds now",
                &metrics.verified_devices,
            ),
            (
                "gristmill_verified_memory_bytes",
                "Memory that those devices have shown",
                &metrics.verified_memory,
            ),
            (
                "gristmill_running_requests",
                "Requests that run now",
                &metrics.running,
            ),
            (
                "gristmill_witness_alarms",
                "How often the coordinator's log was caught lying",
                &metrics.witness_alarms,
            ),
            (
                "gristmill_spent_today_microcredits",
                "What all programs spent on this day (UTC)",
                &metrics.spent_today,
            ),
            (
                "gristmill_budget_alarm",
                "1 where that is more than budget_alarm",
                &metrics.budget_alarm,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "gristmill_circuit_breakers",
            "Providers that were asked something, by the state of their circuit breaker",
            metrics.breakers.clone(),
        );
        registry.register(
            "gristmill_providers_on_offer",
            "Providers on offer, by whether their hardware is verified",
            metrics.providers.clone(),
        );
        for (name, help, counter) in [
            (
                "gristmill_rate_limited_requests",
                "Requests that came too soon for their key",
                &metrics.rate_limited,
            ),
            (
                "gristmill_unwritten_requests",
                "Finished requests that the disk did not take",
                &metrics.unwritten,
            ),
            (
                "gristmill_dropped_spans",
                "Spans that the collector did not take",
                &metrics.dropped_spans,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        Self { registry, ..metrics }
    }

    /// Counts a request that is over.
    pub(crate) fn observe(&self, request: &FinishedRequest) {
        // Programs choose the names they ask for; those that somebody answered for exist.
        let model = (!request.providers.is_empty()).then_some(request.model.as_str());
        self.requests.observe(&Operation {
            kind: request.kind,
            model,
            error: error_label(request),
            duration: Duration::from_millis(request.duration_ms),
            first_token: request.first_token_ms.map(Duration::from_millis),
            input_tokens: request.usage.count(Unit::InputToken),
            output_tokens: request.usage.count(Unit::OutputToken),
        });
        if !request.cost.is_zero() {
            let model = [("gen_ai_request_model", self.requests.model_label(model))];
            self.cost
                .get_or_create(&model)
                .inc_by(request.cost.microcredits());
        }
    }

    /// A request came too soon.
    pub(crate) fn note_rate_limited(&self) {
        self.rate_limited.inc();
    }

    /// A request could not be written down.
    pub(crate) fn note_unwritten(&self) {
        self.unwritten.inc();
    }

    /// All of it as text, in the format that an `Accept` header asks for, and the content type of that.
    pub(crate) fn text(&self, market: &Market, accept: Option<&str>) -> (&'static str, String) {
        self.look(market);
        exposition(&self.registry, accept)
    }

    /// Reads what is true now.
    fn look(&self, market: &Market) {
        let now_ms = market.now_ms();
        let [mut closed, mut open, mut half_open] = [0; 3];
        for (_, standing) in lock(&market.records).standings(now_ms) {
            match standing.breaker {
                BreakerState::Closed => closed += 1,
                BreakerState::Open { .. } => open += 1,
                BreakerState::HalfOpen => half_open += 1,
            }
        }
        for (state, count) in [("closed", closed), ("open", open), ("half_open", half_open)] {
            self.breakers
                .get_or_create(&[("state", state.to_owned())])
                .set(count);
        }
        self.look_at_hardware(market, now_ms);
        let alarms = market.link.witness().status().alarms.len();
        self.witness_alarms.set(i64::try_from(alarms).unwrap_or(i64::MAX));
        let running = market.running();
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        let spent_today = market.usage.spent_today().microcredits();
        self.spent_today
            .set(i64::try_from(spent_today).unwrap_or(i64::MAX));
        self.budget_alarm
            .set(i64::from(market.usage.alarming().is_some()));
        if let Some(exporter) = market.usage.exporter() {
            let news = exporter.dropped().saturating_sub(self.dropped_spans.get());
            self.dropped_spans.inc_by(news);
        }
    }

    /// Counts who is on offer, and what of their hardware is verified.
    fn look_at_hardware(&self, market: &Market, now_ms: u64) {
        let coordinator = market.link.terms().map(|terms| terms.coordinator);
        let sums = market
            .mesh
            .with_board(|board| HardwareSums::of(board, coordinator, market.account, now_ms));
        for (verification, count) in [
            (Verification::Verified, sums.verified),
            (Verification::Unverified, sums.unverified),
        ] {
            self.providers
                .get_or_create(&[("hardware", verification.name().to_owned())])
                .set(count);
        }
        self.verified_devices.set(sums.devices);
        self.verified_memory.set(sums.memory_bytes);
    }
}

/// One of few words for what went wrong.
fn error_label(request: &FinishedRequest) -> Option<&'static str> {
    if request.is_answered() {
        return None;
    }
    let code = request.code.as_deref().unwrap_or_default();
    let known = ERRORS.into_iter().find(|known| *known == code);
    Some(known.unwrap_or(match request.status {
        400..=499 => "other_4xx",
        _ => "other_5xx",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::tests::finished;

    fn text(requests: &[FinishedRequest]) -> String {
        let metrics = Metrics::new();
        for request in requests {
            metrics.observe(request);
        }
        exposition(&metrics.registry, None).1
    }

    #[test]
    fn costs_are_counted_by_model_and_names_that_nobody_answers_for_are_none() {
        let mut unknown = finished(2, 0, 0);
        (unknown.model, unknown.status) = ("no such model".into(), 404);
        (unknown.code, unknown.providers) = (Some("model_not_found".into()), vec![]);
        let text = text(&[finished(1, 0, 9), finished(3, 0, 4), unknown]);
        assert!(
            text.contains("gristmill_cost_microcredits_total{gen_ai_request_model=\"guide\"} 13\n"),
            "{text}"
        );
        assert!(!text.contains("no such"), "{text}");
        assert!(
            text.contains("gen_ai_request_model=\"other\",error_type=\"model_not_found\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn what_engines_say_makes_no_labels() {
        for (status, code, label) in [
            (200, "", None),
            (502, "provider_failed", Some("provider_failed")),
            (502, "made_up", Some("other_5xx")),
            (422, "made_up", Some("other_4xx")),
        ] {
            let request = FinishedRequest {
                status,
                code: Some(code.into()),
                ..finished(1, 0, 9)
            };
            assert_eq!(error_label(&request), label, "{code}");
        }
    }
}
