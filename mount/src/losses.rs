//! What a session that ends does not get to the server, in words.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use xfer_client::core::{self, Ending};
use xfer_protocol::message::Refusal;
use xfer_protocol::size;

use crate::process::exit::{Exit, Failure};

/// What becomes of changes that did not reach the server.
#[derive(Default)]
pub struct Rest {
    /// Whether the next mount sends them, but for those that are rescued.
    pub waits: bool,
    /// Where those are rescued.
    pub rescued: Option<PathBuf>,
    /// Why not all of those are rescued.
    pub lost: Option<String>,
}

impl Rest {
    /// Whether what the mount kept offline has something that is nowhere else.
    pub fn needs_journal(&self) -> bool {
        self.waits || self.lost.is_some()
    }
}

impl Display for Rest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Rest { waits, rescued, lost } = self;
        let mut parts = Vec::new();
        if *waits {
            parts.push("waits on this machine, and is sent by the next mount".to_owned());
        }
        if let Some(path) = rescued {
            let part = format!("is kept in {} (see: xfer rescue list)", path.display());
            parts.push(if *waits { format!("except what {part}") } else { part });
        }
        match (lost, parts.is_empty()) {
            (Some(why), true) => parts.push(format!("is lost, since it cannot be kept: {why}")),
            (Some(why), false) => parts.push(format!("except what is lost: {why}")),
            (None, _) => {}
        }
        f.write_str(&parts.join(", "))
    }
}

/// That changes were kept at this path, since another mount had changed the tree.
pub fn displaced(path: &Path) -> Failure {
    let (why, path) = (Ending::Displaced, path.display());
    let line = format!("{why}; what is not on the server is kept in {path}; see: xfer rescue list");
    Failure::new(Exit::Lost, line)
}

/// Whether the session is over because the server was put back to a backup. Then it lacks what had
/// been durable, too.
pub fn was_put_back(status: &core::Status) -> bool {
    matches!(status.ending(), Some(Ending::Refused(Refusal::RolledBack)))
}

/// What the server does not have of a session that is over.
pub fn missing(status: &core::Status) -> String {
    match (status.pending_ops, status.pending_bytes) {
        (0, _) if was_put_back(status) => {
            "what was changed since then is not on the server any more".to_owned()
        }
        (0, _) => "everything is on the server".to_owned(),
        (ops, bytes) => format!("not on the server: {}", size::changes(ops, bytes)),
    }
}

/// Why a session is over, and what that means for the mount at `place`.
pub fn loss(status: &core::Status, place: &Path) -> String {
    let reason = status.ending().map_or_else(|| "unknown".to_owned(), Ending::to_string);
    let missing = missing(status);
    format!(
        "the session is over: {reason}; {missing}; programs get errors until it is unmounted: \
         xfer unmount {}",
        place.display(),
    )
}
