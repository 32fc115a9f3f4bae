//! `gristmill client models`: what is on offer.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::usage::Unit;
use gristmill_service::cli::{align_right, plain, table};
use gristmill_service::clock::unix_ms;

use super::directory;
use super::running_proxy::RunningProxy;
use crate::core::models::{ModelView, models_on_offer};
use crate::settings::Settings;

pub(super) async fn show(settings: &Settings, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let list = match RunningProxy::find(settings, data_dir).await? {
        Some(proxy) => proxy.models().await?,
        None => {
            let (board, coordinator) = directory::read(settings).await?;
            models_on_offer(&board, Some(coordinator), None, unix_ms())
        }
    };
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&list)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.data.is_empty() {
        writeln!(
            io::stderr(),
            "Nobody offers anything now; 'gristmill node serve' would."
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&[
        "MODEL",
        "FOR",
        "CONTEXT",
        "INPUT",
        "OUTPUT",
        "PROVIDERS",
        "VERIFIED",
    ]);
    for model in &list.data {
        table.add_row(row(model));
    }
    align_right(&mut table, &[2, 3, 4, 5, 6]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    writeln!(
        io::stderr(),
        "Prices are in credits per million tokens, those of the cheapest offer. Verified: how many of the providers \
         have shown their hardware ('gristmill client providers')."
    )?;
    Ok(ExitCode::SUCCESS)
}

fn row(model: &ModelView) -> [String; 7] {
    let kinds: Vec<String> = model.kinds.iter().map(ToString::to_string).collect();
    let price = |unit| {
        plain(
            model
                .price
                .price
                .per_million
                .get(&unit)
                .copied()
                .unwrap_or(Credits::ZERO),
        )
    };
    [
        model.id.clone(),
        kinds.join(", "),
        model.context_length.to_string(),
        price(Unit::InputToken),
        price(Unit::OutputToken),
        model.providers.to_string(),
        model.verified_providers.to_string(),
    ]
}
