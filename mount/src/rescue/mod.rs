//! What a session held that did not reach the server, kept on this machine.
//!
//! A session may end before all its changes are durable: another machine took the account over, the
//! password was changed, the user gave it up. The changes are then kept as files in their
//! directories, with a list. Nothing is removed here until its user says so.
//!
//! Reading order: [`item`] (what is kept of a node), [`written`] (the bytes of a file), [`shadow`]
//! (from changes to nodes), this file
//! (a rescue and its directory), [`room`], [`text`], [`applying`], [`commands`].

pub mod item;
mod written;
mod shadow;
mod text;
mod applying;
mod keeping;
mod room;
pub mod commands;

pub use keeping::{Keeper, count, keep};
pub use room::{keep_what_fits, must_fit};

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock, fstatfs, syncfs};
use rustix::process::geteuid;
use xfer_client::connect::state_directory;
use xfer_client::core::Trace;
use xfer_client::durable::{self, make_directory};
use xfer_protocol::Timestamp;

use item::Contents;
use shadow::Shadow;

/// The type of a filesystem that a process serves (`statfs(2)`: `FUSE_SUPER_MAGIC`).
const FUSE: i64 = 0x6573_5546;

/// Where rescues go that the home directory can't hold. The system may remove them after some weeks
/// (tmpfiles.d(5)).
const SPARE: &str = "/var/tmp";

/// The file that says what a rescue holds, for [`applying`].
const CONTENTS: &str = "rescue.json";

/// The same for people.
const LIST: &str = "list.txt";

/// The directories of all rescues of this user. A new one goes to the first that can hold it.
pub struct Rescues(Vec<PathBuf>);

/// One rescue.
pub struct Rescue {
    path: PathBuf,
    contents: Contents,
}

impl Rescues {
    /// The rescues of this user: in the home directory; or if there is none, or its disk is full, where
    /// files outlive a restart, or where `$XFER_SPARE_RESCUES` says.
    pub fn of_user() -> Rescues {
        let usual = state_directory().map(|directory| directory.join("rescue"));
        let spare = std::env::var_os("XFER_SPARE_RESCUES").map(PathBuf::from);
        let spare = spare.filter(|path| path.is_absolute());
        let spare = spare.unwrap_or_else(|| {
            Path::new(SPARE).join(format!("xfer-rescue-{}", geteuid().as_raw()))
        });
        Rescues(usual.into_iter().chain([spare]).collect())
    }

    /// The directories that are there and can be trusted. Another user may have made one that is found
    /// by its name alone.
    fn trusted(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().filter(|directory| must_be_own(directory).is_ok())
    }

    /// Keeps the changes of a trace, and returns where.
    ///
    /// # Errors
    /// If no disk can hold them: what the first said.
    pub fn keep(&self, account: &str, why: &str, trace: &[Trace]) -> io::Result<PathBuf> {
        let mut kept = Err(io::ErrorKind::NotFound.into());
        for (place, directory) in self.0.iter().enumerate() {
            match keep_in(directory, account, why, trace.iter().cloned()) {
                Ok(path) => return Ok(path),
                Err(error) if place == 0 => {
                    let line = format!("{}: {error}", directory.display());
                    kept = Err(io::Error::new(error.kind(), line));
                }
                Err(_) => {}
            }
        }
        kept
    }

    /// The names of all rescues, and of those that are unfinished. Other directories may lie beside
    /// them, such as `lost+found`.
    ///
    /// # Errors
    /// If a directory can't be read.
    pub fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for directory in self.trusted() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if self.unfinished(&name).is_some() || entry.path().join(CONTENTS).exists() {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }

    /// The directory of an unfinished rescue, if it is the name of one: a dot before that of a rescue,
    /// which begins with an account.
    pub fn unfinished(&self, name: &str) -> Option<PathBuf> {
        let is_name = name.starts_with('.') && name.contains('@') && !name.contains('/');
        let mut places = self.trusted().map(|directory| directory.join(name));
        let is_directory = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|it| it.is_dir());
        places.find(|path| is_name && is_directory(path))
    }

    /// The rescue with this name.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub fn open(&self, name: &str) -> io::Result<Rescue> {
        let path = self.path(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Rescue { contents: read(&path)?, path })
    }

    /// The directory of the rescue with this name, whether or not it can be read.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        let mut paths = self.trusted().map(|directory| directory.join(name));
        paths.find(|path| is_name && path.join(CONTENTS).exists())
    }
}

impl Rescue {
    /// Its name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Keeps a rescue in this directory. It has its name only once everything is on the disk.
fn keep_in(
    directory: &Path,
    account: &str,
    why: &str,
    trace: impl Iterator<Item = Trace>,
) -> io::Result<PathBuf> {
    make_directory(directory)?;
    must_be_own(directory)?;
    let now = Timestamp::from(SystemTime::now()).to_rfc3339();
    let (path, unfinished) = new_name(directory, account, &now);
    DirBuilder::new().mode(0o700).create(&unfinished)?;
    let _writer = writer_of(&unfinished)?;
    let filled = fill(&unfinished, account, why, now, trace);
    if filled.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    filled?;
    fs::rename(&unfinished, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Locks an unfinished rescue for the process that writes it. `None` if another one does.
fn writer_of(path: &Path) -> io::Result<Option<File>> {
    let directory = File::open(path)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        locked => Ok(locked.map(|()| Some(directory))?),
    }
}

/// Fails unless a directory is this user's, and nobody else can change it.
fn must_be_own(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!("{} is not a directory that only this user can change", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// A name that no rescue in a directory has, and the one until it is finished.
fn new_name(directory: &Path, account: &str, now: &str) -> (PathBuf, PathBuf) {
    let stem = format!("{account}-{}", now.replace(':', "."));
    let names = (1..).map(|count| match count {
        1 => stem.clone(),
        count => format!("{stem}-{count}"),
    });
    let paths = names.map(|name| (directory.join(&name), directory.join(format!(".{name}"))));
    let mut free = paths.filter(|(path, unfinished)| !path.exists() && !unfinished.exists());
    // The counts don't end before a name is free.
    free.next().unwrap_or_else(|| (directory.join(&stem), directory.join(format!(".{stem}"))))
}

/// Fills the directory of a new rescue, for good.
fn fill(
    directory: &Path,
    account: &str,
    why: &str,
    written: String,
    mut trace: impl Iterator<Item = Trace>,
) -> io::Result<()> {
    let mut shadow = Shadow::new(directory);
    trace.try_for_each(|part| shadow.follow(part))?;
    let (account, why) = (account.to_owned(), why.to_owned());
    let contents = Contents { account, why, written, ..shadow.settle()? };
    write(directory, &contents)?;
    let opened = File::open(directory)?;
    // A filesystem that a process serves, as that of an encrypted home may be, is not told of `syncfs`.
    if fstatfs(&opened)?.f_type as i64 == FUSE {
        return sync(directory);
    }
    Ok(syncfs(opened)?)
}

/// Syncs a directory, and each file in it.
fn sync(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(directory)?.sync_all()
}

/// Reads what a rescue holds.
fn read(directory: &Path) -> io::Result<Contents> {
    Ok(serde_json::from_slice(&fs::read(directory.join(CONTENTS))?)?)
}

/// Writes down what a rescue holds.
fn write(directory: &Path, contents: &Contents) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(contents)?;
    durable::replace(&directory.join(CONTENTS), |mut file| file.write_all(&json))?;
    let list = text::list(contents);
    durable::replace(&directory.join(LIST), |mut file| file.write_all(list.as_bytes())).map(drop)
}
