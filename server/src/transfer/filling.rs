//! The data and attributes of imported entries.
//!
//! While a file is incomplete, its ops carry its final modification time, so its status change time
//! equals it. That marks a partly imported file, whose data is complete up to its present end.
//! Attributes named `user.xfer.*` are the server's own and are not imported.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::fstat;
use rustix::io::{pread, retry_on_intr};
use xfer_protocol::tree::{Action, Kind, Node, XattrMode};
use xfer_protocol::{ContentId, Errno, Ino, Timestamp};

use super::import::{Importer, What};
use super::walk::{self, Attributes};
use super::{CHUNK_BYTES, Interruption};
use crate::engine::solo::SoloError;

impl Importer<'_> {
    /// Writes the data that a file still lacks: everything past its present end.
    pub(super) fn fill(
        &mut self,
        ino: Ino,
        of: &Attributes,
        what: &What,
    ) -> Result<(), Interruption> {
        let What::File(file) = what else { return Ok(()) };
        let mut at = self.size(ino)?;
        while let Some(run) = walk::next_data(file, at, of.size)? {
            at = run.start;
            while at < run.end {
                let mut data = vec![0; (run.end - at).min(CHUNK_BYTES) as usize];
                let count = retry_on_intr(|| pread(file, &mut data, at))?;
                if count == 0 {
                    return Err(Interruption::Entry(
                        "it became shorter while it was read".to_owned(),
                    ));
                }
                data.truncate(count);
                self.write(ino, of.mtime, at, data.into())?;
                at += count as u64;
            }
        }
        if self.size(ino)? < of.size {
            self.set(ino, of.mtime, |action| {
                if let Action::SetAttr { size, .. } = action {
                    *size = Some(of.size);
                }
            })?;
        }
        let now = Attributes::of(&fstat(file)?);
        if (now.size, now.mtime) != (of.size, of.mtime) {
            return Err(Interruption::Entry("it changed while it was read".to_owned()));
        }
        Ok(())
    }

    fn write(
        &mut self,
        ino: Ino,
        time: Timestamp,
        at: u64,
        data: Bytes,
    ) -> Result<(), Interruption> {
        if at > 0 {
            self.solo.must_own().map_err(|error| self.stop(error))?;
        }
        let (fresh, len) = (ContentId(self.fresh()?), data.len() as u32);
        let action = Action::Write { ino, offset: at, len, clear_set_id: false, fresh };
        self.solo.act(time, action, data).map_err(|error| self.stop(error))?;
        self.progress.bytes(u64::from(len));
        Ok(())
    }

    fn size(&mut self, ino: Ino) -> Result<u64, Interruption> {
        let node = self.solo.node(ino).map_err(|error| self.stop(error))?;
        Ok(node.and_then(|node| node.file().map(|data| data.size)).unwrap_or(0))
    }

    /// Sets the attributes that differ. The access time alone does not count as a difference, since
    /// the import itself changes it by reading.
    pub(super) fn finish(
        &mut self,
        ino: Ino,
        of: &Attributes,
        xattrs: &BTreeMap<Bytes, Bytes>,
    ) -> Result<(), Interruption> {
        // The nodes that every tree has keep their attributes.
        if ino < Ino(Ino::FIRST_GRANTED) {
            return Ok(());
        }
        let Some(node) = self.solo.node(ino).map_err(|error| self.stop(error))? else {
            return Ok(());
        };
        self.set_xattrs(ino, &node, xattrs)?;
        let mode_counts = !matches!(node.kind, Kind::Symlink { .. });
        let unfinished = node.ctime == of.mtime;
        let equal = (node.mode == of.mode || !mode_counts)
            && (node.uid, node.gid, node.mtime) == (of.uid, of.gid, of.mtime);
        if equal && !unfinished {
            return Ok(());
        }
        self.set(ino, SystemTime::now().into(), |action| {
            if let Action::SetAttr { mode, uid, gid, atime, mtime, .. } = action {
                *mode = mode_counts.then_some(of.mode);
                (*uid, *gid) = (Some(of.uid), Some(of.gid));
                (*atime, *mtime) = (Some(of.atime), Some(of.mtime));
            }
        })
    }

    fn set_xattrs(
        &mut self,
        ino: Ino,
        node: &Node,
        xattrs: &BTreeMap<Bytes, Bytes>,
    ) -> Result<(), Interruption> {
        let has = node.xattrs.all().unwrap_or_default();
        for name in has.keys().filter(|name| !is_ours(name) && !xattrs.contains_key(*name)) {
            self.act(Action::RemoveXattr { ino, name: name.clone() })?;
        }
        for (name, value) in xattrs.iter().filter(|(name, _)| !is_ours(name)) {
            if has.get(name) == Some(value) {
                continue;
            }
            let (name, value) = (name.clone(), value.clone());
            let action = Action::SetXattr { ino, name, value, mode: XattrMode::Either };
            match self.solo.act(SystemTime::now().into(), action, Bytes::new()) {
                // This is not a full disk: the op writes no data.
                Err(SoloError::Refused(Errno::ENOSPC)) => {
                    return Err(Interruption::Entry(
                        "it has more extended attributes than fit".to_owned(),
                    ));
                }
                done => done.map_err(|error| self.stop(error))?,
            }
        }
        Ok(())
    }

    /// Sets the attributes that `change` fills in.
    fn set(
        &mut self,
        ino: Ino,
        time: Timestamp,
        change: impl FnOnce(&mut Action),
    ) -> Result<(), Interruption> {
        let mut action = Action::SetAttr {
            ino,
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: None,
            mtime: None,
            clear_set_id: false,
            fresh: ContentId(self.fresh()?),
        };
        change(&mut action);
        self.solo.act(time, action, Bytes::new()).map_err(|error| self.stop(error))
    }
}

fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.xfer.")
}
