//! Where the tests work, and the programs that they install there: nothing is left outside the target folder.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::packages::npm_ci;

/// The repository, and the folder for what the tests install.
#[derive(Debug)]
pub(crate) struct Workplace {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// What the tests install and write: below the target folder, so that `cargo clean` removes it.
    pub(crate) folder: PathBuf,
    target: PathBuf,
}

impl Workplace {
    /// Finds the repository and makes the folder.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?
            .to_owned();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |given| root.join(given));
        let folder = target.join("xtask");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("the folder {} can't be made", folder.display()))?;
        Ok(Self { root, folder, target })
    }

    /// The `gristmill` program of the dev build.
    pub(crate) fn program(&self) -> PathBuf {
        self.target
            .join("debug")
            .join(format!("gristmill{}", env::consts::EXE_SUFFIX))
    }

    /// An example of the release build.
    #[cfg(feature = "workbench")]
    pub(crate) fn release_example(&self, name: &str) -> PathBuf {
        self.target
            .join("release/examples")
            .join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// A command in the root of the repository.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Cargo in the root of the repository.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments);
        command
    }

    /// Cargo with as many open files as the system allows.
    pub(crate) fn with_open_files(&self, arguments: &[&str]) -> Command {
        if cfg!(windows) {
            return self.cargo(arguments);
        }
        let cargo = self.cargo(arguments);
        let mut shell = self.command("sh");
        shell
            .args(["-c", "ulimit -n \"$(ulimit -H -n)\" && exec \"$@\"", "sh"])
            .arg(cargo.get_program())
            .args(cargo.get_args());
        shell
    }

    /// A Python of a virtual environment with the packages that the real-client tests name, made where it is not
    /// there or they name others by now.
    pub(crate) fn python(&self, scripts: &Path) -> anyhow::Result<PathBuf> {
        let requirements = [
            (scripts.join("requirements.txt"), None),
            (
                scripts.join("requirements-without-dependencies.txt"),
                Some("--no-deps"),
            ),
        ];
        let folder = self.folder.join("python");
        let scripts = if cfg!(windows) { "Scripts" } else { "bin" };
        let python = folder
            .join(scripts)
            .join(format!("python{}", env::consts::EXE_SUFFIX));
        let stamp = folder.join("installed");
        let mut wanted = String::new();
        for (file, _) in &requirements {
            wanted += &std::fs::read_to_string(file)?;
        }
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && python.exists() {
            return Ok(python);
        }
        let system = if cfg!(windows) { "python" } else { "python3" };
        succeed(self.command(system).args(["-m", "venv", "--clear"]).arg(&folder))?;
        for (file, option) in &requirements {
            let mut install = self.command(&python);
            install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            succeed(install.args(option).arg("-r").arg(file))?;
        }
        std::fs::write(&stamp, wanted)?;
        Ok(python)
    }

    /// A folder with the scripts of the real-client tests and their npm packages installed.
    pub(crate) fn node_packages(&self, scripts: &Path) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join("node");
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(scripts)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|ending| ending == "mjs" || ending == "json")
            {
                let name = path.file_name().context("a file without a name")?;
                std::fs::copy(&path, folder.join(name))?;
            }
        }
        let stamp = folder.join("installed");
        let wanted = std::fs::read_to_string(folder.join("package-lock.json"))?;
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(folder);
        }
        succeed(&mut npm_ci(self, &folder))?;
        std::fs::write(&stamp, wanted)?;
        Ok(folder)
    }

    /// A program of a crate, installed into the folder of the tests where it is not there.
    pub(crate) fn installed_crate(&self, name: &str) -> anyhow::Result<PathBuf> {
        let root = self.folder.join("tools");
        let program = root
            .join("bin")
            .join(format!("{name}{}", env::consts::EXE_SUFFIX));
        if !program.exists() {
            let mut install = self.cargo(&["install", "--quiet", "--locked", name, "--root"]);
            // What it is built with is of no use to anything else.
            install
                .arg(&root)
                .env("CARGO_TARGET_DIR", self.folder.join("tools-build"));
            succeed(&mut install)?;
            let _ = std::fs::remove_dir_all(self.folder.join("tools-build"));
        }
        Ok(program)
    }
}

/// Runs a command to its end and fails where it failed.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command
        .status()
        .with_context(|| format!("{shown} can't be started; is it installed?"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end and gives what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command
        .output()
        .with_context(|| format!("{shown} can't be started; is it installed?"))?;
    if !output.status.success() {
        bail!(
            "{shown} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
