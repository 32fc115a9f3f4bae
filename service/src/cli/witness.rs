//! `witness` of a role: reads what the role's witness keeps, so it works whether or not the role runs.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use gristmill_transport::witness::{CheckpointStatus, LogReport, report};
use serde_json::json;

use super::{align_right, table};
use crate::clock::unix_ms;

/// Shows what the witness of `role` (`node` or `client`) found out about its coordinator's log. The exit code is 1
/// where the log was caught lying.
///
/// # Errors
/// What is in the way, for people.
pub fn show(role: &str, data_dir: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let logs = report(data_dir)?;
    let caught = logs.iter().any(|log| !log.alarms.is_empty());
    if json {
        writeln!(out, "{}", json!({"logs": logs}))?;
    } else {
        for_people(role, &logs, unix_ms(), out)?;
    }
    Ok(if caught {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn for_people(role: &str, logs: &[LogReport], now_ms: u64, out: &mut impl Write) -> io::Result<()> {
    if logs.is_empty() {
        return writeln!(
            io::stderr(),
            "No coordinator was met yet; 'gristmill {role} serve' meets one and watches its log."
        );
    }
    let mut table = table(&["LOG", "RECORDS", "SEEN", "VERDICT"]);
    for log in logs {
        let seen = |checkpoint: &CheckpointStatus| {
            format!(
                "{} s ago",
                now_ms.saturating_sub(checkpoint.accepted_at_ms) / 1_000
            )
        };
        let checkpoint = log.checkpoint.as_ref();
        table.add_row([
            log.log.clone(),
            checkpoint.map_or_else(String::new, |checkpoint| checkpoint.size.to_string()),
            checkpoint.map_or_else(|| "never".to_owned(), seen),
            match log.alarms.len() {
                0 => "consistent".to_owned(),
                _ => "CAUGHT LYING".to_owned(),
            },
        ]);
    }
    align_right(&mut table, &[1]);
    writeln!(out, "{}", table.trim_fmt())?;
    for alarm in logs.iter().flat_map(|log| &log.alarms) {
        let file = alarm.file.as_ref().map(|file| file.display().to_string());
        writeln!(out, "{}; evidence: {}", alarm.lie, file.unwrap_or_default())?;
    }
    Ok(())
}
