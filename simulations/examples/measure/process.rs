//! What the system says of this process.

use anyhow::Context;

/// Processor seconds of all threads so far, in user and system mode: proc_pid_stat(5), fields 14 and 15 in ticks of
/// 1/100 s. Other programs on the machine hardly count in it.
///
/// # Errors
/// Where the system has no such file.
#[expect(
    clippy::disallowed_methods,
    reason = "what the system says is no file of a run"
)]
pub(crate) fn processor_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("this figure needs Linux")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat has no name")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// The most memory that this process ever had, in bytes.
///
/// # Errors
/// Where the system has no such file.
#[expect(
    clippy::disallowed_methods,
    reason = "what the system says is no file of a run"
)]
pub(crate) fn peak_memory_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("this figure needs Linux")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("/proc/self/status has no VmHWM")?;
    let kibibytes: u64 = line
        .split_whitespace()
        .next()
        .context("VmHWM has no figure")?
        .parse()?;
    Ok(kibibytes * 1_024)
}
