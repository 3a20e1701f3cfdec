//! Bugs that can be planted in a client, to see that tests notice them. The programs that users install
//! are built without this.

use super::state::Core;

/// A bug of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// What is cached of a file's bytes is kept although another client has changed them meanwhile.
    KeepsOldBytes,
    /// A fetched node is followed over the known one, which may be newer.
    FollowsOldRows,
}

impl Core {
    /// Plants a bug.
    pub(crate) fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }

    /// Whether a bug is planted.
    pub(in crate::core) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}
