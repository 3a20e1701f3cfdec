//! The directory in which one session's claim and journal are kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use tokio::task::spawn_blocking;
use xfer_protocol::{SessionId, codec};

use super::{KeptTicket, VERSION, aside, directory, format};
use crate::connect::{SavedKey, Ticket};
use crate::core::Trace;
use crate::drive::{Journal, Writing};
use crate::durable::{is_full, make_directory, replace, sync_directory};

/// As much is written at once, in bytes.
const WRITE_BYTES: usize = 4 << 20;

/// How often it is looked whether a place is still held, and the pause before the next time.
const LOOKS: usize = 3;
const LOOK: Duration = Duration::from_millis(10);

/// The file with the claim to the session.
const CLAIM: &str = "claim";

/// The file with the changes.
const JOURNAL: &str = "journal";

/// The extension of a place that is being removed.
const DEAD: &str = "dead";

/// The place of one session, which this process has locked.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    path: PathBuf,
    key: SavedKey,
    /// The lock ends with this process, whatever becomes of it.
    _lock: File,
    /// The journal, and the length of its good part.
    journal: Mutex<Option<(File, u64)>>,
}

impl Place {
    /// Makes the place of a new session of the account `label`. `key` proves that the session is
    /// this client's.
    ///
    /// # Errors
    /// If it can't be made, or there is no home directory.
    pub fn create(label: &str, session: SessionId, key: SavedKey) -> io::Result<Place> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "there is no home directory");
        let path = directory(label).ok_or_else(none)?.join(hex::encode(session.0));
        make_directory(&path)?;
        let lock = lock_of(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let journal = Mutex::default();
        Ok(Place(Arc::new(Inner { path, key, _lock: lock, journal })))
    }

    /// The place at a path, if the process that had it is gone, and the claim in it, if that can be
    /// read.
    pub(super) fn of_gone(path: &Path) -> io::Result<Option<(Place, Option<KeptTicket>)>> {
        if path.extension().is_some_and(|extension| extension == DEAD) {
            return Ok(None);
        }
        let lock = match File::options().write(true).open(path.join("lock")) {
            // Not one of these directories, or one that is being removed, or a journal aside.
            Err(error) if is_absent(&error) => return Ok(None),
            lock => lock?,
        };
        if !is_locked_soon(&lock)? {
            return Ok(None);
        }
        let claim = fs::read(path.join(CLAIM)).ok();
        let claim = claim.and_then(|bytes| codec::decode::<KeptTicket>(&bytes).ok());
        let claim = claim.filter(|claim| claim.version == VERSION);
        let key = SavedKey(claim.as_ref().map(|claim| claim.key.clone()).unwrap_or_default());
        let (path, journal) = (path.to_owned(), Mutex::default());
        let place = Place(Arc::new(Inner { path, key, _lock: lock, journal }));
        Ok(Some((place, claim)))
    }

    /// Whether there are changes in the place at a path, and the process that made them is gone. The place
    /// is not kept from a mount that looks for it.
    pub(super) fn waits(path: &Path) -> bool {
        let has_more = |journal: fs::Metadata| journal.len() > format::MAGIC.len() as u64;
        let is_dead = path.extension().is_some_and(|extension| extension == DEAD);
        !is_dead && fs::metadata(path.join(JOURNAL)).is_ok_and(has_more) && !is_locked(path)
    }

    /// The number of changes in the place at a path that can be sent.
    pub(super) fn count(path: &Path) -> usize {
        format::count(&path.join(JOURNAL)).unwrap_or_default()
    }

    /// Whether a process has the place of a session: it mounts the account, or sends what was left.
    pub fn is_held(label: &str, session: SessionId) -> bool {
        let path = directory(label).map(|directory| directory.join(hex::encode(session.0)));
        path.is_some_and(|path| is_locked(&path))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.0.path.join(JOURNAL)
    }

    /// Removes it, with all that it holds.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn remove(&self) -> io::Result<()> {
        // Renamed first, so that no other mount finds a part of it.
        let dead = self.0.path.with_extension(DEAD);
        let _ = fs::remove_dir_all(&dead);
        match fs::rename(&self.0.path, &dead) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.and_then(|()| fs::remove_dir_all(&dead)),
        }
    }

    /// Keeps its journal aside for when the place is removed. Returns where it is.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        aside::keep(&self.journal(), &self.0.path)
    }

    /// Whether its journal is kept aside, so that the damage is settled.
    pub(super) fn is_set_aside(&self) -> bool {
        aside::is_kept(&self.journal(), &self.0.path)
    }

    fn note(&self, ticket: Ticket) -> io::Result<()> {
        let Ticket { session, secret, epoch, durable, attempt } = ticket;
        let (version, key) = (VERSION, self.0.key.0.clone());
        let claim = KeptTicket { version, session, secret, epoch, durable, attempt, key };
        let bytes = codec::encode(&claim).map_err(io::Error::other)?;
        let path = self.0.path.join(CLAIM);
        match replace(&path, |file| file.write_all_at(&bytes, 0)) {
            // If the machine crashes in this, the changes are rescued instead of sent.
            Err(error) if is_full(&error) => overwrite(&path, &bytes).map_err(|_| error),
            replaced => replaced.map(|_| ()),
        }
    }

    fn put(&self, trace: Vec<Trace>) -> io::Result<()> {
        let mut journal = self.0.journal.lock();
        *journal = None;
        if trace.is_empty() {
            // This needs no room on a disk that the journal itself may have filled.
            return self.remove_journal();
        }
        let mut length = 0;
        let file = replace(&self.journal(), |file| {
            file.write_all_at(format::MAGIC, 0)?;
            length = write(file, format::MAGIC.len() as u64, trace)?;
            Ok(())
        })?;
        *journal = Some((file, length));
        Ok(())
    }

    fn remove_journal(&self) -> io::Result<()> {
        match fs::remove_file(self.journal()) {
            Err(error) if is_absent(&error) => {}
            removed => removed?,
        }
        sync_directory(&self.0.path)
    }

    fn append(&self, trace: Vec<Trace>) -> io::Result<()> {
        let mut journal = self.0.journal.lock();
        let Some((file, length)) = &mut *journal else {
            drop(journal);
            return self.put(trace);
        };
        let written = write(file, *length, trace);
        if let Err(error) = &written
            && is_full(error)
        {
            // Gives back the room, and leaves no half of a frame to the next mount.
            file.set_len(*length).map_err(io::Error::other)?;
        }
        let end = written?;
        // A failed sync may have lost what was written before, whatever its reason.
        file.sync_data().map_err(io::Error::other)?;
        *length = end;
        Ok(())
    }
}

