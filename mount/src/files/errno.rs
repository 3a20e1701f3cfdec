//! Errors of trees as errors of this machine, and in words. Trees have Linux's numbers; other systems have
//! numbers of their own for the same names.

use std::io;

use rustix::io::Errno;
use xfer_protocol::Errno as OfTree;

macro_rules! same {
    ($($of_tree:ident = $here:ident),* $(,)?) => {
        /// An error of a tree, as this machine has it.
        pub(super) fn here(errno: OfTree) -> Errno {
            match errno { $(OfTree::$of_tree => Errno::$here,)* }
        }

        /// An error of this machine, as trees have it, if they do.
        pub(super) fn of_tree(errno: Errno) -> Option<OfTree> {
            $(if errno == Errno::$here { return Some(OfTree::$of_tree); })*
            None
        }
    };
}

same! {
    EPERM = PERM,
    ENOENT = NOENT,
    EINTR = INTR,
    EIO = IO,
    ENXIO = NXIO,
    EBADF = BADF,
    ENOMEM = NOMEM,
    EACCES = ACCESS,
    EBUSY = BUSY,
    EEXIST = EXIST,
    EXDEV = XDEV,
    ENODEV = NODEV,
    ENOTDIR = NOTDIR,
    EISDIR = ISDIR,
    EINVAL = INVAL,
    EFBIG = FBIG,
    ENOSPC = NOSPC,
    EROFS = ROFS,
    EMLINK = MLINK,
    ERANGE = RANGE,
    ENAMETOOLONG = NAMETOOLONG,
    ENOSYS = NOSYS,
    ENOTEMPTY = NOTEMPTY,
    ELOOP = LOOP,
    ENODATA = NODATA,
    EOPNOTSUPP = OPNOTSUPP,
    ENOTCONN = NOTCONN,
    ETIMEDOUT = TIMEDOUT,
    ESTALE = STALE,
    EDQUOT = DQUOT,
}

/// The error of a system call.
pub(super) fn of_io(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Why something failed: the error, if it was one, and the words for it.
#[derive(Debug)]
pub(super) struct Why {
    errno: Option<Errno>,
    words: String,
}

impl Why {
    /// An error with words that fit what was being done.
    pub(super) fn with_words(errno: Errno, words: impl Into<String>) -> Why {
        Why { errno: Some(errno), words: words.into() }
    }

    /// Whether it was one of these errors.
    pub(super) fn is_any_of(&self, errnos: &[Errno]) -> bool {
        self.errno.is_some_and(|errno| errnos.contains(&errno))
    }

    /// Whether there was no room.
    pub(super) fn is_of_room(&self) -> bool {
        self.is_any_of(&[Errno::DQUOT, Errno::NOSPC])
    }

    pub(super) fn words(&self) -> &str {
        &self.words
    }
}

impl From<Errno> for Why {
    fn from(errno: Errno) -> Why {
        Why::with_words(errno, words(errno))
    }
}

impl From<String> for Why {
    fn from(words: String) -> Why {
        Why { errno: None, words }
    }
}

impl From<&str> for Why {
    fn from(words: &str) -> Why {
        Why::from(words.to_owned())
    }
}

/// An error as users read it.
pub(super) fn words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::ISDIR => "it is a directory".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::INVAL => "it is not a regular file".to_owned(),
        Errno::EXIST => "it exists already".to_owned(),
        Errno::DQUOT => {
            "the quota is exceeded; remove something, or ask for a larger quota".to_owned()
        }
        Errno::NOSPC => "no space is left on the disk".to_owned(),
        Errno::TIMEDOUT => "the server does not answer".to_owned(),
        Errno::BUSY => "it is in use, or another client has the tree".to_owned(),
        Errno::NOTCONN => "its session is over".to_owned(),
        Errno::CANCELED => "not all of it could be copied".to_owned(),
        other => match of_tree(other) {
            Some(known) => known.to_string(),
            None => {
                let text = io::Error::from(other).to_string();
                text.split(" (os error").next().unwrap_or(&text).to_lowercase()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_tree_is_one_here_and_on_linux_of_the_same_number() {
        let mut count = 0;
        for errno in (0..200).filter_map(OfTree::from_number) {
            assert_eq!(of_tree(here(errno)), Some(errno));
            #[cfg(target_os = "linux")]
            assert_eq!(here(errno).raw_os_error(), errno.number());
            count += 1;
        }
        assert_eq!(count, 30);
    }
}
