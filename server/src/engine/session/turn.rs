//! A session's tree, and the turns that tasks take at it.
//!
//! **Invariant:** the tree is touched only under its mutex, which is never held across an await.
//! Turns are given in the order in which they were asked for, so questions get theirs between the
//! ops of a log that never pauses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::tree::Tree;

/// The tree of a session, for one caller at a time.
pub(crate) struct TreeTurn {
    tree: Mutex<Holder>,
    /// Gives ops and questions their turns one at a time, in the order in which they came.
    turn: Arc<Semaphore>,
    /// The number of tasks that wait for a turn.
    waiting: AtomicUsize,
}

/// The tree is not there: it is not loaded yet, was taken away, or was abandoned after a panic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTree;

/// The tree, unless it is not set yet or was taken away.
#[derive(Default)]
struct Holder {
    tree: Option<Tree>,
    /// Whether a caller is working on the tree. Stays true for good after a panic during that work.
    at_work: bool,
}

/// Counts a task as waiting until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TreeTurn {
    pub(crate) fn new() -> TreeTurn {
        TreeTurn {
            tree: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Sets the tree that the session begins with.
    pub(crate) fn set(&self, tree: Tree) {
        self.tree.lock().tree = Some(tree);
    }

    /// Waits for a turn, without blocking a thread.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, NoTree> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        // The semaphore is never closed.
        self.turn.clone().acquire_owned().await.map_err(|_| NoTree)
    }

    /// Whether a task waits for a turn.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Runs `work` on the tree. Work that takes long or may come often must take a turn first.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        let mut holder = self.tree.lock();
        if std::mem::replace(&mut holder.at_work, true) {
            return Err(NoTree);
        }
        let tree = holder.tree.as_mut();
        // A panic must end only this session, so the tree is never used again after it.
        let done = catch_unwind(AssertUnwindSafe(|| tree.map(work)));
        holder.at_work = done.is_err();
        done.ok().flatten().ok_or(NoTree)
    }

    /// Takes the tree away for good, even after a panic during a change.
    pub(crate) fn take(&self) -> Option<Tree> {
        self.tree.lock().tree.take()
    }
}
