//! Where the control sockets are: one directory for each user, one socket for each mount.
//!
//! **Invariant:** a directory is used only if it belongs to this user alone, so that another user
//! can't replace our socket with theirs. If it does not, the next candidate is tried, so that
//! another user can't block us by taking a place either.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use xfer_client::connect::state_directory;

use crate::mountpoint::mountinfo;

/// Creates a socket with `bind` in the first usable directory; returns the result of `bind`.
///
/// # Errors
/// If no directory is usable, or a live process has the socket.
pub(super) fn bind_in_first<T>(bind: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let state = state_directory();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for directory in candidates() {
        // The system has to create the parents of the other candidates.
        if let Some(state) = state.as_deref().filter(|state| directory.starts_with(state)) {
            let _ = DirBuilder::new().recursive(true).mode(0o700).create(state);
        }
        match make(&directory).and_then(|()| bind(&directory)) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                last = io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
            }
            bound => return bound,
        }
    }
    Err(last)
}

/// All directories that may hold our sockets: a mount may have been made in another environment (by
/// cron, say) than the one that looks for it.
pub(super) fn all() -> Vec<PathBuf> {
    candidates().into_iter().filter(|directory| check(directory).is_ok()).collect()
}

/// All sockets, including those of dead processes.
pub(super) fn sockets() -> Vec<PathBuf> {
    let entries = all().into_iter().filter_map(|directory| fs::read_dir(directory).ok());
    let paths = entries.flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect()
}

/// Names a place where this process may mount. Another mount namespace may have another mount at the
/// same path, so the namespace is part of it. A digest, since a socket's path is limited to 107 bytes.
pub(super) fn place_key(mountpoint: &Path) -> String {
    const DIGEST_BYTES: usize = 12;
    let mut digest = Sha256::new();
    digest.update(mountinfo::namespace().unwrap_or_default().as_bytes());
    digest.update([0]);
    digest.update(mountpoint.as_os_str().as_bytes());
    hex::encode(&digest.finalize()[..DIGEST_BYTES])
}

/// The socket of the mount made at `mountpoint`. The device number (`major:minor`) in it finds the
/// mount wherever it is moved and wherever copies of it are.
pub(super) fn socket_name(mountpoint: &Path, device: &str) -> String {
    format!("{}{}", place_key(mountpoint), device_ending(device))
}

/// The ending of the socket names of mounts with this device number.
pub(super) fn device_ending(device: &str) -> String {
    format!("-{}.sock", device.replace(':', "."))
}

/// That part of a socket's name.
pub(super) fn ending_of(socket: &Path) -> Option<String> {
    let name = socket.file_name()?.to_str()?;
    name.rfind('-').map(|at| name[at..].to_owned())
}

fn candidates() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|path| path.is_absolute()).map(|path| path.join("xfer"));
    let standard = PathBuf::from(format!("/run/user/{uid}/xfer"));
    let temporary = PathBuf::from(format!("/tmp/xfer-{uid}"));
    // Any user may have taken the name in /tmp; other users can't take these.
    let own = [Some(PathBuf::from("/run/xfer-mount")), state_directory().map(|of| of.join("run"))];
    let fixed = [standard, temporary].into_iter().chain(own.into_iter().flatten());
    let mut directories: Vec<_> = session.into_iter().chain(fixed).collect();
    directories.dedup();
    directories
}

fn make(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    check(directory)
}

/// Does not follow links.
fn check(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && ours && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "not a directory that only this user can enter; remove it",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_directory_of_our_own_will_do() {
        let temp = tempfile::tempdir().unwrap();
        let good = temp.path().join("xfer");
        make(&good).unwrap();
        make(&good).unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&good, &link).unwrap();
        assert!(make(&link).is_err());
        fs::set_permissions(&good, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(make(&good).is_err());
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make(&file).is_err());
    }

    #[test]
    fn each_mount_point_has_a_socket_of_its_own() {
        let name = |path: &str, device: &str| socket_name(Path::new(path), device);
        assert_ne!(name("/a", "0:57"), name("/b", "0:57"));
        assert_ne!(name("/a", "0:57"), name("/a", "0:58"));
        assert!(name("/a", "0:1048575").len() < 48);
    }
}
