//! SimGrid's program of the flood, compiled with the machine's own SimGrid, or with Debian's where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::test::debian;
use crate::test::environment::{Workplace, output, succeed};

const INSTEAD: &str = "install SimGrid and a C++ compiler, or leave it out with --without-simgrid";

/// Compiles the program into a folder.
pub(super) fn build(workplace: &Workplace, definitions: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let program = folder.join("flood_simgrid");
    let compile = || {
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O2", "-o"]).arg(&program);
        compiler
            .arg(definitions.join("flood_simgrid.cpp"))
            .arg("-lsimgrid");
        compiler
    };
    if output(&mut compile()).is_err() {
        debian::install(workplace, &["g++", "libsimgrid-dev"], INSTEAD)
            .context("a flood in SimGrid needs its library")?;
        succeed(&mut compile())?;
    }
    Ok(program)
}
