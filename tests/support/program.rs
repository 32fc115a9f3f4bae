//! The program as a process.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::bounded;

/// A command of the program with its state and configuration in a folder of the test's, and nothing of the machine's.
pub(crate) fn gristmill(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("GRISTMILL_") || name.starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Output {
    bounded::output(&mut gristmill(folder, arguments))
}
