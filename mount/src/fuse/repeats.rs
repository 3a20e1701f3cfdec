//! Requests that the kernel makes again by itself. A program that has waited in vain for the first is
//! not to wait again for the others.
//!
//! A name that it has kept is looked up to see whether it is still right. If that fails it is looked up
//! once more, as one that is new (`fuse_dentry_revalidate` in the kernel's `fs/fuse/dir.c`). Pages are
//! read ahead; if that fails, the page that the program needs is read alone (`filemap_read` and
//! `filemap_fault` in `mm/filemap.c`), for a mapping twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xfer_client::core::{Core, Stop};
use xfer_protocol::{Errno, Ino, Name};

use super::replies::Refuse;

/// The longest time until the kernel makes a request again, on a machine that is busy.
const AGAIN_MAX: Duration = Duration::from_millis(200);

/// A request that the kernel may make again, for the same thread.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Asked {
    pub(super) thread: u32,
    pub(super) what: What,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum What {
    /// A name in a directory.
    Name(Ino, Option<Name>),
    /// Bytes of a file. The kernel does not ask for the same ones again.
    Bytes(Ino),
}

impl What {
    /// How often the kernel asks again.
    fn repeats(&self) -> u8 {
        match self {
            What::Name(..) => 1,
            What::Bytes(_) => 2,
        }
    }
}

/// A request that has waited in vain.
#[derive(Debug)]
struct Failed {
    errno: Errno,
    at: Instant,
    /// How often it may be made again.
    repeats: u8,
}

/// The requests that have just failed after they waited in vain.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Asked, Failed>>);

impl Repeats {
    fn note(&self, asked: Asked, errno: Errno) {
        let (at, repeats) = (Instant::now(), asked.what.repeats());
        let mut failed = self.0.lock();
        failed.retain(|_, failed| failed.at.elapsed() < AGAIN_MAX);
        failed.insert(asked, Failed { errno, at, repeats });
    }

    /// The error of the same request, if it has just failed. It is told as often as the kernel asks
    /// again.
    pub(super) fn take(&self, asked: &Asked) -> Option<Errno> {
        let mut failed = self.0.lock();
        let last = failed.remove(asked).filter(|last| last.at.elapsed() < AGAIN_MAX)?;
        if let Some(repeats @ 1..) = last.repeats.checked_sub(1) {
            failed.insert(asked.clone(), Failed { at: Instant::now(), repeats, ..last });
        }
        Some(last.errno)
    }
}

/// A reply to such a request, whose failure is noted before it is sent.
pub(super) struct Repeatable<R> {
    reply: R,
    asked: Asked,
    /// When it has waited for as long as it may; `None` if it waits for ever. One that fails sooner may be
    /// made again as any other: what it met may have passed.
    end: Option<Instant>,
    repeats: Arc<Repeats>,
}

impl<R> Repeatable<R> {
    /// A reply to a request that begins now, and waits no longer than this for a server that can't be
    /// asked.
    pub(super) fn new(
        reply: R,
        asked: Asked,
        wait: Option<Duration>,
        repeats: Arc<Repeats>,
    ) -> Repeatable<R> {
        let end = wait.and_then(|wait| Instant::now().checked_add(wait));
        Repeatable { reply, asked, end, repeats }
    }

    /// The wrapped reply.
    pub(super) fn inner(self) -> R {
        self.reply
    }
}

impl<R: Refuse> Refuse for Repeatable<R> {
    fn refuse(self, errno: Errno) {
        let is_unanswered = [Errno::ETIMEDOUT, Errno::EBUSY].contains(&errno);
        // All programs outside this process's namespace look like one.
        let is_known = self.asked.thread != 0;
        let is_in_vain = self.end.is_some_and(|end| Instant::now() >= end);
        if is_unanswered && is_known && is_in_vain {
            self.repeats.note(self.asked, errno);
        }
        self.reply.refuse(errno);
    }
}

/// Wraps an attempt so that it fails with this error, if there is one, instead of waiting for a server
/// that can't be asked.
pub(super) fn impatient<T>(
    mut attempt: impl FnMut(&mut Core) -> Result<T, Stop>,
    errno: Option<Errno>,
) -> impl FnMut(&mut Core) -> Result<T, Stop> {
    move |state| match (attempt(state), errno) {
        (Err(Stop::Pause(_)), Some(errno)) if !state.can_ask() => Err(errno.into()),
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_failed_fails_at_once_for_the_same_thread_as_often_as_the_kernel_asks_again() {
        let repeats = Repeats::default();
        let name = |name: &[u8]| What::Name(Ino::ROOT, Some(Name::new(name).unwrap()));
        let (bytes, again) = (What::Bytes(Ino(9)), Some(Errno::EBUSY));
        for (what, told) in [(name(b"a"), vec![again]), (bytes, vec![again; 2])] {
            let asked = Asked { thread: 1, what };
            repeats.note(asked.clone(), Errno::EBUSY);
            assert_eq!(repeats.take(&Asked { thread: 2, ..asked.clone() }), None);
            assert_eq!(repeats.take(&Asked { what: name(b"b"), ..asked.clone() }), None);
            let found: Vec<_> = told.iter().map(|_| repeats.take(&asked)).collect();
            assert_eq!((found, repeats.take(&asked)), (told, None));
        }
    }
}
