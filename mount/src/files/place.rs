//! Places in trees, as users write them: `USER@HOST[:PORT]:PATH`.
//!
//! The account ends at the first colon after the host. Digits between that colon and a second one are
//! a port. The path leads from the root of the tree, with or without a `/` before it. A path that
//! begins with digits and a colon is written with that `/`.
//!
//! **Invariant:** a path has no `..`, so it can't lead out of the tree.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use xfer_client::connect::Target;
use xfer_protocol::shown::shown;

use crate::process::exit::Failure;

/// A path in the tree of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The account and its server.
    pub(super) account: Target,
    /// The path from the root, without a `/` before it; empty for the root itself.
    pub(super) path: PathBuf,
    /// Whether it ends with a `/`, so that it can only be a directory.
    pub(super) is_directory: bool,
}

/// A file or directory of this machine, or one in a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Either {
    /// One of this machine.
    Here(PathBuf),
    /// One in a tree.
    There(Place),
}

impl Either {
    /// Parses an argument. One of this machine that looks like one in a tree has a `/` before the `@`,
    /// as in `./alice@host:x`.
    ///
    /// # Errors
    /// If it is one in a tree, and wrong.
    pub(super) fn parse(text: &OsStr) -> Result<Either, Failure> {
        match split(text.as_bytes()) {
            Some(_) => Place::parse(text).map(Either::There),
            None => Ok(Either::Here(PathBuf::from(text))),
        }
    }
}

impl Place {
    /// Parses an argument that is in a tree.
    ///
    /// # Errors
    /// If it is not, or the account or the path is wrong.
    pub(super) fn parse(text: &OsStr) -> Result<Place, Failure> {
        let whole = shown(&text.to_string_lossy());
        let Some((account, path)) = split(text.as_bytes()) else {
            let is_account = whole.parse::<Target>().is_ok();
            let line = match is_account {
                true => format!("'{whole}' has no path; write {whole}: for the root of the tree"),
                false => format!("'{whole}' is not in a tree; write USER@HOST[:PORT]:PATH"),
            };
            return Err(Failure::usage(line));
        };
        let account = String::from_utf8_lossy(account).into_owned();
        let account =
            account.parse().map_err(|error| Failure::usage(format!("{whole}: {error}")))?;
        let (path, is_directory) = clean(path)
            .ok_or_else(|| Failure::usage(format!("{whole}: a path cannot have '..' in it")))?;
        Ok(Place { account, path, is_directory })
    }

    /// Parses the arguments of a command, which are all in one tree. After the first, `:PATH` means the
    /// same account.
    ///
    /// # Errors
    /// As [`Place::parse`], or if they are of several accounts.
    pub(super) fn parse_all(texts: &[OsString]) -> Result<Vec<Place>, Failure> {
        let mut places: Vec<Place> = Vec::with_capacity(texts.len());
        for text in texts {
            let place = match (text.as_bytes().strip_prefix(b":"), places.first()) {
                (Some(path), Some(first)) => {
                    let whole = [first.account.to_string().as_bytes(), b":", path].concat();
                    Place::parse(&OsString::from_vec(whole))?
                }
                (Some(_) | None, _) => Place::parse(text)?,
            };
            places.push(place);
        }
        must_be_of_one_account(&places)?;
        Ok(places)
    }

    /// What to write if the path was meant as a port: a number that may be one, alone.
    pub(super) fn as_port(&self) -> Option<String> {
        let text = self.path.to_str()?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|port| *port > 0 && is_number)?;
        let account = Target { port, ..self.account.clone() };
        Some(format!("a port is followed by a colon: {account}:"))
    }
}

/// Refuses files of this machine for a command that works within a tree, and names the command that moves
/// files between the two.
///
/// # Errors
/// If there are such files.
pub(super) fn must_be_in_tree(texts: &[OsString], doing: &str) -> Result<(), Failure> {
    let Some((to, from)) = texts.split_last() else { return Ok(()) };
    let is_here = |text: &OsString| {
        let bytes = text.as_bytes();
        let is_account = bytes.contains(&b'@') && !bytes.contains(&b'/');
        !bytes.starts_with(b":")
            && !is_account
            && matches!(Either::parse(text), Ok(Either::Here(_)))
    };
    let (command, what) = match (from.iter().any(is_here), is_here(to)) {
        (true, false) => ("put", "stores files of this machine"),
        (false, true) => ("get", "fetches files to this machine"),
        (true, true) | (false, false) => return Ok(()),
    };
    let line =
        format!("xfer {doing} within one tree; xfer {command} {what}; see: xfer {command} --help");
    Err(Failure::usage(line))
}

/// Refuses places in trees of several accounts.
fn must_be_of_one_account(places: &[Place]) -> Result<(), Failure> {
    let Some(first) = places.first() else { return Ok(()) };
    match places.iter().find(|place| place.account != first.account) {
        None => Ok(()),
        Some(other) => {
            let hint = other.as_port().or(first.as_port());
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            Err(Failure::usage(format!(
                "{} and {} are two accounts; one command works on one{hint}",
                first.account, other.account
            )))
        }
    }
}

