//! The words of `-o`: the meaning of mount(8)'s options for an xfer mount, and options of the
//! command line that may appear here too, since an fstab has no other place for them.
//!
//! **Invariant:** every word is either honoured or listed as one that changes nothing; others are
//! refused. As in mount(8), the last of two contradicting words wins.

use std::ops::RangeInclusive;
use std::time::Duration;

use xfer_protocol::message::Silence;
use xfer_protocol::shown::shown;
use xfer_protocol::size;

use crate::command::cli::MountLine;
use crate::command::sshfs::{self, Answer};
use crate::process::exit::Failure;

/// The `-o` options that have an effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Which owner all nodes show.
    pub owners: Owners,
    /// Permission bits that are hidden on nodes.
    pub masks: Masks,
    /// Whether other users of this machine may use the mount (`allow_other`).
    pub allow_other: bool,
    /// What programs may do with the mounted tree.
    pub access: Access,
    /// Whether a change is answered only once it is durable (`sync`, `dirsync`).
    pub sync: bool,
    /// How long programs wait for the server while it can't be reached (`wait=`).
    pub wait: Wait,
    /// How long to try again to reach the server before there is a mount (`retry=`).
    pub retry: Retry,
    /// How many bytes of changes are kept on this machine's disk while the server can't be reached
    /// (`offline`, `offline=`).
    pub offline_bytes: Option<u64>,
    /// Whether the tree is handed to other mounts of the account that ask for it (`handoff`).
    pub handoff: bool,
    /// How long the server may be silent before the connection counts as dead (`silence=`).
    pub silence: Silence,
    /// The source to show for the mount instead of `user@host:port` (`fsname=`).
    pub source: Option<String>,
    /// Whether to change an existing mount instead of making one (`remount`).
    pub remount: bool,
    /// Whether the user knows that something is in the directory to mount on (`nonempty`).
    pub nonempty: bool,
}

/// How long programs wait for the server while it can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So long at most.
    AtMost(Duration),
    /// For as long as it takes.
    Forever,
}

impl Wait {
    /// Seconds, or `forever`.
    fn parse(text: &str) -> Option<Wait> {
        match text {
            "forever" => Some(Wait::Forever),
            _ => text.parse().ok().map(u32::into).map(Duration::from_secs).map(Wait::AtMost),
        }
    }
}

impl Default for Wait {
    fn default() -> Wait {
        Wait::AtMost(Duration::from_secs(30))
    }
}

/// How long to try again to reach the server before there is a mount; not at all by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry(pub Wait);

impl Default for Retry {
    fn default() -> Retry {
        Retry(Wait::AtMost(Duration::ZERO))
    }
}

/// Permission bits that are hidden, each set in octal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// On every node, unless one of the others is given (`umask=`).
    pub all: u16,
    /// On everything but directories (`fmask=`).
    pub files: Option<u16>,
    /// On directories (`dmask=`).
    pub directories: Option<u16>,
}

/// Which owner nodes show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Whether nodes show their stored owners; by default they do in a mount by root.
    pub ids: Option<IdsOption>,
    /// The user id that all nodes show instead of the mounting user's (`uid=`).
    pub uid: Option<u32>,
    /// The group id that all nodes show instead of the mounting user's (`gid=`).
    pub gid: Option<u32>,
}

/// Whether nodes show their stored owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsOption {
    /// All nodes show the mounting user.
    Mounter,
    /// Nodes show the numeric owners that are stored.
    Stored,
}

/// What programs may do with the mounted tree; the kernel enforces it. `None` means the default, or
/// for a remount, the present state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether changes are refused (`ro`, `rw`).
    pub read_only: Option<bool>,
    /// Whether programs can't be executed (`noexec`, `exec`).
    pub no_exec: Option<bool>,
    /// Whether set-id bits have an effect (`suid`, `nosuid`).
    pub suid: Option<bool>,
    /// Whether device nodes can be opened (`dev`, `nodev`).
    pub dev: Option<bool>,
}

/// How much is kept on this machine's disk with `offline` alone, in bytes.
const OFFLINE_BYTES: u64 = 1 << 30;

/// How little and how much that may be, in bytes.
const OFFLINE_RANGE: RangeInclusive<u64> = 16 << 20..=1 << 40;

/// Words that change nothing, accepted because fstab lines and mount(8) itself may contain them.
/// Reading never changes access times, and xfer has no node versions, mandatory locks or silent
/// mount failures.
const IGNORED: &[&str] = &[
    "defaults",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    "user",
    "users",
    "nouser",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "default_permissions",
];

