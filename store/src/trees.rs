//! The waist for trees: their rows, how a session begins and ends, and commits.

use std::sync::Arc;

use xfer_protocol::message::DeliveryState;
use xfer_protocol::tree::{Delivery, DeliveryEffect, Kind, Need, Node, Usage, Xattrs};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, Seq, Timestamp};

use crate::{Account, AccountId, Answer, Placements, StoreError};

/// Rows of trees.
pub trait Trees: Send + Sync {
    /// Begins a session: raises the account's epoch by one, durably, so that batches of older epochs
    /// are refused from now on, and gives back what earlier sessions wrote and did not commit.
    ///
    /// Fails with [`StoreError::Claimed`] for a client while a command has claimed the account. A
    /// client's session is to have its seat by then: see [`Accounts::claim`](crate::Accounts::claim).
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun>;

    /// The rows that are needed, all as of one moment, and perhaps more that will be needed with them.
    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found>;

    /// Parts of directories, one for each that is asked for.
    fn list(&self, account: AccountId, parts: Vec<Part>) -> Answer<'_, Vec<Listing>>;

    /// The names that lead to a node, from the root of its tree: to tell people which it is. Takes long.
    /// None if nothing leads there.
    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>>;

    /// Grants numbers that were never granted before, for nodes, contents and deliveries.
    fn grant_ids(&self, count: u64) -> Answer<'_, IdRange>;

    /// Writes batches of several accounts together and makes them durable; says what became of each.
    /// The contents they refer to are durable already. A content that nothing refers to any more
    /// becomes garbage, which the store removes.
    ///
    /// Nothing is written of a batch that fails, and the others are durable all the same. If all fails,
    /// it is not known of any of them whether it is durable.
    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>>;

    /// Ends the account's session of this epoch, of which nothing is in a commit any more: gives back
    /// what it wrote and did not commit.
    fn end(&self, account: AccountId, epoch: Epoch, left: Left) -> Answer<'_, ()>;
}

/// Who begins a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginner {
    /// A client.
    Client,
    /// The command that has claimed the account.
    Claimant,
}

/// A session that has begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The account, as it is from now on.
    pub account: Account,
    /// Nodes without a name, which the session before left.
    pub orphans: Vec<Ino>,
}

/// Rows that a store found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// Nodes, or that there is none.
    pub nodes: Vec<(Ino, Option<Node>)>,
    /// What entries of directories refer to, or that there is none.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// Directories of which all entries are among `entries`.
    pub whole: Vec<Ino>,
    /// Deliveries that wait for the account, or that there is none.
    pub deliveries: Vec<(DeliveryId, Option<Arc<Delivery>>)>,
}

/// A part of a directory that is to be listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The directory.
    pub directory: Ino,
    /// The name after which it begins.
    pub after: Option<Name>,
    /// Where it ends.
    pub max: ListMax,
}

/// How much is listed at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListMax {
    /// The most entries.
    pub count: usize,
    /// The bytes beyond which no more are added, about.
    pub bytes: usize,
}

/// Some entries of a directory, one at least if there is one.
#[derive(Clone, PartialEq, Debug)]
pub struct Listing {
    /// The entries, in order of names, with their nodes; large attributes are left out.
    pub rows: Vec<(Name, Ino, Node)>,
    /// Whether there are none after these.
    pub last: bool,
}

/// What a commit writes for one account.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose.
    pub account: AccountId,
    /// The session's epoch: if the account's is higher by now, the batch is refused as a whole.
    pub epoch: Epoch,
    /// The last op in it.
    pub applied: Seq,
    /// What the tree takes up now.
    pub usage: Usage,
    /// Nodes that changed (`Some`) or went (`None`), each once.
    pub nodes: Vec<(Ino, Option<Arc<Node>>)>,
    /// Entries that changed (`Some`) or went (`None`), each once.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// How many more nodes and deliveries refer to a content, each once. Deliveries that turn out not
    /// to fit are counted here like others; the store takes them off.
    pub references: Vec<(ContentId, i64)>,
    /// Where the bytes lie that were made durable for this batch.
    pub placements: Placements,
    /// What space is to be given back that nothing reaches any more.
    pub trims: Trims,
    /// Deliveries sent, accepted and declined, in order. What the recipient's inbox has no room for is
    /// refused: only that is kept of it.
    pub deliveries: Vec<DeliveryEffect>,
    /// Deliveries that lost a node of their record: when none is left, nobody asks about them.
    pub unrecorded: Vec<DeliveryId>,
    /// When it is committed.
    pub time: Timestamp,
}

/// Space in contents that stay, to be given back once what made it unreachable is durable. Kept in
/// rows, so that a crash in between loses nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trims {
    /// Sealed contents of which something is reached by fewer than before, by nothing any more
    /// perhaps: the store finds out.
    pub shared: Vec<ContentId>,
    /// Contents that one node alone has, which has less of it now. Its session gives that back.
    pub own: Vec<(ContentId, Ino)>,
    /// Those of an earlier batch's `own` for which that is done.
    pub done: Vec<ContentId>,
}

/// What became of a batch in a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Committed {
    /// It is durable, and with it what was decided about deliveries.
    Durable(Vec<Decided>),
    /// A later session owns the tree; nothing of the batch was written.
    Fenced,
}

/// A delivery that was received, declined, or turned away for want of room: its sender is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// Who sent it.
    pub sender: AccountId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// What became of it.
    pub state: DeliveryState,
}

/// What a session leaves that it did not commit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// Contents that came into being and are surely in nothing that may be durable.
    pub created: Vec<ContentId>,
    /// Contents that may be committed with less than what was written to them, and their nodes.
    pub written: Vec<(ContentId, Ino)>,
}

/// What an entry with its node takes up in memory, in bytes, about.
pub(crate) fn weight(name: &Name, node: &Node) -> usize {
    let beside = match &node.kind {
        Kind::File(data) => data.extents.runs() * size_of::<(u64, u64)>(),
        Kind::Symlink { target } => target.len(),
        Kind::Directory { .. } | Kind::Special(_) => 0,
    };
    let xattrs = match &node.xattrs {
        Xattrs::All(_) => node.xattrs.bytes() as usize,
        Xattrs::None | Xattrs::LeftOut { .. } => 0,
    };
    size_of::<Node>() + name.as_bytes().len() + beside + xattrs
}
