//! Seats: the one place for a session that each account has.
//!
//! Reading order: `seat` (one that a session has), `standing` (one whose client is away),
//! `registry` (all of them), `proof` (how a client shows that a session is its own).

pub(crate) mod seat;
pub(crate) mod standing;
pub(crate) mod registry;
pub(crate) mod proof;
