//! Says in a program's words why nobody can be asked.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobKind;

use crate::core::failure::ApiFailure;
use crate::core::request::ProgramRequest;
use crate::core::router::NoRoute;

/// Seconds until others may have come.
const RETRY_AFTER_SECONDS: u32 = 10;

/// The failure of a request that nobody can serve.
pub(super) fn no_route(none: NoRoute, request: &ProgramRequest, price_cap: Option<Credits>) -> ApiFailure {
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
        NoRoute::AbovePriceCap => {
            let cap = price_cap.unwrap_or(Credits::ZERO);
            ApiFailure::budget_exhausted(format!(
                "every offer of '{model}' costs more than the {cap} credits per million that max_price_per_million \
                 allows"
            ))
        }
        NoRoute::AllTried => unavailable(format!(
            "all who offer '{model}' were asked and none can serve it now"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_status_that_programs_understand() {
        let body = Bytes::from_static(br#"{"model":"guide","messages":[{}]}"#);
        let request = ProgramRequest::parse(JobKind::ChatCompletions, body).unwrap();
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
            (NoRoute::AbovePriceCap, 503, "budget_exhausted"),
            (NoRoute::AllTried, 503, "no_provider_available"),
        ] {
            let failure = no_route(none.clone(), &request, Some(Credits::micro(5)));
            assert_eq!(
                (failure.status, failure.code.as_ref()),
                (status, code),
                "{none:?}"
            );
        }
        let other = no_route(
            NoRoute::OtherKind(BTreeSet::from([JobKind::Embeddings])),
            &request,
            None,
        );
        assert!(other.message.contains("/v1/embeddings"), "{}", other.message);
    }
}
