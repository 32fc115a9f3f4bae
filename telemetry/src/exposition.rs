//! The texts that metrics are read as: OpenMetrics 1.0 for those who ask for it, and the older text format of
//! Prometheus for everybody else.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The content type of OpenMetrics, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the text format, <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as text, and its content type, in the format that an `Accept` header asks for.
#[must_use]
pub fn exposition(registry: &Registry, accept: Option<&str>) -> (&'static str, String) {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, registry) {
        // Writing to a string fails only where a metric's own code does.
        tracing::error!(%error, "the metrics could not be written");
    }
    let wants_open_metrics = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    if wants_open_metrics {
        (OPEN_METRICS, text)
    } else {
        (PROMETHEUS_TEXT, prometheus_text(&text))
    }
}

/// The older format of the same: counters are described under their full names, and there are neither units nor an
/// end mark.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let full_name = |rest: &str| match rest.split_once(' ') {
            Some((name, rest)) => format!("{name}_total {rest}"),
            None => rest.to_owned(),
        };
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let written = match (line.strip_prefix("# HELP "), line.strip_prefix("# TYPE ")) {
            (Some(help), _) if lines.peek().is_some_and(|next| is_counter(next)) => {
                writeln!(text, "# HELP {}", full_name(help))
            }
            (_, Some(kind)) if is_counter(line) => writeln!(text, "# TYPE {}", full_name(kind)),
            _ => writeln!(text, "{line}"),
        };
        // Writing to a string always succeeds.
        let _ = written;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Unit;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let (jobs, waiting): (Counter, Gauge) = Default::default();
        jobs.inc_by(3);
        waiting.set(2);
        registry.register("jobs", "Jobs done", jobs);
        registry.register_with_unit("waiting", "The longest wait", Unit::Seconds, waiting);
        registry
    }

    #[test]
    fn who_asks_for_nothing_gets_the_format_that_everybody_reads() {
        let expected = "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\njobs_total 3\n\
                        # HELP waiting_seconds The longest wait.\n# TYPE waiting_seconds gauge\nwaiting_seconds 2\n";
        for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            assert_eq!(
                exposition(&registry(), accept),
                (PROMETHEUS_TEXT, expected.to_owned())
            );
        }
    }

    #[test]
    fn prometheus_gets_open_metrics() {
        let accept =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let (content_type, text) = exposition(&registry(), Some(accept));
        assert_eq!(content_type, OPEN_METRICS);
        assert!(
            text.contains("# TYPE jobs counter\njobs_total 3\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        assert!(text.contains("# UNIT waiting_seconds seconds\n"), "{text}");
    }
}
