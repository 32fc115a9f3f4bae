//! What the roles' commands have in common: exit codes, how a service runs until it is told to end, tables for people.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use gristmill_protocol::credits::Credits;
use tokio_util::sync::CancellationToken;

mod signals;
pub mod witness;

pub use signals::Signals;

/// The exit code for a configuration that makes no sense.
pub const WRONG_CONFIGURATION: u8 = 3;
/// The exit code of a program that was interrupted (128 and the number of SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Says on stderr what is wrong with the configuration, and which exit code that has.
///
/// # Errors
/// Those of stderr.
pub fn wrong_configuration(error: &dyn std::error::Error) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "gristmill: {error}")?;
    Ok(ExitCode::from(WRONG_CONFIGURATION))
}

/// Waits for the end of a service. The first signal says `notice` on stderr and cancels `shutdown`, which is to end
/// the service in order; the second one does not wait for that.
///
/// # Errors
/// The service's own, and those of stderr.
pub async fn run_to_end<E: Into<anyhow::Error>>(
    service: impl Future<Output = Result<(), E>>,
    signals: &mut Signals,
    shutdown: &CancellationToken,
    notice: &str,
) -> anyhow::Result<ExitCode> {
    let told = || {
        writeln!(io::stderr(), "{notice}")?;
        shutdown.cancel();
        Ok(())
    };
    run_to_second_signal(service, async || signals.next().await, told).await
}

async fn run_to_second_signal<E: Into<anyhow::Error>>(
    service: impl Future<Output = Result<(), E>>,
    mut signal: impl AsyncFnMut(),
    told: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut service = pin!(service);
    tokio::select! {
        ended = &mut service => ended.map_err(Into::into)?,
        () = signal() => {
            told()?;
            tokio::select! {
                ended = &mut service => ended.map_err(Into::into)?,
                () = signal() => return Ok(ExitCode::from(INTERRUPTED)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A table for people: no lines, and no wrapping where nobody looks.
#[must_use]
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(header);
    table
}

/// Numbers stand at the right of their columns.
pub fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// An amount without the zeros at its end.
#[must_use]
pub fn plain(amount: Credits) -> String {
    let text = amount.to_string();
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[test]
    fn amounts_are_shown_without_useless_zeros() {
        for (micro, text) in [
            (0, "0"),
            (1, "0.000001"),
            (100_000, "0.1"),
            (2_500_000, "2.5"),
            (20_000_000, "20"),
        ] {
            assert_eq!(plain(Credits::micro(micro)), text);
        }
    }

    #[tokio::test]
    async fn the_first_signal_ends_a_service_in_order_and_the_second_one_at_once() {
        let shutdown = CancellationToken::new();
        let mut signals = 0;
        let once = async || {
            signals += 1;
            if signals > 1 {
                pending::<()>().await;
            }
        };
        let orderly = async {
            shutdown.cancelled().await;
            anyhow::Ok(())
        };
        let told = || {
            shutdown.cancel();
            Ok(())
        };
        let code = run_to_second_signal(orderly, once, told).await.unwrap();
        assert_eq!(code, ExitCode::SUCCESS);

        let stuck = pending::<anyhow::Result<()>>();
        let code = run_to_second_signal(stuck, async || (), || Ok(())).await.unwrap();
        assert_eq!(code, ExitCode::from(INTERRUPTED));
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_says_how() {
        let never = async || pending::<()>().await;
        let nobody = || panic!("there was no signal");
        let ended = run_to_second_signal(ready(anyhow::Ok(())), never, nobody).await;
        assert_eq!(ended.unwrap(), ExitCode::SUCCESS);
        let failed = ready(Err(anyhow::anyhow!("a part failed")));
        let error = run_to_second_signal(failed, never, nobody).await.unwrap_err();
        assert_eq!(error.to_string(), "a part failed");
    }
}
