//! Sends spans to a collector: in batches, beside everything else, and never at the expense of requests. What does
//! not fit in the queue, or can't be delivered, is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Span, export_request};

/// Spans that may wait.
const QUEUE_SPANS: usize = 2_048;
/// Most spans in one message.
const BATCH_SPANS: usize = 512;
/// How long spans are gathered for one message.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts: the protocol asks for patience with 429, 502, 503 and 504.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// How long what is left may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An address that is none of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "otlp_endpoint is '{0}', which is no http or https address; collectors listen at http://127.0.0.1:4318"
)]
pub struct OtlpEndpointError(String);

/// Takes spans. Clones send to the same collector.
#[derive(Clone, Debug)]
pub struct SpanExporter {
    queue: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

impl SpanExporter {
    /// Hands a span over. Where the queue is full the span is dropped.
    pub fn export(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many spans were lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The part that has to be run.
#[derive(Debug)]
pub struct SpanExporterDriver {
    queue: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
    client: Client,
    traces: Url,
    service: &'static str,
    version: &'static str,
    /// What is being sent.
    batch: Vec<Span>,
    was_away: bool,
}

/// An exporter to the collector at `endpoint`, such as `http://127.0.0.1:4318`. Spans are those of `service`.
///
/// # Errors
/// [`OtlpEndpointError`] where that is no address of HTTP.
pub fn span_exporter(
    endpoint: &str,
    service: &'static str,
    version: &'static str,
) -> Result<(SpanExporter, SpanExporterDriver), OtlpEndpointError> {
    // What stands before an @ may be a password.
    let shown = match endpoint.rsplit_once('@') {
        Some((_, place)) => format!("…@{place}"),
        None => endpoint.to_owned(),
    };
    let wrong = || OtlpEndpointError(shown.chars().take(256).collect());
    let mut traces: Url = endpoint.parse().map_err(|_| wrong())?;
    if !matches!(traces.scheme(), "http" | "https") {
        return Err(wrong());
    }
    let path = format!("{}/v1/traces", traces.path().trim_end_matches('/'));
    traces.set_path(&path);
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_TIMEOUT)
        .build()
        .map_err(|_| wrong())?;
    let (sender, queue) = mpsc::channel(QUEUE_SPANS);
    let dropped = Arc::new(AtomicU64::new(0));
    let exporter = SpanExporter {
        queue: sender,
        dropped: dropped.clone(),
    };
    let driver = SpanExporterDriver {
        queue,
        dropped,
        client,
        traces,
        service,
        version,
        batch: Vec::new(),
        was_away: false,
    };
    Ok((exporter, driver))
}

/// How a collector answered.
enum Sent {
    Taken,
    /// It may take them later.
    NotNow(String),
    /// It never will.
    Refused(String),
}

impl SpanExporterDriver {
    /// Sends what comes until `stop` is over, and then what is left.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let work = async {
            while self.gather().await {
                self.deliver().await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = work => return,
        }
        self.queue.close();
        while let Ok(span) = self.queue.try_recv() {
            self.batch.push(span);
        }
        if !self.batch.is_empty() && timeout(LAST_WORDS, self.send()).await.is_err() {
            tracing::debug!(spans = self.batch.len(), "the last spans were not delivered");
        }
    }

