//! A browser for the tests of the local page: the machine's own, or Debian's package where there is none.

use std::env;
use std::path::PathBuf;

use anyhow::Context;

use super::debian;
use super::environment::Workplace;

/// Names of the browser, the first one Debian's.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// What drives it: W3C WebDriver.
const DRIVERS: [&str; 1] = ["chromedriver"];
const INSTEAD: &str = "put Chromium and the 'chromedriver' of the same version on the PATH";

/// A browser and what drives it.
pub(super) struct Chromium {
    pub(super) browser: PathBuf,
    pub(super) driver: PathBuf,
}

/// Finds a browser, or installs one.
pub(super) fn find_or_install(workplace: &Workplace) -> anyhow::Result<Chromium> {
    if let Some(found) = find() {
        return Ok(found);
    }
    debian::install(workplace, &["chromium", "chromium-driver"], INSTEAD)
        .context("the tests of the local page need Chromium")?;
    find().context("Chromium was installed and is not on the PATH")
}

fn find() -> Option<Chromium> {
    Some(Chromium {
        browser: on_path(&BROWSERS)?,
        driver: on_path(&DRIVERS)?,
    })
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .map(|path| path.with_extension(env::consts::EXE_EXTENSION))
        .find(|path| path.is_file())
}
