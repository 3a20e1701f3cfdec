//! Why a tree can't go on.

use std::io::ErrorKind;

use xfer_protocol::{Errno, Seq};
use xfer_store::StoreError;

/// Why a tree can't go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The rules, or the checks around them, refuse the op.
    Refused {
        /// The op.
        seq: Seq,
        /// Why.
        errno: Errno,
    },
    /// The client broke the protocol.
    Protocol(&'static str),
    /// The storage failed.
    Storage(StoreError),
}

impl Halt {
    /// The same for an op at `seq`: that it asks for more than the disk has, or than a file can have there,
    /// is no failure.
    pub(crate) fn of_op(self, seq: Seq) -> Halt {
        match self {
            Halt::Storage(StoreError::Full) => Halt::Refused { seq, errno: Errno::ENOSPC },
            Halt::Storage(StoreError::Io { error, .. })
                if error.kind() == ErrorKind::FileTooLarge =>
            {
                Halt::Refused { seq, errno: Errno::EFBIG }
            }
            other @ (Halt::Refused { .. } | Halt::Protocol(_) | Halt::Storage(_)) => other,
        }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Halt {
        Halt::Storage(error)
    }
}
