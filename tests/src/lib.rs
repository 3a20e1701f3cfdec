//! The harness of xfer's tests: real servers, real mounts, ordinary programs, and a deadline for all.
//!
//! A test makes a [`World`] (a server with its accounts, in its own directory, on its own port),
//! mounts users of it, and runs programs on the mounts. Tests share nothing, so they run in
//! parallel. Every wait has a deadline: programs through [`run_within`], conditions through
//! [`wait_until`], and the test as a whole through the world's watchdog, which detaches the mounts
//! so that a stuck system call fails.
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
