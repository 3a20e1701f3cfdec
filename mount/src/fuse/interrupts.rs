//! Programs that wait for an answer and are told to end: they get `EINTR`, so that they can.
//!
//! Once a request has been read from the kernel, its program sleeps until it is answered, whatever
//! signals come. The kernel's own word for that (`FUSE_INTERRUPT`) does not reach us through fuser,
//! so one task looks at the signals that are pending for each thread that waits. It sleeps while
//! none does.
//!
//! **Invariant:** only signals that end a program, or that it takes for a wish to end, interrupt it.
//! One that is stopped and continued must not notice, as on a local disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use super::dying::stat_of_ending;

/// How often the signals of those who wait are looked at. What is answered sooner is never
/// interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a request must have waited before an alarm interrupts it: programs use alarms to show
/// progress too, and do not expect a local disk to mind.
const ALARM_AFTER: Duration = Duration::from_secs(5);

/// How long a request must have waited before the end of its program interrupts it. Such a program
/// takes no signals any more, and nobody hears what the closing of its files gives.
const EXIT_AFTER: Duration = Duration::from_secs(1);

/// The requests that wait.
#[derive(Default)]
pub(super) struct Interrupts {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// Wakes the task that looks.
    begun: Notify,
}

struct Waiting {
    thread: u32,
    since: Instant,
    stop: oneshot::Sender<()>,
}

/// A request that waits, as long as this lives.
struct Registered<'a>(&'a Interrupts, u64);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Interrupts {
    /// Resolves when the thread is told to end. Never, for the kernel's own requests (0).
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

    /// Looks after those who wait, for ever.
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
            // It may have been answered just now.
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
    /// Those that wait to be taken, and are neither blocked nor ignored.
    pending: u64,
    /// Those that the program handles itself.
    caught: u64,
    /// Whether the thread is ending by itself.
    exiting: bool,
}

/// Signals that do nothing, stop a program or let it go on, unless it handles them.
const HARMLESS: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGCONT)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH);

/// Signals that a program which handles them takes for a wish to end what it does.
const WISHES: u64 = bit(libc::SIGHUP) | bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGTERM);

/// The kernel's flag of a task that is ending (`sched.h`).
const PF_EXITING: u64 = 4;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

impl Signals {
    /// Those of a thread; nothing once it is gone, when nobody waits for the answer.
    fn of(thread: u32) -> Option<Signals> {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        // Of a thread that runs another program (`exec`) this would wait for the very answer that
        // the thread waits for, and nobody else could be interrupted until then.
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
        // The flags are the seventh word after the name, which may hold anything, `) ` too.
        let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6));
        let flags = flags.and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
        Signals { pending, caught: field("SigCgt:"), exiting: flags & PF_EXITING != 0 }
    }

    /// Whether they tell a thread to end that has waited for `age`.
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
