//! The two narrow waists beneath the server: where rows live, and where bytes live.
//!
//! Everything here is synchronous and is called from threads that may block. A store knows nothing
//! of the tree's rules: it keeps the rows it is given.
//!
//! **Invariant:** a name from the wire is a value in a row, never a path on the host; a content is
//! found by its number alone.

pub mod files;

pub mod lock;

mod place;

pub mod claim;

pub mod sqlite;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

pub use claim::Claim;
pub use files::FileStore;
pub use lock::StoreLock;
pub use sqlite::SqliteStore;
use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::{Delivery, DeliveryEffect, Node, Quota, Room, Usage};
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, Seq, Timestamp};

/// The number of an account within its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountId(pub u64);

/// An account as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Its name.
    pub name: Name,
    /// The password's Argon2id hash, as a PHC string.
    pub password: String,
    /// What its tree may take up.
    pub quota: Quota,
    /// What may wait in its inbox: bytes, and items (as nodes).
    pub inbox: Quota,
    /// What its tree takes up.
    pub usage: Usage,
    /// The last op that is committed.
    pub applied: Seq,
    /// Its last session's epoch.
    pub epoch: Epoch,
    /// The epoch of the last session of which is known that it left nothing on the disk that it had
    /// not committed, or that what it left is noted (see [`MetaStore::left_trims`]).
    pub tidied: Epoch,
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
    /// How many more nodes and deliveries refer to a content, each once.
    pub references: Vec<(ContentId, i64)>,
    /// What space is to be given back that nothing reaches any more.
    pub trims: Trims,
    /// Deliveries sent, accepted and declined, in order.
    pub deliveries: Vec<DeliveryEffect>,
    /// Those of the deliveries sent that the recipient has no room for: only that is kept of them.
    /// `references` does not count them.
    pub refused: Vec<DeliveryId>,
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
    /// perhaps: see [`MetaStore::trims`].
    pub shared: Vec<ContentId>,
    /// Contents that one node alone has, which has less of it now. Its session gives that back.
    pub own: Vec<(ContentId, Ino)>,
    /// Those of an earlier batch's `own` for which that is done.
    pub done: Vec<ContentId>,
}

/// A sealed content of which something may be reached by nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// Its number among trims: a new one each time that something of the content is dropped.
    pub id: u64,
    /// The content.
    pub content: ContentId,
}

/// A content that one node alone has, which can write to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnContent {
    /// The node.
    pub ino: Ino,
    /// The content.
    pub content: ContentId,
    /// What the node has of it, in bytes, in order.
    pub reached: Vec<Range<u64>>,
}

/// What became of a batch in a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// It is durable.
    Durable,
    /// A later session owns the tree; nothing of the batch was written.
    Fenced,
}

/// Wrong passwords for one account from one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failures {
    /// The name that was tried, as it was given (it need not exist).
    pub user: String,
    /// The address it was tried from.
    pub address: String,
    /// How many wrong passwords in a row.
    pub count: u32,
    /// When the last one was, and until when the pair is blocked.
    pub last: Timestamp,
    /// Until when no password of the pair is tried.
    pub blocked_until: Timestamp,
}

/// Which wrong passwords are old: those whose last one, and whose block, was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForgottenBefore {
    /// For those of one account.
    pub users: Timestamp,
    /// For those of a source for all accounts, which are kept under the user "".
    pub sources: Timestamp,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// What is asked for can't be: an account that exists, a name that is none.
    #[error("{0}")]
    Refused(String),
    /// A file that the store has open is no longer the one at its path: what is written to it can't be
    /// found again. Says which part of the store it is.
    #[error("the store was removed or replaced while it was in use ({0})")]
    Gone(String),
    /// Others may write to the store. Says what to do.
    #[error("{0}")]
    Unsafe(String),
    /// The database is an older copy of the one that the contents belong to.
    #[error(
        "the database is older than its contents: it ends at number {end}, and they at {known}"
    )]
    Older {
        /// The counter of the database.
        end: u64,
        /// The highest value that it is known to have had.
        known: u64,
    },
    /// What is stored is not what was stored: the disk lost or changed it, or somebody else did.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The database failed.
    #[error("database: {0}")]
    Database(String),
    /// The file system failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> StoreError {
        StoreError::io("the store", error)
    }
}