    /// Waits for the spans of some time, at least one. Tells whether more may come.
    async fn gather(&mut self) -> bool {
        let Some(first) = self.queue.recv().await else {
            return false;
        };
        self.batch.push(first);
        let until = Instant::now() + BATCH_DELAY;
        while self.batch.len() < BATCH_SPANS {
            match timeout_at(until, self.queue.recv()).await {
                Ok(Some(span)) => self.batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    async fn deliver(&mut self) {
        let mut sent = self.send().await;
        for pause in RETRY_PAUSES {
            if !matches!(sent, Sent::NotNow(_)) {
                break;
            }
            sleep(pause).await;
            sent = self.send().await;
        }
        match sent {
            Sent::Taken => self.was_away = false,
            Sent::NotNow(reason) | Sent::Refused(reason) => {
                self.dropped.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
                // Once, and not with every batch.
                if !std::mem::replace(&mut self.was_away, true) {
                    // Without what may be a password.
                    let collector = self.traces.origin().ascii_serialization();
                    tracing::warn!(collector, reason, "traces can't be delivered and are dropped");
                }
            }
        }
        self.batch.clear();
    }

    async fn send(&self) -> Sent {
        let body = export_request(self.service, self.version, &self.batch).to_string();
        let request = self
            .client
            .post(self.traces.clone())
            .header(CONTENT_TYPE, "application/json");
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Sent::Taken,
            Ok(answer) if matches!(answer.status().as_u16(), 429 | 502 | 503 | 504) => {
                Sent::NotNow(format!("it answers with status {}", answer.status()))
            }
            Ok(answer) => Sent::Refused(format!("it answers with status {}", answer.status())),
            Err(error) => Sent::NotNow(error.without_url().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::SpanKind;
    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::sync::Mutex;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn span(name: &str) -> Span {
        Span {
            position: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
            caused_by: None,
            name: name.into(),
            kind: SpanKind::Server,
            began_ms: 1,
            ended_ms: 2,
            attributes: vec![],
            error: None,
        }
    }

    /// A collector that refuses so many messages with a status before it takes one.
    async fn collector(refusals: usize, status: u16) -> (String, mpsc::UnboundedReceiver<serde_json::Value>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new((refusals, sender)));
        let take = move |State(state): State<Arc<Mutex<(usize, mpsc::UnboundedSender<_>)>>>, body: String| async move {
            let mut state = state.lock().unwrap();
            if state.0 > 0 {
                state.0 -= 1;
                return StatusCode::from_u16(status).unwrap();
            }
            state.1.send(serde_json::from_str(&body).unwrap()).unwrap();
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, receiver)
    }

    fn names(request: &serde_json::Value) -> Vec<&str> {
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap();
        spans.iter().map(|span| span["name"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn spans_arrive_together_also_at_a_collector_that_has_to_be_asked_twice() {
        let (url, mut received) = collector(1, 503).await;
        let (exporter, driver) = span_exporter(&url, "test", "1").unwrap();
        let task = tokio::spawn(driver.run(std::future::pending()));
        exporter.export(span("a"));
        exporter.export(span("b"));
        let request = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
        assert_eq!(names(&request), ["a", "b"]);
        assert_eq!(exporter.dropped(), 0);
        task.abort();
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_sent() {
        let (url, mut received) = collector(0, 200).await;
        let (exporter, driver) = span_exporter(&url, "test", "1").unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        exporter.export(span("last"));
        stop.send(()).unwrap();
        let run = driver.run(async {
            let _ = stopped.await;
        });
        timeout(PATIENCE, run).await.unwrap();
        assert_eq!(names(&received.recv().await.unwrap()), ["last"]);
    }

    #[tokio::test]
    async fn what_a_collector_refuses_or_the_queue_does_not_hold_is_dropped_and_counted() {
        let (url, _received) = collector(usize::MAX, 400).await;
        let (exporter, driver) = span_exporter(&url, "test", "1").unwrap();
        for _ in 0..QUEUE_SPANS + 7 {
            exporter.export(span("x"));
        }
        assert_eq!(exporter.dropped(), 7, "nobody waits for a collector");
        let task = tokio::spawn(driver.run(std::future::pending()));
        let all = async {
            while exporter.dropped() < (QUEUE_SPANS + 7) as u64 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all).await.unwrap();
        task.abort();
    }

    #[test]
    fn addresses_of_collectors_are_http() {
        for url in [
            "http://127.0.0.1:4318",
            "https://otel.example/base/",
            "http://[::1]:4318/",
        ] {
            assert!(span_exporter(url, "test", "1").is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:4318",
            "grpc://127.0.0.1:4317",
            "http://",
            "file:///tmp",
        ] {
            assert!(span_exporter(url, "test", "1").is_err(), "{url}");
        }
        let error = span_exporter("ftp://me:secret@otel.example", "test", "1")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("otel.example") && !error.contains("secret"),
            "{error}"
        );
    }
}
