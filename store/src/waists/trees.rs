//! The waist for trees: their rows, the beginning and end of sessions, and commits.

use std::sync::Arc;

use xfer_protocol::message::{DeliveryState, PublicKey};
use xfer_protocol::tree::{Delivery, DeliveryEffect, Kind, Need, Node, Quota, Usage, Xattrs};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, Seq, SessionId, Timestamp};

use crate::{Account, AccountId, Answer, Placements, StoreError};

/// The rows of all trees.
pub trait Trees: Send + Sync {
    /// Begins a session: raises the account's epoch by one, durably, so that batches of older
    /// epochs are refused from now on, and reclaims data that earlier sessions wrote but did not
    /// commit. The present session, if its client may resume it, becomes *dormant*, unless the new
    /// one replaces it. Of more than [`DORMANT_MAX`] dormant sessions, the oldest are forgotten.
    ///
    /// Fails with [`StoreError::Claimed`] for a client if a command has claimed the account. A
    /// client's session must have its seat by then: see
    /// [`Accounts::claim`](crate::Accounts::claim).
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun>;

    /// The account's present session, if its client may resume it: the last one that a client
    /// began or resumed, unless it is dormant or has ended for good, or the account's password was
    /// changed.
    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>>;

    /// The account's session with this name that its client may resume, be it the present one or
    /// dormant.
    fn session_of(&self, account: AccountId, session: SessionId) -> Answer<'_, Option<Resumable>>;

    /// Resumes a session: raises the account's epoch and reclaims data like [`Trees::begin`], but
    /// keeps orphans, granted numbers and reserved room. In the same transaction the secret that
    /// the client showed becomes its last one, and `next` its next one. `None`, and nothing
    /// changes, if that session can't be resumed with this secret (any more).
    ///
    /// A dormant session takes the seat: the present one becomes dormant. If others have applied
    /// ops meanwhile, it keeps no numbers, and the answer says what it has missed. That answer may
    /// be lost: it is given again until the session has applied an op, or its client has shown the
    /// secret that it was given with it.
    ///
    /// Fails with [`StoreError::Claimed`] as [`Trees::begin`] does for a client.
    fn resume(&self, account: AccountId, with: Resumption) -> Answer<'_, Option<Resumed>>;

    /// Loads the needed rows, all from one snapshot, and perhaps others that are likely to be
    /// needed next.
    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found>;

    /// Lists parts of directories; each part has one listing in the answer.
    fn list(&self, account: AccountId, parts: Vec<Part>) -> Answer<'_, Vec<Listing>>;

    /// The names on the way from the tree's root to a node, for messages to people. Takes long.
    /// `None` if no path leads there.
    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>>;

    /// Grants numbers for nodes, contents and deliveries that were never granted before. The
    /// account's present session keeps them when it is resumed.
    fn grant_ids(&self, account: AccountId, count: u64) -> Answer<'_, IdRange>;

    /// Commits batches of several accounts together and gives a verdict on each. The contents that
    /// they refer to must already be durable. A content that is no longer referred to becomes
    /// garbage, which the store removes.
    ///
    /// A failed batch leaves no trace, and the others are durable all the same. If the call as a
    /// whole fails, each batch may or may not be durable.
    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>>;

    /// Ends the account's session of this epoch, once no commit holds a batch of it any more, and
    /// reclaims data that it wrote but did not commit. After [`Fate::Over`] the client can't resume
    /// it.
    fn end(&self, account: AccountId, epoch: Epoch, left: Left, fate: Fate) -> Answer<'_, ()>;

    /// Forgets the present session, which is of this epoch and has no client now: it can't be
    /// resumed any more. Nothing happens if it was resumed meanwhile, or another began.
    fn forget(&self, account: AccountId, epoch: Epoch) -> Answer<'_, ()>;

    /// Forgets a dormant session: its client does not come back. Nothing happens if it is not dormant.
    fn give_up(&self, account: AccountId, session: SessionId) -> Answer<'_, ()>;

