//! The database's tables, and the setup of a connection.
//!
//! Unsigned numbers are stored as the signed ones with the same bits. Names are blobs, so they sort
//! by their bytes.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use xfer_protocol::Ino;

use super::log;
use super::upgrades;
use crate::StoreError;
use crate::embedded::{OlderDatabase, lock};
use crate::waists::accounts::DAYS_KEPT;

/// The version of the tables that this program writes, in the header's `user_version`.
pub(super) const VERSION: i32 = 9;

/// Tells an xfer store from any other database: "xfer" in the header's `application_id`.
const APPLICATION: i32 = i32::from_be_bytes(*b"xfer");

/// How long to wait for another process (`xfer-server user add`) that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most prepared statements that a connection keeps; the program has fewer.
const STATEMENTS_MAX: usize = 128;

const TABLES: &str = "
    CREATE TABLE accounts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that old sessions stay fenced
        name BLOB NOT NULL UNIQUE,
        password TEXT NOT NULL, -- '': none was set
        quota_bytes INTEGER NOT NULL,
        quota_nodes INTEGER NOT NULL,
        inbox_bytes INTEGER NOT NULL,
        inbox_nodes INTEGER NOT NULL,
        usage_bytes INTEGER NOT NULL,
        usage_nodes INTEGER NOT NULL,
        applied INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        waiting_bytes INTEGER NOT NULL DEFAULT 0, -- what waits for it, summed up
        waiting_items INTEGER NOT NULL DEFAULT 0,
        tidied INTEGER NOT NULL DEFAULT 0, -- the last session that is known to have left nothing
        next_id INTEGER NOT NULL DEFAULT 0, -- lower numbers of the last session's are used or skipped
        takes_passwords INTEGER NOT NULL DEFAULT 1, -- 0: only devices log in
        disabled_secs INTEGER, -- from when on it is disabled; NULL: it is not to be
        disabled_nanos INTEGER,
        removed_name BLOB, -- what one that was removed and is kept was called
        removed_secs INTEGER, -- when it was
        removed_nanos INTEGER
    ) STRICT;

    CREATE TABLE removal (keep_days INTEGER NOT NULL) STRICT; -- for how long removed accounts are kept

    CREATE TABLE device_keys ( -- by which machines log in without a password
        account INTEGER NOT NULL REFERENCES accounts (id),
        key BLOB NOT NULL,
        label TEXT NOT NULL,
        enrolled_secs INTEGER NOT NULL,
        enrolled_nanos INTEGER NOT NULL,
        used_secs INTEGER,
        used_nanos INTEGER,
        expires_secs INTEGER, -- NULL: never
        expires_nanos INTEGER,
        PRIMARY KEY (account, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE invitations (
        account INTEGER PRIMARY KEY REFERENCES accounts (id),
        code BLOB NOT NULL, -- the hash of its code
        expires_secs INTEGER NOT NULL,
        expires_nanos INTEGER NOT NULL,
        used_by BLOB -- the key that was enrolled with it
    ) STRICT;

    CREATE TABLE sessions ( -- those that their clients may resume
        account INTEGER NOT NULL REFERENCES accounts (id),
        session BLOB NOT NULL,
        key BLOB NOT NULL,      -- verifies the client's signatures
        secret BLOB NOT NULL,   -- the hash of the secret given last
        shown BLOB NOT NULL,    -- the hash of the secret that the client showed last
        host TEXT NOT NULL,
        address TEXT NOT NULL,
        since_secs INTEGER NOT NULL,
        since_nanos INTEGER NOT NULL,
        granted BLOB NOT NULL,  -- ranges of numbers
        attempt INTEGER NOT NULL, -- the client's last request that was granted
        quota_bytes INTEGER NOT NULL, -- the highest that the account has had meanwhile
        quota_nodes INTEGER NOT NULL,
        base INTEGER, -- the last op that a dormant one knows of; NULL: it is the present one
        outdated INTEGER NOT NULL DEFAULT 0, -- 1: the changes that it missed are not all in the list
        missed_from INTEGER, -- the ops that it missed before it took the seat, of which its client
        missed_to INTEGER,   -- may not have heard; of a dormant one only the end
        device BLOB, -- the key of the device that began it; NULL: a password did
        PRIMARY KEY (account, session)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX present_session ON sessions (account) WHERE base IS NULL;

    CREATE TABLE changes ( -- for dormant sessions: nodes that were changed meanwhile
        account INTEGER NOT NULL REFERENCES accounts (id),
        ino INTEGER NOT NULL,
        at INTEGER NOT NULL, -- the last op of the batch that changed it last
        PRIMARY KEY (account, ino)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE nodes (
        account INTEGER NOT NULL REFERENCES accounts (id),
        ino INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        nlink INTEGER NOT NULL,
        atime_secs INTEGER NOT NULL,
        atime_nanos INTEGER NOT NULL,
        mtime_secs INTEGER NOT NULL,
        mtime_nanos INTEGER NOT NULL,
        ctime_secs INTEGER NOT NULL,
        ctime_nanos INTEGER NOT NULL,
        sent INTEGER,     -- the delivery that sent it
        size INTEGER,     -- of files, as are the next three
        content INTEGER,
        sealed INTEGER,
        extents BLOB,     -- NULL: dense
        parent INTEGER,   -- of directories, as are the next two
        entries INTEGER,
        name_bytes INTEGER,
        target BLOB,      -- of symbolic links
        rdev INTEGER,     -- of devices
        xattrs BLOB,      -- NULL: none
        PRIMARY KEY (account, ino)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX orphans ON nodes (account, ino) WHERE nlink = 0;
    CREATE INDEX records ON nodes (account, sent) WHERE sent IS NOT NULL;
    CREATE INDEX shared ON nodes (content) WHERE sealed;

    CREATE TABLE entries (
        account INTEGER NOT NULL REFERENCES accounts (id),
        parent INTEGER NOT NULL,
        name BLOB NOT NULL,
        ino INTEGER NOT NULL,
        PRIMARY KEY (account, parent, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE contents (
        id INTEGER PRIMARY KEY,
        refs INTEGER NOT NULL CHECK (refs > 0)
    ) STRICT;

    CREATE TABLE garbage (content INTEGER PRIMARY KEY) STRICT;

    CREATE TABLE trims (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- a new one each time that a content is noted
        content INTEGER NOT NULL UNIQUE
    ) STRICT;

    CREATE TABLE own_trims (
        content INTEGER PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES accounts (id),
        ino INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX own_trims_of ON own_trims (account);

    CREATE TABLE deliveries (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of commits
        id INTEGER NOT NULL UNIQUE,
        from_account INTEGER REFERENCES accounts (id), -- NULL: the sender is gone
        to_account INTEGER REFERENCES accounts (id),   -- NULL: nobody waits for it
        from_name BLOB NOT NULL,
        name BLOB NOT NULL,
        sent_secs INTEGER NOT NULL,
        sent_nanos INTEGER NOT NULL,
        items INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        state INTEGER NOT NULL,
        state_secs INTEGER NOT NULL,
        state_nanos INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_from ON deliveries (from_account);
    CREATE INDEX without_room ON deliveries (from_account) WHERE state = 4;
    CREATE INDEX deliveries_to ON deliveries (to_account, arrival) WHERE to_account IS NOT NULL;

    CREATE TABLE delivery_items (
        delivery INTEGER NOT NULL REFERENCES deliveries (id),
        place INTEGER NOT NULL,
        content INTEGER,
        item BLOB NOT NULL,
        PRIMARY KEY (delivery, place)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX delivered ON delivery_items (content) WHERE content IS NOT NULL;

    CREATE TABLE failures (
        user TEXT NOT NULL,
        address TEXT NOT NULL,
        count INTEGER NOT NULL,
        last_secs INTEGER NOT NULL,
        last_nanos INTEGER NOT NULL,
        blocked_secs INTEGER NOT NULL,
        blocked_nanos INTEGER NOT NULL,
        PRIMARY KEY (user, address)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE ids (
        next INTEGER NOT NULL,
        in_file INTEGER NOT NULL DEFAULT 0, -- what it was when the write-ahead log last began
        schema_in_file INTEGER NOT NULL DEFAULT 0, -- the version of the tables at that time
        tag INTEGER NOT NULL DEFAULT 0, -- the random number of that log
        tag_before INTEGER NOT NULL DEFAULT 0 -- that of the log before it
    ) STRICT;

    -- Contents from this number on are as long as their data; of older ones, what was set aside and
    -- never written may be missing at the end.
    CREATE TABLE content_lengths (whole_from INTEGER NOT NULL) STRICT;
";

/// Opens the database in the store's directory `dir`. Creates the tables of a new database, and
/// upgrades older ones to this program's version.
///
/// # Errors
/// If it has a newer version or is not an xfer store, or if it is older and another process serves
/// it; and if the log beside it does not belong to it, unless an older database is accepted.
pub(super) fn open_first(
    dir: &Path,
    path: &Path,
    older: OlderDatabase,
) -> Result<Connection, StoreError> {
    let _turn = lock::turn_to_open(dir)?;
    let mut connection = match (open_with_log(path), older) {
        (Err(StoreError::Older { .. } | StoreError::OtherLog), OlderDatabase::Accept) => {
            log::set_aside(path)?;
            open_with_log(path)?
        }
        (opened, OlderDatabase::Refuse | OlderDatabase::Accept) => opened?,
    };
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Unsuitable(path.display().to_string()));
    }
    // So that this opening begins a log of its own.
    log::copy_to_file(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A program of an older version takes no turn, and may have created the tables in the meantime.
    match versions(&transaction)?.0 {
        0 => create(&transaction)?,
        VERSION => {}
        older => {
            let begun = log::Begun::of(&transaction, &open_reader(path)?)?;
            upgrade(&transaction, dir, older)?;
            begun.note(&transaction)?;
        }
    }
    transaction.commit()?;
    Ok(connection)
}

/// Opens the database together with the log beside it, once it is known that they belong together:
/// until then, SQLite must not copy anything of the log to the file.
fn open_with_log(path: &Path) -> Result<Connection, StoreError> {
    let has_log = log::is_there(path);
    // SQLite removes the log beside an empty file.
    if has_log && path.metadata()?.len() == 0 {
        return Err(StoreError::OtherLog);
    }
    // Before the log is looked at, which only goes on.
    let alone = if has_log { log::Alone::of(path) } else { None };
    let open = || {
        let connection = connect(path)?;
        let (version, application) = versions(&connection)?;
        // Before any change: a foreign database must stay as it is.
        check_versions(&connection, version, application)?;
        match alone {
            // There is no log, or the file can't be compared with it.
            None => {}
            // A new database.
            Some(alone) if version == 0 && alone.has_no_tables() => {}
            Some(alone) => log::must_belong(&connection, alone)?,
        }
        Ok(connection)
    };
    let connection = open().map_err(|error| match error {
        // The file alone could be read.
        StoreError::Damaged(_) if alone.is_some() => StoreError::OtherLog,
        other => other,
    })?;
    let_copy_log(&connection)?;
    Ok(connection)
}

/// From now on, SQLite copies the log to the file when the database is closed.
fn let_copy_log(connection: &Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

fn create(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction.execute_batch(TABLES)?;
    let sql = "INSERT INTO ids (next, tag) VALUES (?, random())";
    transaction.execute(sql, [Ino::FIRST_GRANTED.cast_signed()])?;
    transaction.execute("INSERT INTO content_lengths VALUES (0)", [])?;
    transaction.execute("INSERT INTO removal VALUES (?)", [DAYS_KEPT])?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// Takes all steps in one transaction, so that after a crash the store still has its old version.
fn upgrade(transaction: &Transaction<'_>, dir: &Path, from: i32) -> Result<(), StoreError> {
    let _unserved = lock::must_not_be_served(dir).map_err(|error| match error {
        StoreError::InUse { pid } => StoreError::NotUpgraded { pid },
        other => other,
    })?;
    tracing::info!(from, to = VERSION, "upgrading the store");
    for step in upgrades::STEPS.iter().skip(from.cast_unsigned() as usize - 1) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// Opens another connection, only to read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path)?;
    let_copy_log(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Connects to the database. Until [`let_copy_log`], closing it leaves the log and the file alone.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Only one thread at a time uses a connection, which the compiler checks.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Makes plans independent of bound values: otherwise a statement is compiled again for each
    // value.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // After a burst, the write-ahead log is truncated to this size, in bytes.
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    // In KiB.
    connection.pragma_update(None, "cache_size", -16384)?;
    Ok(connection)
}

fn versions(connection: &Connection) -> Result<(i32, i32), StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("user_version")?, number("application_id")?))
}

fn check_versions(
    connection: &Connection,
    version: i32,
    application: i32,
) -> Result<(), StoreError> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (version, application) {
        (0, 0) if tables == 0 => Ok(()),
        (1..=VERSION, APPLICATION) => Ok(()),
        (newer, APPLICATION) => Err(StoreError::NewerFormat { found: newer, known: VERSION }),
        _ => Err(StoreError::Foreign),
    }
}
