//! The identities that cross the wire, each a type of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A node's number within its tree: stable for ever, never reused.
    Ino
}

id! {
    /// The number of a content (a file's bytes) within its server.
    ContentId
}

id! {
    /// The number of a delivery (something sent from one user to another) within its server.
    DeliveryId
}

id! {
    /// An op's position in its tree's log. The first op ever is 1; 0 stands for "none yet".
    Seq
}

id! {
    /// The number of sessions that a tree has had. A commit with an old epoch is refused.
    Epoch
}

impl Ino {
    /// The tree's root.
    pub const ROOT: Ino = Ino(1);
    /// The directory where deliveries arrive: one subdirectory for each sender.
    pub const INBOX: Ino = Ino(2);
    /// The directory of mailboxes: one subdirectory for each user that can be sent to.
    pub const OUTBOX: Ino = Ino(3);
    /// The first number that a server grants; those below are for nodes that every tree has.
    pub const FIRST_GRANTED: u64 = 1024;
}

impl Seq {
    /// The seq that follows.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// Identifies a session on its server. Public: only the secret proves that a link belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// Numbers that the server lets a session use for new nodes, contents and deliveries.
///
/// They come from a single counter on the server, so it never gives a number twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdRange {
    /// The first number granted.
    pub first: u64,
    /// The end of the range, exclusive.
    pub end: u64,
}

impl IdRange {
    /// Whether `id` was granted by this range.
    pub fn contains(&self, id: u64) -> bool {
        (self.first..self.end).contains(&id)
    }
}
