//! The waist for the keys of devices, by which they log in without a password, and for invitations
//! to make one.

use std::collections::BTreeMap;

use xfer_protocol::Timestamp;
use xfer_protocol::message::{DeviceKey, PublicKey};

use crate::{AccountId, Answer};

/// The keys and invitations of a store's accounts.
pub trait Keys: Send + Sync {
    /// An account's keys, sorted by the time of their enrolment.
    fn of(&self, account: AccountId) -> Answer<'_, Vec<DeviceKey>>;

    /// How many keys each account has that are not refused at a time. Accounts that have none are left out.
    fn count_good(&self, at: Timestamp) -> Answer<'_, BTreeMap<AccountId, usize>>;

    /// Adds a key, or replaces what is known of it.
    fn enrol(&self, account: AccountId, key: DeviceKey) -> Answer<'_, Enrolment>;

    /// Removes keys, and returns their number. Sessions that were begun with them can't be resumed
    /// any more.
    fn revoke(&self, account: AccountId, which: Revoked) -> Answer<'_, usize>;

    /// Sets the time from which on a key is refused. Returns whether there is such a key.
    fn set_expiry(
        &self,
        account: AccountId,
        key: PublicKey,
        at: Option<Timestamp>,
    ) -> Answer<'_, bool>;

    /// Makes the account's invitation, in place of an earlier one.
    fn invite(&self, account: AccountId, invitation: Invitation) -> Answer<'_, ()>;

    /// Uses the account's invitation, if `code` is its code, it has not expired by `key.enrolled`, and
    /// no other key was enrolled with it: the key is added. With a password, that is set, and the
    /// invitation is used up; without one, the same key may come again. Otherwise nothing changes.
    fn redeem(
        &self,
        account: AccountId,
        code: CodeHash,
        key: DeviceKey,
        password: Option<String>,
    ) -> Answer<'_, Enrolment>;
}

/// The keys to revoke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// This one.
    Key(PublicKey),
    /// All, except this one.
    AllBut(Option<PublicKey>),
}

/// What came of an attempt to add a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enrolment {
    /// It was added.
    Done,
    /// The account has [`KEYS_MAX`](xfer_protocol::limits::KEYS_MAX) others already.
    TooMany,
    /// There is no such invitation, or not any more.
    NotInvited,
}

/// An invitation to an account, for its owner to enrol a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// The hash of its code.
    pub code: CodeHash,
    /// From when on it is refused.
    pub expires: Timestamp,
}

/// The SHA-256 of an invitation's code. Codes are random, so a plain hash can't be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CodeHash(pub [u8; 32]);
