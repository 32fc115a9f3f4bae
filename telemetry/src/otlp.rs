//! Spans for OpenTelemetry collectors: OTLP over HTTP in its JSON encoding
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>), which every collector takes at port 4318. With it no
//! further library is needed, and a span is a dozen lines.

use gristmill_protocol::trace::TraceParent;
use serde_json::{Value, json};

mod exporter;

pub use exporter::{OtlpEndpointError, SpanExporter, SpanExporterDriver, span_exporter};

/// What a span is for: `SpanKind` of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A request is answered.
    Server,
    /// Somebody else is asked.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(u64),
    /// A number.
    Number(f64),
    /// A list of texts.
    Texts(Vec<String>),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        Self::Integer(number)
    }
}

/// A piece of work that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace and its own id.
    pub position: TraceParent,
    /// The span that caused it.
    pub caused_by: Option<[u8; 8]>,
    /// What is done, in few words of which there are few.
    pub name: String,
    /// What it is for.
    pub kind: SpanKind,
    /// Unix milliseconds.
    pub began_ms: u64,
    /// Unix milliseconds.
    pub ended_ms: u64,
    /// What else there is to say.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// A word for what went wrong, where something did.
    pub error: Option<String>,
}

fn value(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => json!({"stringValue": text}),
        // 64-bit integers are texts in the JSON of Protocol Buffers.
        AttributeValue::Integer(number) => json!({"intValue": number.to_string()}),
        AttributeValue::Number(number) => json!({"doubleValue": number}),
        AttributeValue::Texts(texts) => {
            let values: Vec<Value> = texts.iter().map(|text| json!({"stringValue": text})).collect();
            json!({"arrayValue": {"values": values}})
        }
    }
}

fn attribute(key: &str, found: &AttributeValue) -> Value {
    json!({"key": key, "value": value(found)})
}

fn span_json(span: &Span) -> Value {
    let nanoseconds = |milliseconds: u64| (u128::from(milliseconds) * 1_000_000).to_string();
    let mut attributes: Vec<Value> = span
        .attributes
        .iter()
        .map(|(key, value)| attribute(key, value))
        .collect();
    if let Some(error) = &span.error {
        attributes.push(attribute("error.type", &AttributeValue::Text(error.clone())));
    }
    let mut written = json!({
        "traceId": hex::encode(span.position.trace),
        "spanId": hex::encode(span.position.parent),
        "name": span.name,
        "kind": match span.kind { SpanKind::Server => 2, SpanKind::Client => 3 },
        "startTimeUnixNano": nanoseconds(span.began_ms),
        "endTimeUnixNano": nanoseconds(span.ended_ms.max(span.began_ms)),
        "attributes": attributes,
        // STATUS_CODE_ERROR and STATUS_CODE_UNSET.
        "status": match &span.error { Some(error) => json!({"code": 2, "message": error}), None => json!({}) },
    });
    if let Some(caused_by) = span.caused_by {
        written["parentSpanId"] = hex::encode(caused_by).into();
    }
    written
}

/// An `ExportTraceServiceRequest` with these spans of a service.
#[must_use]
pub fn export_request(service: &str, version: &str, spans: &[Span]) -> Value {
    let resource = [
        attribute("service.name", &service.into()),
        attribute("service.version", &version.into()),
    ];
    let spans: Vec<Value> = spans.iter().map(span_json).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "gristmill", "version": version}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_asks_for() {
        let span = Span {
            position: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
            caused_by: Some([1; 8]),
            name: "chat guide".into(),
            kind: SpanKind::Client,
            began_ms: 1_800_000_000_001,
            ended_ms: 1_800_000_000_003,
            attributes: vec![
                ("gen_ai.usage.input_tokens", 12.into()),
                (
                    "gen_ai.response.finish_reasons",
                    AttributeValue::Texts(vec!["stop".into()]),
                ),
                ("ratio", AttributeValue::Number(0.5)),
            ],
            error: Some("timeout".into()),
        };
        let expected = json!({"resourceSpans": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "gristmill-client"}},
                {"key": "service.version", "value": {"stringValue": "1.2.3"}},
            ]},
            "scopeSpans": [{
                "scope": {"name": "gristmill", "version": "1.2.3"},
                "spans": [{
                    "traceId": "0af7651916cd43dd8448eb211c80319c",
                    "spanId": "b7ad6b7169203331",
                    "name": "chat guide",
                    "kind": 3,
                    "startTimeUnixNano": "1800000000001000000",
                    "endTimeUnixNano": "1800000000003000000",
                    "attributes": [
                        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
                        {"key": "gen_ai.response.finish_reasons", "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}}},
                        {"key": "ratio", "value": {"doubleValue": 0.5}},
                        {"key": "error.type", "value": {"stringValue": "timeout"}},
                    ],
                    "status": {"code": 2, "message": "timeout"},
                    "parentSpanId": "0101010101010101",
                }],
            }],
        }]});
        assert_eq!(export_request("gristmill-client", "1.2.3", &[span]), expected);
    }
}
