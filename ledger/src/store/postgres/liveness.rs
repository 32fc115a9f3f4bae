//! Whether any process that uses the ledger is alive, so that the time in which none was can be given back.

use super::failure::Failure;
use super::number::Whole;
use super::reading::Reader;
use super::rows;
use crate::store::{Beat, ReadError};

/// How long one process alone may post how long none was alive. If it dies over that, another one does.
const CLAIM_MS: u64 = 10_000;

const BEAT: &str = "UPDATE gristmill.liveness SET alive_ms = GREATEST(alive_ms, $1::NUMERIC) \
    WHERE id = 1 AND (alive_ms = 0 OR alive_ms + $2::NUMERIC >= $1::NUMERIC) RETURNING id";
const CLAIM: &str = "UPDATE gristmill.liveness SET claimed_ms = $1::NUMERIC \
    WHERE id = 1 AND claimed_ms + $2::NUMERIC < $1::NUMERIC AND alive_ms + $3::NUMERIC < $1::NUMERIC \
    RETURNING alive_ms";
const END: &str = "UPDATE gristmill.liveness \
    SET alive_ms = GREATEST(alive_ms, $1::NUMERIC), claimed_ms = 0 WHERE id = 1 RETURNING id";

impl Reader {
    pub(super) async fn beat(&self, now_ms: u64, unnoticed_ms: u64) -> Result<Beat, ReadError> {
        let [now, unnoticed, claim] = [now_ms, unnoticed_ms, CLAIM_MS].map(Whole::from);
        if self.row(BEAT, &[&now, &unnoticed]).await?.is_some() {
            return Ok(Beat::Counted);
        }
        match self.row(CLAIM, &[&now, &claim, &unnoticed]).await? {
            Some(row) => {
                let alive_ms: Whole = rows::value(&row, "alive_ms")?;
                let alive_ms = alive_ms.unsigned().map_err(Failure::damaged)?;
                Ok(Beat::Gap { alive_ms })
            }
            None => Ok(Beat::Waiting),
        }
    }

    pub(super) async fn end_gap(&self, now_ms: u64) -> Result<(), ReadError> {
        let row = self.row(END, &[&Whole::from(now_ms)]).await?;
        row.map(|_| ())
            .ok_or_else(|| Failure::damaged("the row of liveness is missing").into())
    }
}
