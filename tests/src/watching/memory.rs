//! The memory of our processes, checked against the bounds in OPERATIONS.md.

use crate::load::Usage;
use crate::{Mount, World};

/// A mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;

/// The memory of a mount beyond its options: the program, its threads' stacks, frames in flight,
/// and memory that the allocator does not return. Debug builds stay within it, too.
const MOUNT_OWN: u64 = 100 * MIB;

/// The memory of a server with one session beyond `--tree-size`: one password check (64 MiB), the
/// database's pages (five connections of 16 MiB), answers and ops in flight (48 MiB), and the same
/// items as in [`MOUNT_OWN`].
const SERVER_OWN: u64 = 256 * MIB;

/// The memory that the options of a mount and its server allow, in bytes.
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
    /// The defaults of the options.
    pub const BY_DEFAULT: Allowed =
        Allowed { cache: 256 * MIB, log: 256 * MIB, tree: 512 * MIB, server_tree: 64 * MIB };

    /// Fails the test if a mount or its server ever exceeded this plus its fixed allowance; prints
    /// the peaks.
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
