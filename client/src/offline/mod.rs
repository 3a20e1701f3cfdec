//! What an offline client keeps on this machine's disk, so that a crash of the machine loses nothing:
//! its claim to the session, and its changes while the server can't be reached.
//!
//! Reading order: [`mod@format`] (the bytes of the journal), [`place`] (the directory of one session),
//! [`spill`] (data that is too much for memory), this file (what is left of sessions whose clients are gone).
//!
//! **Invariant:** only this user can read it, since the claim is a secret.

mod format;
mod place;
mod spill;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xfer_protocol::message::Secret;
use xfer_protocol::{Epoch, Seq, SessionId};

use crate::connect::{SavedKey, Ticket};
use crate::core::{Change, Trace};

pub use place::Place;
pub use spill::SpillFiles;

/// The version of the files. Others are not read.
const VERSION: u32 = 1;

/// A new client's requests to resume the session have numbers from so much higher on, since its
/// predecessor may have made some that it did not note.
const ATTEMPTS_APART: u64 = 1 << 32;

/// A client's claim to its session, as it is kept.
#[derive(Serialize, Deserialize)]
struct Claim {
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
    claim: Option<Claim>,
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

    /// The claim to the session, with the key that proves it. `None` if it is damaged, or was written
    /// by another version of xfer: then the session can't be resumed.
    pub fn ticket(&self) -> Option<(Ticket, SavedKey)> {
        let Claim { session, secret, epoch, durable, attempt, key, .. } = self.claim.as_ref()?;
        let (session, secret, epoch) = (*session, secret.clone(), *epoch);
        // What is before the first change that was kept was durable by then.
        let first = self.changes_after(Seq::default()).first().map(|change| change.seq);
        let kept_after = first.map_or(Seq::default(), |first| Seq(first.0.saturating_sub(1)));
        let durable = kept_after.max(*durable);
        let attempt = attempt + ATTEMPTS_APART;
        Some((Ticket { session, secret, epoch, durable, attempt }, SavedKey(key.clone())))
    }

    /// Its changes after one.
    pub fn changes_after(&self, applied: Seq) -> Vec<Change> {
        let changes = self.trace.iter().filter_map(|part| match part {
            Trace::Change(change) if change.seq > applied => Some(change.clone()),
            Trace::Change(_) | Trace::Node(_) => None,
        });
        changes.collect()
    }

    /// All that is left, for a rescue.
    pub fn trace(&self) -> impl Iterator<Item = Trace> {
        self.trace.iter().cloned()
    }

    /// The number of changes.
    pub fn count(&self) -> usize {
        self.trace.iter().filter(|part| matches!(part, Trace::Change(_))).count()
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
