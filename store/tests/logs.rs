//! A database file and a write-ahead log of different moments: the store opens as it was at the
//! log's moment, or not at all, and stays as it is.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use support::name;
use tempfile::TempDir;
use xfer_protocol::Timestamp;
use xfer_protocol::tree::Quota;
use xfer_store::embedded::{FileStore, OlderDatabase, SqliteStore};
use xfer_store::{AccountId, StoreError};

/// More than SQLite lets a log grow to before it copies it to the file: 1000 pages of 4 KiB.
const MUCH: usize = 5 << 20;

const LITTLE: usize = 5000;

/// A store, and what its files were like at some moments.
struct History {
    dir: TempDir,
    stores: Vec<SqliteStore>,
    accounts: Vec<AccountId>,
    /// The moments of all accounts' texts at each moment.
    states: Vec<Vec<usize>>,
}

impl History {
    /// The store with a few accounts, opened twice, as a server and a command have it. At the first
    /// moment all of it is in the log, even the tables.
    fn new() -> History {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("store")).unwrap();
        let store = SqliteStore::open(&dir.path().join("store")).unwrap();
        let quota = Quota::UNLIMITED;
        let create = |user| {
            store.create_account(&name(user), "1", quota, quota, Timestamp::default()).unwrap()
        };
        let accounts = ["alice", "bob", "carol", "dave"].map(create).to_vec();
        let mut history = History { dir, stores: vec![store], accounts, states: Vec::new() };
        history.keep();
        history.open();
        history
    }

    fn moments(&self) -> usize {
        self.states.len()
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn open(&mut self) {
        while self.stores.len() < 2 {
            self.stores.push(SqliteStore::open(&self.store()).unwrap());
        }
    }

    fn close(&mut self) {
        self.stores.clear();
    }

    /// Makes a change by the store opened first or second: the texts of Alice and of one of the
    /// others become one that begins with the next moment, with `size` bytes.
    fn write(&self, by: usize, size: usize) {
        let moment = self.moments() + 1;
        let text = format!("{moment}{}", " ".repeat(size));
        for account in [self.accounts[0], self.accounts[1 + moment % 3]] {
            self.stores[by].set_password(account, &text).unwrap();
        }
    }

    /// Keeps copies of the files as they are now.
    fn keep(&mut self) -> usize {
        let moment = self.moments() + 1;
        let kept = self.kept(moment);
        fs::create_dir(&kept).unwrap();
        // By another process: closing the files here would drop SQLite's locks.
        copy_all(&self.store(), &kept);
        let copy = tempfile::tempdir().unwrap();
        copy_all(&kept, copy.path());
        self.states.push(state(copy.path()));
        moment
    }

    /// Puts all files back as they were at a moment, and opens that.
    fn put_back(&mut self, moment: usize) {
        self.close();
        fs::remove_dir_all(self.store()).unwrap();
        fs::create_dir(self.store()).unwrap();
        copy_all(&self.kept(moment), &self.store());
        self.open();
    }

    fn write_and_keep(&mut self, by: usize, size: usize) -> usize {
        self.write(by, size);
        self.keep()
    }

    fn kept(&self, moment: usize) -> PathBuf {
        self.dir.path().join(moment.to_string())
    }

    /// A store with the database file of one moment, and the log of another.
    fn mixed(&self, file: usize, log: usize) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(self.kept(file).join("xfer.db"), dir.path().join("xfer.db")).unwrap();
        fs::copy(self.kept(log).join("xfer.db-wal"), dir.path().join("xfer.db-wal")).unwrap();
        dir
    }

    fn has_log(&self, moment: usize) -> bool {
        self.kept(moment).join("xfer.db-wal").exists()
    }

    /// Opens the file of each moment with the log of each: the store must be at the log's moment,
    /// or refuse. Returns how many it opened, and how many it refused.
    fn try_all_mixed(&self) -> (usize, usize) {
        let (mut opened, mut refused) = (0, 0);
        for log in (1..=self.moments()).filter(|moment| self.has_log(*moment)) {
            for file in 1..=self.moments() {
                let dir = self.mixed(file, log);
                match tried(dir.path()) {
                    Ok(found) => {
                        assert_eq!(found, Some(log), "the file of {file}");
                        assert_eq!(state(dir.path()), self.states[log - 1], "the file of {file}");
                        opened += 1;
                    }
                    Err(error) => {
                        assert_ne!(file, log, "{error}");
                        refused += 1;
                    }
                }
            }
        }
        (opened, refused)
    }
}

fn copy_all(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success());
}

/// Opens a store, and returns the moment that it is at, or `None` if it has nothing. Its database
/// must be whole.
fn opened(dir: &Path, older: OlderDatabase) -> Result<Option<usize>, StoreError> {
    drop(SqliteStore::open_as(dir, older)?);
    let db = Connection::open(dir.join("xfer.db")).unwrap();
    let found: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
    Ok(state_of(&db).first().copied())
}

/// The moments of all accounts' texts in a store.
fn state(dir: &Path) -> Vec<usize> {
    state_of(&Connection::open(dir.join("xfer.db")).unwrap())
}

