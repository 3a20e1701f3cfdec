//! Mounting: directly as root, otherwise through `fusermount3`.
//!
//! fuser can do both, but as root it mounts with the type `fuse`. Then mount(8), `findmnt -t` and
//! `xfer unmount` could not tell the mount from other FUSE mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fuser::{Config, Filesystem, MountOption, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::Options;
use crate::mountpoint::mountinfo::{self, Entry};
use crate::mountpoint::{self, unmounting};

/// Mounts a filesystem and does the FUSE handshake; also returns the mount's entry.
pub(super) fn session<F: Filesystem>(
    filesystem: F,
    place: &Path,
    options: &Options,
) -> io::Result<(Session<F>, Entry)> {
    let config = config(options);
    match mount_as_root(place, options) {
        Ok(device) => {
            let entry = entry(place, options)?;
            let session = Session::from_fd(filesystem, device, config.acl, config);
            let session = session.inspect_err(|_| take_back(&entry))?;
            Ok((session, entry))
        }
        Err(Errno::PERM) => {
            let session = Session::new(filesystem, place, &config)?;
            Ok((session, entry(place, options)?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Unmounts a mount that can't be served after all. A covered one stays: it is dead, and is later
/// removed as stale.
pub(super) fn take_back(entry: &Entry) {
    if let Err(error) = unmounting::detach(entry) {
        tracing::warn!("{}: not unmounted: {error}", entry.mountpoint.display());
    }
}

/// The entry of the mount just made at `place`. Another process may have mounted over it since.
fn entry(place: &Path, options: &Options) -> io::Result<Entry> {
    let user = rustix::process::getuid().as_raw();
    let mut stack = mountinfo::stack(place)?;
    stack.retain(|entry| entry.is_xfer() && entry.user == Some(user));
    let same_source = stack.iter().position(|entry| entry.source == options.source);
    match stack.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it was unmounted at once")),
        false => Ok(stack.swap_remove(same_source.unwrap_or(0))),
    }
}

/// `EPERM` if this process is not root.
fn mount_as_root(place: &Path, options: &Options) -> Result<OwnedFd, Errno> {
    if !rustix::process::geteuid().is_root() {
        return Err(Errno::PERM);
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
    let data = data(&device, place, options)?;
    let flags = mountpoint::flags(options.access, options.sync);
    mount(options.source.as_str(), place, mountinfo::KIND, flags, data.as_c_str())?;
    Ok(device)
}

/// The mount data that the kernel's FUSE expects.
fn data(device: &OwnedFd, place: &Path, options: &Options) -> Result<CString, Errno> {
    let metadata = std::fs::metadata(place)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        metadata.mode(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    CString::new(data).map_err(|_| Errno::INVAL)
}

fn config(options: &Options) -> Config {
    let choice = |yes, if_yes, if_no| if yes { if_yes } else { if_no };
    let flags = mountpoint::flags(options.access, options.sync);
    let has = |flag| flags.contains(flag);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("xfer".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        choice(has(MountFlags::NOSUID), MountOption::NoSuid, MountOption::Suid),
        choice(has(MountFlags::NODEV), MountOption::NoDev, MountOption::Dev),
        choice(has(MountFlags::NOEXEC), MountOption::NoExec, MountOption::Exec),
        choice(has(MountFlags::RDONLY), MountOption::RO, MountOption::RW),
        choice(has(MountFlags::SYNCHRONOUS), MountOption::Sync, MountOption::Async),
    ];
    config.acl = match options.allow_other {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    config
}
