//! What a client is told when it starts.

/// The owner that nodes show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owners {
    /// The user that mounts, whatever is stored.
    Mounter {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// The stored owner.
    Stored,
}

/// What a client is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The memory limit of cached chunks, in bytes.
    pub cache_bytes: usize,
    /// The memory limit of changes that are not durable, in bytes.
    pub log_bytes: usize,
    /// The memory limit of names and attributes that the server has too, in bytes. A directory that
    /// is being listed is loaded whole, beyond the limit if need be.
    pub tree_bytes: usize,
    /// The owner that nodes show, and that nodes made by xfer itself have.
    pub owners: Owners,
    /// The account and server, for messages: `user@host:port`.
    pub label: String,
}
