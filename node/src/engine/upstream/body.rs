//! What an upstream is sent: the body as it came, but for what the market needs.

use bytes::Bytes;
use gristmill_protocol::form::{Form, FormError};
use gristmill_protocol::job::JobKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::models::{UpstreamKind, UpstreamModel};
use crate::engine::refusal::invalid_request;
use crate::engine::{EngineError, RequestBody};

/// The fewest tokens there can be in natural text are one per so many bytes. Ollama cuts a prompt that is too long
/// without a word, so what is too long for certain is refused beforehand.
const BYTES_PER_TOKEN_MAX: u64 = 8;
/// The media type of JSON.
pub(super) const JSON: &str = "application/json";
/// Most bytes of a media type, either way.
pub(super) const CONTENT_TYPE_MAX_BYTES: usize = 256;

/// The body of a request for text: this model, a stream, and usage at its end.
pub(super) fn streaming(body: &Value, model: &str, software: UpstreamKind) -> Value {
    let mut body = for_model(body, model);
    body["stream"] = json!(true);
    if !body.get("stream_options").is_some_and(Value::is_object) {
        body["stream_options"] = json!({});
    }
    body["stream_options"]["include_usage"] = json!(true);
    if software == UpstreamKind::Vllm {
        body["stream_options"]["continuous_usage_stats"] = json!(true);
    }
    // LM Studio knows no `json_object`; any object is the same.
    if software == UpstreamKind::LmStudio
        && body.pointer("/response_format/type") == Some(&json!("json_object"))
    {
        body["response_format"] = json!({
            "type": "json_schema", "json_schema": {"name": "object", "schema": {"type": "object"}},
        });
    }
    body
}

/// The body with the upstream's own name of the model. Servers written in Go read names of fields in any case, so
/// that `Model` could ask for another model than the one that is paid for.
pub(super) fn for_model(body: &Value, model: &str) -> Value {
    let mut fields = body.as_object().cloned().unwrap_or_default();
    fields.retain(|name, _| name == "model" || !name.eq_ignore_ascii_case("model"));
    // The market's own field, which servers refuse or ignore: they take the whole prompt for one.
    fields.remove("continued_bytes");
    fields.insert("model".to_owned(), json!(model));
    Value::Object(fields)
}

/// What is passed through: its media type and its bytes, which are changed only where they name the model otherwise
/// than the upstream does.
///
/// # Errors
/// [`EngineError`] with status 400 where the body is not what this kind of job needs.
pub(super) fn passed(
    kind: JobKind,
    model: &UpstreamModel,
    body: &RequestBody,
) -> Result<(String, Bytes), EngineError> {
    let RequestBody::PassedThrough { content_type, bytes } = body else {
        return Err(invalid_request(
            "body",
            "the body was to be passed through and was read",
        ));
    };
    if content_type.len() > CONTENT_TYPE_MAX_BYTES {
        return Err(invalid_request("body", "the content type is too long"));
    }
    if kind == JobKind::AudioTranscriptions {
        return Ok((
            content_type.clone(),
            form_for_model(content_type, bytes, &model.id)?,
        ));
    }
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.is_empty() && !essence.eq_ignore_ascii_case(JSON) {
        return Err(invalid_request("body", "send this request as JSON"));
    }
    Ok((JSON.to_owned(), json_for_model(bytes, &model.id)?))
}

/// Finds a second `model`, of which another reader might heed the first.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

fn json_for_model(bytes: &Bytes, model: &str) -> Result<Bytes, EngineError> {
    let named: Named = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        invalid_request(
            "model",
            format!("the body is no JSON object with one 'model': line {line}, column {column}"),
        )
    })?;
    let fields: Map<String, Value> = serde_json::from_slice(bytes).unwrap_or_default();
    let has_another = fields
        .keys()
        .any(|name| name != "model" && name.eq_ignore_ascii_case("model"));
    if named.model.as_deref() == Some(model) && !has_another {
        return Ok(bytes.clone());
    }
    Ok(for_model(&Value::Object(fields), model).to_string().into())
}

