//! The configuration of `xfer-mount`: checked, and in types of its own.
//!
//! It is parsed once from the command line, which [`super::settings`] has completed, and never checked again.
//! Reads no files, asks no questions.

use std::path::PathBuf;

use xfer_client::connect::{Fingerprint, Target, TrustMode};
use xfer_protocol::shown::shown;
use xfer_protocol::size;

use crate::command::cli::{CACHE_SIZE, LOG_SIZE, MountLine, PasswordLine, TREE_SIZE, TrustLine};
use crate::command::options::{self, MountOptions};
use crate::process::exit::Failure;

/// The lower bound of `--cache-size`, `--log-size` and `--tree-size`, in bytes.
const SIZE_MIN: u64 = 16 << 20;

/// The upper bound of the same, in bytes.
const SIZE_MAX: u64 = 1 << 40;

/// The checked command line of `xfer-mount`.
#[derive(Debug)]
pub struct Config {
    /// Whether to stay in the foreground.
    pub foreground: bool,
    /// The user, the host and the port.
    pub target: Target,
    /// The mount point, as it was given.
    pub mountpoint: PathBuf,
    /// Where the password comes from.
    pub password: PasswordSource,
    /// How to verify the server's identity.
    pub trust: TrustMode,
    /// The known hosts file; `None` for the default one.
    pub known_hosts: Option<PathBuf>,
    /// Whether to end an existing session of the account.
    pub takeover: bool,
    /// Memory for cached data, in bytes.
    pub cache_bytes: u64,
    /// Memory for changes that are not yet durable, in bytes.
    pub log_bytes: u64,
    /// Memory for names and attributes, in bytes.
    pub tree_bytes: u64,
    /// The `-o` options.
    pub options: MountOptions,
}

/// Where the password comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// Ask on the terminal.
    Prompt,
    /// Read the first line of this file.
    File(PathBuf),
    /// Read the first line of standard input.
    Stdin,
}

impl TryFrom<MountLine> for Config {
    type Error = Failure;

    fn try_from(mut line: MountLine) -> Result<Config, Failure> {
        let words = std::mem::take(&mut line.options);
        let words = options::take_settings(words, &mut line)?;
        Ok(Config {
            foreground: line.foreground,
            target: line.target.parse().map_err(|e| Failure::usage(format!("{e}")))?,
            mountpoint: line.mountpoint,
            password: line.password.into(),
            trust: trust_mode(line.trust)?,
            known_hosts: line.known_hosts,
            takeover: line.takeover,
            cache_bytes: bounded_size(
                "--cache-size",
                line.cache_size.as_deref().unwrap_or(CACHE_SIZE),
            )?,
            log_bytes: bounded_size("--log-size", line.log_size.as_deref().unwrap_or(LOG_SIZE))?,
            tree_bytes: bounded_size(
                "--tree-size",
                line.tree_size.as_deref().unwrap_or(TREE_SIZE),
            )?,
            options: MountOptions::parse(&words)?,
        })
    }
}

impl From<PasswordLine> for PasswordSource {
    fn from(line: PasswordLine) -> PasswordSource {
        match line.password_file {
            Some(file) => PasswordSource::File(file),
            None if line.password_stdin => PasswordSource::Stdin,
            None => PasswordSource::Prompt,
        }
    }
}

/// How a server must prove who it is.
///
/// # Errors
/// If the text is not a fingerprint.
pub fn trust_mode(line: TrustLine) -> Result<TrustMode, Failure> {
    if let Some(text) = line.fingerprint {
        let fingerprint: Fingerprint =
            text.parse().map_err(|e| Failure::usage(format!("--fingerprint: {e}")))?;
        return Ok(TrustMode::Fingerprint(fingerprint));
    }
    Ok(match line.ca {
        Some(file) => TrustMode::Authorities(file),
        None if line.accept_new => TrustMode::AcceptNew,
        None => TrustMode::Ask,
    })
}

/// Parses a size like `256MiB` and checks the bounds of `option`.
fn bounded_size(option: &str, text: &str) -> Result<u64, Failure> {
    let bytes = size::parse(text).ok_or_else(|| {
        Failure::usage(format!("{option}: '{}' is not a size; write it like 256MiB", shown(text)))
    })?;
    if !(SIZE_MIN..=SIZE_MAX).contains(&bytes) {
        return Err(Failure::usage(format!("{option}: {text} is not between 16MiB and 1TiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::exit::Exit;
    use clap::Parser;

    fn config(arguments: &[&str]) -> Result<Config, Failure> {
        let line = ["xfer-mount"].iter().chain(arguments).chain(&["alice@host", "/mnt"]);
        MountLine::try_parse_from(line).unwrap().try_into()
    }

    fn check_refused(arguments: &[&str], part: &str) {
        let failure = config(arguments).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.line.contains(part), "{failure}");
    }

    #[test]
    fn options_of_the_command_line_may_stand_in_an_fstab() {
        let words = "password_file=/p,known_hosts=/k,takeover,accept_new,cache_size=1GiB,ro";
        let config = config(&["-o", words]).unwrap();
        assert_eq!(config.password, PasswordSource::File("/p".into()));
        assert_eq!(config.known_hosts, Some("/k".into()));
        assert_eq!((config.takeover, config.cache_bytes), (true, 1 << 30));
        assert_eq!(config.trust, TrustMode::AcceptNew);
        assert_eq!(config.options.access.read_only, Some(true));
    }

    #[test]
    fn an_option_that_contradicts_the_command_line_is_refused() {
        check_refused(&["--password-stdin", "-o", "password-file=/p"], "use only one");
        check_refused(&["-o", "accept_new,ca=/ca.pem"], "use only one");
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(config(&[]).unwrap().cache_bytes, 256 << 20);
        assert_eq!(config(&["--log-size", "1GiB"]).unwrap().log_bytes, 1 << 30);
        assert_eq!(config(&["--tree-size", "32MiB"]).unwrap().tree_bytes, 32 << 20);
        assert_eq!(config(&["--cache-size", "20M"]).unwrap().cache_bytes, 20 << 20);
        check_refused(&["--cache-size", "15MiB"], "between 16MiB and 1TiB");
        check_refused(&["--cache-size", "2TiB"], "between 16MiB and 1TiB");
        check_refused(&["--cache-size", "much"], "is not a size");
        check_refused(&["--cache-size", "99999999999999999T"], "is not a size");
    }

    #[test]
    fn a_fingerprint_that_is_none_is_refused() {
        check_refused(&["--fingerprint", "sha256:12"], "--fingerprint");
    }
}
