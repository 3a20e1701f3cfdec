//! The same steps on a real directory of this machine: the independent reference.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, OpenOptions};
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    XattrFlags, copy_file_range, fallocate, linkat, mknodat, renameat_with, utimensat,
};
use tempfile::TempDir;
use xfer_protocol::tree::{FallocateMode, RenameMode, XattrMode};

use crate::steps::{
    File, LONG_AGO_SECS, SLOTS, Step, link_target, payload, xattr_name, xattr_value,
};
use crate::world::{Seen, Snapshot, touched};

pub struct Local {
    root: TempDir,
    slots: [Option<fs::File>; SLOTS],
}

type Done = std::io::Result<()>;

impl Local {
    pub fn new() -> Local {
        rustix::process::umask(Mode::empty());
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(root.path().join("inbox")).unwrap();
        fs::create_dir(root.path().join("outbox")).unwrap();
        Local { root, slots: Default::default() }
    }

    /// Does the step; the error is the kernel's errno.
    pub fn step(&mut self, step: &Step) -> Result<(), i32> {
        self.run(step).map_err(|error| error.raw_os_error().expect("an error of the kernel"))
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        path.iter().fold(self.root.path().to_owned(), |at, b| at.join((*b as char).to_string()))
    }

    fn run(&mut self, step: &Step) -> Done {
        match step {
            Step::Create(path, mode) => {
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode((*mode).into())
                    .open(self.at(path))?;
                // open(2) may clear the set-group-id bit, as on a mount, before the test sees it.
                fs::set_permissions(self.at(path), PermissionsExt::from_mode((*mode).into()))
            }
            Step::Mkdir(path, mode) => Ok(rustix::fs::mkdir(self.at(path), as_mode(*mode))?),
            Step::Symlink(path, to) => {
                symlink(String::from_utf8(link_target(*to)).unwrap(), self.at(path))
            }
            Step::Fifo(path, mode) => {
                Ok(mknodat(CWD, self.at(path), FileType::Fifo, as_mode(*mode), 0)?)
            }
            Step::Link(from, to) => {
                Ok(linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())?)
            }
            Step::Unlink(path) => Ok(rustix::fs::unlink(self.at(path))?),
            Step::Rmdir(path) => Ok(rustix::fs::rmdir(self.at(path))?),
            Step::Rename(from, to, mode) => {
                let flags = match mode {
                    RenameMode::Replace => RenameFlags::empty(),
                    RenameMode::NoReplace => RenameFlags::NOREPLACE,
                    RenameMode::Exchange => RenameFlags::EXCHANGE,
                };
                Ok(renameat_with(CWD, self.at(from), CWD, self.at(to), flags)?)
            }
            Step::Chmod(..) | Step::Chown(..) | Step::Touch(..) => self.set_attributes(step),
            Step::SetXattr(..) | Step::RemoveXattr(..) => self.set_xattrs(step),
            Step::Truncate(..) | Step::Write(..) | Step::Fallocate(..) | Step::Copy(..) => {
                self.change_bytes(step)
            }
            Step::Open(slot, path) => {
                self.slots[*slot] = Some(self.open(&File::At(path.clone()))?);
                Ok(())
            }
            Step::Close(slot) => {
                self.slots[*slot] = None;
                Ok(())
            }
        }
    }

    fn set_attributes(&self, step: &Step) -> Done {
        match step {
            Step::Chmod(path, mode) => {
                fs::set_permissions(self.at(path), PermissionsExt::from_mode((*mode).into()))
            }
            Step::Chown(path, uid) => lchown(self.at(path), Some(*uid), None),
            Step::Touch(path, time) => {
                let time = Timespec { tv_sec: LONG_AGO_SECS + i64::from(*time), tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            other => unreachable!("{other:?} sets no attributes"),
        }
    }

    fn set_xattrs(&self, step: &Step) -> Done {
        match step {
            Step::SetXattr(path, name, value, mode) => {
                let flags = match mode {
                    XattrMode::Either => XattrFlags::empty(),
                    XattrMode::Create => XattrFlags::CREATE,
                    XattrMode::Replace => XattrFlags::REPLACE,
                };
                let (path, name) = (self.at(path), xattr_name(*name));
                Ok(rustix::fs::lsetxattr(path, name, &xattr_value(*value), flags)?)
            }
            Step::RemoveXattr(path, name) => {
                Ok(rustix::fs::lremovexattr(self.at(path), xattr_name(*name))?)
            }
            other => unreachable!("{other:?} sets no xattrs"),
        }
    }

    fn change_bytes(&self, step: &Step) -> Done {
        match step {
            Step::Truncate(file, size) => self.open(file)?.set_len(*size),
            Step::Write(file, offset, len, seed) => {
                self.open(file)?.write_all_at(&payload(*len, *seed), *offset)
            }
            Step::Fallocate(file, offset, len, mode) => {
                Ok(fallocate(self.open(file)?, as_flags(*mode), *offset, *len)?)
            }
            Step::Copy(from, from_offset, to, to_offset, len) => {
                let (from, to) = (self.open(from)?, self.open(to)?);
                // To the present end: a copy within one file may move it.
                let end = from.metadata()?.len().min(from_offset + len);
                let (mut here, mut there) = (*from_offset, *to_offset);
                while here < end {
                    let left = (end - here) as usize;
                    if copy_file_range(&from, Some(&mut here), &to, Some(&mut there), left)? == 0 {
                        break;
                    }
                }
                Ok(())
            }
            other => unreachable!("{other:?} changes no bytes"),
        }
    }

    fn open(&self, file: &File) -> std::io::Result<fs::File> {
        match file {
            File::Open(slot) => self.slots[*slot].as_ref().expect("it is open").try_clone(),
            File::At(path) => {
                let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
                OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.at(path))
            }
        }
    }

    /// Everything in the directory, by path.
    pub fn snapshot(&self) -> Snapshot {
        let (mut seen, mut first) = (Snapshot::new(), BTreeMap::new());
        look(self.root.path(), "", &mut seen, &mut first);
        seen
    }

    /// The link count and the bytes of an open file.
    pub fn open_file(&self, slot: usize) -> Option<(u32, Vec<u8>)> {
        let file = self.slots[slot].as_ref()?;
        let metadata = file.metadata().unwrap();
        let mut bytes = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        Some((metadata.nlink() as u32, bytes))
    }
}

