//! The real clients of `xtask/real_clients/clients`, each in an environment of its own, so that no client gets a
//! library in a version that another one asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use super::environment::{Workplace, succeed};
use super::packages::Environments;

/// Installs what is missing and runs the clients: all of them where `everything` is asked for, otherwise the quick
/// ones.
pub(super) fn run(workplace: &Workplace, scripts: &Path, everything: bool) -> anyhow::Result<()> {
    let python = workplace.python(scripts)?;
    let folder = scripts.join("clients");
    let environments = Environments::at(workplace, &folder, "clients")?;
    let mut runners = BTreeMap::new();
    for client in clients(&folder)?
        .iter()
        .filter(|client| everything || client.is_quick)
    {
        let runner = install(&environments, &folder, client)
            .with_context(|| format!("the environment of the client {} can't be made", client.name))?;
        runners.insert(client.name.clone(), runner);
    }
    let mut tests = workplace.command(&python);
    tests
        .args([
            "-m",
            "pytest",
            "-q",
            "-rA",
            "-p",
            "no:cacheprovider",
            "--durations=5",
        ])
        .arg(&folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GRISTMILL_PROGRAM", workplace.program())
        .env("GRISTMILL_CLIENT_RUNNERS", serde_json::to_string(&runners)?);
    succeed(&mut tests)
}

/// A client as `clients.json` describes it.
struct Client {
    name: String,
    script: String,
    /// The name of its npm packages' files; `None` for a Python client.
    packages: Option<String>,
    is_quick: bool,
}

fn clients(folder: &Path) -> anyhow::Result<Vec<Client>> {
    let file = folder.join("clients.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))?;
    let table: Vec<Value> = serde_json::from_str(&text)?;
    let client = |entry: &Value| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Client {
            name: text("name")?,
            script: text("script")?,
            packages: text("packages"),
            is_quick: entry.get("quick")?.as_bool()?,
        })
    };
    let clients: Option<Vec<_>> = table.iter().map(client).collect();
    clients.with_context(|| format!("{} has an entry without name, script or quick", file.display()))
}

/// Makes a client's environment where it is not there yet. Returns the command that runs its script.
fn install(environments: &Environments<'_>, scripts: &Path, client: &Client) -> anyhow::Result<Vec<PathBuf>> {
    let Some(packages) = &client.packages else {
        return Ok(vec![
            environments.python(&client.name)?,
            scripts.join(&client.script),
        ]);
    };
    let node = environments.node(&client.name, packages)?;
    // Beside the packages, where Node looks for them.
    for entry in std::fs::read_dir(scripts.join("node"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "mjs") {
            let name = path.file_name().context("a file without a name")?;
            std::fs::copy(&path, node.folder.join(name))?;
        }
    }
    Ok(vec![node.program, node.folder.join(&client.script)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definitions() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("real_clients/clients")
    }

    /// The packages that are asked for, and all that they bring, have versions and no addresses.
    fn node_packages_are_exact(folder: &Path, packages: &str) {
        let read =
            |ending: &str| std::fs::read_to_string(folder.join(format!("{packages}.{ending}"))).unwrap();
        let lock = read("lock.json");
        assert!(!lock.contains("://"), "{packages}: no download addresses");
        let wanted: Value = serde_json::from_str(&read("json")).unwrap();
        let locked: Value = serde_json::from_str(&lock).unwrap();
        assert_eq!(locked["packages"][""]["dependencies"], wanted["dependencies"]);
        for (name, package) in locked["packages"].as_object().unwrap() {
            let is_exact = package["version"].is_string() && package["integrity"].is_string();
            assert!(name.is_empty() || is_exact, "{packages}: {name}");
        }
    }

    #[test]
    fn every_client_has_its_files_and_exact_versions() {
        let clients = clients(&definitions()).unwrap();
        assert!(clients.iter().filter(|client| client.is_quick).count() >= 2);
        for client in clients {
            if let Some(packages) = client.packages {
                node_packages_are_exact(&definitions().join("node"), &packages);
                continue;
            }
            assert!(definitions().join(&client.script).exists(), "{}", client.script);
            let file = definitions()
                .join("requirements")
                .join(format!("{}.txt", client.name));
            let text = std::fs::read_to_string(file).unwrap();
            assert!(!text.contains("://"), "{}: no download addresses", client.name);
            for line in text
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            {
                assert!(line.contains("=="), "{}: {line}", client.name);
            }
        }
    }
}
