//! Where a server keeps rows and bytes: the waists, and the engines beneath them.
//!
//! Each waist covers one subject of what a server may ask of a store: [`Trees`] (rows, the
//! beginning and end of sessions, commits), [`Contents`] (bytes), [`Deliveries`], [`Accounts`],
//! [`Failures`] (wrong passwords), [`Keys`] (of devices that log in). Only [`open()`] knows which engines there are. A store does not
//! know the tree's rules: it keeps the rows that it is given.
//!
//! All calls are asynchronous, so that an engine across a network holds no thread for a session
//! that waits. An engine does its own housekeeping (removing garbage, tidying after crashes,
//! watching its files) in the background for as long as the store is open.
//!
//! **Invariant:** a name from the wire is a value in a row, never a path on the host; a content is
//! found by its number alone.

mod waists;
mod granted;
mod check;
mod error;
mod stop;
mod store;
mod open;
mod inbox;
pub mod embedded;
mod memory;

use std::pin::Pin;

pub use check::{Checked, Fault, Place, Rule};
pub use error::StoreError;
pub use open::{IfMissing, Location, Register, Use, check, open, open_register};
pub use stop::Stop;
pub use store::{ContentsSize, Keeper, Store, StoreSize};
pub use waists::accounts::{
    Account, AccountId, Accounts, Change, Claim, DAYS_KEPT, NewAccount, Purpose, Removed,
};
pub use waists::contents::{Contents, Disk, Effect, Placements, Undone};
pub use waists::deliveries::{Deliveries, Reservation, Reserved};
pub use waists::failures::{Failures, ForgottenBefore, Pair, WrongPasswords};
pub use waists::keys::{CodeHash, Enrolment, Invitation, Keys, Revoked};
pub use waists::trees::{
    Batch, Beginner, Begun, CHANGES_MAX, Changed, Committed, DORMANT_MAX, Decided, Fate, Found,
    Left, ListMax, Listing, Missed, Part, Resumable, Resumed, Resumption, SecretHash, Trees, Trims,
};

/// The result of a call that can't fail, later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a call that may fail, later.
pub type Answer<'a, T> = Later<'a, Result<T, StoreError>>;
