//! The bytes of files: open, read, write and close; allocate, copy, and seek.
//!
//! Nothing is fetched from here: the drive carries out the orders that are left for it.

use std::ops::Range;

use bytes::Bytes;
use xfer_protocol::limits::{FILE_BYTES_MAX, READ_BYTES_MAX};
use xfer_protocol::tree::{Action, FallocateMode, FileData};
use xfer_protocol::{ContentId, Errno, Ino};

use crate::core::notice::Notice;
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;
use crate::core::tree::{Handle, HandleId, NewAttributes};

const SET_UID: u16 = 0o4000;
const SET_GID_AND_EXECUTE: u16 = 0o2010;

/// The kind of place that a seek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// The next data (`SEEK_DATA`).
    Data,
    /// The next hole (`SEEK_HOLE`).
    Hole,
}

/// A range of one file to be copied into another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyRange {
    /// The file that is read.
    pub from: Ino,
    /// Where reading begins, in bytes.
    pub from_offset: u64,
    /// The file that is written.
    pub to: Ino,
    /// Where writing begins, in bytes.
    pub to_offset: u64,
    /// The most bytes to copy. Fewer are copied if the file that is read ends before.
    pub len: u64,
}

impl Core {
    /// Opens a file for reading, and for writing if `writable`.
    pub fn open(&mut self, ino: Ino, writable: bool) -> Result<HandleId, Stop> {
        self.must_have_session()?;
        let node = self.node(ino)?;
        // A record can be revised, if it is known where it is.
        if writable && node.sent.is_some() && self.record(ino)?.is_none() {
            return Err(Errno::EPERM.into());
        }
        Ok(self.open_handle(ino, writable))
    }

    /// Opens a file that is there.
    pub(in crate::core) fn open_handle(&mut self, ino: Ino, writable: bool) -> HandleId {
        if writable {
            self.outbox.drafts.note_open(ino);
        }
        self.handles.open_file(ino, writable)
    }

    /// Reads bytes. The result is shorter than the range only at the end of the file.
    pub fn read(&mut self, handle: HandleId, ino: Ino, range: Range<u64>) -> Result<Vec<u8>, Stop> {
        let node = self.node(ino)?;
        let data = node.file().ok_or(Errno::EISDIR)?;
        let range = range.start..range.end.min(data.size);
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let is_first = range.start == 0;
        // Holes stay zeros: only the runs of data are looked up in the cache.
        let mut out = vec![0; (range.end - range.start) as usize];
        let mut known = true;
        if let Some(content) = data.content {
            for run in data.extents.data_in(data.size, range.clone()) {
                let part = (run.start - range.start) as usize..(run.end - range.start) as usize;
                known &= self.data.cache.read(content, run, &mut out[part]);
            }
        }
        // For a cached read too: its reader may soon need the bytes ahead.
        let waits = self.fetch_for(handle, ino, data, range.clone());
        if is_first {
            self.walk_on(ino, data, !known);
        }
        if known {
            self.note_data(ino, range);
            Ok(out)
        } else {
            Err(Pause::Data(waits).into())
        }
    }

