//! `xfer-mount` as a mount helper, for `mount -t fuse.xfer` and lines of fstab. It acts as one when
//! it is called by the name of a mount helper: `mount.fuse.xfer` or `mount.xfer`.
//!
//! mount(8) defines the command line ("External helpers" there) and the exit codes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::command::cli::MountLine;
use crate::command::options;
use crate::process::exit::{Exit, Failure};

/// What mount(8) calls a helper with.
#[derive(Parser, Debug)]
#[command(
    name = "mount.fuse.xfer",
    version,
    about = "Mount an xfer server's storage, for mount(8)"
)]
pub struct HelperLine {
    /// Who on which server; the port is 33000 if not given
    #[arg(value_name = "USER@HOST[:PORT]")]
    target: String,
    /// The directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Options, as of xfer-mount; its long options are words here: password_file=F
    #[arg(short = 'o', value_name = "OPT,...", value_delimiter = ',')]
    options: Vec<String>,
    /// Do everything but mount
    #[arg(short = 'f')]
    fake: bool,
    /// Leave out options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Without effect: there is no mtab
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Without effect
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
    /// The filesystem's type, which is known
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Another mount namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
}

/// What the helper was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Mount, with this command line.
    Mount(Box<MountLine>),
    /// Only check this command line (`-f`).
    Check(Box<MountLine>),
}

/// Whether the program was called by the name of a mount helper.
pub fn is_called(program: &OsStr) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"mount."))
}

impl HelperLine {
    /// Converts the request to a command line of `xfer-mount`.
    ///
    /// # Errors
    /// If an option is wrong or not supported.
    pub fn task(self) -> Result<Task, Failure> {
        if self.namespace.is_some() {
            let line = "-N is not supported; enter the namespace first: nsenter --mount=… mount …";
            return Err(Failure::new(Exit::Usage, line));
        }
        let known = |word: &String| !self.sloppy || options::is_known(word);
        // `mount -a` and `umount` find the mount by the source that the fstab has.
        let source = format!("fsname={}", self.target);
        let options = [source].into_iter().chain(self.options.into_iter().filter(known)).collect();
        let line = MountLine { options, ..MountLine::bare(&self.target, self.mountpoint) };
        let line = Box::new(line);
        Ok(if self.fake { Task::Check(line) } else { Task::Mount(line) })
    }
}

/// The exit code that mount(8) documents for the exit code `code` of `xfer-mount`.
pub fn mount_code(code: u8) -> u8 {
    const USAGE: u8 = 1;
    const FAILED: u8 = 32;
    match code {
        0 => 0,
        code if code == Exit::Usage.code() => USAGE,
        _ => FAILED,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn task(arguments: &[&str]) -> Result<Task, Failure> {
        let line = ["mount.fuse.xfer", "alice@host", "/mnt"].iter().chain(arguments);
        HelperLine::try_parse_from(line).unwrap().task()
    }

    #[test]
    fn a_helper_is_known_by_its_name() {
        for name in ["/sbin/mount.fuse.xfer", "mount.xfer"] {
            assert!(is_called(OsStr::new(name)), "{name}");
        }
        for name in ["/usr/bin/xfer-mount", "mount", "/mount.d/xfer-mount"] {
            assert!(!is_called(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_flags_of_mount_are_taken() {
        let flags = ["-n", "-v", "-s", "-t", "fuse.xfer", "-o", "ro,shiny,takeover"];
        let Task::Mount(line) = task(&flags).unwrap() else { panic!("nothing to mount") };
        assert_eq!(line.target, "alice@host");
        assert_eq!(line.options, ["fsname=alice@host", "ro", "takeover"]);
        assert!(matches!(task(&["-f"]).unwrap(), Task::Check(_)));
        assert!(task(&["-N", "/proc/1/ns/mnt"]).is_err());
    }
}
