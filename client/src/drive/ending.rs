//! How a session ends: drained and logged out, or lost.
//!
//! **Invariant:** mapped changes are written back before a drain begins, since none are accepted
//! after.

use std::sync::Arc;
use std::time::Duration;

use xfer_protocol::Errno;
use xfer_protocol::size;

use super::Client;
use super::away::Patience;
use crate::core::{Core, Ending, Link, LinkLoss, Trace};

/// The longest wait for the server's answer to the logout, once everything is durable.
const LOGOUT_MAX: Duration = Duration::from_secs(10);

/// The longest wait for the server's answer if another client has the seat.
const GIVING_UP_MAX: Duration = Duration::from_secs(5);

/// The longest time after a session's end in which its last answers may still reach the kernel.
const ANSWERS_MAX: Duration = Duration::from_secs(1);

/// The longest time that this machine's disk may take for what is not durable: enough for one more try
/// after it was full.
const KEPT_MAX: Duration = Duration::from_secs(7);

/// The longest time that the kernel may take to write back mapped pages.
const WRITE_BACK_MAX: Duration = Duration::from_secs(10);

/// The session ended before everything was durable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{ending}; not on the server: {}", size::changes(*ops, *bytes))]
pub struct Lost {
    /// Why it ended.
    pub ending: Ending,
    /// The number of changes that were not durable.
    pub ops: usize,
    /// The memory that those took, in bytes.
    pub bytes: usize,
}

/// What the end of a mount may still wait for a server that can't be reached: all of its steps together
/// no longer than any other operation.
#[derive(Clone, Debug, Default)]
pub struct Farewell(Patience);

impl Client {
    /// Waits until every change made so far is durable, those in mapped files too.
    ///
    /// `EIO` if the session is over before that.
    pub async fn sync(self: &Arc<Self>) -> Result<(), Errno> {
        self.write_back().await;
        let position = self.lock().position();
        self.call(move |core: &mut Core| core.sync_to(position)).await
    }

    /// Like [`Client::sync`], before the mount ends. Programs can still go on.
    pub async fn sync_before_end(self: &Arc<Self>, farewell: &mut Farewell) {
        tokio::select! {
            biased;
            _ = self.sync() => {}
            () = self.worn_out(&mut farewell.0) => {}
        }
    }

    /// Ends the session: accepts no more changes, makes all durable, and logs out. While the link is
    /// down it waits no longer than any other operation.
    ///
    /// # Errors
    /// If the session was over, or the server could not be reached, before everything was durable.
    pub async fn finish(self: &Arc<Self>) -> Result<(), Lost> {
        self.finish_after(&mut Farewell::default()).await
    }

    /// Like [`Client::finish`], after other steps of the mount's end.
    ///
    /// # Errors
    /// If the session was over, or the server could not be reached, before everything was durable.
    pub async fn finish_after(self: &Arc<Self>, farewell: &mut Farewell) -> Result<(), Lost> {
        let patience = &mut farewell.0;
        // A file that was closed just now may not be sent yet.
        self.lock().end_rests();
        tokio::select! {
            biased;
            _ = self.send_unsent() => {}
            () = self.worn_out(patience) => {}
        }
        self.write_back().await;
        // As an attempt: its changes are noted on this machine's disk like any other.
        let keep = |core: &mut Core| {
            core.keep_due();
            Ok(())
        };
        self.run(keep, |_: Result<(), Errno>| {});
        self.lock().begin_drain(Ending::LoggedOut);
        self.outgoing.notify_one();
        tokio::select! {
            biased;
            () = self.all_durable() => {}
            () = self.worn_out(patience) => {}
        }
        self.wait_kept().await;
        self.lock().end_without_pending();
        let goodbye =
            self.reached(|core| core.is_over() || core.is_stuck() || core.waits_for_the_next());
        let has_seat = self.lock().has_seat();
        // The server then forgets that this client might come back.
        self.attention.call();
        // Everything is durable or given up, so nothing more is lost if the server does not answer.
        tokio::select! {
            biased;
            _ = tokio::time::timeout(if has_seat { LOGOUT_MAX } else { GIVING_UP_MAX }, goodbye) => {}
            () = self.wait_down(), if has_seat => {}
        }
        let (link, pending, is_stuck, taken_over) = {
            let core = self.lock();
            (core.link_state(), core.pending().0, core.is_stuck(), core.seat_loss())
        };
        let ending = match link {
            Link::Down { loss, .. } if pending > 0 => Ending::LinkLost(taken_over.unwrap_or(loss)),
            Link::Up if is_stuck => Ending::LinkLost(LinkLoss::DiskFull),
            Link::Up | Link::Down { .. } | Link::Over(_) => Ending::LoggedOut,
        };
        self.end(ending);
        self.service.abort_all();
        self.loss()
    }

