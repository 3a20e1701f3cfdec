//! The reasons why a tree can't apply any more ops.

use std::io::ErrorKind;

use xfer_protocol::{Errno, Seq};
use xfer_store::StoreError;

/// Why a tree can't apply any more ops.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The rules, or the checks around them, refuse the op.
    Refused {
        /// The position of the op.
        seq: Seq,
        /// The error that the rules or the checks gave.
        errno: Errno,
    },
    /// The disk has no room for the op.
    Full {
        /// The position of the op.
        seq: Seq,
    },
    /// The client broke the protocol.
    Protocol(&'static str),
    /// The storage failed.
    Storage(StoreError),
}

impl Halt {
    /// Narrows the reason down for an op at `seq`. A disk that is full is not a failure of the
    /// storage, and neither is an op that needs more than a file there can hold.
    pub(crate) fn of_op(self, seq: Seq) -> Halt {
        match self {
            Halt::Storage(StoreError::Full) => Halt::Full { seq },
            Halt::Storage(StoreError::Io { error, .. })
                if error.kind() == ErrorKind::FileTooLarge =>
            {
                Halt::Refused { seq, errno: Errno::EFBIG }
            }
            other @ (Halt::Refused { .. }
            | Halt::Full { .. }
            | Halt::Protocol(_)
            | Halt::Storage(_)) => other,
        }
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Halt {
        Halt::Storage(error)
    }
}
