//! Inspecting a running mount, waiting for it, and ending it, from another process.
//!
//! The mount's process listens on a Unix socket in a directory that only its user can enter. A
//! question is one line of JSON; the answer is one line or more.
//!
//! Reading order: this file (the messages), `directory` (where sockets are), `claim` (one process
//! at a time mounts at a place), `serve` (the mount's side), `call` (one question to it), `find`
//! (which mount a path refers to), `node` (what the kernel does not tell of a node), `unserved` (what to
//! say if to none that runs), `leaving` (before an unmount), `commands` (the side of `xfer`), `status` (`xfer status`), `stats` (`xfer stats`), `show` (output for people).

mod call;
mod claim;
mod commands;
mod directory;
mod find;
mod leaving;
mod node;
mod serve;
mod show;
mod stats;
mod status;
mod unserved;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use xfer_client::core::Order;
use xfer_protocol::Errno;

use crate::process::exit::Failure;

pub use claim::Claim;
pub use commands::{abandon, mount_of, sync, unmount};
pub use find::{inbox_news, is_served, mount_around, of_account, predecessor};
pub use node::{attribute, order};
pub use serve::Control;
pub use stats::{OfKind, Stats, run as show_stats};
pub use status::run as show_status;

/// A running mount, as its control socket sees it.
pub trait Mounted: Send + Sync + 'static {
    /// The mount's present status.
    fn status(&self) -> Status;

    /// The mount's counters.
    fn stats(&self) -> Stats;

    /// Waits until all earlier writes are on the server's disk.
    fn sync(&self) -> Waiting<'_>;

    /// Keeps what is not durable on this machine, and unmounts without the server.
    fn abandon(&self) -> Waiting<'_>;

    /// Makes everything durable, then unmounts. If this is dropped before everything is durable, the mount goes on.
    fn unmount(&self) -> Waiting<'_>;

    /// Waits until the number that rises whenever something may have arrived in the inbox is another than
    /// `seen`; `None` once the session is over.
    fn inbox_news(&self, seen: Option<u64>) -> News<'_>;

    /// An extended attribute of the node at a path, which leads from the root of the tree; `None` if it
    /// has none of that name.
    fn attribute(&self, path: PathBuf, name: String) -> OfNode<'_, Option<String>>;

    /// Gives an order for something in a mailbox.
    fn order(&self, path: PathBuf, order: Order) -> OfNode<'_, ()>;
}

/// A wait that ends in success or in a failure with its one line.
pub type Waiting<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// Something that is asked of a node.
pub type OfNode<'a, T> = Pin<Box<dyn Future<Output = Result<T, Errno>> + Send + 'a>>;

/// A wait for news of the inbox.
pub type News<'a> = Pin<Box<dyn Future<Output = Option<u64>> + Send + 'a>>;

