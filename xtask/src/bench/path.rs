//! What the market adds to a request: the same instant upstream called directly, and through proxy, QUIC job
//! stream, admission and vouchers, in turn, with the roles as processes of their own.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::load::{self, Mode, Target, first_token_ms, requests_per_second};
use super::report::{median, print, quantile};
use super::roles::{More, Roles};
use super::upstream;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Requests for the time to first token, each way
    #[arg(long, default_value_t = 2_000)]
    requests: usize,
    /// How long throughput is measured at each concurrency, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let upstream = upstream::start().await?;
    let roles = Roles::start(&upstream, More::default()).await?;
    let client = load::client()?;
    let straight_to = Target::new("direct", &upstream);
    let through_market = Target::new("market", roles.client_url());

    let (mut direct, mut market) = (Vec::new(), Vec::new());
    for round in 0..arguments.requests + 100 {
        let straight = first_token_ms(&client, &straight_to).await?;
        let through = first_token_ms(&client, &through_market).await?;
        // The first hundred warm both up: connections, channel, caches.
        if round >= 100 {
            direct.push(straight);
            market.push(through);
        }
    }
    let added: Vec<f64> = market
        .iter()
        .zip(&direct)
        .map(|(market, direct)| market - direct)
        .collect();
    let mut throughput = Vec::new();
    for concurrency in [1, 10, 100] {
        let limit = Duration::from_secs(arguments.seconds);
        let straight = requests_per_second(&client, &straight_to, Mode::Streamed, concurrency, limit).await?;
        let through =
            requests_per_second(&client, &through_market, Mode::Streamed, concurrency, limit).await?;
        throughput.push((concurrency, straight, through));
    }
    let memory = roles.resident_mebibytes();
    roles.stop().await?;
    tell(&direct, &market, &added, &throughput, &memory);
    Ok(())
}

fn tell(
    direct: &[f64],
    market: &[f64],
    added: &[f64],
    throughput: &[(usize, f64, f64)],
    memory: &[(&'static str, f64)],
) {
    let both = |figures: &[f64]| {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms",
            median(figures),
            quantile(figures, 0.99)
        )
    };
    let added_p99 = quantile(market, 0.99) - quantile(direct, 0.99);
    let mut rows = vec![
        ("time to first token, direct", both(direct)),
        ("time to first token, market", both(market)),
        (
            "added (targets 1 ms and 3 ms)",
            format!("p50 {:.2} ms, p99 {added_p99:.2} ms", median(added)),
        ),
    ];
    for (concurrency, straight, through) in throughput {
        let name = match concurrency {
            1 => "requests per second, 1 at once",
            10 => "requests per second, 10 at once",
            _ => "requests per second, 100 at once",
        };
        let ratio = through / straight;
        rows.push((
            name,
            format!("{through:.0} market, {straight:.0} direct, ratio {ratio:.2}"),
        ));
    }
    for (role, mebibytes) in memory {
        rows.push((role, format!("{mebibytes:.0} MiB resident")));
    }
    let throughput: Vec<Value> = throughput
        .iter()
        .map(|(concurrency, direct, market)| {
            json!({ "concurrency": concurrency, "direct": direct, "market": market, "ratio": market / direct })
        })
        .collect();
    print(
        "What the market adds to a request on loopback",
        &rows,
        &json!({
            "bench": "path",
            "requests": direct.len(),
            "direct_first_token_ms": { "p50": median(direct), "p99": quantile(direct, 0.99) },
            "market_first_token_ms": { "p50": median(market), "p99": quantile(market, 0.99) },
            "added_first_token_ms": { "p50": median(added), "p99": added_p99 },
            "requests_per_second": throughput,
            "resident_mebibytes": memory.iter().map(|(role, figure)| ((*role).to_owned(), json!(figure)))
                .collect::<serde_json::Map<String, Value>>(),
        }),
    );
}