impl Journal for Place {
    fn note_ticket(&self, ticket: Ticket) -> Writing<'_> {
        self.hop(move |place| place.note(ticket))
    }

    fn add(&self, trace: Vec<Trace>) -> Writing<'_> {
        self.hop(move |place| place.append(trace))
    }

    fn replace(&self, trace: Vec<Trace>) -> Writing<'_> {
        self.hop(move |place| place.put(trace))
    }
}

impl Place {
    /// Runs work on the disk where it may block.
    fn hop(&self, work: impl FnOnce(Place) -> io::Result<()> + Send + 'static) -> Writing<'_> {
        let place = self.clone();
        Box::pin(async move {
            let done = spawn_blocking(move || work(place)).await;
            done.unwrap_or_else(|error| Err(io::Error::other(error)))
        })
    }
}

/// Whether a process has locked the place at a path.
fn is_locked(path: &Path) -> bool {
    let lock = File::open(path.join("lock"));
    let locked = lock.map(|lock| flock(&lock, FlockOperation::NonBlockingLockShared));
    matches!(locked, Ok(Err(rustix::io::Errno::WOULDBLOCK)))
}

/// Locks a place whose process is gone. Another mount may hold it for a moment to look at it.
fn is_locked_soon(lock: &File) -> io::Result<bool> {
    for _ in 0..LOOKS {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOOK),
            locked => return locked.map(|()| true).map_err(Into::into),
        }
    }
    Ok(false)
}

fn lock_of(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"))
}

/// Writes over a small file, for which a full disk has room.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_data()
}

/// Writes a trace from an offset on, and returns where it ends.
fn write(file: &File, mut at: u64, trace: Vec<Trace>) -> io::Result<u64> {
    let mut bytes = Vec::new();
    for part in trace {
        format::write(part, &mut bytes)?;
        if bytes.len() >= WRITE_BYTES {
            file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all_at(&bytes, at)?;
    Ok(at + bytes.len() as u64)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
