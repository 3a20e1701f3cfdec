//! How the commands end: an exit code, and one line for each failure.
//!
//! Scripts rely on the numbers, so a number never changes its meaning.

mod connecting;

use std::fmt;

use xfer_protocol::shown::Shown;
use xfer_terminal::plain;

/// The exit codes of `xfer-mount` and `xfer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 1: any failure without a code of its own.
    Other,
    /// 2: the command line, or a file that it names, is wrong.
    Usage,
    /// 3: the mount point is missing or not a directory.
    MountPointMissing,
    /// 4: the mount point is in use.
    MountPointBusy,
    /// 5: FUSE is missing or this user may not use it.
    NoFuse,
    /// 6: the host was not found, or does not answer on the port.
    Unreachable,
    /// 7: the answer does not come from an xfer server, or from one of an incompatible version.
    NotXfer,
    /// 8: the server's certificate is unknown, has changed, or is not the requested one.
    Key,
    /// 9: wrong user name or password.
    WrongPassword,
    /// 10: too many wrong passwords; blocked for a while.
    Blocked,
    /// 11: the account is mounted elsewhere.
    InUse,
    /// 12: the server is too busy, is stopping, or failed.
    ServerTrouble,
    /// 13: the directory is not an xfer mount of this user.
    NotMounted,
    /// 14: the session ended with changes that the server's disk does not hold.
    Lost,
    /// 15: the session is over, and the server's disk holds all of its changes.
    Over,
    /// 130: a signal ended it at a question, or before the mount was usable.
    Interrupted,
}

impl Exit {
    /// The exit status that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Other => 1,
            Exit::Usage => 2,
            Exit::MountPointMissing => 3,
            Exit::MountPointBusy => 4,
            Exit::NoFuse => 5,
            Exit::Unreachable => 6,
            Exit::NotXfer => 7,
            Exit::Key => 8,
            Exit::WrongPassword => 9,
            Exit::Blocked => 10,
            Exit::InUse => 11,
            Exit::ServerTrouble => 12,
            Exit::NotMounted => 13,
            Exit::Lost => 14,
            Exit::Over => 15,
            Exit::Interrupted => 130,
        }
    }
}

/// Why a command failed: one line for the user, and the exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The problem, and what to do about it; empty if that was told already.
    pub line: String,
}

impl Failure {
    /// A failure with its exit code and line, which is put in [`plain`] words.
    pub fn new(exit: Exit, line: impl Into<String>) -> Failure {
        Failure { exit, line: plain(&line.into()) }
    }

    /// A failure of which lines have told already.
    pub fn told(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    /// A wrong command line, or an error in a file that it names.
    pub fn usage(line: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, line)
    }
}

/// Always one line: control characters in its parts are escaped.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.line).fmt(f)
    }
}

impl std::error::Error for Failure {}
