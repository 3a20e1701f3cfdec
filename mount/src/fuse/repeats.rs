//! Lookups that the kernel makes a second time by itself.
//!
//! A name that it has kept is looked up to see whether it is still right. If that fails it is looked up
//! once more, as one that is new (`fuse_dentry_revalidate` in the kernel's `fs/fuse/dir.c`). A program
//! that has waited in vain for the first is not to wait again for the second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xfer_client::core::{Core, Stop};
use xfer_protocol::{Errno, Ino, Name};

use super::replies::Refuse;

/// The longest time until the kernel looks up a name again, on a machine that is busy.
const AGAIN_MAX: Duration = Duration::from_millis(200);

/// A lookup that failed sooner may be made again as any other: what it met may have passed.
const IN_VAIN_MIN: Duration = Duration::from_millis(500);

/// A lookup: the thread for which it is made, and what it asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lookup {
    pub(super) thread: u32,
    pub(super) parent: Ino,
    pub(super) name: Option<Name>,
}

/// The lookups that have just failed after they waited in vain, each with its error.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<Lookup, (Instant, Errno)>>);

impl Repeats {
    fn note(&self, lookup: Lookup, errno: Errno) {
        let mut failed = self.0.lock();
        failed.retain(|_, (since, _)| since.elapsed() < AGAIN_MAX);
        failed.insert(lookup, (Instant::now(), errno));
    }

    /// The error of the same lookup, if it has just failed. It is told once.
    pub(super) fn take(&self, lookup: &Lookup) -> Option<Errno> {
        let failed = self.0.lock().remove(lookup);
        failed.filter(|(since, _)| since.elapsed() < AGAIN_MAX).map(|(_, errno)| errno)
    }
}

/// A reply to a lookup, whose failure is noted before it is sent.
pub(super) struct Repeatable<R> {
    reply: R,
    lookup: Lookup,
    begin: Instant,
    repeats: Arc<Repeats>,
}

impl<R> Repeatable<R> {
    /// A reply to a lookup that begins now.
    pub(super) fn new(reply: R, lookup: Lookup, repeats: Arc<Repeats>) -> Repeatable<R> {
        Repeatable { reply, lookup, begin: Instant::now(), repeats }
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
        let is_known = self.lookup.thread != 0;
        if is_unanswered && is_known && self.begin.elapsed() >= IN_VAIN_MIN {
            self.repeats.note(self.lookup, errno);
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
    fn a_lookup_that_failed_fails_at_once_for_the_same_thread_and_name_one_time() {
        let repeats = Repeats::default();
        let at = |thread, name: &[u8]| Lookup {
            thread,
            parent: Ino::ROOT,
            name: Some(Name::new(name).unwrap()),
        };
        repeats.note(at(1, b"a"), Errno::EBUSY);
        assert_eq!(repeats.take(&at(2, b"a")), None);
        assert_eq!(repeats.take(&at(1, b"b")), None);
        assert_eq!(repeats.take(&at(1, b"a")), Some(Errno::EBUSY));
        assert_eq!(repeats.take(&at(1, b"a")), None);
    }
}
