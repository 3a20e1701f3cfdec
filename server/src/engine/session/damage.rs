//! Telling the administrator which files are damaged: each file once, with its user and path.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use xfer_protocol::{Ino, Name};
use xfer_store::{AccountId, StoreError, Trees};

/// The most files of a session that are reported.
const TOLD_MAX: usize = 1_000;

/// The damaged files of a session that were reported.
#[derive(Default)]
pub(crate) struct Damage(Mutex<BTreeSet<Ino>>);

impl Damage {
    /// Logs that a file can't be read, unless that was logged before. Looks up its path, which
    /// takes long.
    pub(crate) async fn report(
        &self,
        trees: &dyn Trees,
        (user, account): (&Name, AccountId),
        ino: Ino,
        error: &StoreError,
    ) {
        if !self.is_new(ino) {
            return;
        }
        let path = match trees.path(account, ino).await {
            Ok(Some(names)) => shown(&names),
            Ok(None) => format!("node {ino}, which has no name on the disk"),
            Err(error) => format!("node {ino}, whose name cannot be read ({error})"),
        };
        tracing::error!(%user, path, %error, "a file is damaged; bring back a backup");
    }

    fn is_new(&self, ino: Ino) -> bool {
        let mut told = self.0.lock();
        told.len() < TOLD_MAX && told.insert(ino)
    }
}

fn shown(names: &[Name]) -> String {
    names.iter().map(Name::to_string).collect::<Vec<_>>().join("/")
}
