//! An OpenAI-compatible server on the owner's machine as an engine.
