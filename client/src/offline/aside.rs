//! Damaged journals, which are kept aside.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::durable::{replace, sync_directory};

/// The most damaged journals of one session that are kept aside.
const MAX: usize = 16;

/// The extension of one. It is beside the place of its session.
const DAMAGED: &str = "damaged";

/// As much is compared at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Keeps the journal of the session at `place` aside for when the place is removed. Returns where it
/// is. By a link, which needs no room on a disk that may be full, or as a copy on a filesystem without
/// links.
///
/// # Errors
/// If it can't be made.
pub(super) fn keep(journal: &Path, place: &Path) -> io::Result<PathBuf> {
    let kept = names(place).find_map(|aside| match keep_as(journal, &aside) {
        // Of a journal that this session had before.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
        kept => Some(kept.map(|()| aside)),
    });
    let aside = kept.unwrap_or_else(|| Err(ErrorKind::AlreadyExists.into()))?;
    place.parent().map_or(Ok(()), sync_directory)?;
    Ok(aside)
}

/// Whether the journal of the session at `place` is kept aside.
pub(super) fn is_kept(journal: &Path, place: &Path) -> bool {
    names(place).any(|aside| is_same(journal, &aside).unwrap_or(false))
}

/// The names under which journals of a session may be kept.
fn names(place: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MAX).map(|count| match count {
        1 => place.with_extension(DAMAGED),
        count => place.with_extension(format!("{count}.{DAMAGED}")),
    })
}

fn keep_as(journal: &Path, aside: &Path) -> io::Result<()> {
    match fs::hard_link(journal, aside) {
        Err(error) if !knows_links(&error) => {}
        linked => return linked,
    }
    if fs::symlink_metadata(aside).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let mut journal = File::open(journal)?;
    replace(aside, |mut copy| io::copy(&mut journal, &mut copy).map(drop)).map(drop)
}

/// Whether a filesystem that gave this error to link(2) has links at all: FAT gives `EPERM`, and FUSE
/// `ENOSYS` or `EOPNOTSUPP`.
fn knows_links(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    !matches!(errno, Some(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK))
}

/// Whether two paths lead to one file, or to two with the same bytes.
fn is_same(journal: &Path, aside: &Path) -> io::Result<bool> {
    let [journal, aside] = [File::open(journal)?, File::open(aside)?];
    let [is, other] = [journal.metadata()?, aside.metadata()?];
    if (is.dev(), is.ino()) == (other.dev(), other.ino()) {
        return Ok(true);
    }
    if is.len() != other.len() {
        return Ok(false);
    }
    let (mut journal, mut expected, mut found) =
        (journal, vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut at = 0;
    loop {
        let count = journal.read(&mut expected)?;
        if count == 0 {
            return Ok(true);
        }
        aside.read_exact_at(&mut found[..count], at)?;
        if expected[..count] != found[..count] {
            return Ok(false);
        }
        at += count as u64;
    }
}
