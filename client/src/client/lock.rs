//! The lock on the state. A panic while it is held ends the session.
//!
//! A change is shown in several steps, so after a panic between two of them the replica may be ahead
//! of the log. What programs would be shown of it then might never reach the server.

use std::ops::{Deref, DerefMut};

use parking_lot::MutexGuard;

use super::Client;
use super::state::State;

/// Why a session ended in which a panic left the state half changed.
const FAULT: &str = "a fault in this program; please report it, with what it printed";

/// The state, for as long as this is there.
pub(super) struct Locked<'a> {
    client: &'a Client,
    state: MutexGuard<'a, State>,
}

impl Client {
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { client: self, state: self.state.lock() }
    }
}

impl Locked<'_> {
    /// Ends the session, as something panicked that may have left the state half changed.
    pub(super) fn fault(&mut self) {
        if !self.state.end(FAULT, &self.client.options.label) {
            return;
        }
        if let Some(client) = self.client.this.upgrade() {
            let runtime = client.runtime.clone();
            runtime.spawn(async move { client.tell_over() });
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fault();
        }
    }
}
