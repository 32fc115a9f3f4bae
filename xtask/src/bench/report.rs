//! Figures as people and programs read them.

use serde_json::Value;

/// The median of some figures; zero of none.
pub(super) fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// A quantile of some figures by the nearest rank; zero of none.
pub(super) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index among a few thousand figures"
    )]
    let rank = (last as f64 * share).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

/// Prints the table on stderr and the same as JSON on stdout.
#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
pub(super) fn print(title: &str, rows: &[(&str, String)], json: &Value) {
    eprintln!("\n{title}");
    let width = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or_default();
    for (name, value) in rows {
        eprintln!("  {name:<width$}  {value}");
    }
    println!("{json:#}");
}

/// Resident memory of a process in mebibytes, where the system tells.
pub(super) fn resident_mebibytes(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// The processor time that this process has used so far in user and system mode, where the system tells.
pub(super) fn processor_seconds() -> Option<f64> {
    // proc_pid_stat(5): fields 14 and 15, counted from after the program's name, in ticks of 1/100 s.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_figures() {
        let figures = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((median(&figures) - 3.0).abs() < f64::EPSILON);
        assert!((quantile(&figures, 0.99) - 5.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
