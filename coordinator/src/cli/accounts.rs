//! `gristmill coordinator grant`, `balance`, `freeze` and `unfreeze`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use gristmill_protocol::coordinator_api::{AccountView, GrantRequest};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{EntryId, GrantId};
use gristmill_protocol::operator_api::FreezeRequest;
use gristmill_service::cli::{align_right, plain, table};
use gristmill_transport::coordinator_client::CoordinatorClient;
use serde_json::json;

use super::operator::OperatorCalls;
use super::{CoordinatorPlace, operator_key, random_bytes};
use crate::clock::Clock;
use crate::settings::FileSection;

/// The arguments of `gristmill coordinator grant`.
#[derive(Debug, Args)]
pub struct GrantArguments {
    /// Who is given
    pub(super) account: AccountId,
    /// How many credits, such as 25 or 0.5
    pub(super) amount: Credits,
    /// Why, for the journal
    #[arg(long, default_value = "")]
    reason: String,
    /// The name of the grant, to repeat one [default: drawn at random and printed]
    #[arg(long, value_name = "32 HEX DIGITS")]
    id: Option<GrantId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

/// The arguments of `gristmill coordinator balance`.
#[derive(Debug, Args)]
pub struct BalanceArguments {
    /// Whose [default: the coordinator's own]
    account: Option<AccountId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

/// The arguments of `gristmill coordinator freeze` and `unfreeze`.
#[derive(Debug, Args)]
pub struct FreezeArguments {
    /// Whose account
    account: AccountId,
    /// Why; it stands in the journal for ever, for everybody who audits it
    #[arg(long)]
    reason: String,
    /// The name of the entry, to repeat one [default: drawn at random and printed]
    #[arg(long, value_name = "32 HEX DIGITS")]
    id: Option<EntryId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

pub(super) async fn grant(
    arguments: GrantArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let GrantArguments {
        account,
        amount,
        reason,
        id,
        place,
    } = arguments;
    let client = operator_client(&place, file, data_dir)?;
    let grant = id.map_or_else(|| random_bytes().map(GrantId::from_bytes), Ok)?;
    let request = GrantRequest {
        grant,
        account,
        amount,
        reason,
    };
    let view = client.grant(&request).await.with_context(|| {
        format!("grant {grant} is not confirmed; to repeat it safely, add --id {grant} to the same command")
    })?;
    if json {
        let line = json!({
            "grant": grant, "account": account, "amount": amount, "available": view.available, "held": view.held,
        });
        writeln!(io::stdout(), "{line}")?;
    } else {
        writeln!(
            io::stdout(),
            "Granted {} credits to {account} (grant {grant}).",
            plain(amount)
        )?;
        print_account(&view)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn balance(
    arguments: BalanceArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let BalanceArguments { account, place } = arguments;
    let calls = OperatorCalls::new(&place, file, data_dir)?;
    let view = calls
        .account_view(account.unwrap_or_else(|| calls.account()))
        .await?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&view)?)?;
    } else {
        print_account(&view)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn freeze(
    arguments: FreezeArguments,
    frozen: bool,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let FreezeArguments {
        account,
        reason,
        id,
        place,
    } = arguments;
    let calls = OperatorCalls::new(&place, file, data_dir)?;
    let id = id.map_or_else(|| random_bytes().map(EntryId::from_bytes), Ok)?;
    let request = FreezeRequest {
        id,
        account,
        frozen,
        reason,
    };
    let view = calls.freeze(&request).await.with_context(|| {
        format!("entry {id} is not confirmed; to repeat it safely, add --id {id} to the same command")
    })?;
    if json {
        let line = json!({ "id": id, "account": account, "frozen": view.frozen });
        writeln!(io::stdout(), "{line}")?;
    } else {
        let done = if frozen { "Frozen" } else { "No longer frozen" };
        writeln!(io::stdout(), "{done}: {account} (entry {id}).")?;
        print_account(&view)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_account(view: &AccountView) -> io::Result<()> {
    let mut table = table(&["ACCOUNT", "AVAILABLE", "HELD", "STARTER GRANT", "FROZEN"]);
    let starter = if view.starter_granted { "given" } else { "-" };
    let frozen = if view.frozen { "FROZEN" } else { "-" };
    table.add_row([
        view.account.to_string(),
        plain(view.available),
        plain(view.held),
        starter.to_owned(),
        frozen.to_owned(),
    ]);
    align_right(&mut table, &[1, 2]);
    writeln!(io::stdout(), "{}", table.trim_fmt())
}

/// A client that signs with the operator's key.
fn operator_client(
    place: &CoordinatorPlace,
    file: &FileSection,
    data_dir: &Path,
) -> anyhow::Result<CoordinatorClient> {
    let keypair = operator_key(data_dir)?;
    let account = keypair.account();
    Ok(CoordinatorClient::new(
        &place.url(file),
        Some(account),
        keypair,
        Clock::system().for_mesh(),
    )?)
}
