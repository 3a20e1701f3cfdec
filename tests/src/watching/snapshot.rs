//! A tree as programs see it, recorded so that two trees can be compared.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::files::xattrs;

/// Each path below a root, with a description of its node.
pub type Snapshot = BTreeMap<PathBuf, String>;

/// Records everything below `root` that does not depend on the filesystem: kinds, modes, link
/// counts, sizes, modification times, attributes, and contents.
///
/// Modification times of directories are left out, as they depend on when a program changed them
/// last. Inode numbers, change times and allocated blocks are the filesystem's own business.
pub fn snapshot(root: &Path) -> Snapshot {
    walk(root, Times::Kept)
}

/// Like [`snapshot`], without any times: for trees that were made alike and not copied.
pub fn snapshot_without_times(root: &Path) -> Snapshot {
    walk(root, Times::LeftOut)
}

/// Like [`snapshot`], for trees made alike at different moments: of the times, only those set
/// explicitly. Also includes owners, and which names share a node.
pub fn snapshot_of_what_was_set(root: &Path) -> Snapshot {
    let mut found = walk(root, Times::Set);
    let mut first_names = BTreeMap::new();
    for (path, text) in &mut found {
        let meta = root.join(path).symlink_metadata().unwrap();
        let (uid, gid, ino) = (meta.uid(), meta.gid(), meta.ino());
        let first = first_names.entry(ino).or_insert_with(|| path.clone());
        text.push_str(&format!(" owner={uid}:{gid} first={}", first.display()));
    }
    found
}

/// A time that was set explicitly, recognised by being long past; recent times are left out.
pub(crate) fn set_time(seconds: i64, nanoseconds: i64) -> String {
    const RECENT_S: i64 = 1_700_000_000;
    if seconds > RECENT_S { "recent".to_owned() } else { format!("{seconds}.{nanoseconds:09}") }
}

#[derive(Clone, Copy)]
enum Times {
    Kept,
    Set,
    LeftOut,
}

fn walk(root: &Path, times: Times) -> Snapshot {
    let mut found = Snapshot::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(root.join(&directory)).unwrap() {
            let relative = directory.join(entry.unwrap().file_name());
            let path = root.join(&relative);
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(relative.clone());
            }
            found.insert(relative, describe(&path, times));
        }
    }
    found
}

/// Fails the test if two trees differ, and shows the first difference.
#[track_caller]
pub fn assert_same(one: &Snapshot, other: &Snapshot) {
    for (path, node) in one {
        assert_eq!(Some(node), other.get(path), "{}", path.display());
    }
    let extra: Vec<_> = other.keys().filter(|path| !one.contains_key(*path)).collect();
    assert!(extra.is_empty(), "only in the other: {extra:?}");
}

fn describe(path: &Path, times: Times) -> String {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let mut base =
        format!("mode={:o} links={} xattrs={:?}", meta.mode(), meta.nlink(), xattrs(path));
    // Writing to a pipe changes its times, but the kernel does not tell a FUSE filesystem.
    if matches!(times, Times::Set) && !kind.is_fifo() {
        base.push_str(&format!(" set={}", set_time(meta.mtime(), meta.mtime_nsec())));
    }
    if kind.is_file() {
        let mtime = match times {
            Times::Kept => format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
            Times::Set | Times::LeftOut => String::new(),
        };
        let content = fingerprint(&std::fs::read(path).unwrap());
        format!("file {base} size={} mtime={mtime} content={content:x}", meta.size())
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).unwrap();
        format!("link {base} to={}", target.as_os_str().as_bytes().escape_ascii())
    } else if kind.is_dir() {
        format!("directory {base}")
    } else if kind.is_fifo() {
        format!("fifo {base}")
    } else if kind.is_socket() {
        format!("socket {base}")
    } else {
        format!("device {base} number={}", meta.rdev())
    }
}

/// A short hash of bytes.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
