//! The command line of `xfer`, as clap reads it.
//!
//! Only its shape; the commands check the values.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::cli::{PasswordLine, ServerLine};
use super::file_lines::FileCommand;
use super::mounting::MountingLine;

const XFER_EXITS: &str = "\
Exit codes: 0 done, 1 other, or some of several failed, 2 usage, 6 host unreachable,
7 not an xfer server, 8 key unknown or changed, 9 wrong password, 10 blocked, 11 account in use,
12 server busy or failing, 13 not an xfer mount, 14 lost with changes that are not durable,
15 lost with nothing missing (status --quiet), 130 interrupted; xfer mount has those of xfer-mount";

/// `xfer`: looks at mounts and ends them, and works without any.
#[derive(Parser, Debug)]
#[command(name = "xfer", version, after_help = XFER_EXITS)]
#[command(about = "Look after xfer mounts, and work on an account's files without one")]
pub struct XferLine {
    /// What to do
    #[command(subcommand)]
    pub command: XferCommand,
}

/// What `xfer` can do.
#[derive(Subcommand, Debug)]
pub enum XferCommand {
    /// Mount an account, and look after mounts
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    Mounts(MountsCommand),
    /// Log in to an account, and manage it
    #[command(flatten)]
    Account(AccountCommand),
    /// Work on an account's files, with or without a mount
    #[command(flatten)]
    Files(FileCommand),
}

/// What `xfer` can do with mounts.
#[derive(Subcommand, Debug)]
pub enum MountsCommand {
    /// Mount an account now, as xfer-mount does, or at each login
    Mount(Box<MountingLine>),
    /// Show all your mounts, or one
    Status(StatusLine),
    /// Show the counters of all your mounts, or of one: operations with their times, caches, the link
    Stats {
        /// The mount
        mountpoint: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until everything written so far is on the server's disk
    Sync {
        /// The mount
        mountpoint: PathBuf,
    },
    /// Make everything durable, then unmount
    #[command(alias = "umount")]
    Unmount {
        /// The mount
        mountpoint: PathBuf,
        /// Do not wait for the server: keep what it does not have on this machine (see `xfer rescue`)
        #[arg(long)]
        abandon: bool,
    },
    /// Look after changes that did not reach the server and are kept on this machine
    Rescue {
        /// What to do
        #[command(subcommand)]
        command: RescueCommand,
    },
}

/// `xfer status`.
#[derive(Args, Debug)]
pub struct StatusLine {
    /// The mount to show
    pub mountpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print nothing; the exit code says how it is, or how the worst of all is: 0 well, 6 without a
    /// connection, 11 another mount has the tree, 13 no process serves it, 14 lost with changes, 15 lost
    #[arg(short = 'q', long, conflicts_with = "json")]
    pub quiet: bool,
    /// Show it again each second, until Ctrl-C
    #[arg(short = 'w', long, conflicts_with_all = ["json", "quiet"])]
    pub watch: bool,
}

/// What `xfer` can do with an account.
#[derive(Subcommand, Debug)]
pub enum AccountCommand {
    /// Let this machine log in without a password from now on; asks for it once
    Login(LoginLine),
    /// Let this machine log in no more
    Logout(LogoutLine),
    /// List the machines that log in by a key, or log one out
    Keys(KeysLine),
    /// Set the account's password
    Passwd(PasswdLine),
}

/// `xfer login`.
#[derive(Args, Debug)]
pub struct LoginLine {
    /// Who on which server; or an invitation, which begins like that [default: asks for it]
    #[arg(value_name = "USER@HOST[:PORT][#INVITATION]")]
    pub target: Option<String>,
    /// What this machine is called in lists [default: its name]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Where the password comes from; with an invitation, the new password
    #[command(flatten)]
    pub password: PasswordLine,
    /// The server
    #[command(flatten)]
    pub server: ServerLine,
}

/// `xfer logout`.
#[derive(Args, Debug)]
pub struct LogoutLine {
    /// Who on which server
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub target: String,
    /// Only forget the key here, without the server
    #[arg(long)]
    pub local: bool,
    /// Do not ask, even if that ends a mount on this machine
    #[arg(long)]
    pub yes: bool,
    /// The server
    #[command(flatten)]
    pub server: ServerLine,
}

/// `xfer keys`.
#[derive(Args, Debug)]
pub struct KeysLine {
    /// Who on which server
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub target: String,
    /// Log this machine out: its key as listed, the beginning of it, or its label; needs the password
    #[arg(long, value_name = "KEY", conflicts_with = "json")]
    pub revoke: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the password comes from
    #[command(flatten)]
    pub password: PasswordLine,
    /// The server
    #[command(flatten)]
    pub server: ServerLine,
}

/// `xfer passwd`.
#[derive(Args, Debug)]
pub struct PasswdLine {
    /// Who on which server
    #[arg(value_name = "USER@HOST[:PORT]")]
    pub target: String,
    /// Log the user's other machines out too [default: asks, if there are any]
    #[arg(long, conflicts_with = "keep_keys")]
    pub revoke_keys: bool,
    /// Let the user's other machines go on logging in
    #[arg(long)]
    pub keep_keys: bool,
    /// The server
    #[command(flatten)]
    pub server: ServerLine,
}

/// What `xfer rescue` can do.
#[derive(Subcommand, Debug)]
pub enum RescueCommand {
    /// List what is kept
    List,
    /// Show what one rescue holds
    Show {
        /// Its name, as listed
        name: String,
    },
    /// Make its changes in the account's mount, without overwriting what others changed since
    Apply {
        /// Its name, as listed
        name: String,
        /// Another directory to make them in
        directory: Option<PathBuf>,
    },
    /// Remove it for good
    Drop {
        /// Its name, as listed
        name: String,
        /// Also if it holds changes that are not applied
        #[arg(long)]
        unapplied: bool,
    },
}
