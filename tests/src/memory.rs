//! How much memory our processes take up, held against what OPERATIONS.md says of it.

use crate::load::Usage;
use crate::{Mount, World};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;

/// What a mount takes up beside what its options allow: the program, its threads' stacks, frames on
/// their way, and what the allocator does not give back. A debug build is within it, too.
const MOUNT_OWN: u64 = 100 * MIB;

/// What a server with one session takes up beside `--tree-size`: one password check (64 MiB), the
/// database's pages (five connections of 16 MiB), answers and ops on their way (48 MiB), and what
/// [`MOUNT_OWN`] has of it.
const SERVER_OWN: u64 = 256 * MIB;

/// What the options of a mount and its server allow, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The mount's `--cache-size`.
    pub cache: u64,
    /// Its `--log-size`.
    pub log: u64,
    /// Its `--tree-size`.
    pub tree: u64,
    /// The server's `--tree-size`.
    pub server_tree: u64,
}

impl Allowed {
    /// What is allowed if nothing else is asked for.
    pub const BY_DEFAULT: Allowed =
        Allowed { cache: 256 * MIB, log: 256 * MIB, tree: 512 * MIB, server_tree: 64 * MIB };

    /// Fails the test if a mount or its server ever took up more than this and its own; says how
    /// much it was.
    #[track_caller]
    pub fn check(&self, world: &World, mount: &Mount) {
        let of_mount = self.cache + self.log + self.tree + MOUNT_OWN;
        check("the mount", mount.pid(), of_mount);
        check("the server", world.server.pid(), self.server_tree + SERVER_OWN);
    }
}

#[track_caller]
fn check(what: &str, pid: u32, allowed: u64) {
    let peak = Usage::of(pid).resident_max;
    println!("{what} took up {} MiB at most, and may {}", peak / MIB, allowed / MIB);
    assert!(peak <= allowed, "{what} took up {peak} bytes, more than {allowed}");
}
