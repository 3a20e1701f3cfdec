//! Open files and directories, which are closed when they are dropped.

use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::limits::{READ_BYTES_MAX, WRITE_BYTES_MAX};
use xfer_protocol::tree::Kind;
use xfer_protocol::{Errno, Ino};

use super::path::TreePath;
use crate::core::{CopyRange, Core, HandleId, Listed, NewAttributes, Stop};
use crate::drive::Client;

/// An open file.
///
/// A writable one that is dropped without [`File::close`] counts as a killed program's: in a
/// mailbox, it is held and not sent.
pub struct File {
    client: Arc<Client>,
    ino: Ino,
    handle: HandleId,
    is_closed: bool,
}

impl File {
    pub(super) async fn open(
        client: &Arc<Client>,
        path: TreePath,
        writable: bool,
    ) -> Result<File, Errno> {
        let open = move |core: &mut Core| open(core, &path, writable);
        let (ino, handle) = client.call(open).await?;
        Ok(File { client: client.clone(), ino, handle, is_closed: false })
    }

    /// Reads bytes from `offset` on. They are fewer than `len` only at the end of the file.
    ///
    /// # Errors
    /// `EIO` if the server has lost them; those of the tree.
    pub async fn read_at(&self, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let (ino, handle) = (self.ino, self.handle);
        let end = offset.checked_add(len).ok_or(Errno::EINVAL)?;
        let mut data = Vec::new();
        loop {
            let start = offset + data.len() as u64;
            let part = start..end.min(start + READ_BYTES_MAX as u64);
            let asked = (part.end - part.start) as usize;
            let read = move |core: &mut Core| core.read(handle, ino, part.clone());
            let read = self.client.call(read).await?;
            data.extend_from_slice(&read);
            if read.len() < asked || asked == 0 {
                return Ok(data);
            }
        }
    }

    /// Writes bytes at `offset`. They are durable after a sync.
    ///
    /// # Errors
    /// `EDQUOT` or `ENOSPC` if there is no room; those of the tree.
    pub async fn write_at(&self, offset: u64, data: &Bytes) -> Result<(), Errno> {
        let (ino, handle) = (self.ino, self.handle);
        offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        for start in (0..data.len()).step_by(WRITE_BYTES_MAX) {
            let part = data.slice(start..data.len().min(start + WRITE_BYTES_MAX));
            let write = move |core: &mut Core| {
                core.write(ino, offset + start as u64, &part, false)?;
                core.note_change(ino, Some(handle));
                Ok(())
            };
            let written = self.client.call(write).await;
            written.inspect_err(|errno| self.client.note_failure(ino, *errno))?;
        }
        Ok(())
    }

    /// Copies the first `len` bytes of another file to the same place here. The server copies them,
    /// and no data is sent.
    pub(super) async fn copy_from(&self, from: &File, len: u64) -> Result<(), Errno> {
        let (to, handle) = (self.ino, self.handle);
        let copy = CopyRange { from: from.ino, from_offset: 0, to, to_offset: 0, len };
        let copied = move |core: &mut Core| {
            core.copy_range(copy, false)?;
            core.note_change(to, Some(handle));
            Ok(())
        };
        let copied = self.client.call(copied).await;
        copied.inspect_err(|errno| self.client.note_failure(to, *errno))
    }

    /// Sets the size in bytes. New bytes are zeros.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub async fn set_size(&self, size: u64) -> Result<(), Errno> {
        let ino = self.ino;
        let new = NewAttributes { size: Some(size), ..NewAttributes::default() };
        self.client.call(move |core: &mut Core| core.set_attributes(ino, &new).map(drop)).await
    }

    /// Closes the file, which is complete. In a mailbox, this sends it at once, if it was written, its
    /// name does not look temporary, and no other handle can write to it.
    ///
    /// `EDQUOT` if the recipient's inbox is full. The file then waits, and is sent later.
    pub async fn close(mut self) -> Result<(), Errno> {
        let (ino, handle) = (self.ino, self.handle);
        let flush = move |core: &mut Core| {
            core.note_synced(handle);
            core.flush(handle, ino)
        };
        let flushed = self.client.call(flush).await;
        self.is_closed = true;
        let release = move |core: &mut Core| release(core, ino, handle);
        flushed.and(self.client.call(release).await)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let (ino, handle) = (self.ino, self.handle);
        let close = move |core: &mut Core| {
            core.note_killed(handle, ino);
            release(core, ino, handle)
        };
        self.client.run(close, |_| {});
    }
}

fn open(core: &mut Core, path: &TreePath, writable: bool) -> Result<(Ino, HandleId), Stop> {
    let (ino, node) = core.find_path(&path.0)?;
    match &node.kind {
        Kind::File(_) => {}
        Kind::Directory { .. } => return Err(Errno::EISDIR.into()),
        Kind::Symlink { .. } | Kind::Special(_) => return Err(Errno::EINVAL.into()),
    }
    let handle = core.open(ino, writable)?;
    // Counted as known, so that it stays as long as it is open, even without a name.
    core.find(ino)?;
    Ok((ino, handle))
}

/// Closes a handle and gives up the count of its node. May be made again, since sending may have to
/// wait.
fn release(core: &mut Core, ino: Ino, handle: HandleId) -> Result<(), Stop> {
    core.close(handle);
    core.send_if_whole(ino).inspect_err(|stop| {
        if matches!(stop, Stop::Refused(_)) {
            core.forget(ino, 1);
        }
    })?;
    core.forget(ino, 1);
    Ok(())
}

/// A directory that is being listed.
pub(super) struct Directory {
    client: Arc<Client>,
    handle: HandleId,
}

impl Directory {
    pub(super) async fn open(client: &Arc<Client>, path: TreePath) -> Result<Directory, Errno> {
        let open = move |core: &mut Core| {
            let (ino, node) = core.find_path(&path.0)?;
            match node.is_directory() {
                true => core.open_directory(ino),
                false => Err(Errno::ENOTDIR.into()),
            }
        };
        let handle = client.call(open).await?;
        Ok(Directory { client: client.clone(), handle })
    }

    /// Lists the entries after a cookie. There are none at the end.
    pub(super) async fn list(&self, after: u64) -> Result<Vec<Listed>, Errno> {
        let handle = self.handle;
        self.client.call(move |core: &mut Core| core.list(handle, after)).await
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let handle = self.handle;
        let close = move |core: &mut Core| {
            core.close(handle);
            Ok(())
        };
        self.client.run(close, |_| {});
    }
}