    /// Forgets all dormant sessions of an account, and returns their number.
    fn forget_dormant(&self, account: AccountId) -> Answer<'_, usize>;
}

/// The most dormant sessions of an account that are kept.
pub const DORMANT_MAX: usize = 16;

/// The most changed nodes of an account that are kept for its dormant sessions.
pub const CHANGES_MAX: usize = 10_000;

/// The kind of session that begins.
#[expect(clippy::large_enum_variant, reason = "there is one in a session, and it soon goes")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Beginner {
    /// A client's, which it may resume.
    Client {
        /// The new session.
        session: Resumable,
        /// A session, present or dormant, whose client is gone and can't come back.
        replaces: Option<SessionId>,
    },
    /// That of the command that has claimed the account.
    Claimant,
}

/// A session that its client may resume, even after a crash of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resumable {
    /// The session's public name.
    pub session: SessionId,
    /// The key by which the client proves that the session is its own.
    pub key: PublicKey,
    /// The hash of the secret that the client was given last. It may not have received it.
    pub secret: SecretHash,
    /// The hash of the secret that the client showed last; the same as `secret` before it has
    /// resumed the session.
    pub shown: SecretHash,
    /// The client's host, as it named itself.
    pub host: String,
    /// The client's address.
    pub address: String,
    /// The time at which the session began.
    pub since: Timestamp,
    /// The client's last request to resume it that was granted; 0 if none was.
    pub attempt: u64,
    /// The key of the device that began it; `None` if a password did.
    pub device: Option<PublicKey>,
}

impl Resumable {
    /// Whether a request is the client's, and later than all that were granted.
    pub(crate) fn grants(&self, with: &Resumption) -> bool {
        let is_known = with.shown == self.secret || with.shown == self.shown;
        self.session == with.session && is_known && with.attempt > self.attempt
    }
}

/// The SHA-256 of a secret. Secrets are random, so a plain hash can't be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SecretHash(pub [u8; 32]);

/// A client's request to resume a session, once its proof was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resumption {
    /// The session's public name.
    pub session: SessionId,
    /// The hash of the secret that the client has shown.
    pub shown: SecretHash,
    /// The hash of the next secret.
    pub next: SecretHash,
    /// The client's present address.
    pub address: String,
    /// The number of the client's request.
    pub attempt: u64,
}

/// A session that continues, with the state of its account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resumed {
    /// The account after its epoch was raised.
    pub account: Account,
    /// The highest quota that the account has had in the session. The client may have ops that it
    /// checked against it.
    pub quota: Quota,
    /// The numbers that were granted to the session, in order, without ranges that are used up.
    pub granted: Vec<IdRange>,
    /// All smaller numbers are used or skipped by ops that are durable; 0 if none are.
    pub next_id: u64,
    /// What other sessions did while this one was dormant; `None` if they applied no op.
    pub missed: Option<Missed>,
}

/// What a session missed while it was dormant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// The last op before those that it missed. Of the session's own ops, those up to this one were
    /// applied, and none after it.
    pub base: Seq,
    /// What was changed by later ops.
    pub changed: Changed,
}

/// The nodes that other sessions changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Those that were changed or removed, and directories whose entries were: sorted, each once.
    Nodes(Vec<Ino>),
    /// Perhaps all: there were more than [`CHANGES_MAX`].
    All,
}

/// Whether a session that ends can be resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is over for good.
    Over,
    /// Its client may resume it. It is still the present session.
    Resumable,
    /// Its client has given up the seat. The session is dormant now.
    Yielded,
}

/// A new session, with the state of its account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The account after its epoch was raised.
    pub account: Account,
    /// Nodes without a name, left by the previous session. Empty while the account has dormant
    /// sessions, since their clients may have such nodes open and come back.
    pub orphans: Vec<Ino>,
}

