//! Waiting for conditions, never for fixed times.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest wait for something that an idle machine does at once, generous enough for a machine
/// whose cores are all busy. A test about speed has its own limit, or names an event that must not
/// have happened first.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The interval between checks of a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds. If it does not within `limit`, the test fails and names what it
/// waited for.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Whether `condition` holds during all of `span`: for events that must not happen.
pub fn holds_for(span: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if !condition() {
            return false;
        }
        std::thread::sleep(POLL);
    }
    condition()
}

/// Whether a program or a thread, by its directory in `/proc`, waits for a FUSE filesystem: for an answer
/// or for a page of a file.
pub fn waits_for_a_mount(process: &Path) -> bool {
    let at = fs::read_to_string(process.join("wchan")).unwrap_or_default();
    ["request_wait_answer", "folio_wait"].iter().any(|place| at.contains(place))
}