fn form_for_model(content_type: &str, bytes: &Bytes, model: &str) -> Result<Bytes, EngineError> {
    let refused = |error: FormError| invalid_request("body", error.to_string());
    let form = Form::parse(content_type, bytes).map_err(refused)?;
    let field = form.only("model").map_err(refused)?;
    let place = &field
        .ok_or_else(|| invalid_request("model", "the form has no field 'model'"))?
        .value;
    if &bytes[place.clone()] == model.as_bytes() {
        return Ok(bytes.clone());
    }
    let (before, after) = (&bytes[..place.start], &bytes[place.end..]);
    Ok([before, model.as_bytes(), after].concat().into())
}

/// Refuses what has more tokens than the model takes, for certain.
///
/// # Errors
/// [`EngineError`] with the code `context_length_exceeded`.
pub(super) fn refuse_what_is_too_long(
    kind: JobKind,
    body: &Value,
    context_length: u32,
) -> Result<(), EngineError> {
    let field = match kind {
        JobKind::ChatCompletions => "messages",
        JobKind::Completions => "prompt",
        _ => "input",
    };
    let texts = body.get(field).into_iter().flat_map(|value| match value {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    });
    let bytes = match kind {
        JobKind::ChatCompletions => texts
            .filter_map(|message| message.get("content"))
            .map(content_bytes)
            .sum(),
        // Each text of a list is read by itself.
        _ => texts.map(content_bytes).max().unwrap_or(0),
    };
    if bytes / BYTES_PER_TOKEN_MAX <= u64::from(context_length) {
        return Ok(());
    }
    Err(EngineError {
        status: 400,
        code: "context_length_exceeded".to_owned(),
        message: format!(
            "this model takes at most {context_length} tokens, and {bytes} bytes of text are more; shorten '{field}' \
             or choose another model"
        ),
        param: Some(field.to_owned()),
    })
}

