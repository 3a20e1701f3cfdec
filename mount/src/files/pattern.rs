//! Patterns of `*`, `?` and `[...]` in paths of a tree. `xfer` expands them itself, since the shell knows
//! nothing of the tree.
//!
//! A path that is there as it is written means itself. A name that begins with a dot is matched only by a
//! pattern that does. `[*]` means the letter itself.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use glob::Pattern;
use rustix::io::Errno;

use super::errno::{Why, words};
use super::place::Place;
use super::report::Report;
use super::tree::{Meta, Tree};

/// Bytes that are not UTF-8 are matched as letters from here on, which no name has for other reasons.
const BYTES_FROM: u32 = 0x0010_ff00;

/// A pattern for one name.
#[derive(Debug)]
pub(super) struct NamePattern(Pattern);

impl NamePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If it is wrong, with the reason.
    pub(super) fn parse(text: &OsStr) -> Result<NamePattern, String> {
        let mut text = letters(text);
        // Within one name, several stars mean what one does.
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        let pattern = Pattern::new(&text);
        pattern.map(NamePattern).map_err(|_| {
            format!(
                "'{text}' is not a pattern, since a bracket is not closed; write [[] for the character ["
            )
        })
    }

    /// Whether it matches a name, unless the name begins with a dot and the pattern does not.
    pub(super) fn matches(&self, name: &OsStr) -> bool {
        // The library lets a star stand for nothing before a dot.
        let is_hidden = name.as_bytes().starts_with(b".");
        (!is_hidden || self.0.as_str().starts_with('.')) && self.matches_any(name)
    }

    /// Whether it matches a name, with a dot at its beginning or not.
    pub(super) fn matches_any(&self, name: &OsStr) -> bool {
        self.0.matches(&letters(name))
    }
}

/// The nodes that places mean, with their patterns expanded. Those that mean nothing are reported.
pub(super) fn expand(
    tree: &dyn Tree,
    places: &[Place],
    what: &str,
    report: &Report,
) -> Vec<(PathBuf, Meta)> {
    let mut found = Vec::new();
    for place in places {
        match tree.stat(&place.path) {
            Ok(meta) if place.is_directory && !meta.is_directory() => {
                report.fail(what, &place.path, Errno::NOTDIR);
            }
            Ok(meta) => found.push((place.path.clone(), meta)),
            Err(Errno::NOENT | Errno::NOTDIR) if has_pattern(&place.path) => {
                match matching(tree, &place.path) {
                    Ok(mut matched) => {
                        matched.retain(|(_, meta)| !place.is_directory || meta.is_directory());
                        if matched.is_empty() {
                            report.fail_with(what, &shown_path(place), "no match");
                        }
                        found.extend(matched);
                    }
                    Err(why) => report.fail_with(what, &shown_path(place), why),
                }
            }
            Err(errno) => {
                let why = match place.as_port().filter(|_| errno == Errno::NOENT) {
                    Some(hint) => Why::with_words(errno, format!("{}; {hint}", words(errno))),
                    None => errno.into(),
                };
                report.fail_with(what, &shown_path(place), why);
            }
        }
    }
    found
}

fn shown_path(place: &Place) -> PathBuf {
    super::place::absolute(&place.path)
}

fn has_pattern(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// The nodes that match a path with patterns, in the order of their names.
fn matching(tree: &dyn Tree, path: &Path) -> Result<Vec<(PathBuf, Meta)>, Why> {
    let root = tree.stat(Path::new(""))?;
    let mut found = vec![(PathBuf::new(), root)];
    for name in path.iter() {
        let pattern = has_pattern(Path::new(name)).then(|| NamePattern::parse(name)).transpose()?;
        let mut next = Vec::new();
        for (directory, _) in found.into_iter().filter(|(_, meta)| meta.is_directory()) {
            match &pattern {
                None => {
                    let path = directory.join(name);
                    match tree.stat(&path) {
                        Ok(meta) => next.push((path, meta)),
                        Err(Errno::NOENT) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Some(pattern) => {
                    let entries = tree.list(&directory)?;
                    let matched = entries.into_iter().filter(|(name, _)| pattern.matches(name));
                    next.extend(matched.map(|(name, meta)| (directory.join(name), meta)));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// The letters of a name. Each byte that is not UTF-8 is one.
fn letters(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        let odd = chunk.invalid().iter();
        text.extend(odd.filter_map(|byte| char::from_u32(BYTES_FROM + u32::from(*byte))));
    }
    text
}

/// The name of a node, for people and for patterns. The root is called `/`, which is no name of a file.
pub(super) fn shown_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        NamePattern::parse(OsStr::from_bytes(pattern)).unwrap().matches(OsStr::from_bytes(name))
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(matches(b"*.txt", b"a.txt") && !matches(b"*.txt", b".txt"));
        assert!(matches(b".*", b".txt") && !matches(b"*", b".hidden"));
        assert!(matches(b"a?c", b"abc") && matches(b"a?c", "aéc".as_bytes()));
        assert!(matches(b"[a-c]x", b"bx") && !matches(b"[!a-c]x", b"bx"));
        assert!(matches(b"[*]", b"*") && !matches(b"[*]", b"x"));
        assert!(matches(b"a**b", b"axxb") && matches(b"**", b"x"));
        assert!(NamePattern::parse("[a".as_ref()).is_err());
        let all = NamePattern::parse("*".as_ref()).unwrap();
        assert!(all.matches_any(".hidden".as_ref()));
    }

    #[test]
    fn names_and_patterns_need_not_be_utf_8() {
        assert!(matches(b"*\xff", b"a\xff") && !matches(b"*\xff", b"a\xfe"));
        assert!(matches(b"a?", b"a\xff") && matches(b"?\xff?", b"x\xffy"));
        assert!(!matches(b"a?", b"a\xff\xff"));
    }
}
