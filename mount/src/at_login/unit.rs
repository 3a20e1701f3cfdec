//! The unit of systemd by which a mount is made at each login: its name and its text. Pure.
//!
//! The service is ready once the mount is usable. The server may be reached only later, so it is tried
//! until it is; other failures that may pass end the process, and systemd starts it again after a while.
//! What a user has to put right is not tried again. At the end everything is sent, as by `xfer unmount`.

use std::path::{Path, PathBuf};

use crate::process::exit::Exit;

/// The section for what `xfer` itself reads; systemd passes over sections that begin like this.
const OWN_SECTION: &str = "[X-Xfer]";

/// The longest name of a unit, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// After how many seconds a mount that failed is tried again.
const AGAIN_SECS: u32 = 15;

/// How many seconds an unmount may take, which sends what the server does not have.
const STOP_SECS: u32 = 100;

/// Failures that only the user can put right.
const FINAL: [Exit; 6] = [
    Exit::Usage,
    Exit::MountPointMissing,
    Exit::MountPointBusy,
    Exit::NoFuse,
    Exit::Key,
    Exit::WrongPassword,
];

/// A mount that is made at each login.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// The account, as `user@host:port`.
    pub account: String,
    /// The mount point, absolute and without control characters.
    pub mountpoint: String,
    /// The command that mounts in the foreground.
    pub start: Vec<String>,
    /// The command that unmounts.
    pub stop: Vec<String>,
}

impl Unit {
    /// Its text.
    pub fn text(&self) -> String {
        let Unit { account, mountpoint, start, stop } = self;
        let codes: Vec<_> = FINAL.iter().map(|exit| exit.code().to_string()).collect();
        let described = specifiers(&format!("xfer mount of {account} at {mountpoint}"));
        format!(
            "# Written by `xfer mount --at-login`; `xfer mount --not-at-login` removes it.\n\
             [Unit]\n\
             Description={described}\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             ExecStart={start}\n\
             ExecStop=-{stop}\n\
             # Until the server can be reached.\n\
             TimeoutStartSec=infinity\n\
             # What the server does not have yet is sent.\n\
             TimeoutStopSec={STOP_SECS}\n\
             Restart=on-failure\n\
             RestartSec={AGAIN_SECS}\n\
             # Failures that the user has to put right.\n\
             RestartPreventExitStatus={codes}\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n\
             \n\
             {OWN_SECTION}\n\
             Account={account}\n\
             Mountpoint={mountpoint}\n",
            start = command(start),
            stop = command(stop),
            codes = codes.join(" "),
        )
    }
}

/// The account and the mount point in the text of a unit, if `xfer` wrote it.
pub fn parse(text: &str) -> Option<(String, PathBuf)> {
    let (_, own) = text.split_once(OWN_SECTION)?;
    let value = |name: &str| own.lines().find_map(|line| line.strip_prefix(name));
    Some((value("Account=")?.to_owned(), PathBuf::from(value("Mountpoint=")?)))
}

/// The name of the unit for a mount point; `None` if it would be too long.
pub fn name(mountpoint: &Path) -> Option<String> {
    let name = format!("xfer-{}.service", escaped(mountpoint.as_os_str().as_encoded_bytes()));
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// A path as a part of a unit's name, as `systemd-escape --path` writes it.
fn escaped(path: &[u8]) -> String {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "-".to_owned();
    }
    let path = parts.join(&b'/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'.');
    let escaped = path.iter().enumerate().map(|(at, byte)| match byte {
        b'/' => "-".to_owned(),
        b'.' if at == 0 => "\\x2e".to_owned(),
        byte if is_plain(*byte) => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    escaped.collect()
}

/// A command line in a unit: each word in quotes, with nothing that systemd would replace.
fn command(words: &[String]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{}\"", quoted(word))).collect();
    quoted.join(" ")
}

fn quoted(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
    specifiers(&word)
}

/// A text whose `%` is not the beginning of one of systemd's specifiers.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_the_escaped_mount_point() {
        let check = |path: &str, expected: &str| {
            assert_eq!(name(Path::new(path)).unwrap(), format!("xfer-{expected}.service"));
        };
        // As `systemd-escape --path` prints them.
        check("/home/al ice/räm-x/.y", "home-al\\x20ice-r\\xc3\\xa4m\\x2dx-.y");
        check("/.hidden//b/", "\\x2ehidden-b");
        check("/", "-");
        assert_eq!(name(Path::new(&format!("/{}", "x".repeat(300)))), None);
    }

    #[test]
    fn a_unit_is_read_as_it_was_written() {
        let unit = Unit {
            account: "alice@host:33000".to_owned(),
            mountpoint: "/home/a b/100% $HOME".to_owned(),
            start: vec!["/usr/bin/xfer-mount".to_owned(), "a \"b\" \\ $c %d".to_owned()],
            stop: vec!["/usr/bin/xfer".to_owned()],
        };
        let text = unit.text();
        let expected = (unit.account, PathBuf::from(unit.mountpoint));
        assert_eq!(parse(&text), Some(expected));
        let start = "ExecStart=\"/usr/bin/xfer-mount\" \"a \\\"b\\\" \\\\ $$c %%d\"\n";
        assert!(text.contains(start), "{text}");
        assert!(text.contains("at /home/a b/100%% $HOME\n"), "{text}");
        assert_eq!(parse("[Unit]\nDescription=another's\n"), None);
    }
}
