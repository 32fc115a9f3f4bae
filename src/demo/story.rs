//! What happened, as a person and as a program want to see it.

use std::io::Write;
use std::time::Duration;

use gristmill_ledger::audit::AuditReport;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_protocol::usage::{Price, Unit};
use serde::Serialize;
use serde_json::Value;

use super::market::{MODEL, Market, worth};
use super::question::Answer;

/// What everybody has at one moment.
#[derive(Debug)]
pub(super) struct Purses {
    consumer: Credits,
    providers: Vec<(AccountId, Credits)>,
}

impl Purses {
    /// Asks the coordinator.
    pub(super) async fn read(market: &Market) -> anyhow::Result<Self> {
        let mut providers = Vec::new();
        for provider in &market.providers {
            providers.push((provider.node.account(), provider.worth().await?));
        }
        Ok(Self {
            consumer: worth(market.consumer()).await?,
            providers,
        })
    }

    fn of(&self, provider: &AccountId) -> Credits {
        let found = self.providers.iter().find(|(account, _)| account == provider);
        found.map_or(Credits::ZERO, |(_, credits)| *credits)
    }
}

/// The story of one question. Amounts are in microcredits.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// Whether the books add up: the consumer lost what was paid, the provider gained it less the fee.
    pub(super) ok: bool,
    answer: String,
    chunks: u64,
    usage: Value,
    provider: AccountId,
    request_id: String,
    paid: Credits,
    fee: Credits,
    consumer_before: Credits,
    consumer_after: Credits,
    provider_before: Credits,
    provider_after: Credits,
    receipt: String,
    audit: AuditReport,
    elapsed_ms: u128,
}

impl Story {
    pub(super) fn new(
        answer: Answer,
        receipt: &ReceiptClaims,
        before: &Purses,
        after: &Purses,
        audit: AuditReport,
        elapsed: Duration,
    ) -> Self {
        let provider = answer.provider;
        let (provider_before, provider_after) = (before.of(&provider), after.of(&provider));
        let lost = before.consumer.checked_sub(after.consumer);
        let gained = provider_after.checked_sub(provider_before);
        let ok = !answer.text.is_empty()
            && !receipt.paid.is_zero()
            && lost == Ok(receipt.paid)
            && gained == receipt.paid.checked_sub(receipt.fee)
            && receipt.request_id.as_str() == answer.request_id
            && audit.clean;
        Self {
            ok,
            answer: answer.text,
            chunks: answer.chunks,
            usage: answer.usage,
            provider,
            request_id: answer.request_id,
            paid: receipt.paid,
            fee: receipt.fee,
            consumer_before: before.consumer,
            consumer_after: after.consumer,
            provider_before,
            provider_after,
            receipt: receipt.jti.clone(),
            audit,
            elapsed_ms: elapsed.as_millis(),
        }
    }

    /// One line of JSON on stdout.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(self)?)?)
    }

    /// For people, on stdout.
    pub(super) fn print(&self, market: &Market) -> anyhow::Result<()> {
        let name = market
            .provider(&self.provider)
            .map_or("a provider", |provider| provider.name);
        let tokens = |field: &str| self.usage[field].as_u64().unwrap_or_default();
        let audit = if self.audit.clean { "clean" } else { "NOT clean" };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "\nWhat happened")?;
        writeln!(stdout, "  served by   {name} ({})", self.provider)?;
        writeln!(
            stdout,
            "  tokens      {} read, {} written, in {} chunks",
            tokens("prompt_tokens"),
            tokens("completion_tokens"),
            self.chunks
        )?;
        writeln!(
            stdout,
            "  voucher     {} credits, signed by the consumer as the answer came",
            self.paid
        )?;
        writeln!(
            stdout,
            "  settled     {} to the provider, {} fee",
            self.paid.saturating_sub(self.fee),
            self.fee
        )?;
        writeln!(stdout, "  receipt     {} for {}", self.receipt, self.request_id)?;
        writeln!(
            stdout,
            "  consumer    {} -> {}",
            self.consumer_before, self.consumer_after
        )?;
        writeln!(
            stdout,
            "  provider    {} -> {}",
            self.provider_before, self.provider_after
        )?;
        writeln!(
            stdout,
            "  audit       {audit}: {} journal records replayed, sum of all accounts zero",
            self.audit.records
        )?;
        if !self.ok {
            writeln!(
                stdout,
                "\nThe books do NOT add up. Please report this with the lines above."
            )?;
        }
        Ok(())
    }
}

/// Who takes part, on stderr.
pub(super) fn introduce(market: &Market) {
    eprintln!("A market on this machine");
    eprintln!("  coordinator     {}", market.coordinator.http_url());
    for provider in &market.providers {
        eprintln!("  {:<15} {MODEL} at {}", provider.name, price(&provider.price));
    }
    eprintln!("  OpenAI API      {}\n", market.endpoint());
}

fn price(price: &Price) -> String {
    let per_million = |unit| price.coefficient(unit).to_string();
    format!(
        "{} credits per million tokens read, {} written",
        per_million(Unit::InputToken),
        per_million(Unit::OutputToken)
    )
}

/// What to do next, on stderr.
pub(super) fn invite(endpoint: &str) {
    eprintln!(
        "\nThe endpoint stays up until Ctrl-C. From another terminal, after pip install openai:\n\n\
         python3 - <<'PYTHON'\n\
         from openai import OpenAI\n\
         client = OpenAI(base_url=\"{endpoint}\", api_key=\"none\")\n\
         stream = client.chat.completions.create(\n    \
             model=\"{MODEL}\", stream=True, temperature=0,\n    \
             messages=[{{\"role\": \"user\", \"content\": \"What is a voucher?\"}}])\n\
         for chunk in stream:\n    \
             if chunk.choices:\n        \
                 print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\
         PYTHON\n"
    );
}