/// Prefixes of words that change nothing: meant for other programs or for people, or shown by the
/// kernel for a FUSE mount and passed back in a remount.
const IGNORED_PREFIXES: &[&str] = &[
    "x-",
    "X-",
    "user=",
    "comment=",
    "subtype=",
    "fd=",
    "rootmode=",
    "user_id=",
    "group_id=",
    "max_read=",
    "blksize=",
];

impl MountOptions {
    /// Parses the words of all `-o` options.
    ///
    /// # Errors
    /// A word that is unknown, or has an invalid value.
    pub fn parse(words: &[String]) -> Result<MountOptions, Failure> {
        let mut options = MountOptions::default();
        for word in words {
            match word.split_once('=') {
                _ if is_ignored(word) => {}
                Some((name, value)) => options.set(word, name, value)?,
                None => options.switch(word)?,
            }
        }
        let Owners { ids, uid, gid } = options.owners;
        if ids == Some(IdsOption::Stored) && (uid, gid) != (None, None) {
            return Err(Failure::usage(
                "ids=stored shows the stored owners, uid= and gid= others: give one",
            ));
        }
        Ok(options)
    }

    fn switch(&mut self, word: &str) -> Result<(), Failure> {
        match word {
            "ro" => self.access.read_only = Some(true),
            "rw" => self.access.read_only = Some(false),
            "noexec" => self.access.no_exec = Some(true),
            "exec" => self.access.no_exec = Some(false),
            "suid" => self.access.suid = Some(true),
            "nosuid" => self.access.suid = Some(false),
            "dev" => self.access.dev = Some(true),
            "nodev" => self.access.dev = Some(false),
            "sync" | "dirsync" => self.sync = true,
            "async" => self.sync = false,
            "allow_other" => self.allow_other = true,
            "remount" => self.remount = true,
            "nonempty" => self.nonempty = true,
            "handoff" => self.handoff = true,
            "nohandoff" => self.handoff = false,
            "offline" => self.offline_bytes = Some(OFFLINE_BYTES),
            "nooffline" => self.offline_bytes = None,
            "auto_unmount" => {
                return Err(Failure::usage(
                    "auto_unmount is not supported; leave it out: \
                     the next xfer-mount removes a mount whose process died",
                ));
            }
            _ => return otherwise(word),
        }
        Ok(())
    }

    fn set(&mut self, word: &str, name: &str, value: &str) -> Result<(), Failure> {
        let wrong =
            |expected: &str| Failure::usage(format!("option '{}': give {expected}", shown(word)));
        // The highest number means "none" to the kernel.
        let parsed = value.parse().ok().filter(|number| *number != u32::MAX);
        let number = |what: &str| parsed.map(Some).ok_or_else(|| wrong(what));
        match (name, value) {
            ("ids", "stored") => self.owners.ids = Some(IdsOption::Stored),
            ("ids", "mounter") => self.owners.ids = Some(IdsOption::Mounter),
            ("uid", _) => self.owners.uid = number("a user's number, like uid=1000")?,
            ("gid", _) => self.owners.gid = number("a group's number, like gid=1000")?,
            ("umask" | "fmask" | "dmask", _) => {
                let mask = u16::from_str_radix(value, 8).ok().filter(|mask| *mask <= 0o777);
                let expected = || wrong(&format!("permission bits in octal, like {name}=077"));
                let mask = mask.ok_or_else(expected)?;
                match name {
                    "fmask" => self.masks.files = Some(mask),
                    "dmask" => self.masks.directories = Some(mask),
                    _ => self.masks.all = mask,
                }
            }
            ("wait" | "retry", _) => {
                let expected = || wrong(&format!("seconds, like {name}=30, or {name}=forever"));
                let wait = Wait::parse(value).ok_or_else(expected)?;
                match name {
                    "retry" => self.retry = Retry(wait),
                    _ => self.wait = wait,
                }
            }
            ("silence", _) => {
                self.silence = Silence::parse(value)
                    .ok_or_else(|| wrong("seconds from 3 to 10, like silence=3"))?;
            }
            ("offline", _) => {
                let bytes = size::parse(value).filter(|bytes| OFFLINE_RANGE.contains(bytes));
                self.offline_bytes = Some(
                    bytes.ok_or_else(|| wrong("a size from 16MiB to 1TiB, like offline=1GiB"))?,
                );
            }
            ("fsname", "") => return Err(wrong("a text, like fsname=archive")),
            ("fsname", _) => self.source = Some(value.to_owned()),
            _ => return otherwise(word),
        }
        Ok(())
    }
}

