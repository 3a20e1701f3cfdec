//! Whether a program closes a file because it was killed.
//!
//! The kernel closes what a program has open when it dies, and waits for the answer: so the process
//! is still there to be looked at, and `/proc` says how it ends.
//!
//! **Invariant:** only a program that has no memory any more is asked how it ends. One that is about to
//! run another (`exec`) closes files too, and holds a lock that `/proc/PID/stat` waits for, until it
//! has the very answer that it would be read for.

use std::fs;

/// It is about to end (`PF_EXITING`), and by a signal (`PF_SIGNALED`), in `/proc/PID/stat`.
const EXITING: u64 = 0x4;
const SIGNALED: u64 = 0x400;

/// The signal in an exit code.
const SIGNAL_MASK: u64 = 0x7f;

/// Whether the thread that closes a file belongs to a program that is being killed by a signal.
///
/// One in a PID namespace that can't be seen from here has the number 0, and counts as closing its
/// files by itself.
pub(super) fn is_killed(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    stat_of_ending(thread).is_some_and(|stat| says_killed(&stat, shows_exit_code(thread)))
}

/// Whether the kernel shows us the exit code of a thread; else it shows 0. It does if we may look
/// into the thread, which depends on all its users, groups, capabilities and its user namespace
/// (`PTRACE_MODE_READ_FSCREDS` in ptrace(2)). The name of that namespace is shown on the same terms.
fn shows_exit_code(thread: u32) -> bool {
    fs::read_link(format!("/proc/{thread}/ns/user")).is_ok()
}

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

/// Reads a line of `/proc/PID/stat`. Unless the kernel `shows_code`, the exit code in it is always 0.
fn says_killed(stat: &str, shows_code: bool) -> bool {
    // The program's name, the second field, may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let flags = field(9).unwrap_or(0);
    if flags & EXITING == 0 || flags & SIGNALED == 0 {
        return false;
    }
    // When a program with threads ends by itself, the kernel kills all but one of them.
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
        // Whether it was, is not shown of others' programs.
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
        // Users and groups are those of one thread, for the kernel.
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
