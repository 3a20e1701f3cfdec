//! What was done for which arrivals, so that it is done once, whatever ends the command.
//!
//! It is kept in the state directory, in a file for each account and each thing that is done. An arrival is
//! known by the number of its node and by when it was sent, since a new account has the old numbers again.
//! What is not in the inbox any more is forgotten.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use xfer_client::connect::state_directory;
use xfer_client::durable;

use super::arrival::{Arrival, Known};
use crate::process::exit::{Exit, Failure};

/// The length of a file's name, in bytes of the digest.
const KEY_BYTES: usize = 16;

/// For which arrivals something was done.
pub(super) struct Told {
    done: BTreeSet<Known>,
    file: Option<Kept>,
}

/// The file where that is kept, which one process at a time has.
struct Kept {
    path: PathBuf,
    _lock: File,
}

impl Told {
    /// What is done as long as this process lives, and then forgotten.
    pub(super) fn for_now() -> Told {
        Told { done: BTreeSet::new(), file: None }
    }

    /// What was done so far for an account. `purpose` says what that is.
    ///
    /// # Errors
    /// If another process does it, or the file can't be used.
    pub(super) fn load(account: &str, purpose: &[u8]) -> Result<Told, Failure> {
        let Some(state) = state_directory() else {
            let line = "there is no home directory to keep in what is done already; set \
                        HOME or XDG_STATE_HOME";
            return Err(Failure::new(Exit::Other, line));
        };
        let directory = state.join("inbox");
        let key = Sha256::new().chain_update(account).chain_update([0]).chain_update(purpose);
        let path = directory.join(hex::encode(&key.finalize()[..KEY_BYTES]));
        let cannot =
            |error: io::Error| Failure::new(Exit::Other, format!("{}: {error}", path.display()));
        durable::make_directory(&directory).map_err(cannot)?;
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = lock.open(path.with_extension("lock")).map_err(cannot)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let line = "another `xfer inbox` does the same for this account already";
                return Err(Failure::new(Exit::Other, line));
            }
            Err(errno) => return Err(cannot(errno.into())),
        }
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(cannot)?,
        };
        let done = text.lines().filter_map(known).collect();
        Ok(Told { done, file: Some(Kept { path, _lock: lock }) })
    }

    /// Whether it was done for an arrival.
    pub(super) fn has(&self, arrival: &Arrival) -> bool {
        self.done.contains(&arrival.known())
    }

    /// Notes that it was done for an arrival.
    ///
    /// # Errors
    /// If that can't be written down.
    pub(super) fn note(&mut self, arrival: &Arrival) -> Result<(), Failure> {
        self.done.insert(arrival.known());
        self.write()
    }

    /// Forgets what is not among these arrivals.
    ///
    /// # Errors
    /// As [`Told::note`].
    pub(super) fn keep_only(&mut self, arrivals: &[Arrival]) -> Result<(), Failure> {
        let there: BTreeSet<Known> = arrivals.iter().map(Arrival::known).collect();
        let before = self.done.len();
        self.done.retain(|known| there.contains(known));
        if self.done.len() == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<(), Failure> {
        let Some(Kept { path, .. }) = &self.file else { return Ok(()) };
        let lines = self.done.iter().map(|(inode, sent)| format!("{inode} {sent}\n"));
        let text: String = lines.collect();
        durable::replace(path, |mut file| file.write_all(text.as_bytes()))
            .map(drop)
            .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", path.display())))
    }
}

fn known(line: &str) -> Option<Known> {
    let (inode, sent) = line.split_once(' ')?;
    Some((inode.parse().ok()?, sent.to_owned()))
}
