//! The lock on the core. A panic while it is held ends the session.
//!
//! A change takes several steps, so a panic between two of them may leave the replica ahead of the
//! log. Programs would then be shown changes that never reach the server.

use std::ops::{Deref, DerefMut};

use parking_lot::MutexGuard;

use super::Client;
use crate::core::{Core, Ending};

/// The core, locked.
pub(super) struct Locked<'a> {
    client: &'a Client,
    core: MutexGuard<'a, Core>,
}

impl Client {
    /// Locks the core and sets its time.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut core = self.core.lock();
        core.set_time(self.clock.now());
        Locked { client: self, core }
    }
}

impl Locked<'_> {
    /// Ends the session after a panic that may have left the core half changed.
    pub(super) fn fault(&mut self) {
        if !self.core.end(Ending::Fault, &self.client.options.label) {
            return;
        }
        if let Some(client) = self.client.this.upgrade() {
            let told = client.clone();
            client.operations.spawn(async move { told.tell_over() });
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fault();
        }
    }
}
