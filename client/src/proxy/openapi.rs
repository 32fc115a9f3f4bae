//! `GET /openapi.json`: what the endpoint can do, for programs. The document is written by hand, since most of what
//! it describes travels to providers as it came; the tests hold it to the routes and to what can go wrong.

use axum::response::Response;
use bytes::Bytes;

use crate::proxy::answer::json_body;

/// OpenAPI 3.1.
const DOCUMENT: &[u8] = include_bytes!("openapi.json");

/// `GET /openapi.json`.
pub(super) async fn document() -> Response {
    json_body(Bytes::from_static(DOCUMENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::job::JobFailed;
    use serde_json::Value;

    use crate::core::failure::ApiFailure;

    fn parsed() -> Value {
        serde_json::from_slice(DOCUMENT).unwrap()
    }

    /// Every operation: its path, its method and what is said of it.
    fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, methods): (&'_ String, &'_ Value)| -> Vec<(String, String)> {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.clone())).collect()
        };
        let names: Vec<(String, String)> = paths.iter().flat_map(of_path).collect();
        names
            .iter()
            .map(|(path, method)| {
                let (path, methods) = paths.get_key_value(path).unwrap();
                let (method, operation) = methods.as_object().unwrap().get_key_value(method).unwrap();
                (path.as_str(), method.as_str(), operation)
            })
            .collect()
    }

    /// The router does not tell its routes, so its source does.
    #[test]
    fn every_route_is_documented_and_every_documented_one_is_there() {
        let routes: BTreeSet<String> = include_str!("../proxy.rs")
            .split(".route(")
            .skip(1)
            .map(|rest| {
                let path = rest.trim_start().strip_prefix('"').expect("a literal path");
                path.split('"').next().unwrap().replace("{*", "{")
            })
            .collect();
        let document = parsed();
        let documented: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(routes, documented);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        found.insert(reference.clone());
                    }
                    fields.values().for_each(|field| references(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = parsed();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 10);
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some(), "{reference}");
        }
    }

    fn statuses(failures: &[ApiFailure]) -> BTreeSet<u16> {
        failures.iter().map(|failure| failure.status).collect()
    }

    /// Each documented status is one that a request of that kind can get, and none is left out.
    #[test]
    fn every_documented_status_can_be_given() {
        // Who may call.
        let mut of_all = statuses(&[ApiFailure::forbidden("")]);
        of_all.insert(200);
        // Asks for a key, and reads a body.
        let keyed = statuses(&[ApiFailure::unauthorized()]);
        let reading = statuses(&[
            ApiFailure::invalid_request(""),
            ApiFailure::body_timeout(),
            ApiFailure::too_large(1),
            ApiFailure::internal(),
        ]);
        let quoting = statuses(&[
            ApiFailure::model_not_found("", &[]),
            ApiFailure::no_provider_available("", 1),
        ]);
        let running = statuses(&[
            ApiFailure::insufficient_credits(Credits::ZERO, Credits::ZERO),
            ApiFailure::request_in_progress(),
            // What engines find wrong with a request that could be read.
            ApiFailure::from_engine(&JobFailed::new(422, "", "", None)),
            ApiFailure::too_many_requests(),
            ApiFailure::provider_failed(""),
            ApiFailure::provider_timeout(""),
        ]);
        let union = |sets: &[&BTreeSet<u16>]| -> BTreeSet<u16> {
            sets.iter().flat_map(|set| set.iter().copied()).collect()
        };
        let bad = statuses(&[ApiFailure::invalid_request("")]);
        let unknown = statuses(&[ApiFailure::model_not_found("", &[])]);
        let unready = statuses(&[ApiFailure::coordinator_unavailable("")]);
        let document = parsed();
        for (path, method, operation) in operations(&document) {
            let expected = match (method, path) {
                ("post", "/v1/chat/completions/input_tokens") => {
                    union(&[&of_all, &keyed, &reading, &quoting])
                }
                ("post", "/v1/responses/input_tokens" | "/v1/messages/count_tokens") => {
                    union(&[&of_all, &keyed, &reading])
                }
                ("post", _) => union(&[&of_all, &keyed, &reading, &quoting, &running]),
                (_, "/v1/models/{id}") => union(&[&of_all, &keyed, &bad, &unknown]),
                (_, "/v1/usage" | "/v1/usage/requests") => union(&[&of_all, &keyed, &bad]),
                (_, "/v1/models" | "/v1/providers" | "/v1/witness" | "/metrics") => union(&[&of_all, &keyed]),
                (_, "/readyz") => union(&[&of_all, &unready]),
                _ => of_all.clone(),
            };
            let responses = operation["responses"].as_object().unwrap();
            let documented: BTreeSet<u16> = responses.keys().map(|status| status.parse().unwrap()).collect();
            assert_eq!(documented, expected, "{method} {path}");
            let shape = if path.starts_with("/v1/messages") {
                "AnthropicError"
            } else {
                "Error"
            };
            for (status, response) in responses.iter().filter(|(status, _)| *status != "200") {
                assert_eq!(
                    response["content"]["application/json"]["schema"]["$ref"],
                    format!("#/components/schemas/{shape}"),
                    "{method} {path} {status}"
                );
            }
        }
    }

    #[test]
    fn what_programs_are_told_has_the_documented_shape() {
        let document = parsed();
        let required = |schema: &str| {
            let required =
                document["components"]["schemas"][schema]["properties"]["error"]["required"].as_array();
            let names = required
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned());
            names.collect::<BTreeSet<String>>()
        };
        let told: Value = serde_json::from_str(&ApiFailure::internal().to_json()).unwrap();
        for name in required("Error") {
            assert!(told["error"].get(&name).is_some(), "{name}");
        }
        let told = crate::core::translation::messages::failure_json(&ApiFailure::internal(), None);
        let told: Value = serde_json::from_str(&told).unwrap();
        for name in required("AnthropicError") {
            assert!(told["error"].get(&name).is_some(), "{name}");
        }
    }
}