impl StoreError {
    /// What the system said while something was being done; told apart if it is a full disk.
    pub fn io(what: impl Into<String>, error: std::io::Error) -> StoreError {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            _ => StoreError::Io { what: what.into(), error },
        }
    }

    /// What a client may know of it, and no more: nothing of the host, such as paths. It is the only
    /// way of a store's errors to the wire; the log has them in full.
    pub fn told(&self) -> String {
        let told = match self {
            StoreError::Full => "its disk is full",
            StoreError::Refused(_) => "it refused a change",
            // It names a part of the store, and no path.
            StoreError::Gone(_) => return self.to_string(),
            StoreError::Unsafe(_) => "others may write to it",
            StoreError::Older { .. } => "its database is older than its contents",
            StoreError::Damaged(_) => "it is damaged",
            StoreError::Database(_) => "its database failed",
            StoreError::Io { error, .. } => {
                let error = error.raw_os_error().map(std::io::Error::from_raw_os_error);
                return error
                    .map_or("its disk failed".to_owned(), |e| format!("its disk failed ({e})"));
            }
        };
        told.to_owned()
    }

    /// Why the store refused; any other error is given back.
    ///
    /// # Errors
    /// If this is no refusal.
    pub fn refusal(self) -> Result<String, StoreError> {
        match self {
            StoreError::Refused(why) => Ok(why),
            other @ (StoreError::Full
            | StoreError::Gone(_)
            | StoreError::Unsafe(_)
            | StoreError::Older { .. }
            | StoreError::Damaged(_)
            | StoreError::Database(_)
            | StoreError::Io { .. }) => Err(other),
        }
    }
}

/// How much is listed at a time.
#[derive(Clone, Copy, Debug)]
pub struct ListMax {
    /// The most entries.
    pub count: usize,
    /// The bytes beyond which no more are added, about.
    pub bytes: usize,
}

/// Some entries of a directory.
#[derive(Clone, PartialEq, Debug)]
pub struct Listing {
    /// The entries, in order of names.
    pub rows: Vec<(Name, Ino, Node)>,
    /// Whether there are none after these.
    pub last: bool,
}

