//! The client of an xfer server, without a kernel: whatever shows a tree to programs stands on it.
//!
//! Reading order: [`session`] (what a login gives), [`client`] (the replica, the log and the caches),
//! [`connect`] (how a session begins).

pub mod session;

pub mod client;

pub mod connect;