/// Moves options of the command line from the words of `-o` to `line`; returns the other words.
/// Dashes may be written as `_`.
///
/// # Errors
/// An option that contradicts the command line, or lacks its value.
pub fn take_settings(words: Vec<String>, line: &mut MountLine) -> Result<Vec<String>, Failure> {
    let mut rest = Vec::new();
    for word in words {
        if !take_setting(&word, line)? {
            rest.push(word);
        }
    }
    let passwords = [line.password.password_file.is_some(), line.password.password_stdin];
    let trust = &line.trust;
    let trusts = [trust.accept_new, trust.fingerprint.is_some(), trust.ca.is_some()];
    let several = |given: &[bool]| given.iter().filter(|given| **given).count() > 1;
    if several(&passwords) {
        return Err(Failure::usage("use only one of password_file and --password-stdin"));
    }
    if several(&trusts) {
        return Err(Failure::usage("use only one of accept_new, fingerprint and ca"));
    }
    Ok(rest)
}

/// Moves one word to `line`, if it is an option of the command line.
fn take_setting(word: &str, line: &mut MountLine) -> Result<bool, Failure> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, v)| (name, Some(v)));
    let given = || value.filter(|value| !value.is_empty()).map(str::to_owned);
    let needed = || {
        given().ok_or_else(|| Failure::usage(format!("option '{name}' needs a value: {name}=…")))
    };
    match name.replace('-', "_").as_str() {
        "accept_new" if value.is_none() => line.trust.accept_new = true,
        "takeover" if value.is_none() => line.takeover = true,
        "password_stdin" if value.is_none() => line.password.password_stdin = true,
        "password_file" => line.password.password_file = Some(needed()?.into()),
        "known_hosts" => line.known_hosts = Some(needed()?.into()),
        "fingerprint" => line.trust.fingerprint = Some(needed()?),
        "ca" => line.trust.ca = Some(needed()?.into()),
        "cache_size" => line.cache_size = Some(needed()?),
        "log_size" => line.log_size = Some(needed()?),
        "tree_size" => line.tree_size = Some(needed()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whether a word is known, given a valid value. `mount -s` drops those that are not.
pub fn is_known(word: &str) -> bool {
    let mut line = MountLine::bare("", "".into());
    let is_setting = !matches!(take_setting(word, &mut line), Ok(false));
    is_setting || MountOptions::parse(&[word.to_owned()]).is_ok()
}

fn is_ignored(word: &str) -> bool {
    let marked = || IGNORED_PREFIXES.iter().any(|start| word.starts_with(start));
    word.is_empty() || IGNORED.contains(&word) || marked()
}

/// A word that is not xfer's own: perhaps an option of sshfs.
fn otherwise(word: &str) -> Result<(), Failure> {
    match sshfs::of_word(word) {
        Some(Answer::Nothing) => Ok(()),
        Some(Answer::Instead(advice)) => {
            Err(Failure::usage(format!("option '{}' is not xfer's: {advice}", shown(word))))
        }
        None => Err(unknown(word)),
    }
}

fn unknown(word: &str) -> Failure {
    Failure::usage(format!(
        "unknown option '{}'; known are ids=stored, ids=mounter, uid=, gid=, umask=, fmask=, dmask=, allow_other, \
         ro, rw, noexec, exec, suid, nosuid, dev, nodev, sync, dirsync, async, wait=, retry=, silence=, offline, offline=, nooffline, \
         handoff, nohandoff, fsname=, remount, the long options of xfer-mount (password_file=, …), and the words of mount(8) that change nothing here",
        shown(word),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::process::exit::Exit;

    fn parse(text: &str) -> Result<MountOptions, Failure> {
        MountOptions::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    fn check(text: &str, expected: MountOptions) {
        assert_eq!(parse(text).unwrap(), expected, "{text}");
    }

    fn check_refused(text: &str, part: &str) {
        let failure = parse(text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.line.contains(part), "{failure}");
    }

    #[test]
    fn an_unknown_word_is_answered_by_all_that_are_known() {
        let line = parse("shiny").unwrap_err().line;
        let listed = line.split_once("known are ").unwrap().1;
        let words: Vec<_> = listed.split(", ").take_while(|word| !word.contains(' ')).collect();
        assert!(words.len() > 25, "{words:?}");
        for word in &words {
            // One that takes a value is refused for the lack of a right one.
            let known = parse(word).map_or_else(|error| !error.line.contains("unknown"), |_| true);
            assert!(known, "{word}");
        }
        for pair in ["rw", "exec", "nosuid", "nodev", "async", "nohandoff", "nooffline"] {
            assert!(words.contains(&pair), "{pair} is not in {words:?}");
        }
    }

    #[test]
    fn words_of_mount_are_honoured_or_change_nothing() {
        let access = |access| MountOptions { access, ..MountOptions::default() };
        check("noatime,lazytime,strictatime,_netdev,user=me,", MountOptions::default());
        let (yes, no, default) = (Some(true), Some(false), Access::default());
        check("ro,noexec", access(Access { read_only: yes, no_exec: yes, ..default }));
        check("suid,dev", access(Access { suid: yes, dev: yes, ..default }));
        check(
            "defaults,nosuid,nodev,exec,x-systemd.automount,subtype=x",
            access(Access { no_exec: no, suid: no, dev: no, ..default }),
        );
        check("sync", MountOptions { sync: true, ..MountOptions::default() });
        check(
            "remount,fsname=x",
            MountOptions { remount: true, source: Some("x".to_owned()), ..MountOptions::default() },
        );
    }

    #[test]
    fn the_last_of_two_words_that_contradict_each_other_wins() {
        let no = Some(false);
        let access = Access { read_only: no, no_exec: no, suid: no, dev: no };
        check(
            "ro,rw,noexec,exec,suid,nosuid,dev,nodev",
            MountOptions { access, ..MountOptions::default() },
        );
        let stored = Owners { ids: Some(IdsOption::Stored), ..Owners::default() };
        check("ids=mounter,ids=stored", MountOptions { owners: stored, ..MountOptions::default() });
    }

    #[test]
    fn owners_and_permissions_to_show_are_numbers() {
        let owners = Owners { uid: Some(1000), gid: Some(100), ids: None };
        check(
            "uid=1000,gid=100,umask=027",
            MountOptions {
                owners,
                masks: Masks { all: 0o027, ..Masks::default() },
                ..MountOptions::default()
            },
        );
        let masks = parse("fmask=133,dmask=0022").unwrap().masks;
        assert_eq!(masks, Masks { all: 0, files: Some(0o133), directories: Some(0o022) });
        check_refused("dmask=8", "like dmask=077");
        check_refused("uid=alice", "a user's number");
        check_refused("umask=1777", "in octal");
        check_refused("fsname=", "give a text");
        check_refused("ids=stored,uid=5", "give one");
    }

    #[test]
    fn programs_wait_half_a_minute_or_for_as_long_as_is_said() {
        let wait = |wait| MountOptions { wait, ..MountOptions::default() };
        assert_eq!(parse("").unwrap().wait, Wait::AtMost(Duration::from_secs(30)));
        check("wait=0", wait(Wait::AtMost(Duration::ZERO)));
        check("wait=90", wait(Wait::AtMost(Duration::from_secs(90))));
        check("wait=forever", wait(Wait::Forever));
        check_refused("wait=-1", "give seconds");
        check_refused("wait=", "give seconds");
        check_refused("wait", "unknown option 'wait'");
    }

    #[test]
    fn an_unreachable_server_is_tried_again_only_if_that_is_said() {
        let retry = |text| parse(text).unwrap().retry;
        assert_eq!(retry(""), Retry(Wait::AtMost(Duration::ZERO)));
        assert_eq!(retry("retry=60"), Retry(Wait::AtMost(Duration::from_secs(60))));
        assert_eq!(retry("retry=forever"), Retry(Wait::Forever));
        check_refused("retry=long", "like retry=30, or retry=forever");
    }

    #[test]
    fn a_silence_lasts_for_three_to_ten_seconds() {
        let silence = |text| parse(text).unwrap().silence;
        assert_eq!(silence(""), Silence::LONGEST);
        assert_eq!(
            (silence("silence=3"), silence("silence=10")),
            (Silence::SHORTEST, Silence::LONGEST)
        );
        for wrong in ["silence=2", "silence=11", "silence=3.5", "silence=", "silence=70000"] {
            check_refused(wrong, "give seconds from 3 to 10");
        }
        check_refused("silence", "unknown option 'silence'");
    }

    #[test]
    fn working_offline_takes_a_gibibyte_or_what_is_said() {
        let bytes = |text| parse(text).unwrap().offline_bytes;
        let of = ["", "offline", "offline=64MiB"].map(bytes);
        assert_eq!(of, [None, Some(1 << 30), Some(64 << 20)]);
        check_refused("offline=", "give a size");
        check_refused("offline=0", "give a size");
    }

    #[test]
    fn other_words_are_refused() {
        check_refused("ids=other", "unknown option 'ids=other'");
        check_refused("shiny", "known are ids=stored");
        check_refused("auto_unmount", "not supported");
        assert!(is_known("uid=5") && is_known("password-file=/x") && is_known("noauto"));
        assert!(!is_known("shiny") && !is_known("ids=other"));
    }
}
