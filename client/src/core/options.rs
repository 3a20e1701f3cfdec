//! The settings of a client. They do not change while it runs.

use std::time::Duration;

use xfer_protocol::message::{Silence, Terms};
use xfer_protocol::tree::Node;

/// The owner that nodes show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owners {
    /// The user that mounts. Stored owners are not shown.
    Mounter {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// The stored owner.
    Stored,
}

impl Owners {
    /// The numbers of the user and the group that a node shows.
    pub fn of(self, node: &Node) -> (u32, u32) {
        match self {
            Owners::Mounter { uid, gid } => (uid, gid),
            Owners::Stored => (node.uid, node.gid),
        }
    }
}

/// The settings that a client is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The memory limit of cached chunks, in bytes.
    pub cache_bytes: usize,
    /// The memory limit of changes that are not durable, in bytes.
    pub log_bytes: usize,
    /// The memory limit of names and attributes that the server has too, in bytes. A directory is
    /// loaded whole to be listed, beyond the limit if need be.
    pub tree_bytes: usize,
    /// The owner that nodes show. Nodes that xfer makes itself belong to the same owner.
    pub owners: Owners,
    /// How long an operation that needs the server waits while the link is down, before it fails
    /// with `ETIMEDOUT`. `None` for ever.
    pub wait: Option<Duration>,
    /// How many bytes of changes may be made while the link is down, if they are kept on this
    /// machine's disk.
    pub offline_bytes: Option<usize>,
    /// Whether to hand the seat over when another client of the account asks for it, and to ask for it
    /// when a program here waits for it.
    pub handoff: bool,
    /// How long the server may be silent, while something waits for it, before the link counts as
    /// dead. The server may want a longer time.
    pub silence: Silence,
    /// The account and server, for messages: `user@host:port`.
    pub label: String,
}

impl Options {
    /// What the client asks the server for.
    pub fn terms(&self) -> Terms {
        Terms { handoff: self.handoff, silence: self.silence }
    }
}