fn state_of(db: &Connection) -> Vec<usize> {
    let mut statement = db.prepare("SELECT password FROM accounts ORDER BY id").unwrap();
    let texts = statement.query_map([], |row| row.get(0)).unwrap();
    texts.map(|text: rusqlite::Result<String>| text.unwrap().trim().parse().unwrap()).collect()
}

fn accepted(dir: &Path) -> Option<usize> {
    opened(dir, OlderDatabase::Accept).unwrap()
}

/// Opens a store, which must stay as it is if it refuses that.
fn tried(dir: &Path) -> Result<Option<usize>, StoreError> {
    let bytes = || ["xfer.db", "xfer.db-wal"].map(|file| fs::read(dir.join(file)).ok());
    let before = bytes();
    let tried = opened(dir, OlderDatabase::Refuse);
    match &tried {
        Ok(_) => {}
        Err(StoreError::Older { .. } | StoreError::OtherLog) => {
            assert!(bytes() == before, "its files were changed");
        }
        Err(error) => panic!("{error:?}"),
    }
    tried
}

/// The log that a store had set aside.
fn set_aside(dir: &Path) -> Vec<u8> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut logs = paths.filter(|path| path.to_string_lossy().contains("xfer.db-wal.aside-"));
    fs::read(logs.next().unwrap()).unwrap()
}

#[test]
fn a_file_from_before_the_log_began_is_refused_and_can_be_used_without_the_log() {
    let mut history = History::new();
    let begun = 1;
    history.write(0, LITTLE);
    history.close();
    let older = history.keep();
    history.open();
    history.write(0, MUCH);
    let newer = history.write_and_keep(0, LITTLE);
    let error = tried(history.mixed(older, newer).path()).unwrap_err();
    assert!(matches!(error, StoreError::Older { .. }), "{error:?}");
    for (file, has) in [(begun, None), (older, Some(older))] {
        let dir = history.mixed(file, newer);
        for _ in 0..2 {
            tried(dir.path()).unwrap_err();
        }
        assert_eq!(accepted(dir.path()), has);
        assert!(
            set_aside(dir.path()) == fs::read(history.kept(newer).join("xfer.db-wal")).unwrap()
        );
        assert_eq!(tried(dir.path()).unwrap(), has);
    }
    assert_eq!(tried(history.mixed(newer, newer).path()).unwrap(), Some(newer));
}

#[test]
fn a_log_from_before_the_file_is_refused_and_the_file_can_be_used_without_it() {
    let mut history = History::new();
    let older = history.write_and_keep(0, LITTLE);
    history.write(0, LITTLE);
    history.close();
    let newer = history.keep();
    let dir = history.mixed(newer, older);
    assert!(matches!(tried(dir.path()), Err(StoreError::OtherLog)));
    assert_eq!(accepted(dir.path()), Some(newer));
    assert_eq!(tried(dir.path()).unwrap(), Some(newer));
}

#[test]
fn the_newest_file_is_refused_beside_the_log_of_an_older_one_that_was_accepted() {
    let mut history = History::new();
    history.write(0, LITTLE);
    history.close();
    let older = history.keep();
    history.open();
    history.write(0, LITTLE);
    let contents = FileStore::open(&history.store()).unwrap();
    history.stores[0].must_be_current(&contents).unwrap();
    history.close();
    let newest = history.keep();
    fs::copy(history.kept(older).join("xfer.db"), history.store().join("xfer.db")).unwrap();
    let store = SqliteStore::open_as(&history.store(), OlderDatabase::Accept).unwrap();
    let current = store.must_be_current(&contents);
    let Err(StoreError::Older { known, .. }) = current else { panic!("{current:?}") };
    store.accept_as_current(&contents, known).unwrap();
    history.stores.push(store);
    history.open();
    let accepted = history.write_and_keep(0, LITTLE);
    let error = tried(history.mixed(newest, accepted).path()).unwrap_err();
    assert!(matches!(error, StoreError::Older { .. }), "{error:?}");
}

#[test]
fn a_log_whose_file_was_removed_stays_for_when_that_is_put_back() {
    let mut history = History::new();
    let moment = history.write_and_keep(0, LITTLE);
    let dir = history.mixed(moment, moment);
    fs::remove_file(dir.path().join("xfer.db")).unwrap();
    for _ in 0..2 {
        assert!(matches!(SqliteStore::open(dir.path()).err(), Some(StoreError::OtherLog)));
    }
    fs::copy(history.kept(moment).join("xfer.db"), dir.path().join("xfer.db")).unwrap();
    assert_eq!(tried(dir.path()).unwrap(), Some(moment));
}

