//! What a proof of hardware costs its two sides: the verifier's processor time beside the prover's, how that grows with
//! the matrices, what share of a round is multiplying, and candle's product beside OpenBLAS in the same run.

mod growth;
mod matmul;
mod processor;
mod whole;

use clap::Args;
use serde_json::json;

use self::growth::Growth;
use self::matmul::Products;
use self::whole::Whole;
use super::report::print;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Rounds of the whole challenge at 4,096 rows. A coordinator asks for what fills some seconds
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// Larger matrices to measure strips of a round with
    #[arg(long, value_delimiter = ',', default_values_t = [8_192, 16_384])]
    rows: Vec<u32>,
    /// Strips that are multiplied of each larger round; what a round costs follows from them
    #[arg(long, default_value_t = 3)]
    strips: usize,
    /// Rows of the products that are compared with OpenBLAS's
    #[arg(long, default_value_t = 2_048)]
    product_rows: u32,
    /// Products of each library, in each of two turns
    #[arg(long, default_value_t = 4)]
    products: u32,
    /// Multiply with candle, print the times and end: what a process of this benchmark does
    #[arg(long, hide = true)]
    products_only: bool,
}

/// The ratio that a verifier has to be cheaper by at 4,096 rows.
const RATIO_TARGET: f64 = 200.0;
/// The share of OpenBLAS's speed that candle's product has to reach.
const PRODUCT_TARGET: f64 = 0.95;

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.products_only {
        return matmul::products_only(arguments.product_rows, arguments.products);
    }
    eprintln!("products beside OpenBLAS …");
    let products = matmul::measure(arguments.product_rows, arguments.products)?;
    eprintln!("a whole challenge of {} rounds at 4,096 rows …", arguments.rounds);
    let whole = whole::measure(4_096, arguments.rounds).await?;
    let mut growth = Vec::new();
    for rows in &arguments.rows {
        eprintln!("strips of a round at {rows} rows …");
        growth.push(growth::measure(*rows, arguments.strips, arguments.rounds)?);
    }
    tell(&products, &whole, &growth);
    Ok(())
}

fn tell(products: &[Products], whole: &Whole, growth: &[Growth]) {
    let mut rows = vec![
        (
            "verifier against prover, 4,096 rows",
            format!(
                "1/{:.0} of the processor time (target 1/{RATIO_TARGET:.0}): {:.3} s against {:.1} s for {} rounds",
                whole.ratio(),
                whole.verifier_processor_seconds,
                whole.prover_processor_seconds,
                whole.rounds
            ),
        ),
        (
            "multiplying in a round, 4,096 rows",
            format!("{:.1} % of the time", whole.multiplying_share * 100.0),
        ),
        (
            "the proof",
            format!(
                "{} bytes, {} + {} openings; the whole challenge took {:.1} s",
                whole.proof_bytes, whole.openings, whole.openings, whole.seconds
            ),
        ),
    ];
    for one in growth {
        let name = match one.rows {
            8_192 => "verifier against prover, 8,192 rows",
            16_384 => "verifier against prover, 16,384 rows",
            _ => "verifier against prover, other rows",
        };
        rows.push((
            name,
            format!(
                "1/{:.0}: {:.3} s against {:.1} s for {} rounds, by {} of {} strips of one",
                one.ratio(),
                one.verifier_processor_seconds,
                one.round_processor_seconds * f64::from(one.rounds),
                one.rounds,
                one.strips_measured,
                one.strips_of_a_round
            ),
        ));
    }
    for one in products {
        let name = match one.threads {
            1 => "candle's product against OpenBLAS's, 1 thread",
            _ => "candle's product against OpenBLAS's, all threads",
        };
        rows.push((
            name,
            format!(
                "{:.2} of its speed by processor time, {:.2} by the clock (target {PRODUCT_TARGET}): {:.1} and {:.1} GFLOP/s",
                one.by_processor(),
                one.by_clock(),
                one.candle.gigaflops(one.rows),
                one.numpy.gigaflops(one.rows)
            ),
        ));
    }
    print(
        "What a proof of hardware costs",
        &rows,
        &json!({
            "bench": "proof",
            "whole": whole,
            "whole_ratio": whole.ratio(),
            "ratio_target": RATIO_TARGET,
            "growth": growth.iter().map(|one| json!({ "measured": one, "ratio": one.ratio() })).collect::<Vec<_>>(),
            "products": products.iter().map(|one| json!({
                "measured": one,
                "by_processor": one.by_processor(),
                "by_clock": one.by_clock(),
            })).collect::<Vec<_>>(),
            "product_target": PRODUCT_TARGET,
        }),
    );
}
