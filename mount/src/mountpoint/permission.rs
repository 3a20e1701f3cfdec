//! Whether this user may mount: on this directory, and with these options. `fusermount3`, which mounts for
//! users other than root, would refuse it too, but only after the user has typed a password.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::command::options::{IdsOption, MountOptions};
use crate::process::exit::{Exit, Failure};

/// The file in which root lets other users mount with `allow_other`.
const FUSE_CONF: &str = "/etc/fuse.conf";

/// The bit of a directory in which only a file's owner may remove it.
const STICKY: u32 = 0o1000;

/// The bit of a program that runs with its owner's rights.
const SET_UID: u32 = 0o4000;

/// The file that `fusermount3` looks for its mounts in.
pub const MTAB: &str = "/etc/mtab";

/// What is wrong without it, and what to do.
pub const WITHOUT_MTAB: &str = "fusermount3 needs /etc/mtab, which is missing; as root: ln -s \
                                ../proc/self/mounts /etc/mtab";

/// Checks that FUSE exists and that this user may mount with these options.
///
/// # Errors
/// If not; the line says what to install or whom to ask.
pub fn check_fuse(options: &MountOptions) -> Result<(), Failure> {
    let root = rustix::process::geteuid().is_root();
    if let Some(word) = for_root(options).filter(|_| !root) {
        return Err(Failure::new(Exit::Usage, format!("option {word} is for root; leave it out")));
    }
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| no_fuse(&error))?;
    if root {
        return Ok(());
    }
    check_program()?;
    if options.allow_other && !fs::read_to_string(FUSE_CONF).is_ok_and(|text| lets_others_in(&text))
    {
        return Err(Failure::usage(format!(
            "option allow_other is for root, until {FUSE_CONF} has the line user_allow_other; \
             leave it out, or have root add that line"
        )));
    }
    Ok(())
}

/// Checks that this user may mount on a directory, as `fusermount3` does.
///
/// # Errors
/// If not.
pub fn check_place(place: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(());
    }
    let is_others = metadata.uid() != user.as_raw();
    let why = if metadata.mode() & STICKY != 0 && is_others {
        "it belongs to another user, and only its owner may mount on it"
    } else if accessat(CWD, place, Access::WRITE_OK, AtFlags::EACCESS).is_err() {
        "you may not write to it, so you may not mount on it"
    } else {
        return Ok(());
    };
    let line = format!("{}: {why}; give a directory of your own", place.display());
    Err(Failure::new(Exit::MountPointMissing, line))
}

/// An option among these that only root may give, if any: it would let a user show files as another
/// user's, or grant rights over them.
fn for_root(options: &MountOptions) -> Option<&'static str> {
    let owners = options.owners;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let given = [
        (owners.ids == Some(IdsOption::Stored), "ids=stored"),
        (owners.uid.is_some_and(|shown| shown != uid), "uid= of another user"),
        (owners.gid.is_some_and(|shown| shown != gid), "gid= of another group"),
        (options.access.suid == Some(true), "suid"),
        (options.access.dev == Some(true), "dev"),
        (options.remount, "remount"),
    ];
    given.into_iter().find_map(|(is_given, word)| is_given.then_some(word))
}

fn no_fuse(error: &std::io::Error) -> Failure {
    let cure = match error.kind() {
        ErrorKind::PermissionDenied => {
            "as root: chmod 666 /dev/fuse, or install the package fuse3, which does so"
        }
        _ => {
            "install the package fuse3 and load the module with `modprobe fuse` \
             (a container has to be started with --device /dev/fuse)"
        }
    };
    Failure::new(Exit::NoFuse, format!("no FUSE: /dev/fuse: {error}; {cure}"))
}

/// Checks the program that mounts for users other than root.
fn check_program() -> Result<(), Failure> {
    let Some(path) = find_program("fusermount3") else {
        let line = "no FUSE: fusermount3 is not in PATH; install the package fuse3";
        return Err(Failure::new(Exit::NoFuse, line));
    };
    let of_root = |of: fs::Metadata| of.uid() == 0 && of.permissions().mode() & SET_UID != 0;
    // One that can't be looked at may work all the same, and so may one with capabilities.
    if fs::metadata(&path).is_ok_and(|of| !of_root(of)) && !has_capabilities(&path) {
        let path = path.display();
        let line = format!(
            "no FUSE: {path} does not run as root, so it cannot mount; as root: chmod u+s {path}"
        );
        return Err(Failure::new(Exit::NoFuse, line));
    }
    Ok(())
}

fn has_capabilities(program: &Path) -> bool {
    rustix::fs::getxattr(program, c"security.capability", &mut [0_u8; 64]).is_ok()
}

/// Under mount(8), which clears `$PATH`, programs are where the C library looks for them then.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Whether `fusermount3` reads in this text of its configuration that users may let others in.
fn lets_others_in(text: &str) -> bool {
    let without_comment = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().any(|line| without_comment(line) == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_its_own_lets_others_in() {
        for text in ["user_allow_other", "mount_max = 7\n  user_allow_other # yes\n"] {
            assert!(lets_others_in(text), "{text}");
        }
        for text in ["", "#user_allow_other", "user_allow_others\n", "x user_allow_other"] {
            assert!(!lets_others_in(text), "{text}");
        }
    }
}
