//! Gives `EINTR` to programs that wait for an answer when they are told to end.
//!
//! Once a request has been read from the kernel, its program sleeps until the answer, whatever
//! signals arrive. fuser does not pass on the kernel's `FUSE_INTERRUPT`, so one task checks the
//! pending signals of each waiting thread. The task sleeps while no thread waits.
//!
//! **Invariant:** only signals that end a program, or that it treats as a request to end, interrupt
//! it. Stopping and continuing a program must have no effect on it, as on a local disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use super::dying::stat_of_ending;

/// How often the signals of waiting threads are checked. A request that is answered sooner is never
/// interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The minimum wait before an alarm interrupts a request: programs also use alarms to show
/// progress, and on a local disk those interrupt nothing.
const ALARM_AFTER: Duration = Duration::from_secs(5);

/// The minimum wait before the end of its program interrupts a request. Such a program takes no
/// signals any more, and no one sees the result of closing its files.
const EXIT_AFTER: Duration = Duration::from_secs(1);

/// The waiting requests.
#[derive(Default)]
pub(super) struct Interrupts {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// Wakes the watching task.
    begun: Notify,
}

struct Waiting {
    thread: u32,
    since: Instant,
    stop: oneshot::Sender<()>,
}

/// Keeps a request registered as long as this lives.
struct Registered<'a>(&'a Interrupts, u64);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Interrupts {
    /// Resolves when the thread is told to end; never for the kernel's own requests (thread 0).
    pub(super) async fn interrupted(self: Arc<Self>, thread: u32) {
        if thread == 0 {
            return std::future::pending().await;
        }
        let (stop, stopped) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Waiting { thread, since: Instant::now(), stop });
        let _registered = Registered(&self, number);
        self.begun.notify_one();
        if stopped.await.is_err() {
            std::future::pending().await
        }
    }

    /// Watches the waiting threads for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            if self.lock().is_empty() {
                self.begun.notified().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let mut threads: HashMap<u32, Option<Signals>> = HashMap::new();
            let waiting: Vec<(u64, u32, Duration)> = self
                .lock()
                .iter()
                .map(|(number, waiting)| (*number, waiting.thread, waiting.since.elapsed()))
                .filter(|(_, _, age)| *age >= LOOK_EVERY)
                .collect();
            for (number, thread, age) in waiting {
                let signals = threads.entry(thread).or_insert_with(|| Signals::of(thread));
                if signals.as_ref().is_some_and(|signals| signals.end(age)) {
                    self.stop(number);
                }
            }
        }
    }

    fn stop(&self, number: u64) {
        let waiting = self.lock().remove(&number);
        if let Some(waiting) = waiting {
            // The request may have been answered just now.
            let _ = waiting.stop.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock()
    }
}

/// The signals of a thread, as bits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signals {
    /// Pending signals that are neither blocked nor ignored.
    pending: u64,
    /// Signals that the program handles.
    caught: u64,
    /// Whether the thread is already ending.
    exiting: bool,
}

/// Signals whose default action is to do nothing, stop the program or continue it.
const HARMLESS: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGCONT)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH);

/// Signals that a program with a handler treats as a request to end.
const WISHES: u64 = bit(libc::SIGHUP) | bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGTERM);

/// The kernel's flag of a task that is ending (`sched.h`).
const PF_EXITING: u64 = 4;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

impl Signals {
    /// The signals of a thread; `None` once it is gone, as then no program waits for the answer.
    fn of(thread: u32) -> Option<Signals> {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        // For a thread in `exec` a plain read would wait for the very answer that the thread waits
        // for, and no other request could be interrupted until then.
        let stat = stat_of_ending(thread).unwrap_or_default();
        Some(Self::parse(&status, &stat))
    }

    fn parse(status: &str, stat: &str) -> Signals {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
        };
        let pending = field("SigPnd:") | field("ShdPnd:");
        let pending = pending & !field("SigBlk:") & !field("SigIgn:");
        // The flags are the seventh word after the name, which may contain anything, even `) `.
        let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
        let flags = flags.and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
        Signals { pending, caught: field("SigCgt:"), exiting: flags & PF_EXITING != 0 }
    }

    /// Whether these signals tell a thread that has waited for `age` to end.
    fn end(&self, age: Duration) -> bool {
        let fatal = self.pending & !self.caught & !HARMLESS;
        let alarm = if age >= ALARM_AFTER { bit(libc::SIGALRM) } else { 0 };
        let gone = self.exiting && age >= EXIT_AFTER;
        fatal != 0 || gone || self.pending & self.caught & (WISHES | alarm) != 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const YOUNG: Duration = Duration::from_millis(200);

    fn check(pending: i32, blocked: u64, ignored: u64, caught: u64, age: Duration, ends: bool) {
        let status = format!(
            "Name:\tcat\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n",
            0,
            bit(pending)
        );
        let signals = Signals::parse(&status, "7 (a) b) S 1 1 1 0 -1 4194560 0");
        assert_eq!(signals.end(age), ends, "signal {pending}:\n{status}");
    }

    #[test]
    fn what_ends_a_program_interrupts_it() {
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGPIPE] {
            check(signal, 0, 0, 0, YOUNG, true);
        }
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            check(signal, 0, 0, bit(signal), YOUNG, true);
        }
    }

    #[test]
    fn what_does_not_end_a_program_does_not_interrupt_it() {
        for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGCONT, libc::SIGCHLD, libc::SIGWINCH] {
            check(signal, 0, 0, 0, YOUNG, false);
        }
        check(libc::SIGINT, bit(libc::SIGINT), 0, 0, YOUNG, false);
        check(libc::SIGINT, 0, bit(libc::SIGINT), 0, YOUNG, false);
        check(libc::SIGUSR1, 0, 0, bit(libc::SIGUSR1), YOUNG, false);
    }

    #[test]
    fn a_program_that_is_ending_is_interrupted_though_it_takes_no_signals() {
        let signals = Signals::parse("", "7 (a) b) S 1 1 1 0 -1 4194308 0");
        assert!(signals.end(EXIT_AFTER));
        assert!(!signals.end(YOUNG));
    }

    #[test]
    fn an_alarm_that_a_program_handles_interrupts_only_a_long_wait() {
        check(libc::SIGALRM, 0, 0, bit(libc::SIGALRM), YOUNG, false);
        check(libc::SIGALRM, 0, 0, bit(libc::SIGALRM), ALARM_AFTER, true);
        check(libc::SIGALRM, 0, 0, 0, YOUNG, true);
    }
}
