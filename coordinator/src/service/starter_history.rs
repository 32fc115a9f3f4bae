//! What was given to new accounts today, read back from the ledger when the coordinator starts.

use futures::{StreamExt as _, TryStreamExt as _};
use gristmill_ledger::entry::GrantKind;
use gristmill_ledger::ledger::{Ledger, ReadError};
use gristmill_ledger::outcome::Effect;
use gristmill_protocol::credits::Credits;

use crate::core::starter_budget::StarterBudget;

/// How many records are read at once.
const READS_AT_ONCE: usize = 64;

/// The sum of today's starter grants: goes back through the records until the day's beginning.
pub(crate) async fn starter_granted_today(ledger: &Ledger, now_ms: u64) -> Result<Credits, ReadError> {
    let day_began_ms = StarterBudget::day_began_ms(now_ms);
    let newest_first = futures::stream::iter((1..=ledger.sequence()).rev())
        .map(|sequence| ledger.posted(sequence))
        .buffered(READS_AT_ONCE)
        .try_filter_map(|posted| async move { Ok(posted) })
        .try_take_while(|posted| futures::future::ok(posted.time_ms >= day_began_ms));
    newest_first
        .try_fold(Credits::ZERO, |given, posted| async move {
            Ok(match posted.outcome.effect {
                Effect::Granted(granted) if granted.kind == GrantKind::Starter => {
                    given.saturating_add(granted.amount)
                }
                _ => given,
            })
        })
        .await
}
