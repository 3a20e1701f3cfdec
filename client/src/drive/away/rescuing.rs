//! Changes that can't reach the server any more, because another client has changed the tree since.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use xfer_protocol::{Seq, size};

use super::Writing;
use crate::core::{Change, Ending, Trace};
use crate::drive::Client;

/// The pause after a rescue has failed.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps changes for the user. Each call is done once they are on the disk.
pub trait Rescue: Send + Sync + 'static {
    /// Keeps the changes, and tells the user where they are, and why.
    fn keep(&self, why: String, changes: Vec<Trace>) -> Writing<'_>;
}

impl Client {
    /// Why the session is over.
    pub(in crate::drive) fn ending(&self) -> Ending {
        self.lock().ending().cloned().unwrap_or(Ending::Fault)
    }

    /// Gives up the changes after op `base`, and has them kept. They stay in memory until they are.
    ///
    /// # Errors
    /// Why the session is over. A client that has no rescue does not go on without its changes.
    pub(in crate::drive) async fn give_up(self: &Arc<Self>, base: Seq) -> Result<(), Ending> {
        let why = Ending::Displaced.to_string();
        let mut was_told = false;
        loop {
            let changes = self.lock().cut_off(base)?;
            let (ops, bytes) = self.lock().pending();
            if ops == 0 || self.lock().is_rescued() {
                return Ok(());
            }
            let Some(rescue) = &self.rescue else { return Err(Ending::Displaced) };
            let lost = changes.iter().filter_map(Trace::change).flat_map(Change::nodes).collect();
            match rescue.keep(why.clone(), changes).await {
                Ok(()) => {
                    self.lock().note_rescued(&lost);
                    return Ok(());
                }
                Err(error) if !was_told => {
                    was_told = true;
                    self.lock().note_error(format!(
                        "{why}; in memory, since neither sent nor kept: {}; {error}",
                        size::changes(ops, bytes)
                    ));
                }
                Err(_) => {}
            }
            tokio::select! {
                biased;
                () = self.wait_over() => return Err(self.ending()),
                () = sleep(RETRY) => {}
            }
        }
    }
}
