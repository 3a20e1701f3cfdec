//! Where the sockets are.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::UnixListener;

/// Where the admin socket is, as typed on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminSocket {
    /// There is none.
    Off,
    /// Here.
    At(PathBuf),
}

impl FromStr for AdminSocket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AdminSocket, &'static str> {
        match text {
            "off" => Ok(AdminSocket::Off),
            path if path.starts_with('/') => Ok(AdminSocket::At(path.into())),
            _ => Err("give a path that begins with /, or off"),
        }
    }
}

/// The path of the socket in a store.
pub(super) fn in_store(store: &Path) -> PathBuf {
    store.join("control.sock")
}

/// Connects to the server that listens on a path.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&Reachable::of(path)?.path)
}

/// Listens on a path, for its owner and, if `with_group`, for its group, which is that of the
/// directory if this has the set-group-id bit. A socket that nobody listens on is replaced.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] if another server does; also if something else than a socket is there.
pub(super) fn listen(path: &Path, with_group: bool) -> io::Result<UnixListener> {
    let reachable = Reachable::of(path)?;
    let path = &reachable.path;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
        }
        Ok(found) if found.file_type().is_socket() => return Err(ErrorKind::AddrInUse.into()),
        Ok(_) => return Err(io::Error::other("something else is there")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let mode = if with_group { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(listener)
}

/// A path that fits into a socket's address, which holds only about a hundred bytes. A longer one is
/// reached through an open descriptor of its directory.
struct Reachable {
    path: PathBuf,
    _directory: Option<File>,
}

impl Reachable {
    const PATH_BYTES_MAX: usize = 100;

    fn of(path: &Path) -> io::Result<Reachable> {
        if path.as_os_str().len() <= Self::PATH_BYTES_MAX {
            return Ok(Reachable { path: path.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let directory = File::open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Reachable { path, _directory: Some(directory) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_socket_is_a_path_from_the_root_or_off() {
        assert_eq!("off".parse(), Ok(AdminSocket::Off));
        assert_eq!("/run/x.sock".parse(), Ok(AdminSocket::At("/run/x.sock".into())));
        for wrong in ["", "on", "x.sock", "./x.sock"] {
            assert!(wrong.parse::<AdminSocket>().is_err(), "{wrong}");
        }
    }
}
