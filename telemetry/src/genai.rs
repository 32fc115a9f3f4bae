//! Metrics of requests in the names, units and buckets of the OpenTelemetry conventions for generative AI
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/>), as OpenTelemetry's rules for Prometheus write
//! them: dots are underscores, and the unit stands at the end.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gristmill_protocol::job::JobKind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The system that answers: the value of `gen_ai.provider.name`.
pub const PROVIDER_NAME: &str = "gristmill";
/// Most models that have a label of their own. Programs choose the names they ask for.
pub const MODELS_MAX: usize = 100;
/// The label of all other models.
const OTHER: &str = "other";

/// Buckets of durations in seconds, as the conventions ask for.
const DURATION_SECONDS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];
/// Buckets of counts of tokens.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Buckets of the time to the first token in seconds.
const FIRST_TOKEN_SECONDS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Buckets of the time per output token in seconds.
const OUTPUT_TOKEN_SECONDS: [f64; 13] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
];

/// The name of an operation: the value of `gen_ai.operation.name`. The conventions have names for the first three.
#[must_use]
pub const fn operation_name(kind: JobKind) -> &'static str {
    match kind {
        JobKind::ChatCompletions => "chat",
        JobKind::Completions => "text_completion",
        JobKind::Embeddings => "embeddings",
        JobKind::AudioTranscriptions => "audio_transcription",
        JobKind::AudioSpeech => "speech",
        JobKind::ImageGenerations => "image_generation",
        JobKind::Rerank => "rerank",
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What was asked for.
    pub kind: JobKind,
    /// The model; `None` where it is not known to exist.
    pub model: Option<&'a str>,
    /// A word for what went wrong, one of few, where something did.
    pub error: Option<&'a str>,
    /// How long the whole took.
    pub duration: Duration,
    /// How long the first output took.
    pub first_token: Option<Duration>,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

/// From where a request is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of who asks.
    Client,
    /// Of who runs the model.
    Server,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    /// An empty label is as good as none.
    error_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

/// Makes histograms with these buckets.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms<L> = Family<L, Histogram, Buckets>;

/// The models that have a label.
#[derive(Debug, Default)]
pub struct ModelLabels(Mutex<BTreeSet<String>>);

impl ModelLabels {
    /// The label of a model: its name, as long as there are few, otherwise `other`.
    pub fn label(&self, model: Option<&str>) -> String {
        let Some(model) = model else {
            return OTHER.to_owned();
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(model) || known.len() < MODELS_MAX {
            known.insert(model.to_owned());
            return model.to_owned();
        }
        OTHER.to_owned()
    }
}

/// The metrics of requests.
#[derive(Debug)]
pub struct GenAiMetrics {
    models: ModelLabels,
    duration: Histograms<DurationLabels>,
    tokens: Histograms<TokenLabels>,
    first_token: Histograms<OperationLabels>,
    output_token: Histograms<OperationLabels>,
}

impl GenAiMetrics {
    /// Registers them.
    #[must_use]
    pub fn register(side: Side, registry: &mut Registry) -> Self {
        let metrics = Self {
            models: ModelLabels::default(),
            duration: Family::new_with_constructor(Buckets(&DURATION_SECONDS)),
            tokens: Family::new_with_constructor(Buckets(&TOKENS)),
            first_token: Family::new_with_constructor(Buckets(&FIRST_TOKEN_SECONDS)),
            output_token: Family::new_with_constructor(Buckets(&OUTPUT_TOKEN_SECONDS)),
        };
        let (name, help) = match side {
            Side::Client => (
                "gen_ai_client_operation_duration",
                "How long requests took, from their arrival to their last byte",
            ),
            Side::Server => (
                "gen_ai_server_request_duration",
                "How long jobs took, from their acceptance to their last byte",
            ),
        };
        registry.register_with_unit(name, help, Unit::Seconds, metrics.duration.clone());
        let help = "Tokens read and written per request";
        registry.register("gen_ai_client_token_usage", help, metrics.tokens.clone());
        registry.register_with_unit(
            "gen_ai_server_time_to_first_token",
            "How long the first output of a successful request took",
            Unit::Seconds,
            metrics.first_token.clone(),
        );
        registry.register_with_unit(
            "gen_ai_server_time_per_output_token",
            "How long each output token after the first took, of a successful request",
            Unit::Seconds,
            metrics.output_token.clone(),
        );
        metrics
    }

    /// The label of a model, for further metrics that have one.
    pub fn model_label(&self, model: Option<&str>) -> String {
        self.models.label(model)
    }

    /// Counts a request.
    pub fn observe(&self, operation: &Operation<'_>) {
        let labels = OperationLabels {
            gen_ai_operation_name: operation_name(operation.kind),
            gen_ai_provider_name: PROVIDER_NAME,
            gen_ai_request_model: self.models.label(operation.model),
        };
        let duration = DurationLabels {
            gen_ai_operation_name: labels.gen_ai_operation_name,
            gen_ai_provider_name: labels.gen_ai_provider_name,
            gen_ai_request_model: labels.gen_ai_request_model.clone(),
            error_type: operation.error.unwrap_or_default().to_owned(),
        };
        self.duration
            .get_or_create(&duration)
            .observe(operation.duration.as_secs_f64());
        for (token_type, tokens) in [
            ("input", operation.input_tokens),
            ("output", operation.output_tokens),
        ] {
            if tokens > 0 {
                let labels = TokenLabels {
                    gen_ai_operation_name: labels.gen_ai_operation_name,
                    gen_ai_provider_name: labels.gen_ai_provider_name,
                    gen_ai_request_model: labels.gen_ai_request_model.clone(),
                    gen_ai_token_type: token_type,
                };
                self.tokens.get_or_create(&labels).observe(tokens as f64);
            }
        }
        // The conventions count these for successful responses only.
        let (Some(first_token), None) = (operation.first_token, operation.error) else {
            return;
        };
        if operation.kind.is_generated_text() {
            self.first_token
                .get_or_create(&labels)
                .observe(first_token.as_secs_f64());
            if operation.output_tokens > 1 {
                let rest = operation.duration.saturating_sub(first_token).as_secs_f64();
                let per_token = rest / (operation.output_tokens - 1) as f64;
                self.output_token.get_or_create(&labels).observe(per_token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::exposition;

    fn chat(model: Option<&str>) -> Operation<'_> {
        Operation {
            kind: JobKind::ChatCompletions,
            model,
            error: None,
            duration: Duration::from_millis(1_100),
            first_token: Some(Duration::from_millis(100)),
            input_tokens: 12,
            output_tokens: 11,
        }
    }

    fn text(side: Side, operations: &[Operation<'_>]) -> String {
        let mut registry = Registry::default();
        let metrics = GenAiMetrics::register(side, &mut registry);
        for operation in operations {
            metrics.observe(operation);
        }
        exposition(&registry, None).1
    }

    const LABELS: &str =
        "gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"gristmill\",gen_ai_request_model=\"guide\"";

    #[test]
    fn names_buckets_and_labels_are_those_of_the_conventions() {
        let text = text(Side::Client, &[chat(Some("guide"))]);
        for line in [
            format!(
                "gen_ai_client_operation_duration_seconds_bucket{{le=\"1.28\",{LABELS},error_type=\"\"}} 1"
            ),
            format!(
                "gen_ai_client_operation_duration_seconds_bucket{{le=\"0.64\",{LABELS},error_type=\"\"}} 0"
            ),
            format!("gen_ai_client_token_usage_sum{{{LABELS},gen_ai_token_type=\"input\"}} 12.0"),
            format!(
                "gen_ai_client_token_usage_bucket{{le=\"67108864.0\",{LABELS},gen_ai_token_type=\"output\"}} 1"
            ),
            format!("gen_ai_server_time_to_first_token_seconds_sum{{{LABELS}}} 0.1"),
            format!("gen_ai_server_time_per_output_token_seconds_sum{{{LABELS}}} 0.1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for name in [
            "gen_ai_client_operation_duration_seconds",
            "gen_ai_server_time_to_first_token_seconds",
        ] {
            assert!(text.contains(&format!("# TYPE {name} histogram\n")), "{name}");
        }
    }

    #[test]
    fn a_server_measures_its_requests_and_failures_count_no_speed() {
        let failed = Operation {
            error: Some("timeout"),
            ..chat(Some("guide"))
        };
        let text = text(Side::Server, &[failed]);
        let line =
            format!("gen_ai_server_request_duration_seconds_count{{{LABELS},error_type=\"timeout\"}} 1");
        assert!(text.contains(&line), "{text}");
        assert!(
            !text.contains("first_token_seconds_count") && !text.contains("client_operation"),
            "{text}"
        );
    }

    #[test]
    fn there_are_only_so_many_labels_whatever_programs_ask_for() {
        let names: Vec<_> = (0..MODELS_MAX + 50).map(|number| format!("m{number}")).collect();
        let mut operations: Vec<_> = names.iter().map(|name| chat(Some(name))).collect();
        operations.push(chat(None));
        let text = text(Side::Client, &operations);
        let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(
            count("gen_ai_client_operation_duration_seconds_count"),
            MODELS_MAX + 1
        );
        assert!(
            text.contains("gen_ai_request_model=\"other\",error_type=\"\"} 51\n"),
            "{text}"
        );
    }
}
