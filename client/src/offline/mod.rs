//! What an offline client keeps on this machine's disk, so that a crash of the machine loses nothing:
//! its claim to the session, and its changes while the server can't be reached.
//!
//! Reading order: [`mod@format`] (the bytes of the journal), [`place`] (the directory of one session),
//! [`spill`] (data that is too much for memory), this file (what is left of sessions whose clients are
//! gone), [`leftover`] (how it is sent).
//!
//! **Invariant:** only this user can read it, since the claim is a secret.

mod format;
mod place;
mod spill;
mod leftover;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xfer_protocol::message::Secret;
use xfer_protocol::{Epoch, Seq, SessionId};

use crate::connect::{SavedKey, Ticket};
use crate::core::Trace;

pub use leftover::{Leftover, Unsent};
pub use place::Place;
pub use spill::SpillFiles;

/// The version of the files. Others are not read.
const VERSION: u32 = 1;

/// A client's claim to its session, as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptTicket {
    version: u32,
    session: SessionId,
    secret: Secret,
    epoch: Epoch,
    durable: Seq,
    attempt: u64,
    key: Vec<u8>,
}

/// What is left of a session whose client is gone.
pub struct Left {
    place: Place,
    /// `None` if it can't be read.
    claim: Option<KeptTicket>,
    trace: Vec<Trace>,
}

impl Left {
    /// What the sessions of the account `label` (`user@host:port`) have left on this machine. A
    /// session without changes has left nothing.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn of(label: &str) -> io::Result<Vec<Left>> {
        let Some(directory) = directory(label) else { return Ok(Vec::new()) };
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let Some((place, claim)) = Place::of_gone(&entry?.path())? else { continue };
            let trace = format::read(&place.journal())?;
            if trace.is_empty() {
                place.remove()?;
                continue;
            }
            all.push(Left { place, claim, trace });
        }
        Ok(all)
    }

    /// What can be sent with the claim to the session, and the key that proves the claim. `None` if
    /// the claim is damaged, or was written by another version of xfer: then the session can't be
    /// resumed.
    pub fn leftover(&self) -> Option<(Leftover, SavedKey)> {
        let KeptTicket { session, secret, epoch, durable, attempt, key, .. } =
            self.claim.as_ref()?;
        let (session, secret, epoch) = (*session, secret.clone(), *epoch);
        let ticket = Ticket { session, secret, epoch, durable: *durable, attempt: *attempt };
        Some((Leftover::new(ticket, self.trace.clone()), SavedKey(key.clone())))
    }

    /// All that is left, for a rescue.
    pub fn trace(&self) -> impl Iterator<Item = Trace> {
        self.trace.iter().cloned()
    }

    /// The number of changes.
    pub fn count(&self) -> usize {
        self.trace.iter().filter_map(Trace::change).count()
    }

    /// Its place, where the claim is noted while the changes are sent.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn remove(self) -> io::Result<()> {
        self.place.remove()
    }
}

/// The directory of an account's sessions on this machine, which may share a home directory with
/// others.
fn directory(label: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let absolute = |path: &PathBuf| path.is_absolute();
    let cache = cache.filter(absolute).or_else(|| home().filter(absolute))?;
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Some(cache.join("xfer/offline").join(format!("{label} from {machine}")))
}

/// Puts a file in the place of another, for good.
fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let next = path.with_extension("new");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&next)?;
    write(&file)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
    Ok(file)
}
