//! A value that tasks watch, like that of `tokio::sync::watch`.
//!
//! Tasks that wait for a change are woken in the order in which they began to wait. Tokio's own
//! channel wakes them in a random order, so that a simulation on it would not repeat.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The side that sets the value.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The side that watches it.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that was seen last.
    seen: u64,
}

/// The sender is gone: the value will not change any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value will not change any more")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Rises with every change.
    version: u64,
    is_closed: bool,
}

/// A value with one receiver, which has seen it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A value without receivers.
    pub fn new(value: T) -> Sender<T> {
        let state = State { value, version: 0, is_closed: false };
        Sender { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.state.lock().version;
        Receiver { shared: self.shared.clone(), seen }
    }

    /// Sets the value, and gives the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|present| std::mem::swap(present, &mut before));
        before
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value, perhaps. Receivers hear of it if `change` says so.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.shared.state.lock();
        if change(&mut state.value) {
            state.version += 1;
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T: Clone> Sender<T> {
    /// The present value.
    pub fn get(&self) -> T {
        self.shared.state.lock().value.clone()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T: Clone> Receiver<T> {
    /// The present value, which counts as seen from now on.
    pub fn get(&mut self) -> T {
        let state = self.shared.state.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Has the next [`Receiver::changed`] return at once.
    pub fn mark_changed(&mut self) {
        // No version is as high.
        self.seen = u64::MAX;
    }

    /// Takes the present value for seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.lock().version;
    }

    /// Waits until there is a value that was not seen yet; it counts as seen then.
    ///
    /// # Errors
    /// If the sender is gone and the last value was seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        // A task that always finds a change lets others run now and then.
        tokio::task::coop::consume_budget().await;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let state = self.shared.state.lock();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.is_closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Waits for a value that `is_wanted`, the present one included, and gives it.
    ///
    /// # Errors
    /// If the sender is gone and there will be none.
    pub async fn wait_for(&mut self, is_wanted: impl Fn(&T) -> bool) -> Result<T, Closed> {
        loop {
            let value = self.get();
            if is_wanted(&value) {
                return Ok(value);
            }
            self.changed().await?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_after_it() {
        let (sender, mut receiver) = channel(1);
        sender.send_replace(2);
        sender.send_if_modified(|_| false);
        drop(sender);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.get(), 2);
        assert_eq!(receiver.changed().await, Err(Closed));
        receiver.mark_changed();
        assert_eq!(receiver.changed().await, Ok(()));
    }

    #[tokio::test]
    async fn a_task_that_always_finds_a_change_lets_others_run() {
        let sender = Arc::new(Sender::new(0u64));
        let (mut receiver, theirs) = (sender.subscribe(), sender.clone());
        let busy = tokio::spawn(async move {
            while receiver.changed().await.is_ok() && receiver.get() < u64::MAX / 2 {
                theirs.send_modify(|count| *count += 1);
            }
        });
        sender.send_modify(|count| *count += 1);
        tokio::task::yield_now().await;
        sender.send_replace(u64::MAX);
        busy.await.unwrap();
    }

    #[tokio::test]
    async fn tasks_wake_in_the_order_in_which_they_began_to_wait() {
        let sender = Arc::new(Sender::new(0));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100 {
            let (mut receiver, order) = (sender.subscribe(), order.clone());
            tasks.spawn(async move {
                order.lock().push(number);
                receiver.changed().await.unwrap();
                order.lock().push(100 + number);
            });
        }
        while order.lock().len() < 100 {
            tokio::task::yield_now().await;
        }
        sender.send_replace(1);
        tasks.join_all().await;
        assert!(order.lock().is_sorted(), "{:?}", order.lock());
    }
}
