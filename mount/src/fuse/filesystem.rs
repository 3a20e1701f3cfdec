//! The kernel's requests: each is unpacked, passed to the client, and answered.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use xfer_client::core::{CopyRange, Core, HandleId, New, NewAttributes};
use xfer_client::drive::Client;
use xfer_protocol::limits::{BLOCK_BYTES, NAME_BYTES_MAX, WRITE_BYTES_MAX};
use xfer_protocol::tree::XattrMode;
use xfer_protocol::{Errno, Ino};

use super::attr::View;
use super::interrupts::Interrupts;
use super::notices::Attributes;
use super::placing::{HIDDEN_NAME, Placing};
use super::repeats::Repeats;
use super::replies::Noting;
use super::words::{
    fallocate_mode, given, new_name, new_special, open_flags, parse, permissions, rename_mode,
    seek, settable_owner, timestamp,
};

/// The most requests that the kernel may have in flight with no program waiting: mostly readahead.
const BACKGROUND_MAX: u16 = 64;

/// A client's tree, served to the kernel.
pub(super) struct XferFs {
    pub(super) client: Arc<Client>,
    pub(super) placing: Arc<Placing>,
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) kernel: Arc<Attributes>,
    pub(super) repeats: Arc<Repeats>,
    pub(super) view: View,
    pub(super) sync: bool,
    pub(super) operations: Arc<crate::operations::Operations>,
}

