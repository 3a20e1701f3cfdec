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
    /// The number of a node within its tree: stable for ever, never used again.
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
    /// The place of an op in its tree's log. The first op ever is 1; 0 stands for "none yet".
    Seq
}

id! {
    /// How many sessions a tree has had. A commit under an epoch that has passed is refused.
    Epoch
}

impl Ino {
    /// The tree's root.
    pub const ROOT: Ino = Ino(1);
    /// The directory where what others sent arrives: one directory a sender.
    pub const INBOX: Ino = Ino(2);
    /// The directory of mailboxes: one directory a user that can be sent to.
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

/// What names a session on its server, beside its secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

/// Numbers that the server lets a session use for new nodes, contents and deliveries.
///
/// They come from one counter of the server, so a number names one thing on that server for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdRange {
    /// The first number granted.
    pub first: u64,
    /// The first number after it that is not granted.
    pub end: u64,
}

impl IdRange {
    /// Whether `id` was granted by this range.
    pub fn contains(&self, id: u64) -> bool {
        (self.first..self.end).contains(&id)
    }
}
