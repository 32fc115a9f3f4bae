//! The HTTP client against a server that checks every token.
