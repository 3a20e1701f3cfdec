//! Bugs planted on one side, to show that the comparison finds them.

use std::io;

use rustix::fs as sys;
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, XattrFlags};
use serde::{Deserialize, Serialize};

use super::operation::{LockKind, Moment, Operation, Target};
use super::side::Side;

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Plant {
    /// A write stores a wrong byte.
    Bytes,
    /// A write to a mapping is lost.
    Mapped,
    /// A change of mode sets a wrong mode.
    Mode,
    /// A change of owner changes only the group.
    Owner,
    /// A missing name gives a wrong error.
    Error,
    /// An extended attribute gets a wrong value.
    Xattr,
    /// A time is set one nanosecond late.
    Time,
    /// A change of mode also marks the data as changed.
    Mark,
    /// A hard link is a copy.
    Link,
    /// A new directory comes with a second one.
    Name,
    /// A lock held by another process is granted.
    Lock,
    /// A listing shows an entry twice.
    Listing,
}

impl Plant {
    /// All planted bugs.
    pub const ALL: [Plant; 12] = [
        Plant::Bytes,
        Plant::Mapped,
        Plant::Mode,
        Plant::Owner,
        Plant::Error,
        Plant::Xattr,
        Plant::Time,
        Plant::Mark,
        Plant::Link,
        Plant::Name,
        Plant::Lock,
        Plant::Listing,
    ];

    /// Applies the bug after an operation; returns the operation's result with the bug.
    pub(super) fn spoil(
        self,
        side: &mut Side,
        operation: &Operation,
        result: Result<String, i32>,
    ) -> Result<String, i32> {
        match (self, operation, &result) {
            (Plant::Error, Operation::Rmdir { .. }, Err(libc::ENOENT)) => Err(libc::ENOTDIR),
            (
                Plant::Lock,
                Operation::Flock { kind: LockKind::Exclusive, .. },
                Err(libc::EAGAIN),
            ) => Ok(String::new()),
            (_, _, Ok(_)) => {
                // If this operation can't be spoiled, a later one will be.
                let _ = self.spoil_what_was_done(side, operation);
                result
            }
            (_, _, Err(_)) => result,
        }
    }

    fn spoil_what_was_done(self, side: &mut Side, operation: &Operation) -> io::Result<()> {
        match (self, operation) {
            (Plant::Bytes, Operation::Write { slot, at: Some(at), data }) if data.len > 0 => {
                rustix::io::pwrite(side.file(*slot)?, b"?", *at)?;
            }
            (Plant::Mapped, Operation::WriteMapped { map, offset, sync: false, .. }) => {
                if let Some(mapping) = &mut side.maps[*map] {
                    mapping.lose(*offset)?;
                }
            }
            (Plant::Mode, Operation::Chmod { target: Target::Path { path, .. }, mode }) => {
                let mode = Mode::from_bits_retain(mode ^ 0o001);
                sys::chmodat(&side.root, path, mode, AtFlags::empty())?;
            }
            (Plant::Mark, Operation::Chmod { target: Target::Path { path, .. }, .. }) => {
                set_mtime(side, path, Timespec { tv_sec: 0, tv_nsec: sys::UTIME_NOW })?;
            }
            (
                Plant::Owner,
                Operation::Chown { target: Target::Path { path, .. }, uid: Some(_), .. },
            ) => {
                let other = Some(sys::Uid::from_raw(super::draw::IDS[3] + 1));
                sys::chownat(&side.root, path, other, None, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            (Plant::Xattr, Operation::SetXattr { target: Target::Path { path, .. }, name, .. }) => {
                sys::setxattr(side.full(path), name, b"?", XattrFlags::empty())?;
            }
            (
                Plant::Time,
                Operation::SetTimes {
                    target: Target::Path { path, follow: true },
                    mtime: Moment::At { second, nanosecond },
                    ..
                },
            ) => set_mtime(side, path, Timespec { tv_sec: *second, tv_nsec: nanosecond + 1 })?,
            (Plant::Link, Operation::Link { from: Target::Path { path, .. }, to }) => {
                let (from, to) = (side.full(path), side.full(to));
                // Opening a FIFO would wait for somebody to open its other end.
                if from.is_file() {
                    std::fs::remove_file(&to)?;
                    std::fs::copy(from, to)?;
                }
            }
            (Plant::Name, Operation::Mkdir { path, .. }) => {
                std::fs::create_dir(side.full(path.trim_end_matches('/')).with_extension("x"))?;
            }
            (Plant::Listing, Operation::OpenDirectory { directory, .. }) => {
                if let Some(directory) = &mut side.directories[*directory] {
                    directory.show_twice();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn set_mtime(side: &Side, path: &str, time: Timespec) -> io::Result<()> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT };
    let times = Timestamps { last_access, last_modification: time };
    Ok(sys::utimensat(&side.root, path, &times, AtFlags::empty())?)
}
