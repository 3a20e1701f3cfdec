//! The filesystem over an image.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::chosen::{Call, Chosen, Failure};
use super::image::{Image, Ino, Node};

/// How long the kernel may keep names and attributes. Only it changes them.
const KEPT: Duration = Duration::from_secs(60);

/// The size of a block, in bytes.
const BLOCK_BYTES: u32 = 4096;

/// How many blocks the disk says that it has.
const BLOCKS: u64 = 1 << 28;

/// The handle of each open file.
const HANDLE: FileHandle = FileHandle(0);

/// A mounted image.
pub struct Fragile {
    disk: Arc<Disk>,
    session: Option<BackgroundSession>,
}

struct Disk {
    image: Mutex<Image>,
    /// Of the calls that change or sync something.
    changes: Rate,
    /// Of those that look something up, open, list or read it.
    looks: Rate,
    /// How many bytes are written in a second; as many as there are, if it is 0.
    rate: AtomicU64,
    /// Whether it has no hard links.
    refuses_links: AtomicBool,
    chosen: Mutex<Chosen>,
}

impl Fragile {
    /// Mounts an image on a directory.
    pub fn mount(image: Image, on: &Path) -> Fragile {
        let (changes, looks, rate, refuses_links) = Default::default();
        let (image, chosen) = (Mutex::new(image), Mutex::default());
        let disk = Arc::new(Disk { image, changes, looks, rate, refuses_links, chosen });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fragile".to_owned())];
        let session = fuser::spawn_mount(Mounted(disk.clone()), on, &config);
        Fragile { disk, session: Some(session.expect("the fragile disk can be mounted")) }
    }

    /// Has one of so many calls that change or sync something fail with `EIO`; none, if that is 0.
    pub fn fail_each(&self, every: u64) {
        self.disk.changes.every.store(every, Ordering::Relaxed);
    }

    /// Has one of so many calls that look something up, open, list or read it fail with `EIO`; none, if
    /// that is 0.
    pub fn fail_each_look(&self, every: u64) {
        self.disk.looks.every.store(every, Ordering::Relaxed);
    }

    /// Has each write take its time; no time, if that is 0 bytes a second.
    pub fn slow_down(&self, rate: u64) {
        self.disk.rate.store(rate, Ordering::Relaxed);
    }

    /// Has link(2) fail as on a filesystem without hard links.
    pub fn refuse_links(&self) {
        self.disk.refuses_links.store(true, Ordering::Relaxed);
    }

    /// Has calls of this kind fail if their file begins with these bytes.
    pub fn fail(&self, call: Call, beginning: &[u8], failure: Failure) {
        self.disk.chosen.lock().unwrap().failing = Some((call, beginning.to_owned(), failure));
    }

    /// Has none of them fail any more.
    pub fn mend(&self) {
        self.disk.chosen.lock().unwrap().failing = None;
    }

    /// Holds syncs back if their file begins with these bytes.
    pub fn hold_syncs(&self, beginning: &'static [u8]) {
        self.disk.chosen.lock().unwrap().begin_to_hold(beginning);
    }

    /// How many of them are held back.
    pub fn held(&self, beginning: &[u8]) -> usize {
        self.disk.chosen.lock().unwrap().held(beginning)
    }

    /// Makes those that are held back, and holds none any more.
    pub fn release(&self, beginning: &[u8]) {
        let released = self.disk.chosen.lock().unwrap().release(beginning);
        released.into_iter().for_each(|(ino, reply)| self.disk.sync(ino, reply));
    }

    /// How many calls that change or sync something have failed.
    pub fn failures(&self) -> u64 {
        self.disk.changes.failed.load(Ordering::Relaxed)
    }

    /// How many calls that look something up, open, list or read it have failed.
    pub fn failed_looks(&self) -> u64 {
        self.disk.looks.failed.load(Ordering::Relaxed)
    }

    /// Unmounts it, once nothing uses it.
    pub fn unmount(mut self) -> Image {
        if let Some(session) = self.session.take() {
            match session.umount_and_join() {
                // The kernel says so too if it ends the mount while a request is being read.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                unmounted => unmounted.expect("nothing uses the fragile disk"),
            }
        }
        self.disk.lock().clone()
    }
}