    /// Waits until an offline client has everything on this machine's disk that is not durable, but
    /// not for long.
    pub async fn wait_kept(&self) {
        let kept = self.reached(|core| {
            core.pending().0 == 0 || core.is_over() || core.all_kept() || !core.keeps()
        });
        let _ = tokio::time::timeout(KEPT_MAX, kept).await;
    }

    /// Ends the session without waiting for the server. [`Client::trace`] has what is lost to it, and
    /// is not delivered later.
    pub async fn abandon(self: &Arc<Self>) {
        self.write_back().await;
        self.dial.give_up();
        self.end(Ending::Abandoned);
        self.service.abort_all();
    }

    /// The changes that are not durable.
    pub fn trace(&self) -> Vec<Trace> {
        self.lock().trace()
    }

    /// Those of them that are not kept on this machine's disk for the next client either.
    pub fn unkept_trace(&self) -> Vec<Trace> {
        self.lock().unkept_trace()
    }

    /// Waits until all changes are durable, or the session is over, or the server has no room for
    /// them.
    async fn all_durable(&self) {
        self.reached(|core| core.pending().0 == 0 || core.is_over() || core.is_stuck()).await;
    }

    /// Waits until the core has reached a state.
    pub(super) async fn reached(&self, is_reached: impl Fn(&Core) -> bool) {
        let mut progress = self.progress.subscribe();
        loop {
            progress.mark_unchanged();
            if is_reached(&self.lock()) || progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends the session, and wakes everything that waits.
    pub(super) fn end(self: &Arc<Self>, ending: Ending) {
        let ended = self.lock().end(ending, &self.options.label);
        if ended {
            self.tell_over();
        }
    }

    /// Wakes everything that waits, and tells the kernel that the session is over.
    pub(super) fn tell_over(self: &Arc<Self>) {
        self.over.send_replace(true);
        self.tick();
        self.outgoing.notify_one();
        self.unkept.notify_one();
        self.outdate_kernel();
    }

    /// Drains the session from a task, as the server asks.
    pub(super) fn drain_soon(self: &Arc<Self>, ending: Ending) {
        let client = self.clone();
        self.operations.spawn(async move {
            client.write_back().await;
            client.lock().begin_drain(ending);
            client.tick();
            client.outgoing.notify_one();
        });
    }

    /// Has the kernel write back the changes of mapped files, so that they get into the log.
    /// Without this, it does so only when programs sync or unmap.
    pub(super) async fn write_back(&self) {
        let Some(kernel) = self.kernel() else { return };
        let files = match self.lock() {
            core if core.is_over() => return,
            core => core.written_files(),
        };
        let writing = self.runtime.spawn_blocking(move || {
            files.into_iter().for_each(|ino| kernel.write_back(ino));
        });
        // A blocking thread can't be aborted. It ends when the kernel answers.
        let _ = tokio::time::timeout(WRITE_BACK_MAX, writing).await;
    }

    /// Keeps the root's node loaded, so that its attributes are available even when the session is
    /// over.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn keep_root(self: &Arc<Self>) -> Result<(), Errno> {
        self.call(Core::keep_root).await
    }

    /// Has the kernel forget what it keeps of the tree, which another session may change now. It is
    /// told twice, since an answer from just before may reach it after the first time.
    pub(super) fn outdate_kernel(self: &Arc<Self>) {
        let client = self.clone();
        self.operations.spawn(async move {
            client.pass_on(client.lock().outdated());
            tokio::time::sleep(ANSWERS_MAX).await;
            client.pass_on(client.lock().outdated());
        });
    }

    fn loss(&self) -> Result<(), Lost> {
        let core = self.lock();
        let (ops, bytes) = core.pending();
        match core.ending() {
            Some(ending) if ops > 0 => Err(Lost { ending: ending.clone(), ops, bytes }),
            Some(_) | None => Ok(()),
        }
    }
}
