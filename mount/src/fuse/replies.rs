//! Replies to the kernel that can be errors.

use std::sync::Arc;

use fuser::{
    Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use xfer_client::drive::Client;
use xfer_protocol::{Errno, Ino};

use super::attr::errno;

/// Inode numbers are never reused, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

/// A reply to a change of data: an error is noted for the outbox before it is sent.
pub(super) struct Noting<R> {
    reply: R,
    client: Arc<Client>,
    ino: Ino,
}

impl<R> Noting<R> {
    /// A reply to a change of this file.
    pub(super) fn new(reply: R, client: Arc<Client>, ino: Ino) -> Noting<R> {
        Noting { reply, client, ino }
    }

    /// The wrapped reply.
    pub(super) fn inner(self) -> R {
        self.reply
    }
}

impl<R: Refuse> Refuse for Noting<R> {
    fn refuse(self, errno: Errno) {
        self.client.note_failure(self.ino, errno);
        self.reply.refuse(errno);
    }
}

/// A reply that can be an error: each of fuser's replies is a type of its own.
pub(super) trait Refuse: Send + 'static {
    /// Replies with an error.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, error: Errno) {
                self.error(errno(error));
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);
