//! Ops: the entries of a tree's log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::kind::SpecialKind;

use crate::{ContentId, DeliveryId, Ino, Name, Timestamp};

/// One change to a tree, with the time at which a program made it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// The time that the op gives to the nodes that it changes.
    pub time: Timestamp,
    /// The change itself.
    pub action: Action,
}

/// The owner of a new node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The owner's user number.
    pub uid: u32,
    /// The group's number. A parent directory with the set-group-id bit overrides it.
    pub gid: u32,
}

/// The changes that an op can make.
///
/// The client chooses the numbers `fresh`, `delivery` and the `ino` of a new node from the
/// range that the server granted. An op that needs a new content gives it the number
/// `fresh`.
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
    /// Changes attributes; those that are `None` stay.
    SetAttr {
        ino: Ino,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
        /// Whether to clear the set-id bits, as when an unprivileged program changes the size.
        clear_set_id: bool,
        fresh: ContentId,
    },
    /// Sets an extended attribute.
    SetXattr { ino: Ino, name: Bytes, value: Bytes, mode: XattrMode },
    /// Removes an extended attribute.
    RemoveXattr { ino: Ino, name: Bytes },
    /// Writes `len` bytes, which travel in the frame's payload.
    Write { ino: Ino, offset: u64, len: u32, clear_set_id: bool, fresh: ContentId },
    /// Allocates, frees or zeroes a range.
    Fallocate { ino: Ino, offset: u64, len: u64, mode: FallocateMode, fresh: ContentId },
    /// Copies a range of a file into another file, or elsewhere into the same one. A copy that
    /// continues from the file's start shares the content instead of copying bytes.
    CopyRange { from: Ino, from_offset: u64, to: Ino, to_offset: u64, len: u64, fresh: ContentId },
    /// Removes a node that has no name and that no program has open any more.
    ForgetOrphan { ino: Ino },
    /// Makes the mailbox `outbox/<user>`, for files to be sent to that user.
    Mailbox { user: Name, ino: Ino, owner: Owner },
    /// Sends `outbox/<to>/<name>`, which becomes a record there. `from` is the tree's own user. A
    /// record may be sent again; it then belongs to the new delivery.
    Send { to: Name, name: Name, from: Name, delivery: DeliveryId },
    /// Turns a record back into an ordinary file, to be changed and sent again. The delivery stays.
    Revise { ino: Ino },
    /// Accepts a delivery into the tree. Its items take consecutive numbers from `first` on.
    Accept { delivery: DeliveryId, parent: Ino, name: Name, first: Ino, owner: Owner },
    /// Declines a delivery.
    Decline { delivery: DeliveryId },
}

/// What a rename does with an existing target (renameat2(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replaces it, if it can be replaced.
    Replace,
    /// Fails with `EEXIST` (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swaps the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// Whether the attribute may already exist (setxattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum XattrMode {
    /// It may or may not exist.
    Either,
    /// It must not exist: `EEXIST` (`XATTR_CREATE`).
    Create,
    /// It must exist: `ENODATA` (`XATTR_REPLACE`).
    Replace,
}

/// What fallocate(2) does with a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FallocateMode {
    /// Allocates it; the file grows to cover it.
    Allocate,
    /// Allocates it; the size stays (`FALLOC_FL_KEEP_SIZE`).
    AllocateKeepSize,
    /// Frees it (`FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`).
    PunchHole,
    /// Allocates and zeroes it; the file grows to cover it (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// Allocates and zeroes it; the size stays (`FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`).
    ZeroKeepSize,
}
