//! Ops: the entries of a tree's log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ContentId, DeliveryId, Ino, Name, Timestamp};

/// One change to a tree, with the moment its program made it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// The moment that times of nodes become.
    pub time: Timestamp,
    /// What is done.
    pub action: Action,
}

/// Who a new node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number. In a directory with the set-group-id bit, that directory's group wins.
    pub gid: u32,
}

/// What is done to the tree.
///
/// Numbers called `ino` of a node that does not exist yet, `fresh` and `delivery` are chosen by the
/// client from the range that the server granted. `fresh` becomes the number of a content if the
/// op needs a new one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields' names say it all; the variants say the rest")]
pub enum Action {
    /// Makes an empty regular file.
    Create { parent: Ino, name: Name, ino: Ino, mode: u16, owner: Owner },
    /// Makes a directory.
    Mkdir { parent: Ino, name: Name, ino: Ino, mode: u16, owner: Owner },
    /// Makes a symbolic link.
    Symlink { parent: Ino, name: Name, ino: Ino, target: Bytes, owner: Owner },
    /// Makes a pipe, a socket or a device.
    Mknod { parent: Ino, name: Name, ino: Ino, mode: u16, owner: Owner, kind: SpecialKind },
    /// Gives a node one more name.
    Link { ino: Ino, parent: Ino, name: Name },
    /// Takes a name from a node that is not a directory.
    Unlink { parent: Ino, name: Name },
    /// Removes an empty directory.
    Rmdir { parent: Ino, name: Name },
    /// Moves a name.
    Rename { from: (Ino, Name), to: (Ino, Name), mode: RenameMode },
    /// Changes attributes; what is `None` stays.
    SetAttr {
        ino: Ino,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
        /// Whether the set-id bits go, as for a change of size by an unprivileged program.
        clear_set_id: bool,
        fresh: ContentId,
    },
    /// Sets an extended attribute.
    SetXattr { ino: Ino, name: Bytes, value: Bytes, mode: XattrMode },
    /// Removes an extended attribute.
    RemoveXattr { ino: Ino, name: Bytes },
    /// Writes `len` bytes, which travel as payload beside the op.
    Write { ino: Ino, offset: u64, len: u32, clear_set_id: bool, fresh: ContentId },
    /// Allocates, frees or zeroes a range.
    Fallocate { ino: Ino, offset: u64, len: u64, mode: FallocateMode, fresh: ContentId },
    /// Copies a range of one file into another (or elsewhere into the same one). A copy that
    /// continues from a file's start shares the content instead of copying bytes.
    CopyRange { from: Ino, from_offset: u64, to: Ino, to_offset: u64, len: u64, fresh: ContentId },
    /// Removes a node that has no name and that no program has open any more.
    ForgetOrphan { ino: Ino },
    /// Makes the mailbox `outbox/<user>`, for files to that user.
    Mailbox { user: Name, ino: Ino, owner: Owner },
    /// Sends `outbox/<to>/<name>`; from then on it is a record there. `from` is the tree's own user.
    /// A record may be sent once more: it becomes that of the new delivery.
    Send { to: Name, name: Name, from: Name, delivery: DeliveryId },
    /// Makes an ordinary file of a record, to be changed and sent anew. What was sent stays sent.
    Revise { ino: Ino },
    /// Places a delivery in the tree. Its items get the numbers from `first` on, in order.
    Accept { delivery: DeliveryId, parent: Ino, name: Name, first: Ino, owner: Owner },
    /// Turns a delivery away.
    Decline { delivery: DeliveryId },
}

/// The kinds of special file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Its device number.
        rdev: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its device number.
        rdev: u32,
    },
}

/// What a rename does with a target that exists (renameat2(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails with `EEXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// Whether the attribute may exist (setxattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum XattrMode {
    /// May or may not.
    Either,
    /// Must not: `EEXIST` (`XATTR_CREATE`).
    Create,
    /// Must: `ENODATA` (`XATTR_REPLACE`).
    Replace,
}

/// What is done with a range (fallocate(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FallocateMode {
    /// Allocates; the file grows to cover it.
    Allocate,
    /// Allocates; the size stays (`FALLOC_FL_KEEP_SIZE`).
    AllocateKeepSize,
    /// Frees (`FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`).
    PunchHole,
    /// Allocates and zeroes; the file grows to cover it (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// Allocates and zeroes; the size stays (`FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`).
    ZeroKeepSize,
}
