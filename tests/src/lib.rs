//! The harness of xfer's tests: real servers, real mounts, ordinary programs, and nothing that hangs.
//!
//! A test makes a [`World`] (a server with its accounts, in a directory of its own, on a port of
//! its own), mounts users of it, and runs programs on the mounts. Nothing is shared between
//! tests, so they run in parallel. Whatever waits has a deadline: programs through
//! [`run_within`], conditions through [`wait_until`], and the test as a whole through the
//! world's watchdog, which cuts the mounts loose so that a stuck system call fails.
#![allow(clippy::unwrap_used, reason = "a harness fails a test by panicking")]

pub mod world;

pub mod accounts;

pub mod server;

pub mod by_hand;

pub mod mount;

pub mod programs;

pub mod pty;

pub mod waiting;

pub mod relay;

pub mod strangers;

pub mod peers;

pub mod random;

pub mod snapshot;

pub mod files;

pub mod sending;

pub mod space;

pub mod differential;

pub mod tools;

pub mod scale;

pub mod memory;

pub mod load;

pub mod network;

pub mod bench;

mod watchdog;

pub use mount::{Mount, Mounting};
pub use programs::{Finished, run_within, shell};
pub use random::Random;
pub use relay::Relay;
pub use server::Server;
pub use waiting::{PATIENCE, wait_until};
pub use world::World;
