//! The kernel's requests on their way to the filesystem: each is counted by its kind, and the time until its
//! answer is measured.
//!
//! A request that is answered without the client, such as one with a wrong name, is not counted.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use xfer_client::core::{Core, Pause, Stop};
use xfer_protocol::Errno;

use super::filesystem::XferFs;
use crate::operations::{Kind, Operations};

thread_local! {
    /// The request that this thread is passing on.
    static BEGUN: Cell<Option<Begun>> = const { Cell::new(None) };
}

/// A request that has no answer yet.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    kind: Kind,
    at: Instant,
}

/// The request that this thread is passing on, for the one who answers it.
pub(super) fn take_begun() -> Option<Begun> {
    BEGUN.take()
}

/// An attempt that notes if it has to wait for what only the server has.
pub(super) fn noting<T>(
    operations: Arc<Operations>,
    begun: Option<Begun>,
    mut attempt: impl FnMut(&mut Core) -> Result<T, Stop>,
) -> impl FnMut(&mut Core) -> Result<T, Stop> {
    let mut kind = begun.map(|begun| begun.kind);
    move |state| {
        let done = attempt(state);
        if let Err(Stop::Pause(Pause::Rows(_) | Pause::Data(_))) = done
            && let Some(kind) = kind.take()
        {
            operations.of(kind).waits();
        }
        done
    }
}

/// An answer that notes how long it took.
pub(super) fn timing<T>(
    operations: Arc<Operations>,
    begun: Option<Begun>,
    answer: impl FnOnce(Result<T, Errno>),
) -> impl FnOnce(Result<T, Errno>) {
    move |result| {
        // Before the answer, after which its program may look.
        if let Some(Begun { kind, at }) = begun {
            operations.of(kind).answered(at.elapsed());
        }
        answer(result);
    }
}

/// The filesystem, with its requests counted.
pub(super) struct Counting(pub(super) XferFs);

/// Passes requests on, each as one of its kind.
macro_rules! counted {
    ($($name:ident($($argument:ident: $type:ty),*) is $kind:ident;)*) => {$(
        fn $name(&self, request: &Request, $($argument: $type),*) {
            BEGUN.set(Some(Begun { kind: Kind::$kind, at: Instant::now() }));
            self.0.$name(request, $($argument),*);
        }
    )*};
}

impl Filesystem for Counting {
    fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.0.init(request, config)
    }

    fn forget(&self, request: &Request, ino: INodeNo, count: u64) {
        self.0.forget(request, ino, count);
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.0.access(request, ino, mask, reply);
    }

    counted! {
        lookup(parent: INodeNo, name: &OsStr, reply: ReplyEntry) is Lookup;
        getattr(ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) is Attributes;
        setattr(
            ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>,
            fh: Option<FileHandle>, crtime: Option<SystemTime>, chgtime: Option<SystemTime>,
            bkuptime: Option<SystemTime>, flags: Option<BsdFileFlags>, reply: ReplyAttr
        ) is Set;
        readlink(ino: INodeNo, reply: ReplyData) is Other;
        mknod(
            parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry
        ) is Make;
        mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) is Make;
        symlink(parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) is Make;
        link(ino: INodeNo, new_parent: INodeNo, name: &OsStr, reply: ReplyEntry) is Make;
        unlink(parent: INodeNo, name: &OsStr, reply: ReplyEmpty) is Remove;
        rmdir(parent: INodeNo, name: &OsStr, reply: ReplyEmpty) is Remove;
        rename(
            parent: INodeNo, name: &OsStr, new_parent: INodeNo, to_name: &OsStr,
            flags: RenameFlags, reply: ReplyEmpty
        ) is Rename;
        open(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) is Open;
        create(
            parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate
        ) is Create;
        read(
            ino: INodeNo, fh: FileHandle, offset: u64, size: u32, flags: OpenFlags,
            lock_owner: Option<LockOwner>, reply: ReplyData
        ) is Read;
        write(
            ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags,
            flags: OpenFlags, lock_owner: Option<LockOwner>, reply: ReplyWrite
        ) is Write;
        flush(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) is Close;
        // No program waits for that.
        release(
            ino: INodeNo, fh: FileHandle, flags: OpenFlags, lock_owner: Option<LockOwner>,
            flush: bool, reply: ReplyEmpty
        ) is Other;
        fsync(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) is Sync;
        opendir(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) is Open;
        readdir(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) is List;
        readdirplus(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) is List;
        releasedir(ino: INodeNo, fh: FileHandle, flags: OpenFlags, reply: ReplyEmpty) is Other;
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) is Sync;
        statfs(ino: INodeNo, reply: ReplyStatfs) is Other;
        setxattr(
            ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty
        ) is Set;
        getxattr(ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) is Attributes;
        listxattr(ino: INodeNo, size: u32, reply: ReplyXattr) is Attributes;
        removexattr(ino: INodeNo, name: &OsStr, reply: ReplyEmpty) is Set;
        fallocate(
            ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty
        ) is Set;
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) is Other;
        copy_file_range(
            from: INodeNo, fh_in: FileHandle, from_offset: u64, to: INodeNo, fh: FileHandle,
            to_offset: u64, len: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
        ) is Copy;
    }
}
