//! The errors that the tree's rules give, named and numbered as Linux does.

use serde::{Deserialize, Serialize};

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// Why an operation on the tree was refused: a POSIX error number, as on Linux.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, thiserror::Error)]
        #[allow(clippy::upper_case_acronyms)]
        pub enum Errno {
            $(#[doc = $text] #[error($text)] $name,)*
        }

        impl Errno {
            /// The number that Linux gives this error (`errno-base.h`, `errno.h`).
            pub fn number(self) -> i32 {
                match self { $(Errno::$name => $number,)* }
            }

            /// The error with this number on Linux, if it is one of ours.
            pub fn from_number(number: i32) -> Option<Errno> {
                match number { $($number => Some(Errno::$name),)* _ => None }
            }

            /// The error that `Display` writes as this text.
            pub fn from_text(text: &str) -> Option<Errno> {
                match text { $($text => Some(Errno::$name),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    ENXIO = 6, "no data there";
    EBADF = 9, "bad file descriptor";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EBUSY = 16, "busy";
    EEXIST = 17, "exists";
    EXDEV = 18, "cannot be moved there, only copied";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only";
    EMLINK = 31, "too many links";
    ERANGE = 34, "result too large";
    ENAMETOOLONG = 36, "name too long";
    ENOSYS = 38, "not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many symbolic links";
    ENODATA = 61, "no such attribute";
    EOPNOTSUPP = 95, "not supported";
    ENOTCONN = 107, "not connected";
    ETIMEDOUT = 110, "timed out";
    ESTALE = 116, "no longer there";
    EDQUOT = 122, "quota exceeded";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_both_ways() {
        for number in 0..200 {
            if let Some(errno) = Errno::from_number(number) {
                assert_eq!(errno.number(), number);
            }
        }
        assert_eq!(Errno::from_number(122), Some(Errno::EDQUOT));
    }
}
