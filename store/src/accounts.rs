//! The waist for accounts: who there is, what each may take up, and commands that work on one.

use std::any::Any;
use std::fmt;

use xfer_protocol::tree::{Kind, Node, Quota, Usage};
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use crate::Answer;

/// Accounts.
pub trait Accounts: Send + Sync {
    /// Makes an account, with a tree that has its root, its inbox and its outbox. Fails with
    /// [`StoreError::Exists`](crate::StoreError::Exists) if the name is taken.
    fn create(&self, new: NewAccount) -> Answer<'_, AccountId>;

    /// An account by its name.
    fn find(&self, name: Name) -> Answer<'_, Option<Account>>;

    /// All accounts, in order of names.
    fn list(&self) -> Answer<'_, Vec<Account>>;

    /// Changes an account.
    fn change(&self, account: AccountId, change: Change) -> Answer<'_, ()>;

    /// Removes an account: its session is fenced, and nobody finds it any more. What it had stays
    /// until [`Accounts::clear_removed`], which a store that is served does by itself at its start.
    fn remove(&self, account: AccountId) -> Answer<'_, ()>;

    /// Removes the trees of accounts that were removed, and refuses the deliveries to them. Takes
    /// long, in steps that don't; one that was interrupted is resumed.
    fn clear_removed(&self, now: Timestamp) -> Answer<'_, ()>;

    /// Claims an account for a command that works on it. Whether it has a session is to be asked after
    /// that: a session takes its seat first and then looks for a claim, so that one of them sees the
    /// other. Fails with [`StoreError::Claimed`](crate::StoreError::Claimed) if another command has
    /// claimed it.
    fn claim(&self, account: AccountId, purpose: Purpose) -> Answer<'_, Claim>;
}

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
    /// What waits there.
    pub waiting: Usage,
    /// What its tree takes up.
    pub usage: Usage,
    /// The last op that is committed.
    pub applied: Seq,
    /// Its last session's epoch.
    pub epoch: Epoch,
    /// The epoch of the last session of which is known that it left nothing on the disk that it had
    /// not committed, or that what it left is noted.
    pub tidied: Epoch,
}

/// What an account is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAccount {
    /// Its name.
    pub name: Name,
    /// The password's hash.
    pub password: String,
    /// What its tree may take up.
    pub quota: Quota,
    /// What may wait in its inbox.
    pub inbox: Quota,
    /// Now.
    pub time: Timestamp,
}

impl NewAccount {
    /// The nodes that its tree begins with, and their names in the root.
    pub(crate) fn nodes(&self) -> [(Ino, Option<&'static [u8]>, Node); 3] {
        let names: [&'static [u8]; 2] = [b"inbox", b"outbox"];
        let directory = |mode, nlink, entries: &[&[u8]]| Node {
            kind: Kind::Directory {
                parent: Ino::ROOT,
                entries: entries.len() as u64,
                name_bytes: entries.iter().map(|name| name.len() as u64).sum(),
            },
            mode,
            uid: 0,
            gid: 0,
            nlink,
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
            xattrs: Default::default(),
            sent: None,
        };
        [
            (Ino::ROOT, None, directory(0o755, 4, &names)),
            (Ino::INBOX, Some(names[0]), directory(0o700, 2, &[])),
            (Ino::OUTBOX, Some(names[1]), directory(0o700, 2, &[])),
        ]
    }
}

/// What of an account is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The password's hash.
    Password(String),
    /// What its tree may take up.
    Quota(Quota),
    /// What may wait in its inbox. What waits already stays.
    Inbox(Quota),
}

/// What an account is claimed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To change its tree: alone.
    Change,
    /// To read its tree: beside others who do.
    Read,
}

/// A claim on an account, which can have no session until this is dropped.
pub struct Claim(
    #[expect(dead_code, reason = "it is held, and not looked at")] Box<dyn Any + Send>,
);

impl Claim {
    /// A claim that lasts as long as what holds it.
    pub(crate) fn held_by(holder: impl Any + Send) -> Claim {
        Claim(Box::new(holder))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}
