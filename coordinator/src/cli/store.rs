//! `gristmill coordinator migrate` and `verify`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use gristmill_ledger::audit;
use gristmill_ledger::store::postgres::{MIGRATIONS, SERVICE_ROLE, migrate as migrate_tables};
use gristmill_transport::key_file;
use serde_json::json;

use super::{blocking, print_facts};
use crate::server::{ledger_directory, open_ledger, signing_key_path};
use crate::settings::{FileSection, StoreArguments, StoreSetting, StoreUrl};
use crate::store_verification::{StoreReport, verify_store};

/// The arguments of `gristmill coordinator migrate`.
#[derive(Debug, Args)]
pub struct MigrateArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// The role that coordinators use; it is made where it is missing, without a password
    #[arg(long, value_name = "NAME", default_value = SERVICE_ROLE)]
    service_role: String,
    /// Print what would be run, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The arguments of `gristmill coordinator verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    store: StoreArguments,
}

fn database(store: StoreSetting) -> anyhow::Result<StoreUrl> {
    match store {
        StoreSetting::Postgres(url) => Ok(url),
        StoreSetting::Embedded => bail!(
            "there is no database: give --store postgres://OWNER@HOST/DATABASE. A ledger in a folder needs no \
             migration"
        ),
    }
}

pub(super) async fn migrate(
    arguments: MigrateArguments,
    file: FileSection,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let MigrateArguments {
        store,
        service_role,
        dry_run,
    } = arguments;
    let url = database(store.resolve(file.store)?)?;
    if dry_run {
        return print_steps(json);
    }
    let report = migrate_tables(&url.address()?, &service_role).await?;
    if json {
        let line = json!({
            "database": url.to_string(), "engine": report.engine, "applied": report.applied,
            "present": report.present, "left_out": report.left_out, "service_role": report.service_role,
            "role_created": report.role_created, "role_is_owner": report.role_is_owner,
        });
        writeln!(io::stdout(), "{line}")?;
    } else {
        let list = |steps: &[String]| match steps.is_empty() {
            true => "none".to_owned(),
            false => steps.join(", "),
        };
        print_facts(&[
            ("database", url.to_string()),
            ("engine", report.engine.clone()),
            ("taken now", list(&report.applied)),
            ("taken before", list(&report.present)),
            ("left out", list(&report.left_out)),
            ("service role", report.service_role.clone()),
        ])?;
    }
    if report.role_created {
        let role = &report.service_role;
        writeln!(
            io::stderr(),
            "The role {role} was made now and has no password. Give it one (psql: \\password {role}), or let pg_hba.conf \
             admit it another way."
        )?;
    }
    if report.role_is_owner {
        writeln!(
            io::stderr(),
            "The service role owns the tables, so that only triggers guard the entries. Use another role for \
             coordinators."
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_steps(json: bool) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    if json {
        let steps: Vec<_> = MIGRATIONS
            .iter()
            .map(|step| json!({ "version": step.version, "name": step.name, "sql": step.sql }))
            .collect();
        writeln!(stdout, "{}", json!({ "steps": steps }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for step in MIGRATIONS {
        writeln!(
            stdout,
            "-- step {:04}_{}\n\n{}",
            step.version, step.name, step.sql
        )?;
    }
    writeln!(
        io::stderr(),
        "Steps that were taken before are not taken again. The service's role then gets its rights: to read \
         everything, to add to everything, and to change only balances, channels, the head row and notes."
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn verify(
    arguments: VerifyArguments,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let store = arguments.store.resolve(file.store)?;
    let key = key_file::load(&signing_key_path(data_dir))?.map(|keypair| keypair.account());
    match store {
        StoreSetting::Embedded => {
            let directory = ledger_directory(data_dir);
            let report = blocking(move || Ok(audit::audit(&directory)?)).await?;
            gristmill_ledger::cli::print_audit(&report, json)
        }
        StoreSetting::Postgres(url) => {
            let ledger = open_ledger(&StoreSetting::Postgres(url.clone()), data_dir).await?;
            let verified = verify_store(&ledger, key).await;
            ledger.shutdown().await?;
            print_report(&url, &verified?, json)
        }
    }
}

fn print_report(url: &StoreUrl, report: &StoreReport, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(report)?)?;
    } else {
        let checkpoint = match (report.published, report.reserved) {
            (Some(published), _) => format!("{published} records, signed"),
            (None, Some(reserved)) => format!("{reserved} records reserved, nothing signed yet"),
            (None, None) => "none yet".to_owned(),
        };
        print_facts(&[
            ("database", url.to_string()),
            ("records", report.records.to_string()),
            ("vouchers verified", report.vouchers_verified.to_string()),
            ("root", report.root.to_string()),
            ("checkpoint", checkpoint),
            ("tiles", format!("{} compared", report.tiles)),
            ("state digest", report.state_digest.to_string()),
            (
                "signed by",
                report
                    .signer
                    .map_or("nobody yet".to_owned(), |signer| signer.to_string()),
            ),
        ])?;
        for problem in &report.problems {
            writeln!(io::stdout(), "PROBLEM  {problem}")?;
        }
        let verdict = match report.clean {
            true => "clean: every record, signature, balance and root holds",
            false => "NOT CLEAN: keep a copy of the database before you repair anything",
        };
        writeln!(io::stdout(), "{verdict}")?;
    }
    Ok(if report.clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
