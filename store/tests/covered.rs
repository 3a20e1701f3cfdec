//! The store of bytes with a mount over a part of it: data written there can't be found after the
//! unmount, so it never counts as durable. Runs only as root, since it mounts.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use xfer_protocol::ContentId;
use xfer_store::embedded::{FileStore, Files};

/// More contents than are synced one by one.
const MANY: u64 = 20;

/// A store with one content. Mounts over parts of it are unmounted in the end.
struct Covered {
    dir: TempDir,
    store: FileStore,
}

impl Covered {
    fn new() -> Covered {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.create(ContentId(1)).unwrap();
        store.make_durable(&[ContentId(1)]).unwrap();
        Covered { dir, store }
    }

    fn shell(&self, script: &str) {
        let mut command = Command::new("bash");
        let output = command.arg("-ec").arg(script).current_dir(self.dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || std::thread::panicking(), "{script}: {said}");
    }

    /// Creates contents and writes to them; returns how many of them are durable.
    fn write(&self, contents: impl Iterator<Item = u64>) -> usize {
        let contents: Vec<_> = contents.map(ContentId).collect();
        for content in &contents {
            self.store.create(*content).unwrap();
            self.store.write(*content, 0, &[1; 10_000]).unwrap();
        }
        contents.len() - self.store.make_each_durable(&contents).unwrap().len()
    }

    fn holds(&self, content: u64) -> bool {
        let path = format!("contents/00/00/{content:016x}");
        Path::new(self.dir.path()).join(path).exists()
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        self.shell(
            "for place in contents/00/01 contents/00/00 contents/00; do
                        ! mountpoint -q $place || umount -l $place
                    done",
        );
    }
}

/// Covers a part of a store by a script, which is fully undone by unmounting `place`.
fn check(script: &str, place: &str) {
    let covered = Covered::new();
    covered.shell(script);
    assert_eq!(covered.write(2..3), 0, "{script}: one content");
    assert_eq!(covered.write(10..10 + MANY), 0, "{script}: many contents");
    covered.shell(&format!("umount -l {place}"));
    assert!(!covered.holds(2), "{script}: it went with what was mounted");
    assert_eq!(covered.write(40..41), 1, "{script}: afterwards");
    assert!(covered.holds(40), "{script}");
}

#[test]
fn nothing_is_durable_in_what_is_mounted_over_a_part_of_the_contents() {
    check("mount -t tmpfs -o size=4m xfer-test contents/00", "contents/00");
    check("mount -t tmpfs -o size=4m xfer-test contents/00/00", "contents/00/00");
    // From the same file system.
    check("mkdir other && mount --bind other contents/00", "contents/00");
    check("mkdir other && mount --bind other contents/00/00", "contents/00/00");
}

#[test]
fn a_part_that_was_covered_before_it_was_used_is_noticed_and_others_can_be_used() {
    let covered = Covered::new();
    covered.shell("mkdir contents/00/01 && mount -t tmpfs -o size=4m xfer-test contents/00/01");
    assert_eq!(covered.write([2, 0x100, 3, 0x101].into_iter()), 2);
    assert_eq!(covered.write(0x110..0x110 + MANY), 0);
    assert_eq!(covered.write(4..5), 1);
    assert!(covered.holds(2) && covered.holds(3) && covered.holds(4));
}

#[test]
fn contents_behind_a_symbolic_link_are_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("contents")).unwrap();
    let Ok(store) = FileStore::open(dir.path()) else { return };
    store.create(ContentId(1)).unwrap();
    store.make_durable(&[ContentId(1)]).unwrap();
}