#[test]
fn a_copy_with_its_pages_in_other_places_is_refused_beside_the_log_of_the_original() {
    let mut history = History::new();
    let db = Connection::open(history.store().join("xfer.db")).unwrap();
    // Puts the beginnings of all tables where a copy has them, too.
    db.execute_batch("VACUUM").unwrap();
    history.write(0, MUCH);
    history.write(1, LITTLE);
    let moment = history.keep();
    let dir = history.mixed(moment, moment);
    let copy = dir.path().join("copy");
    db.execute("VACUUM INTO ?", [copy.to_str().unwrap()]).unwrap();
    fs::rename(copy, dir.path().join("xfer.db")).unwrap();
    assert!(matches!(tried(dir.path()), Err(StoreError::OtherLog)));
    assert_eq!(accepted(dir.path()), Some(moment));
}

#[test]
fn a_file_whose_pages_were_moved_before_the_log_began_is_refused_beside_it() {
    let mut history = History::new();
    history.close();
    let db = history.store().join("xfer.db");
    let vacuum = || Connection::open(&db).unwrap().execute_batch("VACUUM").unwrap();
    // Puts the beginnings of all tables where they stay.
    vacuum();
    history.open();
    history.write(0, MUCH);
    history.write(0, LITTLE);
    history.close();
    let before = history.keep();
    vacuum();
    let moved = history.keep();
    history.open();
    let after = history.write_and_keep(0, LITTLE);
    assert!(matches!(tried(history.mixed(before, after).path()), Err(StoreError::OtherLog)));
    assert_eq!(tried(history.mixed(moved, after).path()).unwrap(), Some(after));
}

#[test]
fn a_copy_that_was_made_of_a_running_store_opens_alone_and_is_refused_beside_the_log() {
    let mut history = History::new();
    history.write(0, MUCH);
    let moment = history.write_and_keep(1, LITTLE);
    for copying in ["VACUUM INTO 'xfer.db'", ".backup xfer.db"] {
        let dir = tempfile::tempdir().unwrap();
        let store = history.store().join("xfer.db");
        run(Command::new("sqlite3").current_dir(&dir).arg(store).arg(copying));
        let log = dir.path().join("xfer.db-wal");
        fs::copy(history.kept(moment).join("xfer.db-wal"), &log).unwrap();
        assert!(matches!(tried(dir.path()), Err(StoreError::OtherLog)), "{copying}");
        fs::remove_file(log).unwrap();
        for _ in 0..2 {
            assert_eq!(tried(dir.path()).unwrap(), Some(moment), "{copying}");
        }
    }
}

#[test]
fn no_file_and_log_of_different_moments_give_anything_but_the_moment_of_the_log() {
    let mut history = History::new();
    let sizes = [LITTLE, LITTLE, MUCH, LITTLE, LITTLE, MUCH, LITTLE, LITTLE, LITTLE];
    for (place, size) in sizes.into_iter().enumerate() {
        if place == 4 {
            history.close();
            history.open();
        }
        // Two stores take turns, so that the log of one begins in a transaction of the other.
        history.write_and_keep(place % 2, size);
    }
    let (opened, refused) = history.try_all_mixed();
    // Those of one log belong together.
    assert!(opened > history.moments() && refused > history.moments(), "{opened} {refused}");
}

#[test]
fn files_and_logs_of_two_branches_of_one_store_never_belong_together() {
    let mut history = History::new();
    history.write_and_keep(0, LITTLE);
    let running = history.write_and_keep(0, LITTLE);
    history.write(1, LITTLE);
    history.close();
    let stopped = history.keep();
    history.open();
    // The counter of each branch passes those of the others, and what each first writes is copied to
    // its file.
    for from in [stopped, running, running] {
        for (place, size) in [MUCH, LITTLE, LITTLE].into_iter().enumerate() {
            history.write_and_keep(place % 2, size);
        }
        history.close();
        history.keep();
        history.put_back(from);
    }
    for place in 0..3 {
        history.write_and_keep(place % 2, LITTLE);
    }
    let (opened, refused) = history.try_all_mixed();
    assert!(opened > history.moments() && refused > 5 * history.moments(), "{opened} {refused}");
}

#[test]
fn a_file_from_before_an_upgrade_and_the_log_of_that_belong_together_only_if_it_was_the_last() {
    let history = tempfile::tempdir().unwrap();
    let path = |name: &str| history.path().join(name);
    fs::create_dir(path("store")).unwrap();
    let db = path("store/xfer.db");
    let old = Connection::open(&db).unwrap();
    old.execute_batch(include_str!("stores/version-4.sql")).unwrap();
    drop(old);
    fs::copy(&db, path("older")).unwrap();
    Connection::open(&db).unwrap().execute("UPDATE ids SET next = next + 1", []).unwrap();
    fs::copy(&db, path("last")).unwrap();
    let store = SqliteStore::open(&path("store")).unwrap();
    run(Command::new("cp").arg(path("store/xfer.db-wal")).arg(path("log")));
    drop(store);
    for (file, fits) in [("older", false), ("last", true)] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(path(file), dir.path().join("xfer.db")).unwrap();
        fs::copy(path("log"), dir.path().join("xfer.db-wal")).unwrap();
        let opened = SqliteStore::open(dir.path()).map(drop);
        assert_eq!(opened.is_ok(), fits, "{file}: {opened:?}");
    }
}
