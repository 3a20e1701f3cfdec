//! The space that a tree takes up: counted by a walk that shares no code with the product, and as
//! each part of the product reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, fgetxattr, flistxattr, seek, statvfs};
use xfer_protocol::Name;
use xfer_store::embedded::SqliteStore;

use crate::files::xattrs;
use crate::{Mount, PATIENCE, Server, World, wait_until};

/// The unit in which data is charged, in bytes.
pub const BLOCK: u64 = 4096;

/// The attribute that is shown on records and not stored.
const SHOWN_ONLY: &str = "user.xfer.state";

/// The space that a tree takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes: blocks of data in full, names and values of extended attributes exactly.
    pub bytes: u64,
    /// Nodes of all kinds, including the root.
    pub nodes: u64,
}

/// Counts the nodes below `root`, each once, and the `open` files that have no name any more.
pub fn walked(root: &Path, open: &[&File]) -> Space {
    let mut nodes = BTreeMap::from([(inode(root), charge(root))]);
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            nodes.insert(inode(&path), charge(&path));
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    for file in open {
        let meta = file.metadata().unwrap();
        if meta.nlink() == 0 {
            nodes.insert(meta.ino(), meta.blocks() * 512 + open_xattr_bytes(file));
        }
    }
    Space { bytes: nodes.values().sum(), nodes: nodes.len() as u64 }
}

fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

fn charge(path: &Path) -> u64 {
    let meta = path.symlink_metadata().unwrap();
    let own = xattrs(path).into_iter().filter(|(name, _)| name != SHOWN_ONLY);
    let attributes: usize = own.map(|(name, value)| name.len() + value.len()).sum();
    meta.blocks() * 512 + attributes as u64
}

fn open_xattr_bytes(file: &File) -> u64 {
    let mut list = vec![0u8; 64 << 10];
    let len = flistxattr(file, &mut list[..]).unwrap();
    let names = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let size = |name: &[u8]| {
        let value = fgetxattr(file, OsStr::from_bytes(name), &mut vec![0u8; 64 << 10][..]);
        (name.len() + value.unwrap()) as u64
    };
    names.filter(|name| *name != SHOWN_ONLY.as_bytes()).map(size).sum()
}

/// The bytes in a file's data blocks, found by seeking from one to the next.
pub fn data_bytes(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let (mut at, mut blocks) = (0, BTreeSet::new());
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        blocks.extend(start / BLOCK..at.div_ceil(BLOCK));
    }
    blocks.len() as u64 * BLOCK
}

/// The usage that `df` shows: bytes, in whole blocks, and nodes.
pub fn shown(mount: &Mount) -> Space {
    let stat = statvfs(mount.root()).unwrap();
    let bytes = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
    Space { bytes, nodes: stat.f_files - stat.f_ffree }
}

/// The usage that `xfer status` shows.
pub fn said(mount: &Mount) -> Space {
    let status = mount.xfer("status", &["--json"]).succeeded().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let number = |name: &str| status[name].as_u64().unwrap();
    Space { bytes: number("used_bytes"), nodes: number("used_nodes") }
}

/// The usage in the server's store.
pub fn stored(server: &Server, user: &str) -> Space {
    let store = SqliteStore::open(server.store()).unwrap();
    let account = store.account(&Name::new(user.as_bytes()).unwrap()).unwrap().unwrap();
    Space { bytes: account.usage.bytes, nodes: account.usage.nodes }
}

/// What waits in a user's inbox, by the server's store: bytes, and items.
pub fn waiting(server: &Server, user: &str) -> Space {
    let store = SqliteStore::open(server.store()).unwrap();
    let account = store.account(&Name::new(user.as_bytes()).unwrap()).unwrap().unwrap();
    Space { bytes: account.waiting.bytes, nodes: account.waiting.nodes }
}

/// The content files on the server's disk, each with the bytes that it takes up there.
pub fn contents(server: &Server) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![server.store().join("contents")];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(path),
                Ok(meta) => drop(found.insert(path, meta.blocks() * 512)),
                // It was removed in the meantime.
                Err(_) => {}
            }
        }
    }
    found
}

/// Fails the test unless all reports of the usage agree with a walk.
///
/// The kernel reports unused files only a moment after they are closed, and deliveries arrive in
/// their own time. So wait until all agree; then they must agree exactly.
#[track_caller]
pub fn check_exact(world: &World, mount: &Mount, user: &str, open: &[&File]) {
    let mut before = None;
    wait_until("all to agree on what is used", PATIENCE, || {
        mount.sync();
        let walk = walked(mount.root(), open);
        let all = (walk, said(mount), stored(&world.server, user), shown(mount));
        if before != Some(all) {
            println!("{user}: walked, said, stored, shown: {all:?}");
            before = Some(all);
        }
        let in_blocks = Space { bytes: walk.bytes.div_ceil(BLOCK) * BLOCK, ..walk };
        all == (walk, walk, walk, in_blocks)
    });
}
