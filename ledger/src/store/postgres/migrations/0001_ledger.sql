-- The ledger. Times, spans and deadlines are NUMERIC because they are 64 bits without a sign; amounts are microcredits,
-- at most 2^53 - 1. There are no sequences: the order of the log is the head row's matter alone.

-- One row, which whoever writes holds locked.
CREATE TABLE gristmill.head (
    id              SMALLINT PRIMARY KEY CHECK (id = 1),
    schema_version  INT4 NOT NULL,
    sequence        BIGINT NOT NULL CHECK (sequence >= 0),
    last_time_ms    NUMERIC(20) NOT NULL CHECK (last_time_ms >= 0),
    downtime_ms     NUMERIC(20) NOT NULL CHECK (downtime_ms >= 0),
    issued          BIGINT NOT NULL CHECK (issued >= 0),
    fees            BIGINT NOT NULL CHECK (fees >= 0),
    available       BIGINT NOT NULL CHECK (available >= 0),
    held            BIGINT NOT NULL CHECK (held >= 0),
    settled         BIGINT NOT NULL CHECK (settled >= 0),
    accounts        BIGINT NOT NULL CHECK (accounts >= 0),
    channels_open   BIGINT NOT NULL CHECK (channels_open >= 0),
    channels_closed BIGINT NOT NULL CHECK (channels_closed >= 0),
    starter_day     BIGINT NOT NULL CHECK (starter_day >= 0),
    starter_given   BIGINT NOT NULL CHECK (starter_given >= 0),
    signer_log      BYTEA CHECK (length(signer_log) = 32),
    signer_now      BYTEA CHECK (length(signer_now) = 32),
    -- The sum over all accounts is zero.
    CHECK (issued = fees + available + held),
    CHECK ((signer_log IS NULL) = (signer_now IS NULL))
);

INSERT INTO gristmill.head
VALUES (1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL);

-- When a process that uses the ledger was last alive, and when one last began to post how long none was. A table of
-- its own, so that saying so does not wait for batches.
CREATE TABLE gristmill.liveness (
    id          SMALLINT PRIMARY KEY CHECK (id = 1),
    alive_ms    NUMERIC(20) NOT NULL CHECK (alive_ms >= 0),
    claimed_ms  NUMERIC(20) NOT NULL CHECK (claimed_ms >= 0)
);

INSERT INTO gristmill.liveness VALUES (1, 0, 0);

-- The truth. Only ever added to.
CREATE TABLE gristmill.entries (
    sequence    BIGINT PRIMARY KEY CHECK (sequence > 0),
    time_ms     NUMERIC(20) NOT NULL CHECK (time_ms >= 0),
    -- 16 random bytes and the entry.
    content     BYTEA NOT NULL CHECK (length(content) > 16),
    -- SHA-256 of 0x00, sequence and time (both 64 bits, the smallest byte first) and content: the leaf of the log.
    record_hash BYTEA NOT NULL CHECK (length(record_hash) = 32),
    -- What the entry did, as it was answered.
    outcome     BYTEA NOT NULL,
    issued      BIGINT NOT NULL CHECK (issued >= 0),
    fee         BIGINT NOT NULL CHECK (fee >= 0)
);

-- Which entries concern an account, and what they moved for it: the sums of these are the balances. Only ever added to.
CREATE TABLE gristmill.account_entries (
    account          BYTEA NOT NULL CHECK (length(account) = 32),
    settlement       BOOLEAN NOT NULL,
    sequence         BIGINT NOT NULL CHECK (sequence > 0),
    available_change BIGINT NOT NULL,
    held_change      BIGINT NOT NULL,
    PRIMARY KEY (account, settlement, sequence)
);

-- Names of entries, which take effect once. Only ever added to.
CREATE TABLE gristmill.named_entries (
    name     BYTEA PRIMARY KEY CHECK (length(name) = 16),
    content  BYTEA NOT NULL CHECK (length(content) = 32),
    sequence BIGINT NOT NULL CHECK (sequence > 0)
);

