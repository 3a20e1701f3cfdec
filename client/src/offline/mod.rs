//! What an offline client keeps on this machine's disk, so that a crash of the machine loses nothing:
//! its claim to the session, and its changes while the server can't be reached.
//!
//! Reading order: [`mod@format`] (the bytes of the journal), [`place`] (the directory of one session),
//! [`spill`] (data that is too much for memory), this file (what is left of sessions whose clients are
//! gone), [`leftover`] (how it is sent).
//!
//! **Invariant:** only this user can read it, since the claim is a secret.

mod aside;
mod format;
mod place;
mod spill;
mod leftover;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xfer_protocol::message::Secret;
use xfer_protocol::{Epoch, Seq, SessionId};

use crate::connect::{SavedKey, Ticket};
use crate::core::Trace;
use crate::machine;
use format::Kept;

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
    kept: Kept,
}

/// What a damaged journal has, and what it has lost.
pub struct Damage {
    /// All that can be read, for a rescue; nothing, if that could be sent.
    pub trace: Vec<Trace>,
    /// The number of bytes that can't be read.
    pub bytes: u64,
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
            let mut kept = format::read(&place.journal())?;
            if place.is_set_aside() {
                kept = Kept { trace: kept.trace, ..Kept::default() };
            }
            if kept == Kept::default() {
                place.remove()?;
                continue;
            }
            all.push(Left { place, claim, kept });
        }
        Ok(all)
    }

    /// The other accounts, `user@host:port` each, of which mounts have left changes on this machine. One
    /// of them may be the same account by another name.
    ///
    /// # Errors
    /// If a directory can't be read.
    pub fn elsewhere(label: &str) -> io::Result<Vec<String>> {
        let mut others = accounts()?;
        others.retain(|other, places| {
            other != label && places.iter().any(|place| Place::waits(place))
        });
        Ok(others.into_keys().collect())
    }

    /// The accounts, `user@host:port` each, of which mounts that are gone have left changes on this
    /// machine, and the number of changes that can be sent. Nothing is touched or held for this.
    ///
    /// # Errors
    /// If a directory can't be read.
    pub fn waiting() -> io::Result<BTreeMap<String, usize>> {
        let counted = accounts()?.into_iter().filter_map(|(label, places)| {
            let waiting: Vec<_> = places.iter().filter(|place| Place::waits(place)).collect();
            let count = waiting.iter().map(|place| Place::count(place)).sum();
            (!waiting.is_empty()).then_some((label, count))
        });
        Ok(counted.collect())
    }

    /// What can be sent with the claim to the session, and the key that proves the claim. `None` if
    /// the claim is damaged, or was written by another version of xfer: then the session can't be
    /// resumed.
    pub fn leftover(&self) -> Option<(Leftover, SavedKey)> {
        let KeptTicket { session, secret, epoch, durable, attempt, key, .. } =
            self.claim.as_ref()?;
        let (session, secret, epoch) = (*session, secret.clone(), *epoch);
        let ticket = Ticket { session, secret, epoch, durable: *durable, attempt: *attempt };
        Some((Leftover::new(ticket, self.kept.trace.clone()), SavedKey(key.clone())))
    }

    /// All of it that can be read, for a rescue.
    pub fn trace(&self) -> impl Iterator<Item = Trace> {
        self.kept.trace.iter().chain(&self.kept.after_damage).cloned()
    }

    /// What its journal has lost, if it is damaged, or the machine crashed while it was written.
    pub fn damage(&self) -> Option<Damage> {
        let Kept { after_damage, unreadable, .. } = &self.kept;
        let has_more = after_damage.iter().any(|part| part.change().is_some());
        let trace = if has_more { self.trace().collect() } else { Vec::new() };
        (has_more || *unreadable > 0).then_some(Damage { trace, bytes: *unreadable })
    }

    /// Keeps a damaged journal aside, and goes on with what stands before the damage. Returns where it
    /// is.
    ///
    /// # Errors
    /// If this machine's disk is full or fails.
    pub fn set_damage_aside(&mut self) -> io::Result<PathBuf> {
        let aside = self.place.set_aside()?;
        let trace = std::mem::take(&mut self.kept.trace);
        self.kept = Kept { trace, ..Kept::default() };
        Ok(aside)
    }

    /// The number of changes that can be sent.
    pub fn count(&self) -> usize {
        self.kept.trace.iter().filter_map(Trace::change).count()
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
/// others. `None` if the user has no home directory.
pub fn directory(label: &str) -> Option<PathBuf> {
    Some(top()?.join(format!("{label}{}", suffix())))
}

/// The accounts that have a directory of this machine, and what is in it.
fn accounts() -> io::Result<BTreeMap<String, Vec<PathBuf>>> {
    let entries = match top().map(fs::read_dir) {
        None => return Ok(BTreeMap::new()),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Some(entries) => entries?,
    };
    let mut accounts = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(label) = name.strip_suffix(&suffix()) else { continue };
        let places = fs::read_dir(entry.path()).into_iter().flatten().flatten();
        accounts.insert(label.to_owned(), places.map(|place| place.path()).collect());
    }
    Ok(accounts)
}

/// The directory of all accounts, of all machines.
fn top() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let absolute = |path: &PathBuf| path.is_absolute();
    let cache = cache.filter(absolute).or_else(|| home().filter(absolute))?;
    Some(cache.join("xfer/offline"))
}

/// What the names of this machine's directories end with.
fn suffix() -> String {
    format!(" from {}", machine::identity())
}
