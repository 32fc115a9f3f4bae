//! Kept balances against what they are sums of, by the database itself.

use super::failure::Failure;
use super::reading::Reader;
use crate::store::{ReadError, VerifyError};

/// A statement that finds what must not be, as text, and what that means.
struct Check {
    finds: &'static str,
    sql: &'static str,
}

/// Amounts are added as `NUMERIC`, which `sum` makes of `BIGINT`, so no sum is too large.
const CHECKS: &[Check] = &[
    Check {
        finds: "the log has a gap, or another length than its head says",
        sql: "SELECT CAST(head.sequence AS TEXT) FROM gristmill.head AS head CROSS JOIN \
            (SELECT count(*) AS number, coalesce(min(sequence), 1) AS first, coalesce(max(sequence), 0) AS last \
            FROM gristmill.entries) AS log \
            WHERE log.number <> head.sequence OR log.last <> head.sequence OR log.first <> 1",
    },
    Check {
        finds: "an entry does not balance: what it issued is not what accounts and fees received",
        sql: "SELECT CAST(entries.sequence AS TEXT) FROM gristmill.entries AS entries LEFT JOIN \
            (SELECT sequence, sum(available_change + held_change) AS received FROM gristmill.account_entries \
            GROUP BY sequence) AS accounts ON accounts.sequence = entries.sequence \
            WHERE entries.issued <> entries.fee + coalesce(accounts.received, 0) LIMIT 1",
    },
    Check {
        finds: "an account's history names an entry that is not there",
        sql: "SELECT CAST(history.sequence AS TEXT) FROM gristmill.account_entries AS history \
            LEFT JOIN gristmill.entries AS entries ON entries.sequence = history.sequence \
            WHERE entries.sequence IS NULL LIMIT 1",
    },
    Check {
        finds: "an account does not have the sum of what its entries moved",
        sql: "SELECT encode(coalesce(accounts.account, sums.account), 'hex') FROM gristmill.accounts AS accounts \
            FULL JOIN (SELECT account, sum(available_change) AS available, sum(held_change) AS held \
            FROM gristmill.account_entries GROUP BY account \
            HAVING sum(abs(available_change)) + sum(abs(held_change)) > 0) AS sums ON sums.account = accounts.account \
            WHERE coalesce(accounts.available, 0) <> coalesce(sums.available, 0) \
            OR coalesce(accounts.held, 0) <> coalesce(sums.held, 0) LIMIT 1",
    },
    Check {
        finds: "an account does not hold the sum of what its channels hold",
        sql: "SELECT encode(coalesce(accounts.account, sums.consumer), 'hex') FROM gristmill.accounts AS accounts \
            FULL JOIN (SELECT consumer, sum(held) AS held FROM gristmill.channels GROUP BY consumer) AS sums \
            ON sums.consumer = accounts.account \
            WHERE coalesce(accounts.held, 0) <> coalesce(sums.held, 0) LIMIT 1",
    },
    Check {
        finds: "the totals of entries are not the head's",
        sql: "SELECT CAST(head.sequence AS TEXT) FROM gristmill.head AS head CROSS JOIN \
            (SELECT coalesce(sum(issued), 0) AS issued, coalesce(sum(fee), 0) AS fees FROM gristmill.entries) AS sums \
            WHERE sums.issued <> head.issued OR sums.fees <> head.fees",
    },
    Check {
        finds: "the totals of accounts are not the head's",
        sql: "SELECT CAST(head.sequence AS TEXT) FROM gristmill.head AS head CROSS JOIN \
            (SELECT count(*) AS number, coalesce(sum(available), 0) AS available, coalesce(sum(held), 0) AS held, \
            coalesce(sum(granted), 0) AS granted, coalesce(sum(spent), 0) AS spent, \
            coalesce(sum(earned), 0) AS earned FROM gristmill.accounts) AS sums \
            WHERE sums.number <> head.accounts OR sums.available <> head.available OR sums.held <> head.held \
            OR sums.granted <> head.issued OR sums.spent <> head.settled OR sums.spent <> sums.earned + head.fees",
    },
    Check {
        finds: "the totals of channels are not the head's",
        sql: "SELECT CAST(head.sequence AS TEXT) FROM gristmill.head AS head CROSS JOIN \
            (SELECT coalesce(sum(held), 0) AS held, coalesce(sum(settled), 0) AS settled, \
            coalesce(sum(CASE WHEN is_open THEN 1 ELSE 0 END), 0) AS open, count(*) AS number \
            FROM gristmill.channels) AS sums \
            WHERE sums.held <> head.held OR sums.settled <> head.settled OR sums.open <> head.channels_open \
            OR sums.number <> head.channels_open + head.channels_closed",
    },
];

impl Reader {
    /// Asks for everything that must not be, as of one moment.
    pub(super) async fn verify(&self) -> Result<(), VerifyError> {
        let connection = self.at_one_moment().await?;
        for check in CHECKS {
            let found = connection
                .query_opt(check.sql, &[])
                .await
                .map_err(ReadError::from)?;
            if let Some(row) = found {
                let what: String = row.try_get(0).map_err(Failure::from).map_err(ReadError::from)?;
                return Err(VerifyError::Unbalanced(format!("{} ({what})", check.finds)));
            }
        }
        Ok(())
    }
}
