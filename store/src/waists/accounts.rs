//! The waist for accounts: the list of them, their quotas, and claims by commands.

use std::any::Any;
use std::fmt;

use xfer_protocol::tree::{Kind, Node, Quota, Usage};
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use crate::{Answer, Resumable};

/// The accounts of a store, and the commands that work on them.
pub trait Accounts: Send + Sync {
    /// Makes an account, with a tree that has its root, its inbox and its outbox. Fails with
    /// [`StoreError::Exists`](crate::StoreError::Exists) if the name is taken.
    fn create(&self, new: NewAccount) -> Answer<'_, AccountId>;

    /// An account by its name.
    fn find(&self, name: Name) -> Answer<'_, Option<Account>>;

    /// All accounts, sorted by name.
    fn list(&self) -> Answer<'_, Vec<Account>>;

    /// The present sessions that their clients may resume, sorted by account. Their clients may be away.
    fn sessions(&self) -> Answer<'_, Vec<(AccountId, Resumable)>>;

    /// Changes an account's password or quotas.
    fn change(&self, account: AccountId, change: Change) -> Answer<'_, ()>;

    /// Removes an account: its session is fenced, its keys and its invitation are gone, and its name
    /// is free. Its tree, and the deliveries to it, are kept for some days
    /// ([`Accounts::keep_removed`]), in which it can be restored.
    fn remove(&self, account: AccountId, at: Timestamp) -> Answer<'_, ()>;

    /// The accounts that were removed and are kept, the last one first.
    fn removed(&self) -> Answer<'_, Vec<Removed>>;

    /// Brings back an account that was removed and is kept, under a name that must be free.
    fn restore(&self, account: AccountId, name: Name) -> Answer<'_, ()>;

    /// Gives up an account that was removed and is kept: it can't be restored any more. Its data stays
    /// until [`Accounts::clear_deleted`].
    fn give_up(&self, account: AccountId) -> Answer<'_, ()>;

    /// Deletes the trees of accounts that were given up, and of removed ones whose days are over, and
    /// refuses the deliveries to them. This takes long, but each step is short, and an interrupted run
    /// is resumed. A served store does it by itself, when it starts and each minute.
    fn clear_deleted(&self, now: Timestamp) -> Answer<'_, ()>;

    /// For how many days removed accounts are kept.
    fn days_kept(&self) -> Answer<'_, u16>;

    /// Sets for how many days removed accounts are kept, also those that were removed before.
    fn keep_removed(&self, days: u16) -> Answer<'_, ()>;

    /// Claims an account for a command that works on it. The command must check for a session only
    /// after that: a session first takes its seat and then looks for a claim, so at least one of
    /// the two sees the other. Fails with [`StoreError::Claimed`](crate::StoreError::Claimed) if
    /// another command has claimed the account.
    fn claim(&self, account: AccountId, purpose: Purpose) -> Answer<'_, Claim>;
}

/// The number of an account within its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountId(pub u64);

/// An account as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// Its number, which is never used again.
    pub id: AccountId,
    /// Its name, by which users log in and address deliveries.
    pub name: Name,
    /// The password's Argon2id hash, as a PHC string, if one was set.
    pub password: Option<String>,
    /// Whether it may log in with its password, and not with devices' keys alone.
    pub takes_passwords: bool,
    /// The time from which on it is disabled, if it is to be.
    pub disabled_from: Option<Timestamp>,
    /// The quota of its tree.
    pub quota: Quota,
    /// The quota of its inbox: bytes, and items (counted as nodes).
    pub inbox: Quota,
    /// The usage of its inbox.
    pub waiting: Usage,
    /// The usage of its tree.
    pub usage: Usage,
    /// The last committed op.
    pub applied: Seq,
    /// The epoch of its last session.
    pub epoch: Epoch,
    /// The epoch of the last session that is known to have left, like all before it, no uncommitted data
    /// on the disk, or only data that is noted.
    pub tidied: Epoch,
}

impl Account {
    /// Whether it is disabled at a time: nobody may log in or go on with a session.
    pub fn is_disabled(&self, now: Timestamp) -> bool {
        self.disabled_from.is_some_and(|from| from <= now)
    }
}

/// An account that was removed and is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The account, with the name that it had.
    pub account: Account,
    /// When it was removed.
    pub at: Timestamp,
    /// From when on it is deleted.
    pub until: Timestamp,
}

/// For how many days removed accounts are kept unless something else is set.
pub const DAYS_KEPT: u16 = 30;

/// The time that is so many days later, or before if they are negative.
pub(crate) fn days_later(time: Timestamp, days: i64) -> Timestamp {
    const DAY_SECS: i64 = 24 * 60 * 60;
    let secs = time.secs().saturating_add(days * DAY_SECS);
    Timestamp::new(secs, time.nanos()).unwrap_or(time)
}

/// The values that a new account starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAccount {
    /// Its name, which must be free.
    pub name: Name,
    /// The password's Argon2id hash, as a PHC string. Without one, an invitation is needed to log in.
    pub password: Option<String>,
    /// The quota of its tree.
    pub quota: Quota,
    /// The quota of its inbox.
    pub inbox: Quota,
    /// The current time, for the attributes of the first nodes.
    pub time: Timestamp,
}

impl NewAccount {
    /// The first nodes of its tree, with their names in the root.
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

/// A change to an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new password hash. Sessions that were begun with the old one can't be resumed any more.
    Password(String),
    /// Whether the account may log in with its password.
    TakesPasswords(bool),
    /// The time from which on the account is disabled.
    DisabledFrom(Option<Timestamp>),
    /// A new quota for its tree.
    Quota(Quota),
    /// A new quota for its inbox. Deliveries that already wait there stay.
    Inbox(Quota),
}

/// The purpose of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To change the account's tree, which excludes all other claims.
    Change,
    /// To read the account's tree; other readers may hold a claim too.
    Read,
}

/// A claim on an account. No session of the account can begin until the claim is dropped.
pub struct Claim(
    #[expect(dead_code, reason = "it is held, and not looked at")] Box<dyn Any + Send>,
);

impl Claim {
    /// A claim that lasts as long as its holder lives.
    pub(crate) fn held_by(holder: impl Any + Send) -> Claim {
        Claim(Box::new(holder))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim")
    }
}
