//! Whether a program that waits is ending, as `/proc` says.
//!
//! **Invariant:** only a program that has no memory any more is asked how it ends. One that is about to
//! run another (`exec`) closes files too, and holds a lock that `/proc/PID/stat` waits for, until it
//! has the very answer that it would be read for.

use std::fs;

/// The line of `/proc/PID/stat` of a thread that is ending, if it is.
pub(super) fn stat_of_ending(thread: u32) -> Option<String> {
    // A thread that is not its process's first is found here too, though it is not listed.
    let read = |name| fs::read_to_string(format!("/proc/{thread}/{name}")).ok();
    if !has_no_memory(&read("statm")?) {
        return None;
    }
    read("stat")
}

/// Reads a line of `/proc/PID/statm`: a program that ends gives up its memory before its files.
fn has_no_memory(statm: &str) -> bool {
    !statm.is_empty() && statm.split_ascii_whitespace().all(|pages| pages == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_has_no_memory() {
        assert!(has_no_memory("0 0 0 0 0 0 0\n"));
        assert!(!has_no_memory("1482 921 702 187 0 164 0\n"));
        assert!(!has_no_memory(""));
    }
}
