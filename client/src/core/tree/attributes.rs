//! Attributes, extended attributes, and the space there is.

use std::collections::BTreeSet;

use bytes::Bytes;
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Action, Loaded, Rows, STATE_XATTR, XattrMode};
use xfer_protocol::{ContentId, Errno, Ino, Timestamp};

use super::names::Found;
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;

/// Attributes to set; what is `None` stays.
#[derive(Clone, Default, Debug)]
pub struct NewAttributes {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u16>,
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
    /// The size in bytes.
    pub size: Option<u64>,
    /// When it was last read.
    pub atime: Option<Timestamp>,
    /// When its data last changed.
    pub mtime: Option<Timestamp>,
    /// Whether the set-id bits go, as when an unprivileged program changes the size.
    pub clear_set_id: bool,
}

/// The space of the tree, in blocks of [`BLOCK_BYTES`], and its nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Blocks there are in all.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Nodes there can be in all.
    pub nodes: u64,
    /// Nodes that can still be made.
    pub nodes_free: u64,
}

impl Core {
    /// A node's attributes. Those of the root can be had to the end, so that it can be unmounted.
    pub fn attributes(&mut self, ino: Ino) -> Result<Found, Stop> {
        if ino != Ino::ROOT {
            self.must_be_usable(ino)?;
        }
        Ok((ino, self.node(ino)?))
    }

    /// A node's permission, set-id and sticky bits, if they are known.
    pub fn known_mode(&self, ino: Ino) -> Option<u16> {
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Some(node.mode),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }

    /// Sets attributes.
    pub fn set_attributes(&mut self, ino: Ino, new: &NewAttributes) -> Result<Found, Stop> {
        let fresh = ContentId(self.fresh()?);
        if new.size.is_some() {
            self.prepare_change(ino)?;
        }
        self.change(Action::SetAttr {
            ino,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            size: new.size,
            atime: new.atime,
            mtime: new.mtime,
            clear_set_id: new.clear_set_id,
            fresh,
        })?;
        if new.size == Some(0) {
            self.note_emptied(ino);
        }
        Ok((ino, self.node(ino)?))
    }

    /// Where a symbolic link points.
    pub fn target(&mut self, ino: Ino) -> Result<Bytes, Stop> {
        self.must_have_session()?;
        match &self.node(ino)?.kind {
            xfer_protocol::tree::Kind::Symlink { target } => Ok(target.clone()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// An extended attribute's value.
    pub fn xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Bytes, Stop> {
        must_be_attribute(name)?;
        self.must_be_usable(ino)?;
        let node = self.node(ino)?;
        if name == STATE_XATTR {
            if let Some(draft) = self.outbox.drafts.get(ino) {
                return Ok(draft.state(self.is_written(ino)).into());
            }
            if node.sent.is_some() {
                return self.delivery_state(ino);
            }
        }
        // There are no others: nothing has to be asked for to say so, as the kernel and `ls` do.
        if !name.starts_with(b"user.") {
            return Err(Errno::ENODATA.into());
        }
        self.all_xattrs(ino)?.get(name).cloned().ok_or(Errno::ENODATA.into())
    }

    /// The names of extended attributes, each with a closing NUL.
    pub fn xattr_names(&mut self, ino: Ino) -> Result<Vec<u8>, Stop> {
        self.must_be_usable(ino)?;
        let node = self.node(ino)?;
        let xattrs = self.all_xattrs(ino)?;
        let mut names: BTreeSet<&[u8]> = xattrs.keys().map(|name| &name[..]).collect();
        // The kernel lets nobody read a user's attribute of anything else.
        let has_state = node.sent.is_some() || self.is_draft(ino);
        if has_state && (node.is_directory() || node.file().is_some()) {
            names.insert(STATE_XATTR);
        }
        Ok(names.into_iter().flat_map(|name| [name, &[0]].concat()).collect())
    }

    /// Sets an extended attribute: only those of users can be set, and xfer's own only by xfer.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &Bytes,
        value: &Bytes,
        mode: XattrMode,
    ) -> Result<(), Stop> {
        must_be_settable(name)?;
        let (name, value) = (name.clone(), value.clone());
        self.change(Action::SetXattr { ino, name, value, mode })
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &Bytes) -> Result<(), Stop> {
        must_be_settable(name)?;
        self.change(Action::RemoveXattr { ino, name: name.clone() })
    }

    /// The space of the tree: what the quota leaves, or the server's disk if that is less.
    pub fn space(&mut self) -> Result<Space, Stop> {
        self.must_have_session()?;
        let (usage, quota) = (self.replica.table.usage(), self.replica.table.quota());
        let free = quota.bytes.saturating_sub(usage.bytes).min(self.uplink.disk_room.disk().bytes);
        let nodes_free =
            quota.nodes.saturating_sub(usage.nodes).min(self.uplink.disk_room.disk().files);
        Ok(Space {
            // The sum of what is shown, so that no block of a limit that ends within one counts as used.
            blocks: usage.bytes.div_ceil(BLOCK_BYTES) + free / BLOCK_BYTES,
            blocks_free: free / BLOCK_BYTES,
            nodes: usage.nodes.saturating_add(nodes_free),
            nodes_free,
        })
    }

    /// What became of what was sent: `sending`, or `sent`, `received` or `refused` with the time.
    fn delivery_state(&mut self, ino: Ino) -> Result<Bytes, Stop> {
        let node = self.node(ino)?;
        let id = node.sent.ok_or(Errno::ENODATA)?;
        if self.replica.table.changed(ino) > self.uplink.log.durable() {
            return Ok(Bytes::from_static(b"sending"));
        }
        let state = self.outbox.deliveries.get(&id).ok_or(Pause::Delivery(id))?;
        let with_time = |word: &str, time: &Timestamp| format!("{word} {}", time.to_rfc3339());
        Ok(match state {
            DeliveryState::Unknown => "sending".to_owned(),
            DeliveryState::Sent(time) => with_time("sent", time),
            DeliveryState::Received(time) => with_time("received", time),
            DeliveryState::Refused(time) => with_time("refused", time),
            DeliveryState::NoRoom(_) => "waiting: the inbox was full".to_owned(),
        }
        .into())
    }
}

fn must_be_settable(name: &[u8]) -> Result<(), Errno> {
    must_be_attribute(name)?;
    // `cp -a` and `mv` pass over attributes that are answered so, and copy all else.
    let settable = name.starts_with(b"user.") && !name.starts_with(b"user.xfer.");
    if settable { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// As Linux does: refuses what is in no namespace, and a namespace by itself.
fn must_be_attribute(name: &[u8]) -> Result<(), Errno> {
    const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    match NAMESPACES.iter().find_map(|namespace| name.strip_prefix(*namespace)) {
        Some([]) => Err(Errno::EINVAL),
        Some(_) => Ok(()),
        None => Err(Errno::EOPNOTSUPP),
    }
}
