//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long to wait for something that an idle machine does in a moment: far longer than a machine
/// takes whose cores are all busy. A test that claims how soon something happens has a limit of its
/// own, or names what must not have happened before.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; the test fails, saying what it waited for, if it does not
/// within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// Whether `condition` goes on holding for all of `span`: for what must not happen.
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