/// How many of some calls fail.
#[derive(Default)]
struct Rate {
    /// Each so-manieth; none if it is 0.
    every: AtomicU64,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl Rate {
    /// Whether the next call fails.
    fn fails(&self) -> bool {
        let every = self.every.load(Ordering::Relaxed);
        let fails = every > 0 && self.calls.fetch_add(1, Ordering::Relaxed) % every == every - 1;
        self.failed.fetch_add(u64::from(fails), Ordering::Relaxed);
        fails
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap()
    }

    /// Whether a call that changes or syncs something fails.
    fn fails(&self) -> bool {
        self.changes.fails()
    }

    fn sync(&self, ino: Ino, reply: ReplyEmpty) {
        let mut image = self.lock();
        let bytes = image.bytes(ino).unwrap_or_default();
        let mut chosen = self.chosen.lock().unwrap();
        let Some(reply) = chosen.hold(ino, bytes, reply) else { return };
        let failure = chosen.failure(Call::Sync, bytes);
        drop(chosen);
        if let Some(errno) = failure.or_else(|| self.fails().then_some(Errno::EIO)) {
            image.fail_to_sync(ino);
            return reply.error(errno);
        }
        image.sync(ino);
        reply.ok();
    }

    /// How long a write of so many bytes takes.
    fn time_for(&self, bytes: usize) -> Option<Duration> {
        let rate = self.rate.load(Ordering::Relaxed);
        (rate > 0).then(|| Duration::from_secs_f64(bytes as f64 / rate as f64))
    }
}

/// What the kernel asks.
struct Mounted(Arc<Disk>);

impl Mounted {
    fn attributes(&self, ino: Ino) -> Option<FileAttr> {
        let image = self.0.lock();
        let node = image.node(ino)?;
        let kind = kind(node);
        Some(FileAttr {
            ino: INodeNo(ino),
            size: node.size(),
            blocks: node.size().div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: (node.mode & 0o7777) as u16,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Option<FileAttr> {
        if self.0.fails() {
            return None;
        }
        let ino = self.0.lock().make(parent.0, name, mode);
        self.attributes(ino)
    }

    fn change(&self, reply: ReplyEmpty, change: impl FnOnce(&mut Image)) {
        if self.0.fails() {
            return reply.error(Errno::EIO);
        }
        change(&mut self.0.lock());
        reply.ok();
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.0.looks.fails() {
            return reply.error(Errno::EIO);
        }
        let found = self.0.lock().find(parent.0, name);
        enter(reply, found.and_then(|ino| self.attributes(ino)).ok_or(Errno::ENOENT));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino.0) {
            Some(attributes) => reply.attr(&KEPT, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(mode) = mode {
            self.0.lock().set_permissions(ino.0, mode);
        }
        if let Some(size) = size {
            if self.0.fails() {
                return reply.error(Errno::EIO);
            }
            self.0.lock().resize(ino.0, size);
        }
        self.getattr(request, ino, handle, reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        enter(reply, self.make(parent, name, libc::S_IFDIR | (mode & !umask)).ok_or(Errno::EIO));
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        enter(reply, self.make(parent, name, mode & !umask).ok_or(Errno::EIO));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, libc::S_IFREG | (mode & 0o7777 & !umask)) {
            Some(attributes) => {
                reply.created(&KEPT, &attributes, Generation(0), HANDLE, FopenFlags::empty());
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.0.refuses_links.load(Ordering::Relaxed) {
            return reply.error(Errno::EPERM);
        }
        if self.0.fails() {
            return reply.error(Errno::EIO);
        }
        self.0.lock().link(ino.0, parent.0, name);
        enter(reply, self.attributes(ino.0).ok_or(Errno::ENOENT));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |image| image.remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let is_empty = {
            let image = self.0.lock();
            let found = image.find(parent.0, name).and_then(|ino| image.names(ino));
            found.is_none_or(|names| names.is_empty())
        };
        match is_empty {
            true => self.change(reply, |image| image.remove(parent.0, name)),
            false => reply.error(Errno::ENOTEMPTY),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        self.change(reply, |image| image.rename((parent.0, name), (new_parent.0, new_name)));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.0.looks.fails() {
            return reply.error(Errno::EIO);
        }
        reply.opened(HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let image = self.0.lock();
        let bytes = image.bytes(ino.0).unwrap_or_default();
        let failure = self.0.chosen.lock().unwrap().failure(Call::Read, bytes);
        if let Some(errno) = failure.or_else(|| self.0.looks.fails().then_some(Errno::EIO)) {
            return reply.error(errno);
        }
        let start = (offset as usize).min(bytes.len());
        let end = (start + size as usize).min(bytes.len());
        reply.data(&bytes[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let failure = self.0.chosen.lock().unwrap().failure(Call::Write, data);
        let failure = failure.or_else(|| self.0.fails().then_some(Errno::EIO));
        if let Some(errno) = failure {
            return reply.error(errno);
        }
        self.0.lock().write(ino.0, offset, data);
        let count = data.len();
        match self.0.time_for(count) {
            None => reply.written(count as u32),
            // Other calls do not wait for it.
            Some(time) => drop(thread::spawn(move || {
                thread::sleep(time);
                reply.written(count as u32);
            })),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(ino.0, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.sync(ino.0, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if self.0.looks.fails() {
            return reply.error(Errno::EIO);
        }
        let image = self.0.lock();
        let names = image.names(ino.0).into_iter().flatten();
        let dots = [".", ".."].map(|dot| (OsStr::new(dot), ino.0));
        let all = dots.into_iter().chain(names.map(|(name, ino)| (name.as_os_str(), *ino)));
        for (at, (name, ino)) in all.enumerate().skip(offset as usize) {
            let Some(node) = image.node(ino) else { continue };
            if reply.add(INodeNo(ino), at as u64 + 1, kind(node), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 32, 1 << 32, BLOCK_BYTES, 255, BLOCK_BYTES);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (keeps, punches) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
        self.change(reply, |image| {
            let size = image.node(ino.0).map_or(0, |node| node.size());
            if mode & punches != 0 {
                let end = (offset + length).min(size);
                let zeros = vec![0; end.saturating_sub(offset) as usize];
                image.write(ino.0, offset, &zeros);
            } else if mode & keeps == 0 && size < offset + length {
                image.resize(ino.0, offset + length);
            }
        });
    }
}

fn enter(reply: ReplyEntry, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.entry(&KEPT, &attributes, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn kind(node: &Node) -> FileType {
    match node.mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}
