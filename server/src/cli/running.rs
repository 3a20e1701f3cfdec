//! Questions to the server that runs on the store, and what to say if it does not answer.

use std::path::Path;

use crate::program::control::{self, Answer, AskError, Command};
use crate::program::exit::{Exit, Failure};

/// Asks the server; if it does not answer, the failure says what to do.
pub fn ask(store: &Path, command: &Command) -> Result<Answer, Failure> {
    control::ask(store, command).map_err(|error| match &error {
        AskError::NotRunning => {
            let line = format!("{error} ({}); start it, or check --store", store.display());
            Failure::new(Exit::NotRunning, line)
        }
        AskError::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
            let line = format!("{error}; run this as the server's user or as root");
            Failure::new(Exit::Store, line)
        }
        AskError::Io(_) => Failure::new(Exit::Other, format!("{error}; see the server's log")),
    })
}

/// The failure for an answer that does not come from a server of this version.
pub fn nonsense() -> Failure {
    let line =
        "the server answered another question; check that it has the version of this program";
    Failure::new(Exit::Other, line)
}
