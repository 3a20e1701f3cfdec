//! Files of this machine, those in a mount among them, as what is read and written.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::io::Errno;

use super::super::errno::of_io;
use super::{Sink, Source};

impl Source for File {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Errno> {
        let mut data = vec![0; len];
        let mut read = 0;
        while read < len {
            match FileExt::read_at(self, &mut data[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(error)),
            }
        }
        data.truncate(read);
        Ok(data.into())
    }
}

impl Sink for File {
    fn write_at(&self, offset: u64, data: Bytes) -> Result<(), Errno> {
        self.write_all_at(&data, offset).map_err(of_io)
    }

    fn close(self: Box<Self>) -> Result<(), Errno> {
        // A write has been answered when it is in the log, so the close has nothing to tell.
        Ok(())
    }
}

/// A pipe or a device of this machine, which takes bytes in their order.
pub(in crate::files) struct Stream(pub(in crate::files) File);

impl Sink for Stream {
    fn write_at(&self, _offset: u64, data: Bytes) -> Result<(), Errno> {
        (&self.0).write_all(&data).map_err(of_io)
    }

    fn takes_holes(&self) -> bool {
        false
    }

    fn close(self: Box<Self>) -> Result<(), Errno> {
        Ok(())
    }
}