fn as_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(mode.into())
}

fn as_flags(mode: FallocateMode) -> FallocateFlags {
    match mode {
        FallocateMode::Allocate => FallocateFlags::empty(),
        FallocateMode::AllocateKeepSize => FallocateFlags::KEEP_SIZE,
        FallocateMode::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateMode::Zero => FallocateFlags::ZERO_RANGE,
        FallocateMode::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    }
}

fn look(at: &Path, above: &str, seen: &mut Snapshot, first: &mut BTreeMap<u64, String>) {
    let mut entries: Vec<DirEntry> = fs::read_dir(at).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        if above.is_empty() && ["inbox", "outbox"].contains(&name.as_str()) {
            continue;
        }
        let (path, metadata) = (format!("{above}/{name}"), entry.metadata().unwrap());
        let same_as = first.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        seen.insert(path.clone(), see(&entry.path(), &metadata, same_as));
        if metadata.is_dir() {
            look(&entry.path(), &path, seen, first);
        }
    }
}

fn see(path: &Path, metadata: &fs::Metadata, same_as: String) -> Seen {
    let kind = metadata.file_type();
    let (kind, bytes) = if kind.is_file() {
        ("file", fs::read(path).unwrap())
    } else if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        ("link", fs::read_link(path).unwrap().into_os_string().into_encoded_bytes())
    } else {
        assert!(kind.is_fifo());
        ("fifo", Vec::new())
    };
    Seen {
        kind,
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        nlink: metadata.nlink() as u32,
        bytes,
        xattrs: if metadata.is_file() || metadata.is_dir() {
            xattrs(path)
        } else {
            BTreeMap::new()
        },
        same_as,
        touched: touched(metadata.mtime()),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}
