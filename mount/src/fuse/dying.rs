//! Whether a program closes a file because it was killed.
//!
//! When a program dies, the kernel closes its open files and waits for the answer. So the process
//! still exists at that moment, and `/proc` shows how it ends.
//!
//! **Invariant:** `stat` is read only for a program that has already given up its memory. A program that
//! is about to run another (`exec`) closes files too, and holds a lock that reading `/proc/PID/stat` waits
//! for. It keeps that lock until it gets the very answer for which `stat` would be read: a deadlock.

use std::fs;

/// Flags in `/proc/PID/stat`: the task is ending (`PF_EXITING`), by a signal (`PF_SIGNALED`).
const EXITING: u64 = 0x4;
const SIGNALED: u64 = 0x400;

/// The part of an exit code that holds the signal.
const SIGNAL_MASK: u64 = 0x7f;

/// Whether the thread that closes a file belongs to a program that a signal is killing.
///
/// A thread in a PID namespace that is invisible from here has the number 0. It counts as closing
/// its files normally.
pub(super) fn is_killed(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    stat_of_ending(thread).is_some_and(|stat| says_killed(&stat, shows_exit_code(thread)))
}

/// Whether the kernel shows us a thread's exit code; otherwise it shows 0. That depends on the
/// `PTRACE_MODE_READ_FSCREDS` check (ptrace(2)): on the thread's users, groups, capabilities and
/// user namespace. The link to its user namespace is readable under the same check, so we try that.
fn shows_exit_code(thread: u32) -> bool {
    fs::read_link(format!("/proc/{thread}/ns/user")).is_ok()
}

/// The content of `/proc/PID/stat`, if the thread is ending.
pub(super) fn stat_of_ending(thread: u32) -> Option<String> {
    // This also finds a thread other than its process's first, although `/proc` does not list it.
    let read = |name| fs::read_to_string(format!("/proc/{thread}/{name}")).ok();
    if !has_no_memory(&read("statm")?) {
        return None;
    }
    read("stat")
}

/// Reads a line of `/proc/PID/statm`: an ending program gives up its memory before its files.
fn has_no_memory(statm: &str) -> bool {
    !statm.is_empty() && statm.split_ascii_whitespace().all(|pages| pages == "0")
}

/// Reads a line of `/proc/PID/stat`. Unless the kernel `shows_code`, the exit code there is always 0.
fn says_killed(stat: &str, shows_code: bool) -> bool {
    // The program's name, the second field, may contain any character.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let flags = field(9).unwrap_or(0);
    if flags & EXITING == 0 || flags & SIGNALED == 0 {
        return false;
    }
    // When a program with threads exits normally, the kernel kills all threads but one.
    !shows_code || field(52).is_none_or(|code| code & SIGNAL_MASK != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use rustix::fs::{Gid, Uid};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

    use super::*;

    fn check(flags: u64, code: u64, shows_code: bool, expected: bool) {
        let zeros = |count: usize| vec!["0"; count].join(" ");
        // Fields 3 to 8, 9, 10 to 51, and 52.
        let stat = format!("7 (a) b (c) R {} {flags} {} {code}", zeros(5), zeros(42));
        assert_eq!(says_killed(&stat, shows_code), expected, "{flags:x} {code}");
    }

    #[test]
    fn a_program_is_killed_if_it_ends_by_a_signal() {
        check(EXITING | SIGNALED, 9, true, true);
        check(EXITING | SIGNALED, 0x80 | 6, true, true);
        check(EXITING, 9, true, false);
        check(SIGNALED, 9, true, false);
        check(0x40_0000, 0, true, false);
    }

    #[test]
    fn a_thread_that_its_own_program_ends_is_not_killed() {
        check(EXITING | SIGNALED, 0, true, false);
        check(EXITING | SIGNALED, 3 << 8, true, false);
        // Without the exit code, a program of another user counts as killed.
        check(EXITING | SIGNALED, 0, false, true);
    }

    /// A program of user 65534 and the given group.
    fn program(group: u32) -> Child {
        let ids =
            ["--reuid=65534", &format!("--regid={group}"), "--clear-groups"].map(str::to_owned);
        let program = Command::new("setpriv").args(ids).args(["sleep", "1000"]).spawn().unwrap();
        while fs::read_to_string(format!("/proc/{}/comm", program.id())).unwrap() != "sleep\n" {
            std::thread::sleep(Duration::from_millis(5));
        }
        program
    }

    #[test]
    fn the_exit_code_of_a_program_of_another_group_is_not_shown_though_its_user_is_ours() {
        let mut programs = [program(65534), program(100)];
        let threads = programs.each_ref().map(Child::id);
        // For the kernel, users and groups belong to a thread, not to the process.
        let as_nobody = std::thread::spawn(move || {
            set_thread_groups(&[]).unwrap();
            set_thread_gid(Gid::from_raw(65534)).unwrap();
            set_thread_uid(Uid::from_raw(65534)).unwrap();
            threads.map(shows_exit_code)
        });
        assert_eq!(as_nobody.join().unwrap(), [true, false]);
        for program in &mut programs {
            program.kill().unwrap();
            program.wait().unwrap();
        }
    }

    #[test]
    fn a_program_that_ends_has_no_memory() {
        assert!(has_no_memory("0 0 0 0 0 0 0\n"));
        assert!(!has_no_memory("1482 921 702 187 0 164 0\n"));
        assert!(!has_no_memory(""));
    }

    #[test]
    fn what_is_no_line_of_proc_says_nothing() {
        assert!(!says_killed("", true));
        assert!(!says_killed("7 (a) R 1", true));
    }
}
