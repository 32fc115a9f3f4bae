//! A finished request as spans, in the attributes of the OpenTelemetry conventions for generative AI
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>). Never a prompt, an answer or a key.

use gristmill_protocol::usage::{Unit, Usage};
use gristmill_telemetry::genai::{PROVIDER_NAME, operation_name};
use gristmill_telemetry::otlp::{AttributeValue, Span, SpanKind};

use crate::core::finished_request::{FinishedRequest, ProviderShare};

/// The span of the request, and one for each provider that was asked. None where the trace is not recorded.
#[must_use]
pub fn spans(request: &FinishedRequest) -> Vec<Span> {
    let Some(position) = request.trace.filter(|trace| trace.own.is_sampled) else {
        return Vec::new();
    };
    let mut spans = vec![Span {
        position: position.own,
        caused_by: position.caused_by,
        name: name(request),
        kind: SpanKind::Server,
        began_ms: request.started_at_ms,
        ended_ms: request.started_at_ms.saturating_add(request.duration_ms),
        attributes: request_attributes(request),
        error: error(request),
    }];
    spans.extend(
        request
            .providers
            .iter()
            .filter_map(|share| provider_span(request, share)),
    );
    spans
}

fn name(request: &FinishedRequest) -> String {
    format!("{} {}", operation_name(request.kind), request.model)
}

fn error(request: &FinishedRequest) -> Option<String> {
    let status = || request.status.to_string();
    (!request.is_answered()).then(|| request.code.clone().unwrap_or_else(status))
}

fn request_attributes(request: &FinishedRequest) -> Vec<(&'static str, AttributeValue)> {
    let mut attributes = common_attributes(request, &request.usage, request.cost.microcredits());
    attributes.push(("http.response.status_code", u64::from(request.status).into()));
    if let Some(first_token_ms) = request.first_token_ms {
        attributes.push(("gristmill.first_token_ms", first_token_ms.into()));
    }
    attributes
}

fn common_attributes(
    request: &FinishedRequest,
    usage: &Usage,
    cost_microcredits: u64,
) -> Vec<(&'static str, AttributeValue)> {
    vec![
        ("gen_ai.operation.name", operation_name(request.kind).into()),
        ("gen_ai.provider.name", PROVIDER_NAME.into()),
        ("gen_ai.request.model", request.model.as_str().into()),
        ("gen_ai.usage.input_tokens", usage.count(Unit::InputToken).into()),
        (
            "gen_ai.usage.output_tokens",
            usage.count(Unit::OutputToken).into(),
        ),
        ("gristmill.request_id", request.request_id.as_str().into()),
        ("gristmill.cost_microcredits", cost_microcredits.into()),
    ]
}

fn provider_span(request: &FinishedRequest, share: &ProviderShare) -> Option<Span> {
    let position = share.trace?;
    let mut attributes = common_attributes(request, &share.usage, share.cost.microcredits());
    attributes.push(("gristmill.provider", share.provider.to_string().as_str().into()));
    let began_ms = request.started_at_ms.saturating_add(share.asked_after_ms);
    Some(Span {
        position: position.own,
        caused_by: position.caused_by,
        name: name(request),
        kind: SpanKind::Client,
        began_ms,
        ended_ms: began_ms.saturating_add(share.duration_ms),
        attributes,
        error: (!share.is_complete).then(|| "incomplete".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::tests::finished;
    use gristmill_telemetry::trace_position::TracePosition;

    fn traced(caller: &str) -> FinishedRequest {
        let mut random = rand::rng();
        let mut request = finished(1, 1_000, 9);
        let own = TracePosition::begin(Some(caller.parse().unwrap()), &mut random);
        request.trace = Some(own);
        request.providers[0].trace = Some(own.child(&mut random));
        request
    }

    #[test]
    fn every_provider_stands_below_the_request_and_that_below_the_program() {
        let request = traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let spans = spans(&request);
        let [server, client] = spans.as_slice() else {
            panic!("{spans:?}")
        };
        assert_eq!(hex::encode(server.caused_by.unwrap()), "b7ad6b7169203331");
        assert_eq!(client.caused_by, Some(server.position.parent));
        assert_eq!(server.position.trace, client.position.trace);
        assert_eq!(
            (server.name.as_str(), server.began_ms, server.ended_ms),
            ("chat guide", 1_000, 1_050)
        );
        assert_eq!((client.began_ms, client.ended_ms), (1_001, 1_041));
        assert!(server.error.is_none() && client.error.is_none());
        let has = |key, value: AttributeValue| server.attributes.contains(&(key, value));
        assert!(has("gen_ai.operation.name", "chat".into()) && has("gen_ai.usage.output_tokens", 3.into()));
        assert!(has("gristmill.cost_microcredits", 9.into()));
    }

    #[test]
    fn failures_have_a_word_and_what_the_program_does_not_record_is_not_sent() {
        let mut request = traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        (request.status, request.code) = (502, Some("provider_failed".into()));
        assert_eq!(spans(&request)[0].error.as_deref(), Some("provider_failed"));
        assert!(spans(&traced("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")).is_empty());
        assert!(spans(&finished(1, 0, 9)).is_empty());
    }
}