impl Filesystem for XferFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPORT_SUPPORT,
            InitFlags::FUSE_HAS_EXPIRE_ONLY,
        ];
        // Best effort: an older kernel lacks some of these, and the mount works without them.
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX as u32);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = Ino(parent.0);
        let hidden = parent == Ino::ROOT && name.as_bytes() == HIDDEN_NAME;
        if hidden || self.placing.is_hidden(parent) {
            return self.lookup_hidden(request, parent, name.as_bytes(), reply);
        }
        match name.as_bytes() {
            // For file handles kept longer than the kernel's inode, by a program or an NFS server.
            b"." => self.answer_entry(request, reply, move |state| state.find(parent)),
            b".." => self.answer_entry(request, reply, move |state| state.find_parent(parent)),
            _ => self.answer_lookup(request, parent, name, reply),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        let forget = move |state: &mut Core| {
            state.forget(Ino(ino.0), count);
            Ok(())
        };
        self.client.run(forget, |_| {});
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.placing.attr_of(Ino(ino.0)) {
            Some(attr) => reply.attr(&Duration::ZERO, &attr),
            None => self.answer_attr(request, reply, move |state| state.attributes(Ino(ino.0))),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Some((uid, gid)) = settable_owner(self.view.owners, uid, gid) else {
            return reply.error(fuser::Errno::EPERM);
        };
        if [mode, uid, gid] == [None; 3] && (size, atime, mtime) == (None, None, None) {
            return self.set_nothing(request, Ino(ino.0), reply);
        }
        let new = NewAttributes {
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(timestamp),
            mtime: mtime.map(timestamp),
            clear_set_id: size.is_some() && request.uid() != 0,
        };
        self.answer_attributes(request, (ino, fh), new, reply);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let attempt = move |state: &mut Core| state.target(Ino(ino.0));
        self.answer(request, reply, attempt, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(new) = new_special(mode, rdev) else {
            return reply.error(fuser::Errno::EINVAL);
        };
        self.make(request, parent, name, new, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let new = New::Directory { mode: permissions(mode) };
        self.make(request, parent, name, new, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = Bytes::copy_from_slice(target.as_os_str().as_bytes());
        self.make(request, parent, name, New::Symlink { target }, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse(name);
        self.answer_empty(request, reply, move |state| state.unlink(Ino(parent.0), given(&name)?));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse(name);
        self.answer_empty(request, reply, move |state| state.rmdir(Ino(parent.0), given(&name)?));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let to = new_name(Ino(new_parent.0), to_name).map(|name| (Ino(new_parent.0), name));
        if self.placing.is_hidden(Ino(parent.0)) {
            return self.accept(request, name.as_bytes(), to, reply);
        }
        let from = parse(name).map(|name| (Ino(parent.0), name));
        let mode = rename_mode(flags).ok_or(Errno::EINVAL);
        let attempt = move |state: &mut Core| state.rename(given(&from)?, given(&to)?, mode?);
        self.answer_empty(request, reply, attempt);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (parent, name) = (Ino(new_parent.0), new_name(Ino(new_parent.0), name));
        self.answer_entry(request, reply, move |state| {
            state.link(Ino(ino.0), parent, given(&name)?)
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writable = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let attempt = move |state: &mut Core| state.open(Ino(ino.0), writable);
        self.answer(request, reply, attempt, move |reply, handle| {
            reply.opened(FileHandle(handle.0), open_flags(writable));
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        self.create_opened(request, (parent, name), permissions(mode), writable, reply);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = offset..offset.saturating_add(size.into());
        let ino = Ino(ino.0);
        let attempt = move |state: &mut Core| state.read(HandleId(fh.0), ino, range.clone());
        self.answer_data(request, ino, attempt, reply);
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let data = Bytes::copy_from_slice(data);
        let len = data.len() as u32;
        // Dirty pages of a memory mapping: the kernel would not write them again.
        let is_write_back = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let attempt = move |state: &mut Core| match is_write_back {
            true => state.write_back(Ino(ino.0), offset, &data, clear_set_id),
            false => state.write(Ino(ino.0), offset, &data, clear_set_id),
        };
        let done = move |reply: Noting<ReplyWrite>, ()| reply.inner().written(len);
        let (reply, attempt) = self.data_change((ino, Some(fh)), reply, attempt);
        match is_write_back {
            true => self.answer_in_any_case(reply, attempt, done),
            false => self.answer_change(request, Ino(ino.0), reply, attempt, done),
        }
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.answer_flush(request, Ino(ino.0), HandleId(fh.0), reply);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let close = move |state: &mut Core| {
            state.close(HandleId(fh.0));
            state.send_if_whole(Ino(ino.0))
        };
        self.answer_in_any_case(reply, close, |reply, ()| reply.ok());
    }

    fn fsync(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer_sync(request, fh, reply);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let attempt = move |state: &mut Core| state.open_directory(Ino(ino.0));
        self.answer(request, reply, attempt, |reply, handle| {
            let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
            reply.opened(FileHandle(handle.0), flags);
        });
    }

    fn readdir(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.answer_names(request, reply, move |state| state.list(HandleId(fh.0), offset));
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.answer_listing(request, ino, reply, move |state| state.list(HandleId(fh.0), offset));
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let close = move |state: &mut Core| {
            state.close(HandleId(fh.0));
            Ok(())
        };
        self.answer_in_any_case(reply, close, |reply, ()| reply.ok());
    }

    fn fsyncdir(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.answer_sync(request, fh, reply);
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let (block, name) = (BLOCK_BYTES as u32, NAME_BYTES_MAX as u32);
        self.answer(request, reply, Core::space, move |reply, s| {
            let (blocks, free, nodes, left) = (s.blocks, s.blocks_free, s.nodes, s.nodes_free);
            reply.statfs(blocks, free, free, nodes, left, block, name, block);
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let value = Bytes::copy_from_slice(value);
        let mode = match flags {
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => XattrMode::Either,
        };
        self.answer_empty(request, reply, move |state| {
            state.set_xattr(Ino(ino.0), &name, &value, mode)
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let name = name.as_bytes().to_vec();
        self.answer_xattr(request, reply, size, move |state| state.xattr(Ino(ino.0), &name));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer_xattr(request, reply, size, move |state| state.xattr_names(Ino(ino.0)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.answer_empty(request, reply, move |state| state.remove_xattr(Ino(ino.0), &name));
    }

    /// With `default_permissions` the kernel checks modes itself and never sends this.
    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let range = offset..offset.saturating_add(length);
        let mode = fallocate_mode(mode).ok_or(Errno::EOPNOTSUPP);
        let (file, clear) = (Ino(ino.0), request.uid() != 0);
        let attempt = move |state: &mut Core| state.fallocate(file, range.clone(), mode?, clear);
        let (reply, attempt) = self.data_change((ino, Some(fh)), reply, attempt);
        let done = |reply: Noting<ReplyEmpty>, ()| reply.inner().ok();
        self.answer_change(request, file, reply, attempt, done);
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let seek = seek(whence);
        let attempt = move |state: &mut Core| {
            let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            state.seek(Ino(ino.0), offset, seek?)
        };
        self.answer(request, reply, attempt, |reply, found| reply.offset(found as i64));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _fh_in: FileHandle,
        from_offset: u64,
        to: INodeNo,
        fh: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The reply has 32 bits for the length; the kernel asks again for the rest.
        let len = len.min(u64::from(u32::MAX) / BLOCK_BYTES * BLOCK_BYTES);
        let copy = CopyRange { from: Ino(from.0), from_offset, to: Ino(to.0), to_offset, len };
        let clear = request.uid() != 0;
        let attempt = move |state: &mut Core| state.copy_range(copy, clear);
        let done = |reply: Noting<ReplyWrite>, copied| reply.inner().written(copied as u32);
        let (reply, attempt) = self.data_change((to, Some(fh)), reply, attempt);
        self.answer_change(request, copy.to, reply, attempt, done);
    }
}
