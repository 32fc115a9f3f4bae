//! What a node tells Prometheus, at `GET /metrics` of its local API: requests in the names of OpenTelemetry's
//! conventions for generative AI, and what an owner of a node wants to see besides. Labels are few: models on offer,
//! engines of the settings, and words of this file.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gristmill_benchmark::inventory::Device;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{JobKind, RefusalCode};
use gristmill_protocol::session::provider::{ProviderEnd, ProviderOutcome};
use gristmill_protocol::usage::Unit;
use gristmill_telemetry::exposition::exposition;
use gristmill_telemetry::genai::{GenAiMetrics, Operation, Side, operation_name};
use gristmill_telemetry::{Counter, Family, Gauge, Registry};

use crate::hardware_metrics::HardwareMetrics;

/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// A job that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedJob<'a> {
    pub(crate) kind: JobKind,
    /// The model, as it is on offer.
    pub(crate) model: &'a str,
    pub(crate) outcome: &'a ProviderOutcome,
    /// From its acceptance to its end.
    pub(crate) duration: Duration,
    /// From its acceptance to the first text.
    pub(crate) first_text: Option<Duration>,
}

/// What is read at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// Jobs that run or wait.
    pub(crate) jobs: u32,
    /// The names of the engines that offer something.
    pub(crate) engines: BTreeSet<String>,
    /// What was earned after fees, in all, as the receipts say.
    pub(crate) earned: Credits,
    /// The coordinator's fees, in all.
    pub(crate) fees: Credits,
    /// What vouchers promise that were not handed in yet.
    pub(crate) pending: Credits,
    /// What was delivered and not vouchered for yet.
    pub(crate) unpaid: Credits,
    /// The devices of the machine.
    pub(crate) devices: Vec<Device>,
}

/// The metrics of a node.
#[derive(Debug)]
pub(crate) struct NodeMetrics {
    registry: Registry,
    requests: GenAiMetrics,
    ended: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    delivered: Counter,
    running: Gauge,
    engine_up: Family<Labels, Gauge>,
    hardware: HardwareMetrics,
    money: [Gauge; 4],
    /// Every engine that was up once.
    engines: Mutex<BTreeSet<String>>,
}

impl NodeMetrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = GenAiMetrics::register(Side::Server, &mut registry);
        let hardware = HardwareMetrics::register(&mut registry);
        let metrics = Self {
            requests,
            hardware,
            ended: Family::default(),
            refused: Family::default(),
            delivered: Counter::default(),
            running: Gauge::default(),
            engine_up: Family::default(),
            money: Default::default(),
            engines: Mutex::default(),
            registry: Registry::default(),
        };
        let help = "Jobs that are over, by how they ended";
        registry.register("gristmill_jobs", help, metrics.ended.clone());
        let help = "Jobs that were not taken, by the reason";
        registry.register("gristmill_jobs_refused", help, metrics.refused.clone());
        let help = "What was delivered since the start, paid or not, in microcredits";
        registry.register(
            "gristmill_delivered_microcredits",
            help,
            metrics.delivered.clone(),
        );
        let help = "Jobs that run or wait";
        registry.register("gristmill_jobs_running", help, metrics.running.clone());
        let help = "Whether an engine offers something";
        registry.register("gristmill_engine_up", help, metrics.engine_up.clone());
        let names = [
            (
                "earned",
                "What the receipts say was earned after fees, in microcredits",
            ),
            (
                "fees",
                "What the receipts say went to the coordinator, in microcredits",
            ),
            (
                "pending",
                "What vouchers promise that were not handed in yet, in microcredits",
            ),
            (
                "unpaid",
                "What was delivered and not vouchered for yet, in microcredits",
            ),
        ];
        for ((name, help), gauge) in names.into_iter().zip(&metrics.money) {
            registry.register(format!("gristmill_{name}_microcredits"), help, gauge.clone());
        }
        Self { registry, ..metrics }
    }

    /// Counts a job that is over.
    pub(crate) fn ended(&self, job: &EndedJob<'_>) {
        let usage = &job.outcome.usage;
        let (outcome, error) = words(job.outcome.reason);
        self.requests.observe(&Operation {
            kind: job.kind,
            model: Some(job.model),
            error,
            duration: job.duration,
            first_token: job.first_text,
            input_tokens: usage.count(Unit::InputToken),
            output_tokens: usage.count(Unit::OutputToken),
        });
        let labels = vec![
            ("gen_ai_operation_name", operation_name(job.kind).to_owned()),
            ("gen_ai_request_model", self.requests.model_label(Some(job.model))),
            ("outcome", outcome.to_owned()),
        ];
        self.ended.get_or_create(&labels).inc();
        self.delivered.inc_by(job.outcome.cost.microcredits());
    }

    /// Counts a job that was not taken.
    pub(crate) fn refused(&self, code: RefusalCode) {
        let labels = vec![("reason", refusal_word(code).to_owned())];
        self.refused.get_or_create(&labels).inc();
    }

    /// All metrics as text, and its content type.
    pub(crate) fn text(&self, now: &Now, accept: Option<&str>) -> (&'static str, String) {
        self.running.set(now.jobs.into());
        self.hardware.show(&now.devices);
        for (gauge, amount) in self
            .money
            .iter()
            .zip([now.earned, now.fees, now.pending, now.unpaid])
        {
            gauge.set(i64::try_from(amount.microcredits()).unwrap_or(i64::MAX));
        }
        let mut known = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(now.engines.iter().cloned());
        for engine in known.iter() {
            let labels = vec![("engine", engine.clone())];
            let is_up = now.engines.contains(engine);
            self.engine_up.get_or_create(&labels).set(is_up.into());
        }
        drop(known);
        exposition(&self.registry, accept)
    }
}

