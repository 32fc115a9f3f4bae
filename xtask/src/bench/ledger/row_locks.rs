//! The usual way to keep balances in PostgreSQL, to compare with: one transaction for each settlement, which locks its
//! channel and both accounts with `SELECT … FOR UPDATE`. Many connections, prepared statements, pipelined where the
//! answers allow it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use gristmill_ledger::book::Book;
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::{Entry, Settle};
use gristmill_ledger::outcome::{Effect, Outcome, Posted, Settlement};
use gristmill_ledger::record::record_hash;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::voucher::Voucher;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use super::bound::wide;
use super::workload::{CHANNELS, Market, Queue, channel_id, now_ms};

const TABLES: &str = "
    CREATE TABLE account (id bytea PRIMARY KEY, available bigint NOT NULL, earned bigint NOT NULL, spent bigint NOT NULL);
    CREATE TABLE channel (id bytea PRIMARY KEY, consumer bytea NOT NULL, provider bytea NOT NULL, amount bigint NOT NULL,
        settled bigint NOT NULL);
    CREATE TABLE entry (sequence bigserial PRIMARY KEY, channel bytea NOT NULL, cumulative bigint NOT NULL,
        fee bigint NOT NULL, content bytea NOT NULL);
";

struct Statements {
    channel: Statement,
    accounts: Statement,
    entry: Statement,
    settled: Statement,
    earned: Statement,
    spent: Statement,
}

/// Settlements per second with one connection for each queue.
pub(super) async fn measure(market: &Arc<Market>, url: &str, queues: Vec<Queue>) -> anyhow::Result<f64> {
    let (client, _connection) = connect(url).await?;
    client.batch_execute(TABLES).await?;
    open(market, &client).await?;
    let settlements = queues.iter().map(Vec::len).sum();
    let mut connections = Vec::new();
    for queue in queues {
        let (client, connection) = connect(url).await?;
        let statements = prepare(&client).await?;
        connections.push((queue, client, connection, statements));
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (queue, mut client, connection, statements) in connections {
        let market = Arc::clone(market);
        tasks.spawn(async move {
            for voucher in queue {
                settle(&market, &mut client, &statements, voucher).await?;
            }
            drop(client);
            connection.await?;
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(wide(settlements) / started.elapsed().as_secs_f64())
}

async fn connect(url: &str) -> anyhow::Result<(Client, tokio::task::JoinHandle<()>)> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(async move {
        // What went wrong is told to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok((client, connection))
}

async fn prepare(client: &Client) -> anyhow::Result<Statements> {
    Ok(Statements {
        channel: client
            .prepare("SELECT consumer, provider, amount, settled FROM channel WHERE id = $1 FOR UPDATE")
            .await?,
        accounts: client
            .prepare("SELECT id FROM account WHERE id = ANY($1) ORDER BY id FOR UPDATE")
            .await?,
        entry: client
            .prepare("INSERT INTO entry (channel, cumulative, fee, content) VALUES ($1, $2, $3, $4) RETURNING sequence")
            .await?,
        settled: client.prepare("UPDATE channel SET settled = $2 WHERE id = $1").await?,
        earned: client
            .prepare("UPDATE account SET available = available + $2, earned = earned + $2 WHERE id = $1")
            .await?,
        spent: client.prepare("UPDATE account SET spent = spent + $2 WHERE id = $1").await?,
    })
}

async fn open(market: &Market, client: &Client) -> anyhow::Result<()> {
    let mut book = Book::new();
    for entry in market.opening() {
        book.apply(&entry.check()?, 1)?;
    }
    for (account, balance) in book.accounts() {
        let available = i64::try_from(balance.available.microcredits())?;
        let id: &[u8] = account.public_key();
        client
            .execute("INSERT INTO account VALUES ($1, $2, 0, 0)", &[&id, &available])
            .await?;
    }
    for channel in 0..CHANNELS {
        let terms = market.terms(channel);
        let limit = i64::try_from(terms.limit.microcredits())?;
        let (consumer, provider): (&[u8], &[u8]) = (terms.consumer.public_key(), terms.provider.public_key());
        let id = channel_id(channel);
        let id: &[u8] = id.bytes();
        client
            .execute(
                "INSERT INTO channel VALUES ($1, $2, $3, $4, 0)",
                &[&id, &consumer, &provider, &limit],
            )
            .await?;
    }
    Ok(())
}

/// What a coordinator over such tables would do for one voucher: verify it, settle it, sign the receipt.
async fn settle(
    market: &Market,
    client: &mut Client,
    statements: &Statements,
    signed: Signed<Voucher>,
) -> anyhow::Result<usize> {
    let channel = signed.content_unchecked().channel;
    let entry = Entry::Settle(Settle {
        channel,
        voucher: signed.clone(),
    });
    let checked = entry.check()?;
    let content = checked.entry().encode();
    let voucher = signed.content_unchecked();
    let id: &[u8] = channel.bytes();

    let transaction = client.transaction().await?;
    let row = transaction.query_one(&statements.channel, &[&id]).await?;
    let (consumer, provider): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
    let (limit, settled): (i64, i64) = (row.get(2), row.get(3));
    let cumulative = i64::try_from(voucher.cumulative.microcredits())?;
    ensure!(
        signed.signer().public_key().as_slice() == consumer,
        "another signer"
    );
    ensure!(settled < cumulative && cumulative <= limit, "not a settlement");
    let parties = vec![consumer.clone(), provider.clone()];
    let amount = cumulative - settled;
    let fee = cumulative * 2 / 100 - settled * 2 / 100;
    let share = amount - fee;
    transaction.query(&statements.accounts, &[&parties]).await?;
    type Parameter<'value> = &'value (dyn ToSql + Sync);
    let insert: [Parameter<'_>; 4] = [&id, &cumulative, &fee, &content];
    let settle: [Parameter<'_>; 2] = [&id, &cumulative];
    let earn: [Parameter<'_>; 2] = [&provider, &share];
    let spend: [Parameter<'_>; 2] = [&consumer, &amount];
    let (inserted, settled_now, earned, spent) = tokio::try_join!(
        transaction.query_one(&statements.entry, &insert),
        transaction.execute(&statements.settled, &settle),
        transaction.execute(&statements.earned, &earn),
        transaction.execute(&statements.spent, &spend),
    )?;
    ensure!((settled_now, earned, spent) == (1, 1, 1), "a row is missing");
    transaction.commit().await.context("not committed")?;

    let sequence = u64::try_from(inserted.get::<_, i64>(0))?;
    let posted = Posted {
        sequence,
        time_ms: now_ms(),
        record_hash: record_hash(sequence, 0, &content),
        outcome: Outcome {
            transfers: Vec::new(),
            effect: Effect::Settled(Settlement {
                channel,
                consumer: *signed.signer(),
                provider: gristmill_protocol::identity::AccountId::from_public_key(
                    provider
                        .try_into()
                        .map_err(|_| anyhow::anyhow!("not an account"))?,
                ),
                settled_before: credits(settled),
                settled_after: credits(cumulative),
                amount: credits(amount),
                fee: credits(fee),
                request_id: voucher.request_id.clone(),
                transcript: Digest::from_bytes(voucher.transcript),
            }),
        },
        repeated: false,
    };
    market.receipt_bytes(&posted)
}

fn credits(amount: i64) -> Credits {
    u64::try_from(amount)
        .ok()
        .and_then(|amount| Credits::from_microcredits(amount).ok())
        .unwrap_or(Credits::ZERO)
}
