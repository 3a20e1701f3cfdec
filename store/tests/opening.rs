//! The store of rows as a file: opening it, several processes at once, and a process that is
//! killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{account, file_batch, name};
use xfer_protocol::{Ino, Seq};
use xfer_store::embedded::{FileStore, Files, SqliteStore};
use xfer_store::{Committed, StoreError};

#[test]
fn the_files_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    account(&store, "alice");
    for name in ["xfer.db", "xfer.db-wal", "xfer.db-shm"] {
        let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Checks that opening is refused and leaves the file as it is.
fn check_refused(dir: &Path, needle: &str) {
    let path = dir.join("xfer.db");
    let before = std::fs::read(&path).unwrap();
    let error = SqliteStore::open(dir).err().unwrap().to_string();
    assert!(error.contains(needle), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("xfer.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    check_refused(dir.path(), "the store is of version 99");
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("xfer.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE accounts (x)").unwrap();
    drop(db);
    check_refused(dir.path(), "not a database of xfer");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    check_refused(dir.path(), "xfer.db: ");
}

#[test]
fn a_directory_that_can_not_be_is_said_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = SqliteStore::open(&file.join("store")).err().unwrap();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("file/store"), "{error}");
}

#[test]
fn a_new_store_can_be_opened_by_several_at_once() {
    for _ in 0..25 {
        let dir = tempfile::tempdir().unwrap();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (dir, together) = (dir.path(), &together);
                scope.spawn(move || {
                    together.wait();
                    account(&SqliteStore::open(dir).unwrap(), &format!("u{thread}"))
                });
            }
        });
        let store = SqliteStore::open(dir.path()).unwrap();
        assert_eq!(store.accounts().unwrap().len(), 8);
    }
}

#[test]
fn threads_commit_and_read_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let accounts: Vec<_> = (0..6).map(|user| account(&store, &format!("u{user}"))).collect();
    std::thread::scope(|scope| {
        for (thread, account) in accounts.iter().enumerate() {
            let store = &store;
            scope.spawn(move || {
                for seq in 1..=20 {
                    let ino = 2000 + (thread as u64 * 1000) + seq * 2;
                    let committed = store.commit(&[file_batch(*account, seq, ino)]).unwrap();
                    assert_eq!(committed, [Committed::Durable(vec![])]);
                    let page = store.page(*account, Ino::ROOT, None, 100).unwrap();
                    assert_eq!(page.len() as u64, seq + 2, "one sees what one has committed");
                }
            });
        }
    });
}

#[test]
fn content_that_was_written_but_not_committed_is_found_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let content = xfer_protocol::ContentId(5000);
    {
        SqliteStore::open(dir.path()).unwrap();
        let contents = FileStore::open(dir.path()).unwrap();
        contents.create(content).unwrap();
        contents.write(content, 0, b"half").unwrap();
    }
    let rows = SqliteStore::open(dir.path()).unwrap();
    let contents = FileStore::open(dir.path()).unwrap();
    let mut found = Vec::new();
    contents.each(&mut |content| found.push(content)).unwrap();
    assert_eq!(found, [content]);
    assert!(!rows.content_exists(content).unwrap());
}

// Other processes: this test program, started again to run one of the functions below.

const STORE: &str = "XFER_TEST_STORE";

fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(STORE, dir);
    command
}

fn store_of_child() -> SqliteStore {
    SqliteStore::open(Path::new(&std::env::var_os(STORE).unwrap())).unwrap()
}

#[test]
#[ignore = "run in a process of its own by other tests"]
fn child_adds_accounts() {
    let store = store_of_child();
    for user in 0..10 {
        account(&store, &format!("child{user}"));
    }
}

#[test]
#[ignore = "run in a process of its own by other tests"]
fn child_commits_until_killed() {
    let store = store_of_child();
    let alice = store.account(&name("alice")).unwrap().unwrap();
    for seq in alice.applied.0 + 1.. {
        store.commit(&[file_batch(alice.id, seq, 2000 + 2 * seq)]).unwrap();
        println!("durable {seq}");
    }
}

#[test]
fn another_process_adds_accounts_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let alice = account(&store, "alice");
    let mut child = child("child_adds_accounts", dir.path()).spawn().unwrap();
    let mut seq = 0;
    while child.try_wait().unwrap().is_none() {
        seq += 1;
        store.commit(&[file_batch(alice, seq, 2000 + 2 * seq)]).unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(store.accounts().unwrap().len(), 11);
    assert_eq!(store.account(&name("alice")).unwrap().unwrap().applied, Seq(seq));
}

#[test]
fn what_was_committed_survives_the_process_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    account(&SqliteStore::open(dir.path()).unwrap(), "alice");
    let mut applied = 0;
    for round in 1..=8u64 {
        let mut child = child("child_commits_until_killed", dir.path());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut durable = 0;
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            let Some(seq) = line.strip_prefix("durable ") else { continue };
            durable = seq.parse().unwrap();
            count += 1;
            // Each round kills at a different moment. Lines printed before the death count, too.
            if count == 3 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let alice = store.account(&name("alice")).unwrap().unwrap();
        assert!(durable > applied && alice.applied.0 >= durable, "{alice:?} {durable}");
        applied = alice.applied.0;
        let page = store.page(alice.id, Ino::ROOT, None, usize::MAX).unwrap();
        assert_eq!(page.len() as u64, applied + 2, "each batch is there whole");
    }
}

/// The number of POSIX locks that this process has on a file, according to the kernel.
fn locks(file: &Path) -> usize {
    let inode = file.metadata().unwrap().ino();
    let (owner, file) = (format!(" {} ", std::process::id()), format!(":{inode} "));
    let table = std::fs::read_to_string("/proc/locks").unwrap();
    let ours =
        |line: &&str| line.contains("POSIX") && line.contains(&owner) && line.contains(&file);
    table.lines().filter(ours).count()
}

#[test]
fn a_store_that_is_opened_once_more_by_its_process_keeps_its_locks() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    account(&store, "alice");
    let files = ["xfer.db", "xfer.db-shm"].map(|name| dir.path().join(name));
    // It may have one more at times: other threads read.
    let are_locked = || files.iter().all(|file| locks(file) > 0);
    assert!(are_locked(), "SQLite was expected to lock its database");
    drop(SqliteStore::open(dir.path()).unwrap());
    assert!(are_locked());
    assert!(store.account(&name("alice")).unwrap().is_some());
}
