//! Errors of trees as errors of this machine. Trees have Linux's numbers; other systems have numbers of
//! their own for the same names.

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