/// The status of a mount, as `xfer status --json` prints it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The server, as `host:port`.
    pub server: String,
    /// The account's name.
    pub user: String,
    /// Whether it logged in by this machine's key.
    #[serde(default)]
    pub by_key: bool,
    /// That key. `None` also of a mount of an earlier version.
    #[serde(default)]
    pub key: Option<String>,
    /// The place where it is mounted, or was until it was unmounted.
    pub mountpoint: String,
    /// The mount namespace of `mountpoint`, as the kernel names it.
    #[serde(default)]
    pub namespace: String,
    /// The device number that the kernel shows for it, as `major:minor`, until the kernel releases it.
    #[serde(default)]
    pub device: Option<String>,
    /// `connected`, `disconnected`, `dormant` (another mount has the tree), `draining`, or `lost: ` and
    /// the reason.
    pub state: String,
    /// How the connection was lost, while there is none.
    #[serde(default)]
    pub disconnected: Option<Disconnected>,
    /// The other mount that has the tree, or asks for it, if that is known.
    #[serde(default)]
    pub other: Option<String>,
    /// Whether it is unmounted here and only another mount namespace, or programs that use it, keep
    /// it alive.
    #[serde(default)]
    pub elsewhere: bool,
    /// The number of changes that are not durable yet.
    pub pending_ops: u64,
    /// The bytes of data in those changes.
    pub pending_bytes: u64,
    /// Whether they wait for room on the server's disk, which was full when they got there.
    #[serde(default)]
    pub waits_for_room: bool,
    /// Since when programs rely on changes that are on this machine's disk only, as in RFC 3339.
    #[serde(default)]
    pub kept_here_since: Option<String>,
    /// The seq of the last change that is on the server's disk.
    pub durable_seq: u64,
    /// The seq of the last change made by this mount.
    pub applied_seq: u64,
    /// The size of the tree, in bytes.
    pub used_bytes: u64,
    /// The quota, in bytes.
    pub quota_bytes: u64,
    /// The number of files, directories and links.
    pub used_nodes: u64,
    /// The quota on `used_nodes`.
    pub quota_nodes: u64,
    /// The memory that cached data takes up, in bytes.
    pub cache_bytes: u64,
    /// The approximate memory that names and attributes take up, in bytes.
    pub tree_bytes: u64,
    /// The round-trip time to the server, in milliseconds, once it has been measured.
    pub rtt_ms: Option<f64>,
    /// The number of deliveries that are not in the inbox yet.
    pub deliveries_waiting: u64,
    /// The number of them that don't fit in the quota for arrivals, and wait for room.
    pub deliveries_without_room: u64,
    /// The number of items in the outbox that wait to be sent; this is retried automatically.
    pub unsent_waiting: u64,
    /// The number of items in the outbox that were not completely written.
    pub unsent_failed: u64,
    /// The number of items in the outbox that may be incomplete.
    pub unsent_held: u64,
    /// The first hundred of these items: each with its path and its state.
    pub unsent: Vec<(String, String)>,
    /// The number of the account's rescues that the user has who asks, but for those wholly applied.
    #[serde(default)]
    pub rescues: u64,
    /// Errors that no program was told about.
    pub errors: Vec<String>,
}

impl Status {
    /// The account and its server: `user@host:port`.
    fn account(&self) -> String {
        format!("{}@{}", self.user, self.server)
    }

    /// Whether its session is over.
    pub fn is_lost(&self) -> bool {
        self.state.starts_with("lost")
    }
}

/// How a connection was lost, and what is done about it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Disconnected {
    /// How long ago that was noticed, in seconds.
    pub seconds: f64,
    /// How it was lost.
    pub why: String,
    /// Why the last try to reach the server failed, if there was one.
    pub last_try: Option<String>,
    /// When the next try is, in seconds from now; 0 while one is made.
    pub next_try_seconds: f64,
}

/// The state of a mount while another one has the tree.
pub const DORMANT: &str = "dormant";

/// A question to a mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// Answered by one [`Answer::Status`].
    Status,
    /// Answered by one [`Answer::Stats`].
    Stats,
    /// Answered by any number of [`Answer::Progress`], then [`Answer::Done`] or [`Answer::Failed`].
    Sync,
    /// Answered like `Sync`. If the asker goes away before everything is durable, it stays mounted.
    Unmount,
    /// Unmounts without the server. Answered like `Sync`.
    Abandon,
    /// Answered by one [`Answer::InboxNews`], once that is another number than this one; or by
    /// [`Answer::Failed`].
    InboxNews(Option<u64>),
    /// Answered by one [`Answer::OfNode`].
    Attribute {
        /// The node's path, in hexadecimal digits.
        path: String,
        name: String,
    },
    /// Answered by one [`Answer::OfNode`].
    Order {
        /// The node's path, in hexadecimal digits.
        path: String,
        /// [`Order::value`].
        order: String,
    },
}

/// One line of the answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The mount's present status.
    Status(Box<Status>),
    /// The mount's counters.
    Stats(Box<Stats>),
    /// The work that is left.
    Progress {
        /// The number of changes that are not durable yet.
        pending_ops: u64,
        /// The bytes of data in those changes.
        pending_bytes: u64,
        /// How the connection was lost, while there is none.
        #[serde(default)]
        disconnected: Option<Disconnected>,
    },
    /// A number that rises whenever something may have arrived in the inbox.
    InboxNews(u64),
    /// What was asked of a node, or the number of the error.
    OfNode(Result<Option<String>, i32>),
    /// The work is done.
    Done,
    /// The work can't be done.
    Failed {
        /// The line to show to the user.
        why: String,
        /// Whether the session is over with changes that never reached the server's disk.
        lost: bool,
    },
}

/// The longest line that either side reads, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
