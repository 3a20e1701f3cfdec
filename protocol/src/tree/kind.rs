//! The kinds of node.

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::file::FileData;
use crate::Ino;

/// The kinds of node, each with the data that only it has.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(from = "Wire")]
pub enum Kind {
    /// A regular file.
    File(FileData),
    /// A directory.
    Directory {
        /// The directory that contains it; the root contains itself.
        parent: Ino,
        /// The number of its entries.
        entries: u64,
        /// The total length of their names, in bytes.
        name_bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The path that it points to, byte for byte as the program gave it.
        target: Bytes,
    },
    /// A pipe, socket or device.
    Special(SpecialKind),
}

/// The kinds of special file. Devices are stored, but can't be used through a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device.
    CharDevice {
        /// The device number (`st_rdev`).
        rdev: u32,
    },
    /// A block device.
    BlockDevice {
        /// The device number (`st_rdev`).
        rdev: u32,
    },
}

/// A kind as it is on the wire, where each special kind has a number of its own.
#[derive(Deserialize)]
enum Wire {
    File(FileData),
    Directory { parent: Ino, entries: u64, name_bytes: u64 },
    Symlink { target: Bytes },
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

/// The same, borrowed.
#[derive(Serialize)]
enum WireRef<'a> {
    File(&'a FileData),
    Directory { parent: Ino, entries: u64, name_bytes: u64 },
    Symlink { target: &'a Bytes },
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

impl From<Wire> for Kind {
    fn from(wire: Wire) -> Kind {
        match wire {
            Wire::File(data) => Kind::File(data),
            Wire::Directory { parent, entries, name_bytes } => {
                Kind::Directory { parent, entries, name_bytes }
            }
            Wire::Symlink { target } => Kind::Symlink { target },
            Wire::Fifo => Kind::Special(SpecialKind::Fifo),
            Wire::Socket => Kind::Special(SpecialKind::Socket),
            Wire::CharDevice { rdev } => Kind::Special(SpecialKind::CharDevice { rdev }),
            Wire::BlockDevice { rdev } => Kind::Special(SpecialKind::BlockDevice { rdev }),
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = match self {
            Kind::File(data) => WireRef::File(data),
            Kind::Directory { parent, entries, name_bytes } => {
                let (parent, entries, name_bytes) = (*parent, *entries, *name_bytes);
                WireRef::Directory { parent, entries, name_bytes }
            }
            Kind::Symlink { target } => WireRef::Symlink { target },
            Kind::Special(SpecialKind::Fifo) => WireRef::Fifo,
            Kind::Special(SpecialKind::Socket) => WireRef::Socket,
            Kind::Special(SpecialKind::CharDevice { rdev }) => WireRef::CharDevice { rdev: *rdev },
            Kind::Special(SpecialKind::BlockDevice { rdev }) => {
                WireRef::BlockDevice { rdev: *rdev }
            }
        };
        wire.serialize(serializer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec;

    /// Each kind is one number and its data, in the order in which the wire names them.
    fn check(kind: Kind, expected: &[u8]) {
        let bytes = codec::encode(&kind).unwrap();
        assert_eq!(bytes, expected, "{kind:?}");
        assert_eq!(codec::decode::<Kind>(&bytes).unwrap(), kind);
    }

    #[test]
    fn special_kinds_have_numbers_of_their_own_on_the_wire() {
        check(Kind::Special(SpecialKind::Fifo), &[3]);
        check(Kind::Special(SpecialKind::Socket), &[4]);
        check(Kind::Special(SpecialKind::CharDevice { rdev: 7 }), &[5, 7]);
        check(Kind::Special(SpecialKind::BlockDevice { rdev: 8 }), &[6, 8]);
    }
}
