//! One product in candle and in numpy, which uses OpenBLAS: the same matrices' sizes, in turn, each in a process of its
//! own, with one thread and with all.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::super::report::median;
use super::processor;
use crate::test::environment::{Workplace, output};
use crate::test::packages::Environments;

/// How often the two take turns.
const TURNS: usize = 2;

/// The two libraries with so many threads.
#[derive(Debug, Serialize)]
pub(super) struct Products {
    pub(super) threads: usize,
    pub(super) rows: u32,
    pub(super) candle: Times,
    pub(super) numpy: Times,
}

/// What each product took in seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Times {
    library: String,
    wall: Vec<f64>,
    processor: Vec<f64>,
}

impl Times {
    /// Of the median product by the clock.
    pub(super) fn gigaflops(&self, rows: u32) -> f64 {
        2.0 * f64::from(rows).powi(3) / median(&self.wall) / 1e9
    }

    fn take(&mut self, mut more: Self) {
        self.wall.append(&mut more.wall);
        self.processor.append(&mut more.processor);
    }
}

impl Products {
    /// Candle's speed as a share of numpy's by processor time.
    pub(super) fn by_processor(&self) -> f64 {
        median(&self.numpy.processor) / median(&self.candle.processor)
    }

    /// The same by the clock.
    pub(super) fn by_clock(&self) -> f64 {
        median(&self.numpy.wall) / median(&self.candle.wall)
    }
}

pub(super) fn measure(rows: u32, repeats: u32) -> anyhow::Result<Vec<Products>> {
    let workplace = Workplace::find()?;
    let definitions = workplace.root.join("xtask/bench_peers");
    let python = Environments::at(&workplace, &definitions, "bench-peers")?
        .python("numpy")
        .context("numpy can't be installed")?;
    let script = definitions.join("matmul_numpy.py");
    let all = std::thread::available_parallelism()?.get();
    let mut measured = Vec::new();
    for threads in [1, all] {
        let numpy = || {
            let mut command = Command::new(&python);
            command.arg(&script).args([rows.to_string(), repeats.to_string()]);
            with_threads(command, threads)
        };
        let candle = || {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["bench", "proof", "--products-only"]);
            command.args([
                "--product-rows",
                &rows.to_string(),
                "--products",
                &repeats.to_string(),
            ]);
            with_threads(command, threads)
        };
        let mut products = Products {
            threads,
            rows,
            candle: candle()?,
            numpy: numpy()?,
        };
        for _ in 1..TURNS {
            products.numpy.take(numpy()?);
            products.candle.take(candle()?);
        }
        measured.push(products);
    }
    Ok(measured)
}

/// Runs a process that prints its times, with so many threads for whichever library it uses.
fn with_threads(mut command: Command, threads: usize) -> anyhow::Result<Times> {
    for variable in ["RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"] {
        command.env(variable, threads.to_string());
    }
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

/// What the process for candle does.
#[expect(clippy::print_stdout, reason = "the times are what the process is for")]
pub(super) fn products_only(rows: u32, repeats: u32) -> anyhow::Result<()> {
    let side = rows as usize;
    let entries = |step: usize| -> Vec<f32> {
        (0..side * side)
            .map(|at| (at * step % 31) as f32 - 15.0)
            .collect()
    };
    let left = Tensor::from_vec(entries(7), (side, side), &Device::Cpu)?;
    let right = Tensor::from_vec(entries(11), (side, side), &Device::Cpu)?;
    let _ = left.matmul(&right)?;
    let mut times = Times {
        library: "candle".to_owned(),
        wall: Vec::new(),
        processor: Vec::new(),
    };
    for _ in 0..repeats {
        let started = Instant::now();
        let (product, used) = processor::of_process(|| left.matmul(&right));
        product?;
        times.wall.push(started.elapsed().as_secs_f64());
        times.processor.push(used);
    }
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}
