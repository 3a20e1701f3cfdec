//! The waist for wrong passwords: how many, from where, and until when no other is tried.

use xfer_protocol::Timestamp;

use crate::Answer;

/// Wrong passwords.
pub trait Failures: Send + Sync {
    /// Those that count, of each pair; none of a pair that has none.
    fn of(&self, pairs: Vec<Pair>) -> Answer<'_, Vec<Option<WrongPasswords>>>;

    /// All that count, for the admin to see.
    fn list(&self) -> Answer<'_, Vec<WrongPasswords>>;

    /// Sets those of some pairs; a count of 0 forgets them.
    fn set(&self, failures: Vec<WrongPasswords>) -> Answer<'_, ()>;

    /// Forgets old ones, of all pairs at once.
    fn forget(&self, before: ForgottenBefore) -> Answer<'_, ()>;
}

/// A user and an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pair {
    /// The name that was tried, as it was given (it need not exist).
    pub user: String,
    /// The address it was tried from.
    pub address: String,
}

/// Wrong passwords for one account from one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongPasswords {
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
