//! Claims on mount points: if several processes of a user are about to mount at one place, they go
//! one at a time.
//!
//! A claim is a lock on a file beside the control sockets. The kernel releases it when its process ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::directory;

/// This process's claim on a mount point.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Claims a mount point (absolute, free of links); `None` if another process holds the claim.
    ///
    /// # Errors
    /// If there is no usable directory for the claim.
    pub fn take(mountpoint: &Path) -> io::Result<Option<Claim>> {
        let name = format!("{}.claim", directory::place_key(mountpoint));
        directory::bind_in_first(|place| Self::take_at(place.join(&name)))
    }

    fn take_at(path: PathBuf) -> io::Result<Option<Claim>> {
        loop {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(false).mode(0o600);
            let lock = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // The previous holder may have removed the file after it was opened here.
            if fs::metadata(&path)
                .is_ok_and(|there| lock.metadata().is_ok_and(|own| same(&there, &own)))
            {
                return Ok(Some(Claim { path, _lock: lock }));
            }
        }
    }
}

fn same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_can_be_claimed_once_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.claim");
        let claim = Claim::take_at(path.clone()).unwrap();
        assert!(claim.is_some());
        assert!(Claim::take_at(path.clone()).unwrap().is_none());
        drop(claim);
        assert!(!path.exists());
        assert!(Claim::take_at(path).unwrap().is_some());
    }
}
