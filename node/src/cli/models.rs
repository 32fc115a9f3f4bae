//! `gristmill node models`: what would be on offer.

use std::io::{self, Write as _};
use std::process::ExitCode;

use gristmill_protocol::usage::Unit;
use gristmill_service::cli::{align_right, plain, table, wrong_configuration};
use serde_json::json;

use crate::daemon::{StartError, build_engines};
use crate::settings::{FileSection, ServeArguments, Settings};
use crate::upstreams::UpstreamWatch;

pub(super) async fn show(
    arguments: ServeArguments,
    file: FileSection,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let settings = match Settings::resolve(arguments, file) {
        Ok(settings) => settings,
        Err(error) => return wrong_configuration(&error),
    };
    let upstreams = match UpstreamWatch::new(&settings.upstreams) {
        Ok(upstreams) => upstreams,
        Err(error) => return wrong_configuration(&StartError::from(error)),
    };
    let offering = build_engines(&settings, Vec::new(), &upstreams).await?;
    let catalogue = offering.catalogue().borrow().clone();
    if json {
        let models: Vec<_> = catalogue
            .offers
            .iter()
            .enumerate()
            .map(|(place, offer)| json!({"engine": catalogue.engine_name(place), "offer": offer}))
            .collect();
        writeln!(io::stdout(), "{}", json!({"models": models}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if catalogue.offers.is_empty() {
        writeln!(
            io::stderr(),
            "There is nothing to offer; name a model with --model or a server with --upstream."
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&[
        "MODEL",
        "FOR",
        "CONTEXT",
        "STORED AS",
        "INPUT",
        "OUTPUT",
        "1000 S",
        "ENGINE",
    ]);
    for (place, offer) in catalogue.offers.iter().enumerate() {
        table.add_row([
            offer.model.clone(),
            offer.kind.to_string(),
            offer.context_length.to_string(),
            offer.quantization.clone(),
            plain(offer.price.coefficient(Unit::InputToken)),
            plain(offer.price.coefficient(Unit::OutputToken)),
            plain(offer.price.coefficient(Unit::GpuMillisecond)),
            catalogue.engine_name(place).to_owned(),
        ]);
    }
    align_right(&mut table, &[2, 4, 5, 6]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    writeln!(
        io::stderr(),
        "Prices are in credits per million tokens and, for what is not text, per thousand seconds."
    )?;
    Ok(ExitCode::SUCCESS)
}
