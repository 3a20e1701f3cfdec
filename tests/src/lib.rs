//! The harness of xfer's tests: real servers, real mounts, ordinary programs, and a deadline for all.
//!
//! A test makes a [`World`] (a server with its accounts, in its own directory, on its own port),
//! mounts users of it, and runs programs on the mounts. Tests share nothing, so they run in
//! parallel. Every wait has a deadline: programs through [`run_within`], conditions through
//! [`wait_until`], and the test as a whole through the world's watchdog, which detaches the mounts
//! so that a stuck system call fails.
#![allow(clippy::unwrap_used, reason = "a harness fails a test by panicking")]

pub mod world;
pub mod running;
pub mod links;
pub mod fragile;
pub mod watching;
pub mod differential;
pub mod load;
pub mod bench;

pub use links::{cable, local_disk, network, peers, relay, strangers};
pub use running::{
    desktop, freezer, logind, programs, pty, random, scale, small_disk, tools, waiting,
};
pub use watching::{files, memory, metrics, sending, snapshot, space};
pub use world::{accounts, authority, by_hand, machine, mount, server};

pub use mount::{Mount, Mounting};
pub use programs::{Finished, run_within, shell};
pub use random::Random;
pub use relay::Relay;
pub use server::Server;
pub use waiting::{PATIENCE, wait_until};
pub use world::World;
