//! What goes to stderr: logs and the reason of a failure.

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// Sends logs to stderr. A filter that can't be read is said so and replaced by warnings.
pub(crate) fn start_logging(filter: &str) {
    let (filter, complaint) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("warn"), Some(error)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && wants_colour())
        .with_target(false)
        .init();
    if let Some(error) = complaint {
        tracing::warn!(%error, "the log filter is not understood; warnings are logged");
    }
}

/// Whether colours are wanted (<https://no-color.org>).
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says why the program failed, cause by cause.
pub(crate) fn report(error: &anyhow::Error) {
    let mut stderr = std::io::stderr().lock();
    // Where stderr is gone there is nobody to tell.
    let _ = writeln!(stderr, "gristmill: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Errors that quote their cause need no second line for it.
        if !last.contains(&cause) {
            let _ = writeln!(stderr, "  because: {cause}");
        }
        last = cause;
    }
}
