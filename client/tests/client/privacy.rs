//! Prompts and answers are neither stored nor logged.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gristmill_protocol::job::JobFailed;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::Market;
use crate::provider::{Script, Setup, Step, text, words};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn files_with(folder: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, secret));
        } else if String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(secret) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_leave_no_trace() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_env_filter("gristmill=trace")
        .with_writer(log.clone())
        .finish();
    // Other tests' logs come here too; none of them knows these words.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let market = Market::start().await;
    let (prompt, answer) = ("xylophone-prompt", "xylophone-answer");
    let fields = |stream: bool| json!({"stream": stream, "messages": [{"role": "user", "content": prompt}]});
    let provider = market.provider(Setup::default(), words(&[answer])).await;
    for stream in [true, false] {
        assert!(market.chat(fields(stream)).await.text.contains(answer));
    }
    // An engine that quotes the prompt in its error, an answer that breaks off, and one that is nonsense.
    let quoting = JobFailed::new(400, "invalid_value", prompt, None);
    for steps in [
        vec![Step::Fail(quoting)],
        vec![Step::Say(text(answer), 1), Step::Die],
        vec![Step::Say(answer.to_owned(), 1)],
    ] {
        provider.set_script(Script::Run(steps));
        market.chat(fields(true)).await;
    }
    let malformed = format!("{{\"model\":\"{prompt}\",\"messages\":\"{prompt}\"}}");
    market
        .http
        .post(market.url("/v1/chat/completions"))
        .body(malformed)
        .send()
        .await
        .unwrap();
    let Market {
        client,
        client_directory,
        ..
    } = market;
    client.shutdown().await.unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("request answered") && log.contains("request_id"),
        "the log was heard"
    );
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("xylophone")).collect();
    assert!(lines.is_empty(), "{lines:#?}");
    assert_eq!(
        files_with(client_directory.path(), "xylophone"),
        Vec::<String>::new()
    );
}
