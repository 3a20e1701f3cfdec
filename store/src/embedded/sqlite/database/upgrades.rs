//! The upgrades of the tables, one for each version.

use super::schema::VERSION;

/// The upgrades: the first makes version 2 from version 1, the next version 3 from version 2, and
/// so on.
pub(super) const STEPS: [&str; VERSION as usize - 1] = [
    TO_VERSION_2,
    TO_VERSION_3,
    TO_VERSION_4,
    TO_VERSION_5,
    TO_VERSION_6,
    TO_VERSION_7,
    TO_VERSION_8,
    TO_VERSION_9,
];

const TO_VERSION_2: &str = "
    ALTER TABLE nodes ADD COLUMN name_bytes INTEGER;
    UPDATE nodes SET name_bytes = (
        SELECT ifnull(sum(length(name)), 0) FROM entries
        WHERE entries.account = nodes.account AND entries.parent = nodes.ino
    ) WHERE kind = 2;
    UPDATE accounts SET usage_bytes = usage_bytes + (
        SELECT ifnull(sum(CASE kind
            WHEN 2 THEN (entries * 64 + name_bytes) / 512 * 512
            ELSE length(target) / 512 * 512
        END), 0) FROM nodes WHERE account = accounts.id AND kind IN (2, 3)
    );
    CREATE INDEX shared ON nodes (content) WHERE sealed;
    CREATE INDEX delivered ON delivery_items (content) WHERE content IS NOT NULL;
    CREATE TABLE trims (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        content INTEGER NOT NULL UNIQUE
    ) STRICT;
    INSERT INTO trims (content)
        SELECT content FROM nodes WHERE sealed AND content IS NOT NULL
        UNION SELECT content FROM delivery_items WHERE content IS NOT NULL;
    CREATE TABLE own_trims (
        content INTEGER PRIMARY KEY,
        account INTEGER NOT NULL REFERENCES accounts (id),
        ino INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX own_trims_of ON own_trims (account);
    ALTER TABLE accounts ADD COLUMN tidied INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE content_lengths (whole_from INTEGER NOT NULL) STRICT;
    INSERT INTO content_lengths SELECT next FROM ids;

    ALTER TABLE accounts ADD COLUMN waiting_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN waiting_items INTEGER NOT NULL DEFAULT 0;
    UPDATE accounts SET
        waiting_bytes = (SELECT ifnull(sum(bytes), 0) FROM deliveries
                         WHERE to_account = accounts.id),
        waiting_items = (SELECT ifnull(sum(items), 0) FROM deliveries
                         WHERE to_account = accounts.id);

    CREATE INDEX records ON nodes (account, sent) WHERE sent IS NOT NULL;
    CREATE INDEX without_room ON deliveries (from_account) WHERE state = 4;
    DELETE FROM deliveries WHERE to_account IS NULL AND NOT EXISTS (
        SELECT 1 FROM nodes WHERE account = deliveries.from_account AND sent = deliveries.id);
";

const TO_VERSION_3: &str = "
    ALTER TABLE accounts ADD COLUMN next_id INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE sessions (
        account INTEGER PRIMARY KEY REFERENCES accounts (id),
        session BLOB NOT NULL,
        key BLOB NOT NULL,
        secret BLOB NOT NULL,
        shown BLOB NOT NULL,
        host TEXT NOT NULL,
        address TEXT NOT NULL,
        since_secs INTEGER NOT NULL,
        since_nanos INTEGER NOT NULL,
        granted BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        quota_bytes INTEGER NOT NULL,
        quota_nodes INTEGER NOT NULL
    ) STRICT;
";

/// A primary key can't be altered, so the table is made anew.
const TO_VERSION_4: &str = "
    ALTER TABLE sessions RENAME TO old_sessions;
    CREATE TABLE sessions (
        account INTEGER NOT NULL REFERENCES accounts (id),
        session BLOB NOT NULL,
        key BLOB NOT NULL,
        secret BLOB NOT NULL,
        shown BLOB NOT NULL,
        host TEXT NOT NULL,
        address TEXT NOT NULL,
        since_secs INTEGER NOT NULL,
        since_nanos INTEGER NOT NULL,
        granted BLOB NOT NULL,
        attempt INTEGER NOT NULL,
        quota_bytes INTEGER NOT NULL,
        quota_nodes INTEGER NOT NULL,
        base INTEGER,
        outdated INTEGER NOT NULL DEFAULT 0,
        missed_from INTEGER,
        missed_to INTEGER,
        PRIMARY KEY (account, session)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO sessions (
        account, session, key, secret, shown, host, address, since_secs, since_nanos, granted,
        attempt, quota_bytes, quota_nodes
    ) SELECT
        account, session, key, secret, shown, host, address, since_secs, since_nanos, granted,
        attempt, quota_bytes, quota_nodes
    FROM old_sessions;
    DROP TABLE old_sessions;
    CREATE UNIQUE INDEX present_session ON sessions (account) WHERE base IS NULL;
    CREATE TABLE changes (
        account INTEGER NOT NULL REFERENCES accounts (id),
        ino INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (account, ino)
    ) STRICT, WITHOUT ROWID;
";

const TO_VERSION_5: &str = "
    ALTER TABLE ids ADD COLUMN in_file INTEGER NOT NULL DEFAULT 0;
";

const TO_VERSION_6: &str = "
    ALTER TABLE ids ADD COLUMN schema_in_file INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE ids ADD COLUMN tag INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE ids ADD COLUMN tag_before INTEGER NOT NULL DEFAULT 0;
";

const TO_VERSION_7: &str = "
    ALTER TABLE accounts ADD COLUMN takes_passwords INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE sessions ADD COLUMN device BLOB;
    CREATE TABLE device_keys (
        account INTEGER NOT NULL REFERENCES accounts (id),
        key BLOB NOT NULL,
        label TEXT NOT NULL,
        enrolled_secs INTEGER NOT NULL,
        enrolled_nanos INTEGER NOT NULL,
        used_secs INTEGER,
        used_nanos INTEGER,
        expires_secs INTEGER,
        expires_nanos INTEGER,
        PRIMARY KEY (account, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE invitations (
        account INTEGER PRIMARY KEY REFERENCES accounts (id),
        code BLOB NOT NULL,
        expires_secs INTEGER NOT NULL,
        expires_nanos INTEGER NOT NULL,
        used_by BLOB
    ) STRICT;
";

const TO_VERSION_8: &str = "
    ALTER TABLE accounts ADD COLUMN disabled_secs INTEGER;
    ALTER TABLE accounts ADD COLUMN disabled_nanos INTEGER;
";

const TO_VERSION_9: &str = "
    ALTER TABLE accounts ADD COLUMN removed_name BLOB;
    ALTER TABLE accounts ADD COLUMN removed_secs INTEGER;
    ALTER TABLE accounts ADD COLUMN removed_nanos INTEGER;
    CREATE TABLE removal (keep_days INTEGER NOT NULL) STRICT;
    INSERT INTO removal VALUES (30);
";
