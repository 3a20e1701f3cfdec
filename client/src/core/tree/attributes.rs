//! Attributes, extended attributes, and free space.
//!
//! The state of drafts and records (`user.xfer.state`) is worked out here when it is read. The
//! attribute that is stored under this name is only a note for later sessions.

use std::collections::BTreeSet;

use bytes::Bytes;
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Action, Loaded, Rows, STATE_XATTR, XattrMode, is_for_programs};
use xfer_protocol::{ContentId, Errno, Ino, Timestamp};

use super::names::Found;
use crate::core::outbox::Order;
use crate::core::pause::{Pause, Stop};
use crate::core::state::Core;

/// Attributes to set. Those that are `None` stay as they are.
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
    /// The access time.
    pub atime: Option<Timestamp>,
    /// The modification time of its data.
    pub mtime: Option<Timestamp>,
    /// Whether to clear the set-id bits, as when an unprivileged program changes the size.
    pub clear_set_id: bool,
}

/// The space of the tree, in blocks of [`BLOCK_BYTES`] and in nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// All blocks, used and free.
    pub blocks: u64,
    /// The free blocks.
    pub blocks_free: u64,
    /// All nodes, those that exist and those that can still be made.
    pub nodes: u64,
    /// The nodes that can still be made.
    pub nodes_free: u64,
}

impl Core {
    /// A node's attributes. Those of the root stay available when the session is over or another
    /// client has the seat, so that the mount point can be looked at and unmounted.
    pub fn attributes(&mut self, ino: Ino) -> Result<Found, Stop> {
        if let Some(root) = self.known_node(ino).filter(|_| ino == Ino::ROOT) {
            return Ok((ino, root));
        }
        if ino != Ino::ROOT {
            self.must_be_usable(ino)?;
        }
        Ok((ino, self.node(ino)?))
    }

    /// A node's permission, set-id and sticky bits, if it is loaded.
    pub fn known_mode(&self, ino: Ino) -> Option<u16> {
        match self.replica.table.node(ino) {
            Loaded::Present(node) => Some(node.mode),
            Loaded::Absent | Loaded::Unknown => None,
        }
    }

    /// Sets the given attributes of a node, all in one op.
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

    /// The target of a symbolic link; `EINVAL` for other nodes.
    pub fn target(&mut self, ino: Ino) -> Result<Bytes, Stop> {
        self.must_have_session()?;
        match &self.node(ino)?.kind {
            xfer_protocol::tree::Kind::Symlink { target } => {
                let target = target.clone();
                self.note_contents(ino);
                Ok(target)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// An extended attribute's value; `ENODATA` if there is none.
    pub fn xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Bytes, Stop> {
        must_be_attribute(name)?;
        self.must_be_usable(ino)?;
        let node = self.node(ino)?;
        if name == STATE_XATTR {
            match self.know_drafts() {
                // Nothing can be sent now, so the mark that an earlier session has left is the state.
                Ok(()) | Err(Stop::Refused(_)) => {}
                pause => pause?,
            }
            if let Some(draft) = self.outbox.drafts.get(ino) {
                return Ok(draft.state(self.is_written(ino)).into());
            }
            if node.sent.is_some() {
                return self.delivery_state(ino);
            }
        }
        // Only `user.*` attributes exist. The kernel and `ls` ask for others often, so those are
        // answered without loading anything.
        if !name.starts_with(b"user.") {
            return Err(Errno::ENODATA.into());
        }
        self.all_xattrs(ino)?.get(name).cloned().ok_or(Errno::ENODATA.into())
    }

    /// The names of a node's extended attributes, each with a NUL at its end.
    pub fn xattr_names(&mut self, ino: Ino) -> Result<Vec<u8>, Stop> {
        self.must_be_usable(ino)?;
        let node = self.node(ino)?;
        let xattrs = self.all_xattrs(ino)?;
        let mut names: BTreeSet<&[u8]> = xattrs.keys().map(|name| &name[..]).collect();
        // Linux allows `user.*` attributes on files and directories only.
        let has_state = node.sent.is_some() || self.is_draft(ino);
        if has_state && (node.is_directory() || node.file().is_some()) {
            names.insert(STATE_XATTR);
        }
        Ok(names.into_iter().flat_map(|name| [name, &[0]].concat()).collect())
    }

    /// Sets an extended attribute. Programs can set `user.*` only, and of those not `user.xfer.*`, except
    /// the note to what they send, and to give an [`Order`] for a draft.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &Bytes,
        value: &Bytes,
        mode: XattrMode,
    ) -> Result<(), Stop> {
        if name == STATE_XATTR
            && let Some(order) = Order::of(value)
        {
            return self.obey(ino, order);
        }
        must_be_settable(name)?;
        let (name, value) = (name.clone(), value.clone());
        self.change(Action::SetXattr { ino, name, value, mode })
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &Bytes) -> Result<(), Stop> {
        must_be_settable(name)?;
        self.change(Action::RemoveXattr { ino, name: name.clone() })
    }

    /// The space of the tree. The free space is that of the quota or that of the server's disk,
    /// whichever is less.
    pub fn space(&mut self) -> Result<Space, Stop> {
        self.must_have_session()?;
        let (usage, quota) = (self.replica.table.usage(), self.replica.table.quota());
        let free = quota.bytes.saturating_sub(usage.bytes).min(self.uplink.disk_room.disk().bytes);
        let nodes_free =
            quota.nodes.saturating_sub(usage.nodes).min(self.uplink.disk_room.disk().files);
        Ok(Space {
            // The sum of used and free blocks, each rounded by itself: a quota that ends within a
            // block must not show that block as used.
            blocks: usage.bytes.div_ceil(BLOCK_BYTES) + free / BLOCK_BYTES,
            blocks_free: free / BLOCK_BYTES,
            nodes: usage.nodes.saturating_add(nodes_free),
            nodes_free,
        })
    }

    /// The state of a record: `sending` or `waiting`, or `sent`, `received` or `refused` with the
    /// time.
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
    // `cp -a` and `mv` skip attributes that are refused with this error, and copy everything else.
    if is_for_programs(name) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// Refuses a name without a namespace, and a namespace without a name, as Linux does.
fn must_be_attribute(name: &[u8]) -> Result<(), Errno> {
    const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    match NAMESPACES.iter().find_map(|namespace| name.strip_prefix(*namespace)) {
        Some([]) => Err(Errno::EINVAL),
        Some(_) => Ok(()),
        None => Err(Errno::EOPNOTSUPP),
    }
}
