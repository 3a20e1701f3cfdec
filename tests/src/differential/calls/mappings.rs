//! Memory-mapped files: written and read through shared mappings, which outlive the closing of the
//! file and the removal of its name.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::fstat;

use super::attributes::asked;
use super::data::told;
use crate::differential::operation::Operation;
use crate::differential::side::{Side, not_open};
use crate::files::Mapped;

/// The length of a mapping in bytes, whatever the file's length.
const LEN: usize = (1 << 20) + 8192;

/// A file in memory.
pub(in crate::differential) struct Mapping {
    memory: Mapped,
    /// Its node, opened only for asking about it.
    node: OwnedFd,
}

impl Mapping {
    fn new(file: BorrowedFd<'_>) -> io::Result<Mapping> {
        Ok(Mapping { memory: Mapped::try_new(file, LEN)?, node: asked(file)? })
    }

    /// The mapped node.
    pub(in crate::differential) fn node(&self) -> io::Result<OwnedFd> {
        self.node.try_clone()
    }

    /// Discards a write to a place (a planted bug).
    pub(in crate::differential) fn lose(&mut self, offset: u64) -> io::Result<()> {
        let (offset, len) = self.within(offset, 100)?;
        self.memory.write(offset, &vec![b'?'; len]);
        Ok(())
    }

    /// The part of a range that is mapped and in the file: touching more would raise SIGBUS.
    fn within(&self, offset: u64, len: usize) -> io::Result<(usize, usize)> {
        let end = (LEN as u64).min(fstat(&self.node)?.st_size as u64);
        let start = offset.min(end);
        Ok((start as usize, len.min((end - start) as usize)))
    }
}

pub(in crate::differential) fn apply(side: &mut Side, operation: &Operation) -> io::Result<String> {
    match operation {
        Operation::Map { slot, map } => {
            let mapping = Mapping::new(side.file(*slot)?)?;
            side.maps[*map] = Some(mapping);
            Ok(String::new())
        }
        Operation::Unmap { map } => {
            side.maps[*map].take().map(|_| String::new()).ok_or_else(not_open)
        }
        Operation::WriteMapped { map, offset, data, sync } => {
            let mapping = side.maps[*map].as_mut().ok_or_else(not_open)?;
            let (offset, len) = mapping.within(*offset, data.len)?;
            mapping.memory.write(offset, &data.bytes()[..len]);
            if *sync {
                mapping.memory.sync();
            }
            Ok(len.to_string())
        }
        Operation::ReadMapped { map, offset, len } => {
            let mapping = side.maps[*map].as_ref().ok_or_else(not_open)?;
            let (offset, len) = mapping.within(*offset, *len)?;
            Ok(told(&mapping.memory.read(offset, len)))
        }
        Operation::SyncMapped { map } => {
            side.maps[*map].as_ref().ok_or_else(not_open)?.memory.sync();
            Ok(String::new())
        }
        _ => unreachable!("not about mappings: {operation:?}"),
    }
}
