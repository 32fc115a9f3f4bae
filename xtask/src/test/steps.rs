//! The steps of `cargo xtask test`, in their order: cheap ones first.

use anyhow::bail;

use super::environment::{Workplace, output, succeed};
use super::packages::Environments;
use super::{chromium, clients, postgres};

/// One step.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) purpose: &'static str,
    pub(super) run: fn(&Workplace, Thoroughness) -> anyhow::Result<()>,
}

/// How much of a step is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoroughness {
    /// What a developer waits for.
    Quick,
    /// All there is: in CI, and where the step was named.
    Everything,
}

/// What the workspace is checked with beyond its default features.
const FEATURES: &str = "xtask/workbench";

/// Every step.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "format",
        purpose: "rustfmt has nothing to change",
        run: format,
    },
    Step {
        name: "purity",
        purpose: "pure crates pull in no runtime and no sockets",
        run: purity,
    },
    Step {
        name: "lint",
        purpose: "clippy with warnings denied",
        run: lint,
    },
    Step {
        name: "build",
        purpose: "the program, for the tests that start it",
        run: build,
    },
    Step {
        name: "test",
        purpose: "unit, property and integration tests",
        run: test,
    },
    Step {
        name: "abuse",
        purpose: "crowds of bad programs at their full size; only where named or in CI",
        run: abuse,
    },
    Step {
        name: "planted",
        purpose: "errors planted in the protocol and the ledger show where they are; only where named or in CI",
        run: planted,
    },
    Step {
        name: "document",
        purpose: "code in documentation compiles and runs",
        run: document,
    },
    Step {
        name: "demo",
        purpose: "the whole market in one process, from its JSON",
        run: demo,
    },
    Step {
        name: "real-clients",
        purpose: "OpenAI SDKs, JOSE libraries, the local page in a browser, processes and faults",
        run: real_clients,
    },
    Step {
        name: "clients",
        purpose: "real programs' clients, each in its own environment; the quick ones unless named or in CI",
        run: real_programs,
    },
    Step {
        name: "deny",
        purpose: "licences, bans, sources and advisories of dependencies",
        run: deny,
    },
];

fn format(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    succeed(&mut workplace.cargo(&["fmt", "--all", "--check"]))
}

fn purity(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    for (package, arguments) in [
        ("gristmill-protocol", &[][..]),
        ("gristmill-ledger", &["--no-default-features"][..]),
        ("gristmill-benchmark", &["--no-default-features"][..]),
        ("gristmill-simulations", &["--no-default-features"][..]),
    ] {
        let mut tree = workplace.cargo(&[
            "tree",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            package,
        ]);
        let dependencies = output(tree.args(arguments))?;
        let impure = |name: &&str| {
            matches!(
                *name,
                "tokio" | "libp2p" | "reqwest" | "axum" | "tokio-postgres" | "getrandom"
            )
        };
        let names = dependencies.lines().filter_map(|line| line.split(' ').next());
        // The simulator's command line may read files; its engine is held to its clippy.toml.
        let found: Vec<&str> = names.filter(impure).collect();
        if !found.is_empty() {
            bail!(
                "{package} pulls in {}: it must stay free of I/O",
                found.join(", ")
            );
        }
    }
    Ok(())
}

fn lint(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    let arguments = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--features",
        FEATURES,
        "--",
    ];
    succeed(workplace.cargo(&arguments).args(["-D", "warnings"]))
}

fn build(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    // With the features of the tests, so that nothing is built twice.
    succeed(&mut workplace.cargo(&["build", "--quiet", "--workspace", "--features", FEATURES]))
}

fn test(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    let python = workplace.python(&real_client_scripts(workplace))?;
    let server = postgres::start(workplace)?;
    let mut test = workplace.cargo(&[
        "test",
        "--quiet",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--features",
        FEATURES,
    ]);
    test.env("GRISTMILL_MINILM_PYTHON", python)
        .env("GRISTMILL_PANDAS_PYTHON", pandas(workplace)?)
        .env(postgres::URL_VARIABLE, server.url("postgres"));
    succeed(&mut test)
}

/// A Python with what the guide for researchers redraws plots with.
fn pandas(workplace: &Workplace) -> anyhow::Result<std::path::PathBuf> {
    let definitions = workplace.root.join("docs/simulations");
    Environments::at(workplace, &definitions, "simulations")?.python("redraw")
}

