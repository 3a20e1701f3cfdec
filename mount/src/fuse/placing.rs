//! Places arrivals in the inbox by a rename through the mount point, so that inotify reports them.
//!
//! The rename comes from a hidden directory that only the renaming threads can see. Its entries are
//! named by delivery number; renaming one accepts the delivery.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, RenameFlags};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::attr::absent;

/// The hidden directory's name, in the root.
pub(super) const HIDDEN_NAME: &[u8] = b".xfer-arrivals";

/// The inode number of the hidden directory.
const HIDDEN_INO: Ino = Ino(u64::MAX >> 1);

/// The inode number of an entry is this bit with the delivery's number.
const ENTRY_BIT: u64 = 1 << 63;

/// The threads that place arrivals, and the mount that they rename through.
#[derive(Debug)]
pub(super) struct Placing {
    mountpoint: PathBuf,
    threads: Mutex<HashSet<u32>>,
}

/// Lets a thread see the hidden directory as long as this lives.
struct Admitted<'a>(&'a Placing, u32);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.threads.lock().remove(&self.1);
    }
}

impl Placing {
    pub(super) fn new(mountpoint: &Path) -> Placing {
        Placing { mountpoint: mountpoint.to_owned(), threads: Mutex::default() }
    }

    /// Places a delivery as `inbox/<sender>/<name>`.
    pub(super) fn place(
        &self,
        id: DeliveryId,
        directory: bool,
        sender: &Name,
        name: &Name,
    ) -> Result<(), Errno> {
        let _admitted = self.admit();
        let inbox = self.mountpoint.join("inbox").join(path(sender));
        match rustix::fs::mkdir(&inbox, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(errno(error)),
        }
        let hidden = self.mountpoint.join(std::ffi::OsStr::from_bytes(HIDDEN_NAME));
        let from = hidden.join(format!("{}{id}", if directory { 'd' } else { 'f' }));
        let to = inbox.join(path(name));
        rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(errno)
    }

    /// Whether a request comes from a thread that is placing an arrival.
    pub(super) fn is_own(&self, thread: u32) -> bool {
        self.threads.lock().contains(&thread)
    }

    /// Whether a directory is the hidden one.
    pub(super) fn is_hidden(&self, directory: Ino) -> bool {
        directory == HIDDEN_INO
    }

    /// The hidden directory's attributes.
    pub(super) fn hidden_attr(&self) -> FileAttr {
        own(HIDDEN_INO.0, FileType::Directory)
    }

    /// The attributes of an entry of the hidden directory, or of the directory itself.
    pub(super) fn attr_of(&self, ino: Ino) -> Option<FileAttr> {
        match ino {
            HIDDEN_INO => Some(self.hidden_attr()),
            Ino(number) if number & ENTRY_BIT != 0 => Some(own(number, FileType::RegularFile)),
            Ino(_) => None,
        }
    }

    /// The attributes of the hidden directory's entry of this name.
    pub(super) fn entry_attr(&self, name: &[u8]) -> Option<FileAttr> {
        let kind = match name.first()? {
            b'd' => FileType::Directory,
            b'f' => FileType::RegularFile,
            _ => return None,
        };
        Some(own(delivery(name)?.0 | ENTRY_BIT, kind))
    }

    fn admit(&self) -> Admitted<'_> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        self.threads.lock().insert(thread);
        Admitted(self, thread)
    }
}

/// The delivery of an entry in the hidden directory.
pub(super) fn delivery(name: &[u8]) -> Option<DeliveryId> {
    std::str::from_utf8(name.get(1..)?).ok()?.parse().ok().map(DeliveryId)
}

fn own(ino: u64, kind: FileType) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        kind,
        perm: 0o700,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        atime: now,
        mtime: now,
        ctime: now,
        ..absent()
    }
}

fn path(name: &Name) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_number(error.raw_os_error()).unwrap_or(Errno::EIO)
}