CREATE TABLE gristmill.accounts (
    account         BYTEA PRIMARY KEY CHECK (length(account) = 32),
    available       BIGINT NOT NULL CHECK (available >= 0),
    held            BIGINT NOT NULL CHECK (held >= 0),
    granted         BIGINT NOT NULL CHECK (granted >= 0),
    earned          BIGINT NOT NULL CHECK (earned >= 0),
    spent           BIGINT NOT NULL CHECK (spent >= 0),
    starter_granted BOOLEAN NOT NULL,
    frozen          BOOLEAN NOT NULL,
    -- What came in is what is there or went out.
    CHECK (granted + earned = available + held + spent)
);

CREATE TABLE gristmill.channels (
    channel             BYTEA PRIMARY KEY CHECK (length(channel) = 16),
    consumer            BYTEA NOT NULL CHECK (length(consumer) = 32),
    provider            BYTEA NOT NULL CHECK (length(provider) = 32),
    credit_limit        BIGINT NOT NULL CHECK (credit_limit > 0),
    fee_basis_points    INT4 NOT NULL CHECK (fee_basis_points BETWEEN 0 AND 10000),
    redeem_by_ms        NUMERIC(20) NOT NULL CHECK (redeem_by_ms >= 0),
    request_digest      BYTEA NOT NULL CHECK (length(request_digest) = 32),
    opened_sequence     BIGINT NOT NULL CHECK (opened_sequence > 0),
    opened_at_ms        NUMERIC(20) NOT NULL CHECK (opened_at_ms >= 0),
    downtime_at_open_ms NUMERIC(20) NOT NULL CHECK (downtime_at_open_ms >= 0),
    -- When it would expire had the coordinator never been down.
    deadline_ms         NUMERIC(21) NOT NULL CHECK (deadline_ms = redeem_by_ms - downtime_at_open_ms),
    settled             BIGINT NOT NULL CHECK (settled BETWEEN 0 AND credit_limit),
    held                BIGINT NOT NULL CHECK (held >= 0),
    settled_sequence    BIGINT CHECK (settled_sequence > opened_sequence),
    is_open             BOOLEAN NOT NULL,
    -- 0: the provider will not redeem any more; 1: the time to redeem is over.
    closed_reason       SMALLINT CHECK (closed_reason IN (0, 1)),
    closed_sequence     BIGINT CHECK (closed_sequence > opened_sequence),
    closed_at_ms        NUMERIC(20) CHECK (closed_at_ms >= 0),
    -- An open channel holds its limit less what it settled, a closed one nothing.
    CHECK ((is_open AND held = credit_limit - settled) OR (NOT is_open AND held = 0)),
    CHECK ((settled = 0) = (settled_sequence IS NULL)),
    CHECK (is_open = (closed_reason IS NULL)),
    CHECK (is_open = (closed_sequence IS NULL)),
    CHECK (is_open = (closed_at_ms IS NULL))
);

CREATE INDEX channels_by_deadline ON gristmill.channels (is_open, deadline_ms, channel);

-- Hashes of the Merkle log above its leaves: on level n, of whole trees over 256^n leaves. Leaves are the entries'
-- record hashes, so every tile of every width is a range of one of the two tables. Only ever added to.
CREATE TABLE gristmill.tile_hashes (
    level    SMALLINT NOT NULL CHECK (level BETWEEN 1 AND 63),
    position BIGINT NOT NULL CHECK (position >= 0),
    hash     BYTEA NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
);

-- One root for one size, for ever. Only ever added to.
CREATE TABLE gristmill.checkpoints (
    size BIGINT PRIMARY KEY CHECK (size >= 0),
    root BYTEA NOT NULL CHECK (length(root) = 32)
);

-- Signed notes, replaced by ones with more signatures.
CREATE TABLE gristmill.checkpoint_notes (
    size BIGINT PRIMARY KEY CHECK (size >= 0),
    note TEXT NOT NULL
);
