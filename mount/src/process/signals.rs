//! The signals that end a mount, or a command that takes long.
//!
//! **Invariant:** a signal that was ignored (as SIGHUP is under `nohup`) stays ignored.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use xfer_terminal::signals;

/// The signals that end a mount.
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Signals> {
        let catch = |kind: SignalKind| match signals::is_ignored(kind.as_raw_value())? {
            true => Ok(None),
            false => signal(kind).map(Some),
        };
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            () = next(&mut self.terminate) => {}
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.hang_up) => {}
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
