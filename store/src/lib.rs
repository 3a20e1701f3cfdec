//! Where a server keeps rows and bytes: the waists, and the engines beneath them.
//!
//! A waist is what the server may ask of a store, by subject: [`Trees`] (rows, a session's beginning and
//! end, commits), [`Contents`] (bytes), [`Deliveries`], [`Accounts`], [`Failures`] (wrong passwords).
//! [`open()`] is the one place that knows which engines there are. A store knows nothing of the
//! tree's rules: it keeps the rows that it is given.
//!
//! All questions are asynchronous, so that an engine that lies across a network holds no thread for a
//! session that waits. What an engine does for its own sake (removing garbage, tidying after crashes,
//! watching over its files) it does by itself, for as long as the store is open.
//!
//! **Invariant:** a name from the wire is a value in a row, never a path on the host; a content is
//! found by its number alone.

mod trees;
mod contents;
mod deliveries;
mod accounts;
mod failures;
mod error;
mod store;
mod open;
mod inbox;
pub mod embedded;
mod memory;

use std::pin::Pin;

pub use accounts::{Account, AccountId, Accounts, Change, Claim, NewAccount, Purpose};
pub use contents::{Contents, Disk, Effect, Placements, Undone};
pub use deliveries::{Deliveries, Reservation, Reserved};
pub use error::StoreError;
pub use failures::{Failures, ForgottenBefore, Pair, WrongPasswords};
pub use open::{IfMissing, Location, Register, Use, open, open_register};
pub use store::{Keeper, Store};
pub use trees::{
    Batch, Beginner, Begun, Committed, Decided, Found, Left, ListMax, Listing, Part, Trees, Trims,
};

/// What becomes of a question, in time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What becomes of a question that a store may not be able to answer.
pub type Answer<'a, T> = Later<'a, Result<T, StoreError>>;