/// The tests of abuse with crowds that need more open files than a process usually may have.
fn abuse(workplace: &Workplace, thoroughness: Thoroughness) -> anyhow::Result<()> {
    if thoroughness == Thoroughness::Quick {
        eprintln!("   left out: the step 'test' has run them with small crowds");
        return Ok(());
    }
    let mut test = workplace.with_open_files(&[
        "test",
        "--quiet",
        "--workspace",
        "--features",
        FEATURES,
        "--test",
        "client",
        "abuse::",
    ]);
    succeed(test.env("GRISTMILL_FULL_SIZE_CROWDS", "1"))
}

/// The errors are compiled in by a feature that no other build has, so this step compiles the pure crates once more.
fn planted(workplace: &Workplace, thoroughness: Thoroughness) -> anyhow::Result<()> {
    if thoroughness == Thoroughness::Quick {
        eprintln!("   left out: it compiles the pure crates once more");
        return Ok(());
    }
    succeed(&mut workplace.cargo(&[
        "test",
        "--quiet",
        "--package",
        "gristmill-simulations",
        "--features",
        "planted-bugs",
        "--test",
        "planted",
    ]))
}

fn document(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    succeed(&mut workplace.cargo(&["test", "--quiet", "--workspace", "--doc", "--features", FEATURES]))?;
    let mut document = workplace.cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--features",
        FEATURES,
    ]);
    succeed(document.env("RUSTDOCFLAGS", "-D warnings"))
}

fn demo(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    let story = output(
        workplace
            .command(workplace.program())
            .args(["demo", "--once", "--json"]),
    )?;
    let last = story.lines().last().unwrap_or_default();
    let told: serde_json::Value = serde_json::from_str(last)?;
    let credits = |name: &str| told.get(name).and_then(serde_json::Value::as_u64);
    let (Some(paid), Some(fee)) = (credits("paid"), credits("fee")) else {
        bail!("the demo tells no price: {last}");
    };
    let lost = credits("consumer_before")
        .zip(credits("consumer_after"))
        .map(|(before, after)| before - after);
    let gained = credits("provider_before")
        .zip(credits("provider_after"))
        .map(|(before, after)| after - before);
    let ok = told.get("ok").and_then(serde_json::Value::as_bool) == Some(true);
    if !ok || paid == 0 || lost != Some(paid) || gained != Some(paid - fee) {
        bail!("the demo does not add up: {last}");
    }
    Ok(())
}

fn real_client_scripts(workplace: &Workplace) -> std::path::PathBuf {
    workplace.root.join("xtask/real_clients")
}

fn real_clients(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    let scripts = real_client_scripts(workplace);
    let python = workplace.python(&scripts)?;
    let node_folder = workplace.node_packages(&scripts)?;
    let chromium = chromium::find_or_install(workplace)?;
    let mut tests = workplace.command(python);
    tests
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5"])
        .arg(&scripts)
        .arg("--ignore")
        .arg(scripts.join("clients"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GRISTMILL_PROGRAM", workplace.program())
        .env("GRISTMILL_NODE_FOLDER", node_folder)
        .env("GRISTMILL_CHROMIUM", chromium.browser)
        .env("GRISTMILL_CHROMEDRIVER", chromium.driver);
    succeed(&mut tests)
}

fn real_programs(workplace: &Workplace, thoroughness: Thoroughness) -> anyhow::Result<()> {
    // Named alone, it finds the program that was built last, or none.
    build(workplace, thoroughness)?;
    clients::run(
        workplace,
        &real_client_scripts(workplace),
        thoroughness == Thoroughness::Everything,
    )
}

fn deny(workplace: &Workplace, _: Thoroughness) -> anyhow::Result<()> {
    let program = workplace.installed_crate("cargo-deny")?;
    succeed(
        workplace
            .command(&program)
            .args(["--all-features", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"]),
    )?;
    // Advisories come from a database on the network, which not every machine reaches; a database that can't be
    // fetched says nothing about the dependencies, an advisory does.
    let advisories = workplace
        .command(&program)
        .args(["check", "--hide-inclusion-graph", "advisories"])
        .output()?;
    let told = String::from_utf8_lossy(&advisories.stderr).into_owned();
    if advisories.status.success() {
        return Ok(());
    }
    if told.contains("failed to fetch advisory database") || told.contains("failed to load advisory database")
    {
        eprintln!("   the advisory database can't be reached from here: advisories were NOT checked");
        return Ok(());
    }
    bail!("{told}")
}
