//! A session's tree, and the turns at it.
//!
//! **Invariant:** the tree is touched only on threads that may block, under its mutex, and is never
//! held across an await. The mutex is a fair one: questions get their turn between the ops of a log
//! that never pauses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::tree::Tree;

/// The tree of a session, for one caller at a time.
pub(crate) struct TreeTurn {
    tree: Mutex<Holder>,
    /// One at a time, ops and questions, in the order in which they came.
    turn: Arc<Semaphore>,
    /// How many wait for their turn.
    waiting: AtomicUsize,
}

/// The tree is not there (yet, or any more).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTree;

/// The tree, if it is there.
#[derive(Default)]
struct Holder {
    tree: Option<Tree>,
    /// Set while the tree is worked on, and for good after a panic in the midst of that.
    at_work: bool,
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TreeTurn {
    /// No tree yet.
    pub(crate) fn new() -> TreeTurn {
        TreeTurn {
            tree: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The tree that the session begins with.
    pub(crate) fn set(&self, tree: Tree) {
        self.tree.lock().tree = Some(tree);
    }

    /// Waits for a turn, without a thread.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, NoTree> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        // It is never closed.
        self.turn.clone().acquire_owned().await.map_err(|_| NoTree)
    }

    /// Whether somebody waits for a turn.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Does something with the tree. Work that takes long, or may come often, waits for its turn first.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        let mut holder = self.tree.lock();
        if std::mem::replace(&mut holder.at_work, true) {
            return Err(NoTree);
        }
        let tree = holder.tree.as_mut();
        // A panic ends this session and nothing else: the tree is not worked on any more.
        let done = catch_unwind(AssertUnwindSafe(|| tree.map(work)));
        holder.at_work = done.is_err();
        done.ok().flatten().ok_or(NoTree)
    }

    /// Takes the tree away for good, even after a panic in the midst of a change.
    pub(crate) fn take(&self) -> Option<Tree> {
        self.tree.lock().tree.take()
    }
}
