//! Sessions: one an account, many on a server, peers that are silent or lie, and bounds in memory.

mod one_at_a_time;
mod peers;
mod files;
mod silence;
mod liars;
mod questions;
mod bounds;
mod memory;
mod many;
mod strangers;
mod proofs;
