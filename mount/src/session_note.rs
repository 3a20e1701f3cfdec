//! Notes of the sessions that mounts on this machine have: if a mount's process crashes, the next
//! mount of the same account may replace its session at once, without waiting for the lease to end.
//!
//! A note is a file that is locked while its process lives. It stays until the account's next mount,
//! since a mount that ends while the server can't be reached leaves a session there too. It holds
//! no secret: only a login with the account's password may name the session that it replaces.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use xfer_client::connect::state_directory;
use xfer_client::durable::{make_directory, sync_directory};
use xfer_client::machine::identity;
use xfer_protocol::SessionId;

/// More than any note has, in bytes.
const NOTE_BYTES_MAX: u64 = 1 << 10;

/// The notes of one account's sessions on this machine.
pub struct SessionNotes {
    directory: PathBuf,
    /// The account and its server. The machine too, since several may share a home directory.
    owner: String,
}

/// Locks the note of this process's session. The lock ends with this, or with the process.
pub struct SessionNote {
    _lock: File,
}

/// A note whose process is gone.
struct Left {
    path: PathBuf,
    session: SessionId,
    written: SystemTime,
}

impl SessionNotes {
    /// The notes of the account `label`, which is `user@host:port`. `None` without a home.
    pub fn of(label: &str) -> Option<SessionNotes> {
        let directory = state_directory()?.join("sessions");
        Some(SessionNotes::within(directory, &identity(), label))
    }

    fn within(directory: PathBuf, machine: &str, label: &str) -> SessionNotes {
        SessionNotes { directory, owner: format!("{label} from {machine}") }
    }

    /// The last session of the account whose process on this machine is gone, if there is one.
    pub fn last_gone(&self) -> Option<SessionId> {
        self.left().into_iter().max_by_key(|left| left.written).map(|left| left.session)
    }

    /// Notes a session that has just begun. Earlier ones are forgotten, since it has replaced them.
    ///
    /// # Errors
    /// If the note can't be written.
    pub fn note(&self, session: SessionId) -> io::Result<SessionNote> {
        make_directory(&self.directory)?;
        for left in self.left() {
            let _ = fs::remove_file(left.path);
        }
        let path = self.directory.join(hex::encode(session.0));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        writeln!(file, "{}", self.owner)?;
        // The machine may lose its power, too. Without this, the next mount then has to wait.
        if let Err(error) = file.sync_all().and_then(|()| sync_directory(&self.directory)) {
            tracing::warn!(%error, "the note of this session may not outlive a loss of power");
        }
        Ok(SessionNote { _lock: file })
    }

    /// The account's notes whose processes are gone.
    fn left(&self) -> Vec<Left> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| self.left_at(&entry.path()).ok().flatten()).collect()
    }

    fn left_at(&self, path: &Path) -> io::Result<Option<Left>> {
        let Some(session) = session_of(path) else { return Ok(None) };
        let file = File::open(path)?;
        let mut text = String::new();
        (&file).take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
        // A note that is being made has no owner yet, and must not be locked here.
        let is_own = text.trim_end() == self.owner;
        if !is_own || flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(None);
        }
        let written = file.metadata()?.modified()?;
        Ok(Some(Left { path: path.to_owned(), session, written }))
    }
}

/// The session that a note with this name is of.
fn session_of(path: &Path) -> Option<SessionId> {
    let name = path.file_name()?.to_str()?;
    let bytes = hex::decode(name).ok()?;
    Some(SessionId(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn notes(directory: &tempfile::TempDir, machine: &str, label: &str) -> SessionNotes {
        SessionNotes::within(directory.path().join("sessions"), machine, label)
    }

    #[test]
    fn a_session_can_be_replaced_once_its_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let notes = notes(&directory, "laptop", "alice@host:33000");
        assert_eq!(notes.last_gone(), None);
        let running = notes.note(SessionId([1; 16])).unwrap();
        assert_eq!(notes.last_gone(), None, "it is running");
        drop(running);
        assert_eq!(notes.last_gone(), Some(SessionId([1; 16])));
        let next = notes.note(SessionId([2; 16])).unwrap();
        assert_eq!(notes.last_gone(), None, "it was replaced");
        drop(next);
        assert_eq!(notes.last_gone(), Some(SessionId([2; 16])));
    }

    #[test]
    fn sessions_of_others_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let alice = notes(&directory, "laptop", "alice@host:33000");
        drop(alice.note(SessionId([1; 16])).unwrap());
        for (machine, label) in [("desktop", "alice@host:33000"), ("laptop", "robert@host:33000")] {
            let other = notes(&directory, machine, label);
            assert_eq!(other.last_gone(), None);
            other.note(SessionId([label.len() as u8; 16])).unwrap();
        }
        assert_eq!(alice.last_gone(), Some(SessionId([1; 16])));
        fs::write(directory.path().join("sessions/README"), "alice@host:33000").unwrap();
        assert_eq!(alice.last_gone(), Some(SessionId([1; 16])));
    }
}
