//! Looking at a mount that runs, waiting for it, and ending it, from another process.
//!
//! The mount's process listens on a Unix socket in a directory that only its user can enter. A
//! question is one line of JSON; the answer is one or more.
//!
//! Reading order: this file (what is said), `directory` (where sockets are), `claim` (who may mount
//! at a place), `serve` (the mount's side), `call` (one question to it), `find` (which mount a path
//! means), `commands` (the side of `xfer`), `show` (how it looks).

mod call;

mod claim;

mod commands;

mod directory;

mod find;

mod serve;

mod show;

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

pub use claim::Claim;
pub use commands::run;
pub use find::{is_served, predecessor};
pub use serve::Control;

/// A mount that runs, as far as it can be controlled.
pub trait Mounted: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> Status;

    /// Waits until everything that was written before is on the server's disk.
    fn settle(&self) -> Waiting<'_>;

    /// Makes everything durable, then unmounts.
    fn unmount(&self) -> Waiting<'_>;
}

/// A wait that ends well, or with a line that says why not.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// How a mount is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The server, as `host:port`.
    pub server: String,
    /// The account.
    pub user: String,
    /// Where it is mounted now, or was before it was unmounted.
    pub mountpoint: String,
    /// The mount namespace in which that is, as the kernel names it.
    #[serde(default)]
    pub namespace: String,
    /// The device number that the kernel shows for it, as `major:minor`, until it has let go of it.
    #[serde(default)]
    pub device: Option<String>,
    /// `connected`, `draining`, or `lost: ` and why.
    pub state: String,
    /// Whether it is unmounted here, and only kept by another mount namespace or by programs that
    /// use it.
    #[serde(default)]
    pub elsewhere: bool,
    /// Changes that are not durable yet.
    pub pending_ops: u64,
    /// The bytes of data in them.
    pub pending_bytes: u64,
    /// The last change that is on the server's disk.
    pub durable_seq: u64,
    /// The last change that was made here.
    pub applied_seq: u64,
    /// What the tree takes up, in bytes.
    pub used_bytes: u64,
    /// What it may take up, in bytes.
    pub quota_bytes: u64,
    /// How many files, directories and links there are.
    pub used_nodes: u64,
    /// How many there may be.
    pub quota_nodes: u64,
    /// The memory that cached data takes up, in bytes.
    pub cache_bytes: u64,
    /// About how much memory names and attributes take up, in bytes.
    pub tree_bytes: u64,
    /// How long the server takes to answer, in milliseconds, if it was measured.
    pub rtt_ms: Option<f64>,
    /// Deliveries that are not in the inbox yet.
    pub deliveries_waiting: u64,
    /// Those of them that have to wait until there is room in what the quota leaves to arrivals.
    pub deliveries_without_room: u64,
    /// What stands in the outbox and waits until it can be sent, which is tried again by itself.
    pub unsent_waiting: u64,
    /// What stands in the outbox and was not written whole.
    pub unsent_failed: u64,
    /// What stands in the outbox and may not be whole.
    pub unsent_held: u64,
    /// What of these, the first hundred: the path, and the state.
    pub unsent: Vec<(String, String)>,
    /// What went wrong that no program was told.
    pub errors: Vec<String>,
}

/// What a mount is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// Answered by [`Answer::Status`].
    Status,
    /// Answered by [`Answer::Progress`], any number of times, then by how it ended.
    Sync,
    /// Likewise.
    Unmount,
}

/// What it answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// What there is still to do.
    Progress {
        /// Changes.
        pending_ops: u64,
        /// The bytes of data in them.
        pending_bytes: u64,
    },
    /// It is done.
    Done,
    /// It can't be done.
    Failed {
        /// Why.
        why: String,
        /// Whether the session is over, with changes that are not on the server.
        lost: bool,
    },
}

/// The longest line that either side reads, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
