//! A sweep as a job array of Slurm, for those who have a cluster.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use super::files;
use crate::running::quoted;

/// Most tasks of one array: what Slurm allows unless its `MaxArraySize` was changed.
const TASKS_MAX: usize = 1_000;
/// The script's name in the sweep's folder.
pub(super) const SCRIPT: &str = "sweep.sbatch";

/// The script: a task for each run, or for each so-manieth where there are more than an array may have.
pub(super) fn script(name: &str, folder: &Path, program: &Path, runs: usize) -> String {
    let tasks = runs.clamp(1, TASKS_MAX);
    let letters = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(letters).collect();
    let (folder, program) = (folder.to_string_lossy(), program.to_string_lossy());
    format!(
        "#!/bin/bash\n\
         # A sweep of gristmill simulate: {runs} runs. Submit it with `sbatch {SCRIPT}`; when all tasks are done,\n\
         # `gristmill simulate merge` puts the results together. Submitted again, it runs what is missing.\n\
         #SBATCH --job-name=gristmill-{name}\n\
         #SBATCH --array=0-{last}\n\
         #SBATCH --ntasks=1\n\
         #SBATCH --cpus-per-task=1\n\
         #SBATCH --mem=4G\n\
         set -euo pipefail\n\
         # Both may be set when it is submitted: where the program is, and the sweep's folder on all nodes.\n\
         program=${{GRISTMILL:-{program}}}\n\
         folder=${{SWEEP_FOLDER:-{folder}}}\n\
         exec \"$program\" simulate resume \"$folder\" --task \"$SLURM_ARRAY_TASK_ID\" --of {tasks} --jobs 1\n",
        last = tasks - 1,
        program = quoted(&program),
        folder = quoted(&folder),
    )
}

/// Writes the script into a sweep's folder and checks it: by the shell, and by Slurm where that is installed.
pub(super) fn write(folder: &Path, name: &str, runs: usize) -> anyhow::Result<ExitCode> {
    let folder =
        std::fs::canonicalize(folder).with_context(|| format!("{} could not be found", folder.display()))?;
    let program = std::env::current_exe().context("the program's own place could not be found")?;
    let path = folder.join(SCRIPT);
    files::write(&path, script(name, &folder, &program, runs).as_bytes())?;
    let mut stderr = std::io::stderr().lock();
    match checked("bash", &["-n"], &path)? {
        Check::Passed => {}
        Check::Failed(why) => bail!("the shell does not take {}: {why}", path.display()),
        Check::Absent => writeln!(stderr, "not checked by bash, which is not installed here")?,
    }
    match checked("sbatch", &["--test-only"], &path)? {
        Check::Passed => writeln!(stderr, "Slurm would take it (sbatch --test-only)")?,
        Check::Failed(why) => writeln!(stderr, "Slurm would not take it as it stands: {why}")?,
        Check::Absent => writeln!(stderr, "not checked by Slurm, which is not installed here")?,
    }
    writeln!(
        stderr,
        "submit it with:  sbatch {}\nand afterwards:  gristmill simulate merge {}",
        quoted(&path.to_string_lossy()),
        quoted(&folder.to_string_lossy())
    )?;
    writeln!(std::io::stdout().lock(), "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

enum Check {
    Passed,
    Failed(String),
    Absent,
}

fn checked(program: &str, arguments: &[&str], script: &Path) -> anyhow::Result<Check> {
    match Command::new(program).args(arguments).arg(script).output() {
        Ok(output) if output.status.success() => Ok(Check::Passed),
        Ok(output) => Ok(Check::Failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Check::Absent),
        Err(error) => Err(error).with_context(|| format!("{program} could not be started")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_a_task_for_each_run_and_no_more_than_allowed() {
        let script_of = |runs| {
            script(
                "price war",
                Path::new("/data/my sweep"),
                Path::new("/bin/gristmill"),
                runs,
            )
        };
        let few = script_of(60);
        assert!(
            few.contains("--array=0-59\n") && few.contains("--of 60 "),
            "{few}"
        );
        assert!(
            few.contains("gristmill-price-war") && few.contains("'/data/my sweep'"),
            "{few}"
        );
        let many = script_of(2_500);
        assert!(
            many.contains("--array=0-999\n") && many.contains("--of 1000 "),
            "{many}"
        );
    }
}