/// The path as users read it in messages and lists: from the root, with a `/` before it.
pub(super) fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// Splits into the account and the path; `None` if the text is no place in a tree.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'@')?;
    if text[..at].contains(&b'/') {
        return None;
    }
    let host = at + 1;
    let host_end = match text.get(host) {
        Some(b'[') => host + text[host..].iter().position(|byte| *byte == b']')? + 1,
        Some(_) => host + text[host..].iter().position(|byte| matches!(byte, b':' | b'/'))?,
        None => return None,
    };
    let path = text[host_end..].strip_prefix(b":")?;
    let digits = path.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match digits > 0 && path.get(digits) == Some(&b':') {
        true => Some((&text[..host_end + 1 + digits], &path[digits + 1..])),
        false => Some((&text[..host_end], path)),
    }
}

/// The path without what means nothing, and whether it can only be a directory; `None` if it has `..`.
fn clean(path: &[u8]) -> Option<(PathBuf, bool)> {
    let is_directory = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let is_directory = is_directory || clean.as_os_str().is_empty();
    Some((clean, is_directory))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(text: &[u8], account: &str, path: &[u8]) {
        let place = Place::parse(OsStr::from_bytes(text)).unwrap();
        assert_eq!(place.account.to_string(), account);
        assert_eq!(place.path.as_os_str().as_bytes(), path);
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        let failure = Place::parse(text.as_ref()).unwrap_err();
        assert!(failure.line.contains(part), "{failure}");
    }

    #[track_caller]
    fn check_here(text: &str) {
        assert_eq!(Either::parse(text.as_ref()).unwrap(), Either::Here(text.into()));
    }

    #[test]
    fn a_place_is_an_account_and_a_path_from_the_root() {
        check(b"alice@host:notes.txt", "alice@host:33000", b"notes.txt");
        check(b"alice@host:/notes//./x/", "alice@host:33000", b"notes/x");
        check(b"alice@host:", "alice@host:33000", b"");
        check(b"alice@host:/", "alice@host:33000", b"");
        check(b"alice@host:a@b:c", "alice@host:33000", b"a@b:c");
        check(b"alice@host:\xff\n", "alice@host:33000", b"\xff\n");
    }

    #[test]
    fn digits_between_two_colons_are_the_port() {
        check(b"alice@host:44:x", "alice@host:44", b"x");
        check(b"alice@host:44:", "alice@host:44", b"");
        check(b"alice@host:44:/5:x", "alice@host:44", b"5:x");
        check(b"alice@host:44:5:x", "alice@host:44", b"5:x");
        check(b"alice@host:44", "alice@host:33000", b"44");
        check(b"alice@host:/44:x", "alice@host:33000", b"44:x");
        check(b"alice@host:4a:x", "alice@host:33000", b"4a:x");
        check(b"alice@host::x", "alice@host:33000", b":x");
        check_refused("alice@host:0:x", "is not a port");
        check_refused("alice@host:65536:x", "is not a port");
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        check(b"alice@[::1]:x", "alice@[::1]:33000", b"x");
        check(b"alice@[fe80::1%eth0]:9:x:y", "alice@[fe80::1%eth0]:9", b"x:y");
        check_refused("alice@::1:x", "is not a host name");
        check_refused("alice@[host]:x", "is not a host name");
    }

    #[test]
    fn what_is_no_place_in_a_tree_is_refused_with_what_to_write() {
        check_refused("alice@host", "write alice@host: for the root");
        check_refused("notes.txt", "write USER@HOST[:PORT]:PATH");
        check_refused("alice@host:a/../b", "cannot have '..'");
        check_refused("Alice@host:x", "did you mean alice@host?");
        check_refused("alice:secret@host:x", "type the password when asked");
        check_refused("@host:x", "has no user name");
    }

    #[test]
    fn a_file_of_this_machine_has_no_account_before_a_slash() {
        check_here("notes.txt");
        check_here("./alice@host:x");
        check_here("/a/alice@host:x");
        check_here("alice@host");
        check_here("alice@host/x:y");
        check_here("a:b");
        check_here("-");
        assert!(matches!(Either::parse("alice@host:x".as_ref()).unwrap(), Either::There(_)));
    }

    #[test]
    fn a_number_alone_may_have_been_meant_as_a_port() {
        let as_port = |text: &str| Place::parse(text.as_ref()).unwrap().as_port();
        let line = |account: &str| Some(format!("a port is followed by a colon: {account}:"));
        assert_eq!(as_port("alice@host:7"), line("alice@host:7"));
        assert_eq!(as_port("alice@host:44:7"), line("alice@host:7"));
        assert_eq!(as_port("alice@[::1]:65535"), line("alice@[::1]:65535"));
        for text in ["alice@host:", "alice@host:0", "alice@host:65536", "alice@host:7/8"] {
            assert_eq!(as_port(text), None, "{text}");
        }
    }

    #[test]
    fn a_slash_at_the_end_means_a_directory() {
        let is_directory = |text: &str| Place::parse(text.as_ref()).unwrap().is_directory;
        assert!(is_directory("alice@host:x/") && is_directory("alice@host:x/."));
        assert!(is_directory("alice@host:") && is_directory("alice@host:."));
        assert!(!is_directory("alice@host:x") && !is_directory("alice@host:x."));
    }

    #[test]
    fn a_colon_alone_stands_for_the_account_before() {
        let texts = ["alice@host:7:a", ":b", "alice@host:7:c", "::d"].map(OsString::from);
        let places = Place::parse_all(&texts).unwrap();
        let paths: Vec<_> = places.iter().map(|place| place.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a", "b", "c", ":d"]);
        let two = ["alice@host:a", "bob@host:b"].map(OsString::from);
        assert!(Place::parse_all(&two).unwrap_err().line.contains("two accounts"));
        Place::parse_all(&[":a".into()]).unwrap_err();
    }
}
