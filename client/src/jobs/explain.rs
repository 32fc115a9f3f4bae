//! Says in a program's words why nobody can be asked.

use gristmill_protocol::job::JobKind;
use gristmill_protocol::routing::constraints::{Constraint, Constraints, Region};

use crate::core::failure::ApiFailure;
use crate::core::request::ProgramRequest;
use crate::core::router::NoRoute;

/// Seconds until others may have come.
const RETRY_AFTER_SECONDS: u32 = 10;

/// The failure of a request that nobody can serve.
pub(crate) fn no_route(none: NoRoute, request: &ProgramRequest, constraints: &Constraints) -> ApiFailure {
    let model = &request.model;
    let unavailable = |reason: String| ApiFailure::no_provider_available(reason, RETRY_AFTER_SECONDS);
    match none {
        NoRoute::UnknownModel(near) => ApiFailure::model_not_found(model, &near),
        NoRoute::OtherKind(kinds) => {
            let mut failure = ApiFailure::model_not_found(model, &[]);
            let paths: Vec<String> = kinds.iter().map(|kind| format!("/v1{}", kind.path())).collect();
            let asked = match request.kind {
                JobKind::ChatCompletions => "chats",
                JobKind::Embeddings => "makes embeddings",
                JobKind::Completions => "completes prompts",
                JobKind::AudioTranscriptions => "transcribes audio",
                JobKind::AudioSpeech => "speaks",
                JobKind::ImageGenerations => "makes images",
                JobKind::Rerank => "ranks documents",
            };
            failure.message = format!(
                "nobody offers a '{model}' that {asked}; ask for it at {}",
                paths.join(" or ")
            );
            failure
        }
        NoRoute::NothingOnOffer => unavailable(format!("nobody offers '{model}' or anything else now")),
        NoRoute::OtherCoordinators => unavailable(format!(
            "those who offer '{model}' don't take this coordinator's tickets"
        )),
        NoRoute::OnlyOwn => unavailable(format!(
            "only this account's own node offers '{model}', and nobody can pay himself; ask the node directly"
        )),
        NoRoute::Unsupported(field) => ApiFailure::unsupported_field(model, field),
        NoRoute::Excluded(constraint) => excluded(constraint, model, constraints),
        NoRoute::AllFailing { retry_after_ms } => {
            let seconds = u32::try_from(retry_after_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
            let reason = format!(
                "all who offer '{model}' have failed again and again; one of them is asked again in {seconds} s"
            );
            ApiFailure::no_provider_available(reason, seconds)
        }
        NoRoute::AllTried => unavailable(format!(
            "all who offer '{model}' were asked and none can serve it now"
        )),
    }
}

/// The failure of a request whose restriction nobody meets.
fn excluded(constraint: Constraint, model: &str, constraints: &Constraints) -> ApiFailure {
    let unavailable = |reason: String| ApiFailure::no_provider_available(reason, RETRY_AFTER_SECONDS);
    let failure = match constraint {
        Constraint::MaxPrice => {
            let cap = constraints.max_price_per_million.unwrap_or_default();
            ApiFailure::budget_exhausted(format!(
                "every offer of '{model}' that fits costs more than the {cap} credits per million that max_price (or \
                 max_price_per_million in the settings) allows"
            ))
        }
        Constraint::Region => {
            let regions: Vec<&str> = constraints.regions.iter().map(Region::as_str).collect();
            unavailable(format!(
                "no provider of '{model}' that fits says that it is in {}, which region asks for",
                regions.join(" or ")
            ))
        }
        Constraint::Privacy => unavailable(format!(
            "no provider of '{model}' that fits promises '{}', which privacy asks for",
            constraints.privacy
        )),
        Constraint::Provider => unavailable(format!(
            "the provider that the request names does not offer '{model}' now, or can't honour all of its fields"
        )),
        Constraint::OnlyVerified => unavailable(format!(
            "no provider of '{model}' that fits has a hardware certificate that holds now, which only_verified asks \
             for; 'gristmill client providers' shows who has one"
        )),
    };
    failure.at(&format!("gristmill.{}", constraint.field()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gristmill_protocol::credits::Credits;
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_status_that_programs_understand() {
        let body = Bytes::from_static(br#"{"model":"guide","messages":[{}]}"#);
        let request = ProgramRequest::parse(JobKind::ChatCompletions, body).unwrap();
        let constraints = Constraints {
            max_price_per_million: Some(Credits::micro(5)),
            regions: vec!["CH".parse().unwrap()],
            ..Constraints::default()
        };
        for (none, status, code) in [
            (NoRoute::UnknownModel(vec![]), 404, "model_not_found"),
            (
                NoRoute::OtherKind(BTreeSet::from([JobKind::Embeddings])),
                404,
                "model_not_found",
            ),
            (NoRoute::NothingOnOffer, 503, "no_provider_available"),
            (NoRoute::OtherCoordinators, 503, "no_provider_available"),
            (NoRoute::OnlyOwn, 503, "no_provider_available"),
            (NoRoute::Unsupported("tools"), 400, "unsupported_parameter"),
            (NoRoute::Excluded(Constraint::MaxPrice), 503, "budget_exhausted"),
            (
                NoRoute::Excluded(Constraint::Region),
                503,
                "no_provider_available",
            ),
            (
                NoRoute::Excluded(Constraint::OnlyVerified),
                503,
                "no_provider_available",
            ),
            (
                NoRoute::AllFailing {
                    retry_after_ms: 59_001,
                },
                503,
                "no_provider_available",
            ),
            (NoRoute::AllTried, 503, "no_provider_available"),
        ] {
            let failure = no_route(none.clone(), &request, &constraints);
            assert_eq!(
                (failure.status, failure.code.as_ref()),
                (status, code),
                "{none:?}"
            );
        }
        let other = no_route(
            NoRoute::OtherKind(BTreeSet::from([JobKind::Embeddings])),
            &request,
            &constraints,
        );
        assert!(other.message.contains("/v1/embeddings"), "{}", other.message);
        let region = no_route(NoRoute::Excluded(Constraint::Region), &request, &constraints);
        assert!(region.message.contains("is in CH,"), "{}", region.message);
        assert_eq!(region.param.as_deref(), Some("gristmill.region"));
        let failing = no_route(
            NoRoute::AllFailing {
                retry_after_ms: 59_001,
            },
            &request,
            &constraints,
        );
        assert_eq!(failing.retry_after_seconds, Some(60));
    }
}
