//! The table of errors, row by row. The rows of 401 and 409 are in `guard` and `idempotency`.

use futures::future::join_all;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobFailed;
use serde_json::{Value, json};

use crate::harness::{Market, STARTER};
use crate::provider::{Script, Setup, Step, words};

/// A request that can't be served, and what the program is told.
struct Row {
    status: u16,
    code: &'static str,
    kind: &'static str,
    param: Option<&'static str>,
    says_when: bool,
    script: Option<Script>,
    fields: Value,
    /// The account has nothing.
    is_poor: bool,
    /// Nobody is as cheap as the settings want.
    is_capped: bool,
}

impl Row {
    fn new(status: u16, code: &'static str, kind: &'static str) -> Self {
        Self {
            status,
            code,
            kind,
            param: None,
            says_when: matches!(status, 429 | 503),
            script: Some(words(&["Hi"])),
            fields: json!({}),
            is_poor: false,
            is_capped: false,
        }
    }

    fn failing(failed: JobFailed, kind: &'static str) -> Self {
        let code: &'static str = failed.code.clone().leak();
        Self::new(failed.status, code, kind).doing(Script::Run(vec![Step::Fail(failed)]))
    }

    fn at(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    fn asking(mut self, fields: Value) -> Self {
        self.fields = fields;
        self
    }

    fn doing(mut self, script: Script) -> Self {
        self.script = Some(script);
        self
    }

    async fn check(self) {
        let grant = if self.is_poor { Credits::ZERO } else { STARTER };
        let market = Market::start_with(grant, |mut settings| {
            settings.job_timeouts.answer_ms = 1_500;
            settings.body_max_bytes = 10_000;
            settings.max_price_per_million = self.is_capped.then_some(Credits::micro(1));
            settings
        })
        .await;
        let _provider = match self.script {
            Some(script) => Some(market.provider(Setup::default(), script).await),
            None => None,
        };
        for stream in [false, true] {
            let mut fields = self.fields.clone();
            fields["stream"] = json!(stream);
            let answer = market.chat(fields).await;
            assert_eq!(
                answer.error(),
                (self.status, self.code.to_owned()),
                "{}",
                answer.text
            );
            let error = &answer.json()["error"];
            assert_eq!(
                (&error["type"], error["param"].as_str()),
                (&json!(self.kind), self.param)
            );
            let wait = answer.header("retry-after").parse::<u32>().ok();
            assert_eq!(wait.is_some(), self.says_when, "{}", answer.text);
            assert!(wait.is_none_or(|wait| (1..=120).contains(&wait)), "{wait:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_errors_has_its_status_code_and_type() {
    let (invalid, server) = ("invalid_request_error", "server_error");
    let rows = vec![
        Row::new(400, "invalid_request", invalid)
            .asking(json!({"temperature": 1, "n": 0}))
            .at("n"),
        Row::new(400, "unsupported_parameter", invalid)
            .asking(json!({"seed": 5}))
            .at("seed"),
        Row::failing(
            JobFailed::new(400, "context_length_exceeded", "too long", Some("messages")),
            invalid,
        )
        .at("messages"),
        Row {
            is_poor: true,
            ..Row::new(402, "insufficient_credits", "insufficient_quota")
        },
        Row::new(404, "model_not_found", invalid)
            .asking(json!({"model": "guidance"}))
            .at("model"),
        Row::new(413, "request_too_large", invalid).asking(json!({"pad": "x".repeat(10_000)})),
        Row::failing(
            JobFailed::new(429, "rate_limit_exceeded", "slowly", None),
            "rate_limit_error",
        ),
        Row::new(502, "provider_failed", server).doing(Script::Run(vec![Step::Say("?".into(), 0)])),
        Row {
            script: None,
            ..Row::new(503, "no_provider_available", server)
        },
        Row {
            is_capped: true,
            ..Row::new(503, "budget_exhausted", server).at("gristmill.max_price")
        },
        Row::new(504, "provider_timeout", server).doing(Script::Ignore),
        // An upstream's own status and words survive the trip.
        Row::failing(
            JobFailed::new(418, "teapot", "short and stout", Some("handle")),
            invalid,
        )
        .at("handle"),
    ];
    join_all(rows.into_iter().map(Row::check)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_are_told_where_repeating_is_useless() {
    let capped = Market::start_with(STARTER, |mut settings| {
        settings.max_price_per_million = Some(Credits::micro(1));
        settings
    })
    .await;
    let _dear = capped.provider(Setup::default(), words(&["Hi"])).await;
    let answer = capped.chat(json!({})).await;
    assert_eq!(answer.error(), (503, "budget_exhausted".to_owned()));
    assert_eq!(answer.header("x-should-retry"), "false");
    let empty = Market::start().await;
    let answer = empty.chat(json!({})).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
    assert_eq!(answer.header("x-should-retry"), "", "others may come");
}