/// The rows that a store found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// Nodes; `None` for those that don't exist.
    pub nodes: Vec<(Ino, Option<Node>)>,
    /// The inos that entries refer to; `None` for entries that don't exist.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// Directories whose entries are all among `entries`.
    pub whole: Vec<Ino>,
    /// Deliveries that wait for the account; `None` for those that don't exist.
    pub deliveries: Vec<(DeliveryId, Option<Arc<Delivery>>)>,
}

/// A part of a directory to be listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The directory to list.
    pub directory: Ino,
    /// The name after which the part begins; `None` for the start of the directory.
    pub after: Option<Name>,
    /// The limits of its size.
    pub max: ListMax,
}

/// The limits of one listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListMax {
    /// The most entries.
    pub count: usize,
    /// The approximate size in bytes at which the listing stops.
    pub bytes: usize,
}

/// Consecutive entries of a directory; at least one if there are any.
#[derive(Clone, PartialEq, Debug)]
pub struct Listing {
    /// The entries, sorted by name, with their nodes; large attributes are left out.
    pub rows: Vec<(Name, Ino, Node)>,
    /// Whether the directory ends here.
    pub last: bool,
}

/// The changes that a commit writes for one account.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The account whose tree changes.
    pub account: AccountId,
    /// The session's epoch: if the account has a higher one by now, the whole batch is refused.
    pub epoch: Epoch,
    /// The last op in the batch.
    pub applied: Seq,
    /// The usage of the tree after the batch.
    pub usage: Usage,
    /// All smaller numbers are used or skipped by the session's ops up to `applied`.
    pub next_id: u64,
    /// Changed nodes (`Some`) and removed ones (`None`), each once.
    pub nodes: Vec<(Ino, Option<Arc<Node>>)>,
    /// Changed entries (`Some`) and removed ones (`None`), each once.
    pub entries: Vec<(Ino, Name, Option<Ino>)>,
    /// For each content, once, the change in the number of nodes and deliveries that refer to it.
    /// It includes all deliveries sent; the store subtracts those that don't fit.
    pub references: Vec<(ContentId, i64)>,
    /// The location of the bytes that were made durable for this batch.
    pub placements: Placements,
    /// Contents with space to be reclaimed because it is no longer reachable.
    pub trims: Trims,
    /// Deliveries sent, accepted and declined, in order. A delivery that the recipient's inbox has
    /// no room for is refused, and only the refusal is kept.
    pub deliveries: Vec<DeliveryEffect>,
    /// Deliveries that lost a node of their record. Once the whole record is gone, the delivery's
    /// state is not asked for again.
    pub unrecorded: Vec<DeliveryId>,
    /// The time of the commit.
    pub time: Timestamp,
}

/// Space to be reclaimed in contents that stay, once the change that made it unreachable is
/// durable. It is kept in rows, so that a crash in between loses nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trims {
    /// Sealed contents with parts that fewer rows reach than before. The store finds out whether
    /// any row still does.
    pub shared: Vec<ContentId>,
    /// Contents of one node alone, which has dropped a part. Its session reclaims that part.
    pub own: Vec<(ContentId, Ino)>,
    /// Contents from the `own` of earlier batches whose parts are reclaimed.
    pub done: Vec<ContentId>,
}

/// The verdict on a batch in a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Committed {
    /// It is durable, with these decisions about deliveries.
    Durable(Vec<Decided>),
    /// A later session has the tree; the batch was not written.
    Fenced,
}

/// A delivery that was received, declined, or refused for lack of room; its sender is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// The account that sent it.
    pub sender: AccountId,
    /// The delivery's number.
    pub delivery: DeliveryId,
    /// Its new state.
    pub state: DeliveryState,
}

/// The uncommitted data that a session leaves behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// New contents that certainly appear in no batch that may be durable.
    pub created: Vec<ContentId>,
    /// Contents that may be committed with less than was written to them, and their nodes.
    pub written: Vec<(ContentId, Ino)>,
}

/// The approximate memory that an entry with its node takes, in bytes.
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
