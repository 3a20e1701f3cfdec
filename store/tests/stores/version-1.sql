-- A store of version 1: its tables as that version made them, and a little of everything in it.

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, so that old sessions stay fenced
    name BLOB NOT NULL UNIQUE,
    password TEXT NOT NULL,
    quota_bytes INTEGER NOT NULL,
    quota_nodes INTEGER NOT NULL,
    inbox_bytes INTEGER NOT NULL,
    inbox_nodes INTEGER NOT NULL,
    usage_bytes INTEGER NOT NULL,
    usage_nodes INTEGER NOT NULL,
    applied INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;

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
    parent INTEGER,   -- of directories, as is the next one
    entries INTEGER,
    target BLOB,      -- of symbolic links
    rdev INTEGER,     -- of devices
    xattrs BLOB,      -- NULL: none
    PRIMARY KEY (account, ino)
) STRICT, WITHOUT ROWID;
CREATE INDEX orphans ON nodes (account, ino) WHERE nlink = 0;

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
CREATE INDEX deliveries_to ON deliveries (to_account, arrival) WHERE to_account IS NOT NULL;

CREATE TABLE delivery_items (
    delivery INTEGER NOT NULL REFERENCES deliveries (id),
    place INTEGER NOT NULL,
    content INTEGER,
    item BLOB NOT NULL,
    PRIMARY KEY (delivery, place)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE ids (next INTEGER NOT NULL) STRICT;

PRAGMA application_id = 2019976562;
PRAGMA user_version = 1;

INSERT INTO ids VALUES (5000);
INSERT INTO accounts VALUES
    (1, CAST('alice' AS BLOB), '$argon2id$', 8192, 8, 1048576, 1000, 8192, 8, 12, 3),
    (2, CAST('bob' AS BLOB), '$argon2id$', 4096, 1000, 1048576, 1000, 0, 3, 0, 0);

-- account, ino, kind, mode, uid, gid, nlink, three times, sent, size, content, sealed, extents,
-- parent, entries, target, rdev, xattrs
INSERT INTO nodes VALUES
    (1, 1, 2, 493, 0, 0, 5, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 7, NULL, NULL, NULL),
    (1, 2, 2, 448, 0, 0, 2, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, NULL, NULL),
    (1, 3, 2, 448, 0, 0, 2, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, NULL, NULL),
    (1, 2000, 2, 493, 0, 0, 2, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 2, NULL, NULL, NULL),
    (1, 2001, 1, 420, 0, 0, 1, 1, 0, 1, 0, 1, 0, NULL, 5, 3000, 1, NULL, NULL, NULL, NULL, NULL, NULL),
    (1, 2002, 1, 420, 0, 0, 1, 1, 0, 1, 0, 1, 0, NULL, 5, 3000, 1, NULL, NULL, NULL, NULL, NULL, NULL),
    (1, 2003, 3, 511, 0, 0, 1, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     CAST('where/it/points' AS BLOB), NULL, NULL),
    (1, 2004, 3, 511, 0, 0, 3, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     CAST(printf('%01300d', 7) AS BLOB), NULL, NULL),
    (2, 1, 2, 493, 0, 0, 4, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 2, NULL, NULL, NULL),
    (2, 2, 2, 448, 0, 0, 2, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, NULL, NULL),
    (2, 3, 2, 448, 0, 0, 2, 1, 0, 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, 1, 0, NULL, NULL, NULL);

INSERT INTO entries VALUES
    (1, 1, CAST('inbox' AS BLOB), 2),
    (1, 1, CAST('outbox' AS BLOB), 3),
    (1, 1, CAST('papers' AS BLOB), 2000),
    (1, 1, CAST('link' AS BLOB), 2003),
    (1, 2000, CAST('one' AS BLOB), 2001),
    (1, 2000, CAST('two' AS BLOB), 2002),
    (1, 1, CAST(printf('%0200d', 1) AS BLOB), 2004),
    (1, 1, CAST(printf('%0200d', 2) AS BLOB), 2004),
    (1, 1, CAST(printf('%0200d', 3) AS BLOB), 2004),
    (2, 1, CAST('inbox' AS BLOB), 2),
    (2, 1, CAST('outbox' AS BLOB), 3);

INSERT INTO contents VALUES (3000, 2);
INSERT INTO garbage VALUES (2999);