/// How a job ended, and the type of the error where that was one.
const fn words(end: ProviderEnd) -> (&'static str, Option<&'static str>) {
    match end {
        ProviderEnd::Completed => ("completed", None),
        ProviderEnd::Failed => ("failed", Some("engine_failed")),
        ProviderEnd::ConsumerLeft => ("cancelled", Some("cancelled")),
        ProviderEnd::Unpaid => ("unpaid", Some("unpaid")),
        ProviderEnd::Misbehaved => ("misbehaved", Some("protocol_error")),
    }
}

const fn refusal_word(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Busy => "busy",
        RefusalCode::InvalidTicket => "invalid_ticket",
        RefusalCode::NotTicketHolder => "not_ticket_holder",
        RefusalCode::ModelNotFound => "model_not_found",
        RefusalCode::PriceAboveCap => "price_above_cap",
        RefusalCode::ChannelExhausted => "channel_exhausted",
        RefusalCode::BodyTooLarge => "body_too_large",
        RefusalCode::InvalidRequest => "invalid_request",
        RefusalCode::ShuttingDown => "shutting_down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::usage::Usage;

    fn now(engines: &[&str]) -> Now {
        Now {
            jobs: 2,
            engines: engines.iter().map(ToString::to_string).collect(),
            earned: Credits::micro(7),
            ..Now::default()
        }
    }

    #[test]
    fn jobs_are_counted_by_how_they_ended() {
        let metrics = NodeMetrics::new();
        for reason in [
            ProviderEnd::Completed,
            ProviderEnd::Completed,
            ProviderEnd::Unpaid,
        ] {
            let outcome = ProviderOutcome {
                reason,
                usage: Usage::tokens(9, 5),
                cost: Credits::micro(100),
            };
            metrics.ended(&EndedJob {
                kind: JobKind::ChatCompletions,
                model: "m",
                outcome: &outcome,
                duration: Duration::from_millis(900),
                first_text: Some(Duration::from_millis(100)),
            });
        }
        metrics.refused(RefusalCode::Busy);
        let (_, text) = metrics.text(&now(&["a"]), None);
        let labels = "gen_ai_operation_name=\"chat\",gen_ai_request_model=\"m\"";
        for line in [
            format!("gristmill_jobs_total{{{labels},outcome=\"completed\"}} 2"),
            format!("gristmill_jobs_total{{{labels},outcome=\"unpaid\"}} 1"),
            "gristmill_jobs_refused_total{reason=\"busy\"} 1".to_owned(),
            "gristmill_delivered_microcredits_total 300".to_owned(),
            "gristmill_jobs_running 2".to_owned(),
            "gristmill_earned_microcredits 7".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            text.contains("gen_ai_server_time_per_output_token_seconds_sum"),
            "{text}"
        );
    }

    #[test]
    fn an_engine_that_was_there_once_is_seen_to_be_gone() {
        let metrics = NodeMetrics::new();
        metrics.text(&now(&["a", "b"]), None);
        let (_, text) = metrics.text(&now(&["b"]), None);
        assert!(text.contains("gristmill_engine_up{engine=\"a\"} 0\n"), "{text}");
        assert!(text.contains("gristmill_engine_up{engine=\"b\"} 1\n"), "{text}");
    }
}