/// Rows: accounts, trees, deliveries, blocks.
pub trait MetaStore: Send + Sync + 'static {
    /// A node of a tree.
    fn node(&self, account: AccountId, ino: Ino) -> Result<Option<Node>, StoreError>;
    /// What an entry of a tree refers to.
    fn entry(
        &self,
        account: AccountId,
        parent: Ino,
        name: &Name,
    ) -> Result<Option<Ino>, StoreError>;
    /// At most `count` entries of a directory with their nodes, in order of names, after `after`.
    /// Fewer only at the end.
    fn page(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        count: usize,
    ) -> Result<Vec<(Name, Ino, Node)>, StoreError>;
    /// The names that lead to a node, from the root of its tree, without a slash before the first:
    /// to tell people which it is. Takes long. None if nothing leads there.
    fn path(&self, account: AccountId, ino: Ino) -> Result<Option<Vec<Name>>, StoreError>;
    /// Entries of a directory with their nodes, in order of names, after `after`; of nodes with large
    /// attributes, without those. One at least, if there is one.
    fn list(
        &self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
        max: ListMax,
    ) -> Result<Listing, StoreError>;
    /// Nodes without a name, which the account's last session left.
    fn orphans(&self, account: AccountId) -> Result<Vec<Ino>, StoreError>;
    /// Writes batches of several accounts in one transaction and makes them durable. The contents
    /// they refer to are durable already. A content that nothing refers to any more becomes garbage.
    ///
    /// Nothing is written of a batch that fails, and the others are durable all the same. If the
    /// transaction as a whole fails, it is not known of any of them whether it is durable.
    fn commit_each(
        &self,
        batches: &[Batch],
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError>;
    /// The same, for batches that belong together: tells the first failure.
    fn commit(&self, batches: &[Batch]) -> Result<Vec<Committed>, StoreError> {
        self.commit_each(batches)?.into_iter().collect()
    }

    /// Whether a content is referred to by anything committed.
    fn content_exists(&self, content: ContentId) -> Result<bool, StoreError>;
    /// The first content that is surely as long as its data: see [`FileStore::whole_from`].
    fn whole_from(&self) -> Result<ContentId, StoreError>;
    /// Contents that nothing refers to any more, at most `max`, those after `after`, in order.
    fn garbage(&self, after: Option<ContentId>, max: usize) -> Result<Vec<ContentId>, StoreError>;
    /// Forgets garbage, whose bytes are gone.
    fn forget_garbage(&self, contents: &[ContentId]) -> Result<(), StoreError>;
    /// Sealed contents of which something was dropped, at most `count`, those noted after the trim
    /// number `after`, in order.
    fn trims(&self, after: u64, count: usize) -> Result<Vec<Trim>, StoreError>;
    /// What is reached of a sealed content by anything committed, in whole blocks, in order; `None` if
    /// it is not only reached by what can't write to it.
    ///
    /// It never grows: what reaches a part of a sealed content got it from what reached it before.
    fn reached(&self, content: ContentId) -> Result<Option<Vec<Range<u64>>>, StoreError>;
    /// Forgets trims that are done. What was noted since stays.
    fn forget_trims(&self, trims: &[Trim]) -> Result<(), StoreError>;
    /// Contents of which an earlier session of this account dropped something, and may have ended
    /// before it gave that back; with the node that has each.
    fn left_trims(&self, account: AccountId) -> Result<Vec<(ContentId, Ino)>, StoreError>;
    /// Forgets those, which are done.
    fn forget_left_trims(&self, account: AccountId) -> Result<(), StoreError>;
    /// Notes contents of this account that a session wrote to and did not commit, for
    /// [`MetaStore::left_trims`]; those that nothing refers to are left out. Once this is done, nothing
    /// of a commit that failed before can become durable any more.
    fn note_left(&self, account: AccountId, left: &[(ContentId, Ino)]) -> Result<(), StoreError>;
    /// The contents that nodes of this account alone have, at most `count`, those of nodes after
    /// `after`, in order of nodes.
    fn own_contents(
        &self,
        account: AccountId,
        after: Option<Ino>,
        count: usize,
    ) -> Result<Vec<OwnContent>, StoreError>;
    /// Notes that the account's session of this epoch left nothing that is not noted, unless a later one
    /// began.
    fn note_tidied(&self, account: AccountId, epoch: Epoch) -> Result<(), StoreError>;
    /// Does `work` while no session of this account, nor of any other, can begin; it must be short and
    /// must not write rows. Not if a session began after that of this epoch, or the account is claimed:
    /// says whether it was done.
    fn while_unowned(
        &self,
        account: AccountId,
        epoch: Epoch,
        work: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError>;
    /// A number that is another one after another process has committed something.
    fn others_commits(&self) -> Result<u64, StoreError>;
    /// Grants numbers that were never granted before. Durable before it returns.
    fn grant_ids(&self, count: u64) -> Result<IdRange, StoreError>;
    /// The number after the last one that was granted. Each commit raises it, too.
    fn ids_end(&self) -> Result<u64, StoreError>;

    /// A delivery that waits to be accepted by this account.
    fn delivery(&self, to: AccountId, id: DeliveryId) -> Result<Option<Arc<Delivery>>, StoreError>;
    /// The deliveries that wait to be accepted by this account, oldest first, each with its place in
    /// the order of arrivals: at most `count`, after the place `after`.
    fn waiting_after(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Result<Vec<(u64, DeliveryHead)>, StoreError>;
    /// The deliveries of this account that there was no room for, and whose records are still there.
    fn no_room(&self, from: AccountId) -> Result<Vec<(DeliveryId, DeliveryState)>, StoreError>;
    /// What waits in an account's inbox: bytes, and items (as nodes).
    fn inbox_usage(&self, to: AccountId) -> Result<Usage, StoreError>;
    /// What became of a delivery that this account sent.
    fn delivery_state(&self, from: AccountId, id: DeliveryId) -> Result<DeliveryState, StoreError>;
    /// Who sent a delivery.
    fn delivery_sender(&self, id: DeliveryId) -> Result<Option<AccountId>, StoreError>;

    /// Makes an account, with a tree that has its root, its inbox and its outbox.
    fn create_account(
        &self,
        name: &Name,
        password: &str,
        quota: Quota,
        inbox: Quota,
        time: Timestamp,
    ) -> Result<AccountId, StoreError>;
    /// An account by its name.
    fn account(&self, name: &Name) -> Result<Option<Account>, StoreError>;
    /// All accounts, in order of names.
    fn accounts(&self) -> Result<Vec<Account>, StoreError>;
    /// Sets an account's password hash.
    fn set_password(&self, account: AccountId, password: &str) -> Result<(), StoreError>;
    /// Sets what an account's tree may take up.
    fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError>;
    /// Sets what may wait in an account's inbox. What waits already stays.
    fn set_inbox(&self, account: AccountId, inbox: Quota) -> Result<(), StoreError>;
    /// Removes an account: its session is fenced, and nobody finds it any more. What it had stays
    /// until [`MetaStore::clear_removed`].
    fn remove_account(&self, account: AccountId) -> Result<(), StoreError>;
    /// Removes the trees of accounts that were removed, and refuses the deliveries to them. Takes
    /// long, in transactions that don't; one that was interrupted is gone on with.
    fn clear_removed(&self) -> Result<(), StoreError>;
    /// Begins a session: raises the account's epoch by one, durably, and returns the account as it
    /// is then. From now on batches of older epochs are refused.
    fn begin_session(&self, account: AccountId) -> Result<Account, StoreError>;

    /// Whether a command works on this account beside the server; then it can have no session. To be
    /// asked by a session that has its seat.
    fn is_claimed(&self, account: AccountId) -> Result<bool, StoreError>;

    /// Wrong passwords that count, of a pair.
    fn failures(&self, user: &str, address: &str) -> Result<Option<Failures>, StoreError>;
    /// All wrong passwords that count, for the admin to see.
    fn all_failures(&self) -> Result<Vec<Failures>, StoreError>;
    /// Sets the wrong passwords of a pair; a count of 0 forgets them.
    fn set_failures(&self, failures: &Failures) -> Result<(), StoreError>;
    /// Forgets old wrong passwords, of all pairs at once.
    fn forget_failures(&self, before: ForgottenBefore) -> Result<(), StoreError>;
}

/// A disk, as those who may use it see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disk {
    /// What it can still take.
    pub free: Room,
    /// What it can take in all.
    pub size: Room,
}

/// Bytes, by content number.
///
/// Reading past what was ever written gives zeros in between, and ends at the end.
pub trait ContentStore: Send + Sync + 'static {
    /// A new, empty content. It must not exist.
    fn create(&self, content: ContentId) -> Result<(), StoreError>;
    /// Writes bytes.
    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError>;
    /// Reads bytes; fewer than the buffer holds only at the end. A store may know that no end can be
    /// there, and then fails.
    fn read(&self, content: ContentId, offset: u64, data: &mut [u8]) -> Result<usize, StoreError>;
    /// Makes a range zeros, and sets space aside for what will be written there.
    fn zero(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError>;
    /// Makes `to`, which must not exist, with these parts of `from`, which are in order. All else of
    /// it is a hole, and so are holes in them.
    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
    ) -> Result<(), StoreError>;
    /// Copies bytes, from one content or within one.
    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
    ) -> Result<(), StoreError>;
    /// Gives a range's space back; what it reads as afterwards is undefined.
    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError>;
    /// Gives back the space of all but these ranges, which are whole blocks, in order; what the rest
    /// reads as afterwards is undefined.
    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError>;
    /// Makes all that was done to these contents durable, their being there included, and says for
    /// which of them that failed. If the store as a whole fails, none of them is known to be durable.
    ///
    /// A failure is final: a later success says nothing about what was written before the failure.
    fn make_each_durable(
        &self,
        contents: &[ContentId],
    ) -> Result<HashMap<ContentId, StoreError>, StoreError>;
    /// The same, for contents that belong together: tells one failure, if there is any.
    fn make_durable(&self, contents: &[ContentId]) -> Result<(), StoreError> {
        self.make_each_durable(contents)?.into_values().next().map_or(Ok(()), Err)
    }
    /// Removes a content, if it exists.
    fn remove(&self, content: ContentId) -> Result<(), StoreError>;
    /// Sets a content aside, if it exists: as if it were removed, but for some days an administrator,
    /// or the next start, can bring it back. Says how many bytes of disk it takes up meanwhile.
    fn set_aside(&self, content: ContentId) -> Result<u64, StoreError>;
    /// Calls `visit` for every content there is: to find those that nothing refers to.
    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError>;
    /// How large the disk is, and what it can still take.
    fn disk(&self) -> Result<Disk, StoreError>;
}
