//! The waists: all that a server may ask of a store, by subject.

pub(crate) mod trees;
pub(crate) mod contents;
pub(crate) mod deliveries;
pub(crate) mod accounts;
pub(crate) mod keys;
pub(crate) mod failures;
