//! The waist for wrong passwords: how many came from where, and how long each lockout lasts.

use xfer_protocol::Timestamp;

use crate::Answer;

/// The record of wrong passwords.
pub trait Failures: Send + Sync {
    /// The current record of each pair; `None` for a pair without one.
    fn of(&self, pairs: Vec<Pair>) -> Answer<'_, Vec<Option<WrongPasswords>>>;

    /// All current records, for the administrator.
    fn list(&self) -> Answer<'_, Vec<WrongPasswords>>;

    /// Replaces the records of some pairs; a count of 0 deletes the record.
    fn set(&self, failures: Vec<WrongPasswords>) -> Answer<'_, ()>;

    /// Deletes all old records.
    fn forget(&self, before: ForgottenBefore) -> Answer<'_, ()>;
}

/// A user and an address, for which wrong passwords are counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pair {
    /// The name as it was typed; no such account need exist.
    pub user: String,
    /// The address that the passwords came from.
    pub address: String,
}

/// Wrong passwords for one account from one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongPasswords {
    /// The name as it was typed; no such account need exist.
    pub user: String,
    /// The address that the passwords came from.
    pub address: String,
    /// The number of wrong passwords in a row.
    pub count: u32,
    /// The time of the last wrong password.
    pub last: Timestamp,
    /// The end of the lockout: until then no password of the pair is checked.
    pub blocked_until: Timestamp,
}

/// The age at which records are old: both the last wrong password and the end of the lockout are
/// before the given time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForgottenBefore {
    /// The limit for records of one account.
    pub users: Timestamp,
    /// The limit for records of an address over all accounts, which are kept under the user "".
    pub sources: Timestamp,
}