    /// Writes bytes. If another file is known to have them, the server copies them from there
    /// instead.
    pub fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &Bytes,
        clear_set_id: bool,
    ) -> Result<(), Stop> {
        let fresh = ContentId(self.fresh()?);
        self.prepare_change(ino)?;
        let copy = self.copy_that_is(ino, offset, data);
        // Unlike a write, a copy can't clear the set-id bits.
        if let Some(copy) = copy.filter(|_| !clear_set_id) {
            let CopyRange { from, from_offset, to, to_offset, len } = copy;
            self.change(Action::CopyRange { from, from_offset, to, to_offset, len, fresh })?;
            self.note_data(ino, offset..offset + len);
            return Ok(());
        }
        let len = u32::try_from(data.len()).map_err(|_| Errno::EINVAL)?;
        let action = Action::Write { ino, offset, len, clear_set_id, fresh };
        self.change_with(action, data.clone())?;
        // The kernel keeps what it has written.
        self.note_data(ino, offset..offset + u64::from(len));
        Ok(())
    }

    /// Writes bytes of a mapping that the kernel has kept. It would not write them again, so they are
    /// taken while the server takes the seat away, too.
    pub fn write_back(
        &mut self,
        ino: Ino,
        offset: u64,
        data: &Bytes,
        clear_set_id: bool,
    ) -> Result<(), Stop> {
        self.session.writes_back = true;
        let written = self.write(ino, offset, data, clear_set_id);
        self.session.writes_back = false;
        written
    }

    /// Before a descriptor of a handle is closed: reserves room in the recipient's inbox if the
    /// handle is writable and the file may be sent when it is closed. Each descriptor's close does
    /// so, even if others still write to the file.
    pub fn flush(&mut self, handle: HandleId, ino: Ino) -> Result<(), Stop> {
        match self.handles.file_mut(handle) {
            Some(file) if file.writable => self.prepare_close(ino),
            Some(_) | None => Ok(()),
        }
    }

    /// Closes a handle. If that completes a file in a mailbox, [`Core::send_if_whole`] sends it.
    pub fn close(&mut self, handle: HandleId) {
        match self.handles.close(handle) {
            Some(Handle::Directory(directory)) => {
                self.replica.table.unpin(directory.ino);
                self.replica.trim();
            }
            Some(Handle::File(file)) if file.writable => {
                self.note_closed(file.ino);
                self.session.lets_go |= self.is_let_go();
            }
            Some(Handle::File(_)) | None => {}
        }
    }

    /// Sends a file that was just closed, if it is a complete draft. If that is refused, the draft
    /// waits.
    pub fn send_if_whole(&mut self, ino: Ino) -> Result<(), Stop> {
        self.send_closed(ino).inspect_err(|pause| {
            if let Stop::Refused(errno) = pause {
                self.refuse_room(ino, *errno);
            }
        })
    }

    /// Forgets all bytes that the server has, so that they are read from there.
    pub fn forget_durable_data(&mut self) {
        self.data.cache.forget_durable();
    }

    /// Allocates, frees or zeroes a range.
    pub fn fallocate(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        mode: FallocateMode,
        clear_set_id: bool,
    ) -> Result<(), Stop> {
        self.prepare_change(ino)?;
        if clear_set_id {
            self.clear_set_id(ino)?;
        }
        let fresh = ContentId(self.fresh()?);
        let (offset, len) = (range.start, range.end - range.start);
        self.change(Action::Fallocate { ino, offset, len, mode, fresh })
    }

    /// Clears the set-id bits of a file that go when an unprivileged program changes its data. Made
    /// again, it does nothing.
    fn clear_set_id(&mut self, ino: Ino) -> Result<(), Stop> {
        let mode = self.node(ino)?.mode;
        if mode & SET_UID != 0 || mode & SET_GID_AND_EXECUTE == SET_GID_AND_EXECUTE {
            self.set_attributes(ino, &NewAttributes { clear_set_id: true, ..Default::default() })?;
            // The operation goes on after this, and may be interrupted before its answer shows the
            // new mode.
            self.notices.push(Notice::Node(ino));
        }
        Ok(())
    }

    /// Copies a range, and returns the number of bytes copied.
    pub fn copy_range(&mut self, copy: CopyRange, clear_set_id: bool) -> Result<u64, Stop> {
        let fresh = ContentId(self.fresh()?);
        let source = self.node(copy.from)?;
        let size = source.file().ok_or(Errno::EINVAL)?.size;
        let len = copy.len.min(size.saturating_sub(copy.from_offset)).min(FILE_BYTES_MAX);
        if len > 0 {
            self.prepare_change(copy.to)?;
            if clear_set_id {
                self.clear_set_id(copy.to)?;
            }
            let CopyRange { from, from_offset, to, to_offset, .. } = copy;
            self.change(Action::CopyRange { from, from_offset, to, to_offset, len, fresh })?;
        }
        Ok(len)
    }

    /// Finds data or a hole, as lseek(2) does.
    pub fn seek(&mut self, ino: Ino, offset: u64, seek: Seek) -> Result<u64, Stop> {
        let node = self.node(ino)?;
        let data = node.file().ok_or(Errno::EINVAL)?;
        if offset >= data.size {
            return Err(Errno::ENXIO.into());
        }
        match seek {
            Seek::Data => data.extents.next_data(data.size, offset).ok_or(Errno::ENXIO.into()),
            Seek::Hole => Ok(data.extents.next_hole(data.size, offset).min(data.size)),
        }
    }

    /// Orders the bytes that a read of `range` needs, and those that its reader will need next.
    /// Returns the fetches that the read itself must wait for.
    fn fetch_for(
        &mut self,
        handle: HandleId,
        ino: Ino,
        data: &FileData,
        range: Range<u64>,
    ) -> Vec<u64> {
        let Some(content) = data.content else { return Vec::new() };
        let spare = self.data.cache.bytes_max() as u64 / 4;
        let Some(file) = self.handles.file_mut(handle) else {
            return self.order(ino, content, data, range);
        };
        let plan = file.readahead.plan(range.clone(), spare);
        let mut waits = self.order(ino, content, data, plan.needed);
        if !waits.is_empty() {
            // The order covered whole blocks. The read waits only for fetches, its own or others',
            // that touch its range.
            waits = self.data.cache.under_way(content, range);
        }
        self.order(ino, content, data, plan.ahead);
        waits
    }

    /// Orders the parts of a range that are neither known nor being fetched. Returns all fetches in
    /// flight that touch the range.
    pub(in crate::core) fn order(
        &mut self,
        ino: Ino,
        content: ContentId,
        data: &FileData,
        range: Range<u64>,
    ) -> Vec<u64> {
        let range = range.start..range.end.min(data.size);
        for run in data.extents.data_in(data.size, range.clone()) {
            for gap in self.data.cache.wanted(content, run) {
                for start in (gap.start..gap.end).step_by(READ_BYTES_MAX) {
                    let part = start..gap.end.min(start + READ_BYTES_MAX as u64);
                    let order = self.data.cache.order(content, part);
                    self.data.orders.push((ino, order));
                }
            }
        }
        self.data.cache.under_way(content, range)
    }
}
