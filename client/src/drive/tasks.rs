//! Tasks with an owner: they end when their owner is dropped, if not before.

use std::future::Future;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The tasks of one owner.
#[derive(Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Tasks {
        Tasks { runtime, running: Mutex::default() }
    }

    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        // Otherwise tasks that have ended would pile up.
        while running.try_join_next().is_some() {}
        running.spawn_on(task, &self.runtime);
    }

    /// Aborts all tasks.
    pub(super) fn abort_all(&self) {
        self.running.lock().abort_all();
    }
}
