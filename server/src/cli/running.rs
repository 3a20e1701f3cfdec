//! Questions to the server that runs on the store, and what to say if it does not answer.

use std::path::{Path, PathBuf};

use crate::program::control::{self, AdminSocket, Answer, AskError, Command};
use crate::program::exit::{Exit, Failure};

/// A server, and how it is reached.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its store, with a socket for the store's owner.
    store: PathBuf,
    /// The admin socket for others.
    admin: AdminSocket,
}

impl Server {
    /// The server that runs on a store.
    pub fn new(store: &Path, admin: AdminSocket) -> Server {
        Server { store: store.to_owned(), admin }
    }

    /// The same, for the owner of the store.
    pub fn of(store: &Path) -> Server {
        Server::new(store, AdminSocket::Off)
    }

    /// Its store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Its admin socket.
    pub fn admin(&self) -> &AdminSocket {
        &self.admin
    }

    /// Asks it: through the admin socket if this user may not enter its store.
    pub fn ask(&self, command: &Command) -> Result<Answer, Failure> {
        let answer = match (control::ask(&self.store, command), &self.admin) {
            (Err(AskError::Forbidden { .. }), AdminSocket::At(admin)) => {
                control::ask_as_admin(admin, &self.store, command)
            }
            (answer, _) => answer,
        };
        answer.map_err(|error| self.unasked(&error))
    }

    /// If it does not answer, the failure says what to do.
    pub fn unasked(&self, error: &AskError) -> Failure {
        match error {
            AskError::NotRunning => {
                let store = self.store.display();
                let line = format!("{error} ({store}); start it, or check --store");
                Failure::new(Exit::NotRunning, line)
            }
            AskError::Forbidden { .. } => {
                let group = match self.admin {
                    AdminSocket::Off => "",
                    AdminSocket::At(_) => {
                        ", or as a member of that socket's group (with the package, xfer-admin; it counts from the next login)"
                    }
                };
                let line = format!("{error}; run this as the server's user or as root{group}");
                Failure::new(Exit::Store, line)
            }
            AskError::OtherStore(_) => {
                let line = format!("{error}; check --store and --admin-socket");
                Failure::new(Exit::Usage, line)
            }
            AskError::Misunderstood => nonsense(),
            AskError::Busy => Failure::new(Exit::Other, error.to_string()),
            AskError::Silent | AskError::Io(_) => {
                Failure::new(Exit::Other, format!("{error}; see the server's log"))
            }
        }
    }
}

/// The failure for an answer that does not come from a server of this version.
pub fn nonsense() -> Failure {
    let line =
        "the server answered another question; check that it has the version of this program";
    Failure::new(Exit::Other, line)
}