fn content_bytes(content: &Value) -> u64 {
    match content {
        Value::String(text) => text.len() as u64,
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.map(|text| text.len() as u64).sum()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::models::entries;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model(id: &str) -> UpstreamModel {
        let entry = entries(&json!({"data": [{"id": id}]})).unwrap().remove(0);
        UpstreamModel::new(&entry, UpstreamKind::Other, BTreeSet::new(), None)
    }

    fn raw(content_type: &str, bytes: impl Into<Bytes>) -> RequestBody {
        RequestBody::PassedThrough {
            content_type: content_type.into(),
            bytes: bytes.into(),
        }
    }

    #[test]
    fn bodies_are_passed_on_but_for_what_the_market_needs() {
        let body =
            json!({"model": "another", "messages": [], "stream": false, "seed": 7, "x": {"y": [1.50, null]}});
        let sent = streaming(&body, "up/model", UpstreamKind::Other);
        assert_eq!(
            sent.to_string(),
            "{\"model\":\"up/model\",\"messages\":[],\"stream\":true,\"seed\":7,\"x\":{\"y\":[1.5,null]},\
             \"stream_options\":{\"include_usage\":true}}"
        );
        let body = json!({"stream_options": {"include_usage": false, "other": 1}});
        let sent = streaming(&body, "m", UpstreamKind::Vllm);
        assert_eq!(
            sent["stream_options"],
            json!({"include_usage": true, "other": 1, "continuous_usage_stats": true})
        );
        let body =
            json!({"stream_options": null, "Model": "dearer", "MODEL": "dearest", "continued_bytes": 4});
        assert_eq!(
            streaming(&body, "m", UpstreamKind::Other),
            json!({"stream_options": {"include_usage": true}, "model": "m", "stream": true})
        );
    }

    #[test]
    fn any_object_is_an_object_for_lm_studio_too() {
        let body = json!({"response_format": {"type": "json_object"}});
        let sent = |software| streaming(&body, "m", software)["response_format"].clone();
        assert_eq!(sent(UpstreamKind::Vllm), body["response_format"]);
        assert_eq!(
            sent(UpstreamKind::LmStudio)["json_schema"]["schema"],
            json!({"type": "object"})
        );
    }

    #[test]
    fn json_that_names_the_model_right_is_not_touched() {
        let body = "{ \"model\": \"m\", \"input\": 1.50 }";
        let (content_type, bytes) = passed(JobKind::AudioSpeech, &model("m"), &raw("", body)).unwrap();
        assert_eq!((content_type.as_str(), &bytes[..]), (JSON, body.as_bytes()));
        let (_, bytes) = passed(JobKind::Rerank, &model("/a/m.gguf"), &raw(JSON, body)).unwrap();
        assert_eq!(&bytes[..], b"{\"model\":\"/a/m.gguf\",\"input\":1.5}");
        let other = raw(
            "application/json; charset=utf-8",
            "{\"model\":\"m\",\"Model\":\"dearer\"}",
        );
        assert_eq!(
            &passed(JobKind::Rerank, &model("m"), &other).unwrap().1[..],
            b"{\"model\":\"m\"}"
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (content_type, body) in [
            ("", "{\"model\":\"m\",\"model\":\"dearer\"}"),
            ("", "{\"model\":7}"),
            ("", "[]"),
            ("", "{"),
            ("text/plain", "{\"model\":\"m\"}"),
            (
                &format!("application/json;{}", " ".repeat(256)),
                "{\"model\":\"m\"}",
            ),
        ] {
            let error = passed(JobKind::AudioSpeech, &model("m"), &raw(content_type, body)).unwrap_err();
            assert_eq!(error.status, 400, "{body}");
        }
        let read = RequestBody::Json(json!({}));
        assert_eq!(
            passed(JobKind::AudioSpeech, &model("m"), &read)
                .unwrap_err()
                .status,
            400
        );
    }

    fn form(model: &str) -> String {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\0\r\n--b--\r\n"
        )
    }

    #[test]
    fn forms_keep_every_byte_but_the_name_of_the_model() {
        let content_type = "multipart/form-data; boundary=b";
        let sent = |id: &str, body: String| {
            passed(JobKind::AudioTranscriptions, &model(id), &raw(content_type, body))
        };
        assert_eq!(
            sent("m", form("m")).unwrap(),
            (content_type.to_owned(), form("m").into())
        );
        assert_eq!(sent("/a/m.gguf", form("m")).unwrap().1, form("/a/m.gguf"));
        let twice = form("m").replace("\"file\"; filename=\"a\"", "\"model\"");
        assert_eq!(sent("m", twice).unwrap_err().status, 400);
        let nameless = form("m").replace("\"model\"", "\"other\"");
        assert_eq!(sent("m", nameless).unwrap_err().param.as_deref(), Some("model"));
        assert_eq!(
            passed(JobKind::AudioTranscriptions, &model("m"), &raw("", "{}"))
                .unwrap_err()
                .status,
            400
        );
    }

    #[test]
    fn what_is_surely_too_long_is_refused_and_the_rest_is_not() {
        let body = |bytes: usize| {
            json!({"messages": [
                {"role": "user", "content": "x".repeat(bytes / 2)},
                {"role": "user", "content": [{"type": "text", "text": "x".repeat(bytes - bytes / 2)}, {"type": "image_url"}]},
            ]})
        };
        let check = |kind, body: &Value| refuse_what_is_too_long(kind, body, 100);
        assert!(check(JobKind::ChatCompletions, &body(8 * 100 + 7)).is_ok());
        let error = check(JobKind::ChatCompletions, &body(8 * 101)).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str(), error.param.as_deref()),
            (400, "context_length_exceeded", Some("messages"))
        );
        assert!(check(JobKind::ChatCompletions, &json!({"messages": "x"})).is_ok());
        let long = "x".repeat(8 * 101);
        assert!(check(JobKind::Completions, &json!({"prompt": long})).is_err());
        let fits = "x".repeat(8 * 100);
        assert!(check(JobKind::Embeddings, &json!({"input": [fits, fits]})).is_ok());
        assert!(check(JobKind::Embeddings, &json!({"input": [fits, long]})).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_passed_names_the_one_model(text in "\\{(\"[mM]odel\":(\"[a-z]{0,3}\"|[0-9]),?){0,3}\\}") {
            if let Ok((_, bytes)) = passed(JobKind::Rerank, &model("m"), &raw("", text)) {
                let sent: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(sent.len(), 1);
                prop_assert_eq!(&sent["model"], "m");
            }
        }
    }
}
