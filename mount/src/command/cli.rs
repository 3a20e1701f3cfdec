//! The command line of `xfer-mount`, as clap reads it, and the parts that others share with it.
//!
//! Only its shape; `config` checks the values. [`super::xfer_line`] is that of `xfer`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser};

use crate::command::complaint;
use crate::process::exit::Failure;

const MOUNT_EXITS: &str = "\
Exit codes: 0 mounted, 1 other, 2 usage, 3 mount point missing, 4 mount point busy, 5 no FUSE,
6 host unreachable, 7 not an xfer server, 8 key unknown or changed, 9 wrong password, 10 blocked,
11 account in use, 12 server busy or failing, 14 lost with changes that are not durable,
130 interrupted";

pub(super) const CACHE_SIZE: &str = "256MiB";

pub(super) const LOG_SIZE: &str = "256MiB";

pub(super) const TREE_SIZE: &str = "512MiB";

/// `xfer-mount`: mounts a user's storage as a directory.
#[derive(Parser, Clone, Debug)]
#[command(name = "xfer-mount", version, after_help = MOUNT_EXITS)]
#[command(about = "Mount your storage on an xfer server as a directory")]
pub struct MountLine {
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Options: ids=stored|mounter, allow_other, uid=, gid=, umask=, wait=SECONDS|forever (for the server, while it
    /// cannot be reached; 30 if not given), offline[=SIZE] (keep changes on this machine's disk meanwhile), and the words of
    /// mount(8)
    #[arg(short = 'o', value_name = "OPT,...", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Who on which server; the port is 33000 if not given
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub target: String,
    /// The directory to mount on
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Where the password comes from
    #[command(flatten)]
    pub password: PasswordLine,
    /// How the server proves who it is
    #[command(flatten)]
    pub trust: TrustLine,
    /// Keep known servers in this file [default: ~/.local/state/xfer/known_hosts]
    #[arg(long, value_name = "F")]
    pub known_hosts: Option<PathBuf>,
    /// Take the tree from a mount of the same account elsewhere (it first sends what it has, and is dormant
    /// until this one ends)
    #[arg(long)]
    pub takeover: bool,
    /// Memory for what was read [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Memory for changes that are on their way [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub log_size: Option<String>,
    /// Memory for names and attributes [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub tree_size: Option<String>,
    /// Read settings from this file [default: ~/.config/xfer/config.toml]
    #[arg(long, value_name = "F")]
    pub config: Option<PathBuf>,
    /// Print the settings in force and where each comes from, and do not mount
    #[arg(long)]
    pub print_config: bool,
}

impl MountLine {
    /// A command line with only the required arguments.
    pub fn bare(target: &str, mountpoint: PathBuf) -> MountLine {
        MountLine {
            foreground: false,
            options: Vec::new(),
            target: target.to_owned(),
            mountpoint,
            password: PasswordLine::default(),
            trust: TrustLine::default(),
            known_hosts: None,
            takeover: false,
            cache_size: None,
            log_size: None,
            tree_size: None,
            config: None,
            print_config: false,
        }
    }
}

/// Where the password comes from; a prompt if nothing is given.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct PasswordLine {
    /// Take the password from the first line of this file
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
    /// Take the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// How the server proves who it is; the known hosts file, and a question, if nothing is given.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct TrustLine {
    /// Trust a server that was never seen before (one whose certificate changed is still refused)
    #[arg(long)]
    pub accept_new: bool,
    /// Trust just the server whose certificate has this SHA-256
    #[arg(long, value_name = "sha256:HEX")]
    pub fingerprint: Option<String>,
    /// Trust certificates for the server's name that these authorities (PEM) signed
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// How to reach a server, and how it proves who it is.
#[derive(Args, Clone, Debug)]
pub struct ServerLine {
    /// How the server proves who it is
    #[command(flatten)]
    pub trust: TrustLine,
    /// Keep known servers in this file [default: ~/.local/state/xfer/known_hosts]
    #[arg(long, value_name = "F")]
    pub known_hosts: Option<PathBuf>,
    /// Read settings from this file [default: ~/.config/xfer/config.toml]
    #[arg(long, value_name = "F")]
    pub config: Option<PathBuf>,
}

/// Parses the command line of this program and turns an error into one line. Help and the version are
/// printed and end the process.
///
/// # Errors
/// If the command line is wrong.
pub fn parse<T: Parser>() -> Result<T, Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    T::try_parse_from(&words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => complaint::failure(&error, &T::command(), &words),
    })
}
