//! The command line of `xfer mount`, as clap reads it: that of `xfer-mount`, with options of its own. Two of
//! these stand alone, without an account and a mount point.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

use crate::command::cli::MountLine;

/// `xfer mount`.
#[derive(Debug)]
pub struct MountingLine {
    /// Its own options.
    pub login: LoginFlags,
    /// What to mount, and how; `None` beside an option that stands alone.
    pub line: Option<MountLine>,
}

/// Whether an account is mounted at each login.
#[derive(Args, Debug, Default)]
pub struct LoginFlags {
    /// Mount at each login from now on, and now: by a unit of your systemd, with this machine's key or a
    /// password file
    #[arg(long)]
    pub at_login: bool,
    /// Mount here at login no more
    #[arg(long, value_name = "MOUNTPOINT", exclusive = true)]
    pub not_at_login: Option<PathBuf>,
    /// List what is mounted at login
    #[arg(long, exclusive = true)]
    pub list: bool,
}

impl Args for MountingLine {
    fn augment_args(command: Command) -> Command {
        MountLine::augment_args(LoginFlags::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        MountLine::augment_args_for_update(LoginFlags::augment_args_for_update(command))
    }
}

impl FromArgMatches for MountingLine {
    fn from_arg_matches(matches: &ArgMatches) -> Result<MountingLine, Error> {
        let login = LoginFlags::from_arg_matches(matches)?;
        let line = match login.list || login.not_at_login.is_some() {
            true => None,
            false => Some(MountLine::from_arg_matches(matches)?),
        };
        Ok(MountingLine { login, line })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = MountingLine::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    use crate::command::xfer_line::{MountsCommand, XferCommand, XferLine};

    fn parse(arguments: &[&str]) -> Option<MountingLine> {
        let line = XferLine::try_parse_from(["xfer", "mount"].iter().chain(arguments)).ok()?;
        let XferCommand::Mounts(MountsCommand::Mount(line)) = line.command else {
            panic!("another command")
        };
        Some(*line)
    }

    #[test]
    fn an_account_and_a_mount_point_are_needed_unless_an_option_stands_alone() {
        let line = parse(&["--at-login", "-o", "ro,retry=5", "alice@host", "/mnt"]).unwrap();
        let mount = line.line.unwrap();
        assert!(line.login.at_login);
        assert_eq!((mount.target.as_str(), mount.options.len()), ("alice@host", 2));
        assert!(parse(&["--list"]).unwrap().login.list);
        let gone = parse(&["--not-at-login", "/mnt"]).unwrap();
        assert_eq!(gone.login.not_at_login, Some("/mnt".into()));
        for wrong in [&["--at-login"][..], &["alice@host"], &["--list", "alice@host", "/mnt"]] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
