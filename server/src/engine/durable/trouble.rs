//! Failures that end a session, worded for the log and for the client.

use std::fmt;

use xfer_store::StoreError;

/// A failure of the server. The log shows it in full; the client is told only what it may know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trouble {
    logged: String,
    told: String,
}

impl Trouble {
    /// A part of the server failed.
    pub(crate) fn of_server(what: &str) -> Trouble {
        Trouble { logged: what.to_owned(), told: what.to_owned() }
    }

    /// Returns the text for the client.
    pub(crate) fn told(self) -> String {
        self.told
    }
}

impl From<&StoreError> for Trouble {
    fn from(error: &StoreError) -> Trouble {
        Trouble { logged: error.to_string(), told: error.told() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.logged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_told_names_nothing_of_the_host_and_the_log_has_it() {
        let path = || "/var/lib/xfer/xfer.db".to_owned();
        let custom = std::io::Error::other(format!("{}: no", path()));
        for error in [
            StoreError::Unsafe(path()),
            StoreError::Unsuitable(path()),
            StoreError::Damaged(path()),
            StoreError::Database(path()),
            StoreError::io(path(), rustix::io::Errno::IO.into()),
            StoreError::io("syncing", custom),
        ] {
            let trouble = Trouble::from(&error);
            assert!(trouble.to_string().contains(&path()), "{trouble}");
            let told = trouble.told();
            assert!(!told.is_empty() && !told.contains("/var"), "{told}");
        }
    }
}
