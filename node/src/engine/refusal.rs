//! The errors of the built-in engines in OpenAI's terms.

use crate::engine::EngineError;

/// A request that can't be honoured as it is written.
pub(crate) fn invalid_request(param: impl Into<String>, message: impl Into<String>) -> EngineError {
    EngineError {
        status: 400,
        code: "invalid_request_error".to_owned(),
        message: message.into(),
        param: Some(param.into()),
    }
}

/// A field that this engine can't honour, where another offer may.
pub(crate) fn unsupported_parameter(param: impl Into<String>) -> EngineError {
    let param = param.into();
    EngineError {
        status: 400,
        code: "unsupported_parameter".to_owned(),
        message: format!("this model does not support '{param}'; leave it out or choose another model"),
        param: Some(param),
    }
}

/// A schema that compiles, but that an answer can't be held to with bounded work.
pub(crate) fn schema_too_costly(problem: impl std::fmt::Display) -> EngineError {
    EngineError {
        status: 400,
        code: "invalid_request_error".to_owned(),
        message: format!("{problem}; simplify the schemas of the request"),
        param: None,
    }
}

/// More tokens than the model can read.
pub(crate) fn context_length_exceeded(param: &str, limit: usize, tokens: usize) -> EngineError {
    EngineError {
        status: 400,
        code: "context_length_exceeded".to_owned(),
        message: format!(
            "this model takes at most {limit} tokens, and the request has {tokens}; shorten it or choose \
             another model"
        ),
        param: Some(param.to_owned()),
    }
}

/// A model, or a kind of job, that the engine does not have.
pub(crate) fn model_not_found(model: &str) -> EngineError {
    EngineError {
        status: 404,
        code: "model_not_found".to_owned(),
        message: format!("this engine can't serve the model '{model}' for this kind of request"),
        param: Some("model".to_owned()),
    }
}

/// Too many jobs are waiting for the model already.
pub(crate) fn too_busy() -> EngineError {
    EngineError {
        status: 429,
        code: "rate_limit_exceeded".to_owned(),
        message: "too many jobs are waiting for this model; try again shortly".to_owned(),
        param: None,
    }
}

/// The engine broke, through no fault of the request.
pub(crate) fn engine_failed(problem: impl std::fmt::Display) -> EngineError {
    EngineError {
        status: 500,
        code: "engine_failed".to_owned(),
        message: format!("the model could not be run: {problem}"),
        param: None,
    }
}
