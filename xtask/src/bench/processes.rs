//! What running processes use, where the system tells: proc(5) of Linux.

/// Processor seconds per tick of `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const SECONDS_PER_TICK: f64 = 0.01;

/// A process and everything that it started and that still runs.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process: u32| Some((process, parent(process)?)))
        .collect();
    let mut at = 0;
    while let Some(&process) = found.get(at) {
        let children = parents.iter().filter(|(_, parent)| *parent == process);
        found.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    found
}

fn parent(process: u32) -> Option<u32> {
    field(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?, 4)?
        .parse()
        .ok()
}

/// A field of `/proc/PID/stat` by its number in the manual, from the third on: the second may hold spaces.
fn field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(number.checked_sub(3)?)
}

/// Processor seconds of all of them together, in user and system mode.
pub(super) fn processor_seconds(processes: &[u32]) -> f64 {
    let of = |process: &u32| ticks(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?);
    processes.iter().filter_map(of).sum::<f64>() * SECONDS_PER_TICK
}

/// Processor seconds of a thread of this process.
pub(super) fn thread_seconds(thread: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    Some(ticks(&stat)? * SECONDS_PER_TICK)
}

/// The number of the calling thread.
pub(super) fn this_thread() -> Option<u32> {
    // Its text is PID/task/TID.
    std::fs::read_link("/proc/thread-self")
        .ok()?
        .file_name()?
        .to_str()?
        .parse()
        .ok()
}

fn ticks(stat: &str) -> Option<f64> {
    let number = |at| field(stat, at)?.parse::<f64>().ok();
    Some(number(14)? + number(15)?)
}

/// Resident memory of all of them together in mebibytes. Pages that two share count twice, as with every tool.
pub(super) fn resident_mebibytes(processes: &[u32]) -> f64 {
    processes
        .iter()
        .filter_map(|process| super::report::resident_mebibytes(*process))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_as_the_manual_does() {
        let stat = "42 (a name) with) S 7 8 9 10 11 12 13 14 15 16 120 30 0 0 20 0 1";
        assert_eq!(field(stat, 3), Some("S"));
        assert_eq!(field(stat, 4), Some("7"));
        assert_eq!(ticks(stat), Some(150.0));
        assert_eq!(field(stat, 2), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_memory_and_has_itself_in_its_tree() {
        let own = std::process::id();
        assert!(tree(own).contains(&own));
        assert!(resident_mebibytes(&[own]) > 1.0);
        assert!(thread_seconds(this_thread().unwrap()).unwrap() >= 0.0);
    }
}
