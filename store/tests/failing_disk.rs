//! The store of bytes on a disk that can't keep its promises: which contents are reported as lost.
//! Runs only as root, since it makes such a disk: a loop device over a file with holes, on a full
//! tmpfs.

#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xfer_protocol::ContentId;
use xfer_store::embedded::{FileStore, Files};

/// More contents than are synced one by one.
const MANY: u64 = 20;

const LEN: usize = 64 << 10;

/// More than the file system may have allocated past the end of a file.
const MORE: usize = 2 << 20;

/// A file system that can't store new data where it has none yet, and reports this only at a sync.
struct FailingDisk {
    dir: TempDir,
}

impl FailingDisk {
    /// A disk that still works.
    fn new() -> FailingDisk {
        let disk = FailingDisk { dir: tempfile::tempdir().unwrap() };
        disk.shell(
            "mkdir memory disk
             mount -t tmpfs -o size=48m xfer-test memory
             truncate -s 32M memory/image && mkfs.ext4 -q memory/image
             dd if=memory/image of=memory/image bs=1M conv=notrunc status=none
             mount -o loop,nodiscard memory/image disk",
        );
        disk
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// From now on only blocks that already have a place can be written.
    fn fail(&self) {
        self.shell(
            "sync -f disk && fstrim disk
             ! dd if=/dev/zero of=memory/rest bs=1M status=none 2>/dev/null",
        );
    }

    fn shell(&self, script: &str) {
        let done = run(self.dir.path(), script);
        assert!(done.0, "{script}: {}", done.1);
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let (done, said) = run(self.dir.path(), "umount disk; umount memory");
        assert!(done || std::thread::panicking(), "{said}");
    }
}

fn run(dir: &Path, script: &str) -> (bool, String) {
    let output = Command::new("bash").arg("-ec").arg(script).current_dir(dir).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Synced contents of `len` bytes each.
fn contents(store: &FileStore, numbers: Range<u64>, len: usize) -> Vec<ContentId> {
    let all: Vec<_> = numbers.map(ContentId).collect();
    for content in &all {
        store.create(*content).unwrap();
        store.write(*content, 0, &vec![1; len]).unwrap();
    }
    store.make_durable(&all).unwrap();
    all
}

fn overwrite(store: &FileStore, contents: &[ContentId]) {
    contents.iter().for_each(|content| store.write(*content, 0, &[2; LEN]).unwrap());
}

fn failed(store: &FileStore, contents: &[ContentId]) -> Vec<ContentId> {
    let mut failed: Vec<_> = store.make_each_durable(contents).unwrap().into_keys().collect();
    failed.sort();
    failed
}

#[test]
fn a_sync_of_many_contents_fails_only_those_that_lost_something() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let disk = FailingDisk::new();
    let store = FileStore::open(&disk.path()).unwrap();
    let all = contents(&store, 0..2 * MANY, LEN);
    let (ours, others) = all.split_at(MANY as usize);
    disk.fail();
    overwrite(&store, &all);
    for content in [ours[3], others[5]] {
        store.write(content, LEN as u64, &vec![3; MORE]).unwrap();
    }
    assert_eq!(failed(&store, ours), [ours[3]]);
    // That loss is reported once. The others' losses are reported to them, by either kind of sync.
    assert_eq!(failed(&store, ours), []);
    assert_eq!(failed(&store, &others[4..6]), [others[5]]);
    assert_eq!(failed(&store, others), []);
}

#[test]
fn what_was_closed_since_its_change_counts_as_lost_when_a_sync_fails() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let disk = FailingDisk::new();
    let store = FileStore::open(&disk.path()).unwrap();
    let all = contents(&store, 0..2, LEN);
    let [closed, open] = all[..] else { panic!("{all:?}") };
    let many = contents(&store, 2..700, 1);
    disk.fail();
    store.write(closed, 0, &[2; LEN]).unwrap();
    for content in &many {
        assert_eq!(store.read(*content, 0, &mut [0; 1]).unwrap(), 1);
    }
    store.write(open, LEN as u64, &vec![3; MORE]).unwrap();
    // By itself, and yet by a sync of the whole file system, because no descriptor can report its
    // loss.
    assert_eq!(failed(&store, &[closed]), [closed]);
    assert_eq!(failed(&store, &[open]), [open]);
}
