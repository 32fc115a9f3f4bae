//! Debian's packages for the tests, where the machine has not got them.

use std::path::Path;

use anyhow::bail;

use super::environment::{Workplace, output, succeed};

/// Installs packages as root on a Debian; elsewhere says what to do instead.
pub(crate) fn install(workplace: &Workplace, packages: &[&str], instead: &str) -> anyhow::Result<()> {
    let root = output(workplace.command("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
    if !(root && Path::new("/usr/bin/apt-get").exists()) {
        let names = packages.join(" ");
        bail!("install Debian's packages (sudo apt-get install {names}), or {instead}");
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = workplace.command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        succeed(command.args(["--quiet", "--quiet"]).args(arguments))
    };
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}
