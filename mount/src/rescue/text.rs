//! A rescue as text for people.

use std::fmt::Write;

use xfer_protocol::shown::Shown;
use xfer_protocol::size;
use xfer_terminal::plain;

use super::item::{Contents, FileBytes, Item, Kind, TreePath};

/// The most ranges of a file that are listed.
const RANGES_MAX: usize = 8;

/// The whole list: what ended, why, and each node.
pub fn list(contents: &Contents) -> String {
    let Contents { account, written, why, changes, items, notes, passing: _ } = contents;
    let mut text = String::new();
    let _ = writeln!(text, "account  {}", Shown(account));
    let _ = writeln!(text, "kept     {written}");
    let _ = writeln!(text, "because  {}", Shown(why));
    let _ = writeln!(text, "changes  {changes}");
    for item in items {
        let state = if item.applied { "applied: " } else { "" };
        let _ = writeln!(text, "  {state}{}", describe(item));
    }
    for note in notes {
        let _ = writeln!(text, "  {}", Shown(&plain(note)));
    }
    text
}

fn describe(item: &Item) -> String {
    let show = |path: &TreePath| Shown(&path.as_path().to_string_lossy()).to_string();
    let Some(path) = item.names.first() else {
        return item.was.first().map_or_else(String::new, |was| format!("{}: removed", show(was)));
    };
    let what = match item.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
        Kind::Special => "pipe, socket or device",
    };
    let mut parts = Vec::new();
    if item.was.is_empty() && item.unchanged_if.is_empty() {
        parts.push(format!("new {what}"));
    }
    parts.extend(
        item.was.first().filter(|was| *was != path).map(|was| format!("moved from {}", show(was))),
    );
    parts.extend(item.bytes.as_ref().map(bytes));
    parts.extend(item.target.iter().map(|target| format!("to {}", show(target))));
    parts.extend(item.names[1..].iter().map(|link| format!("also named {}", show(link))));
    if parts.is_empty() {
        parts.push("attributes".to_owned());
    }
    format!("{}: {}", show(path), parts.join("; "))
}

fn bytes(bytes: &FileBytes) -> String {
    let range = |(start, end): &(u64, u64)| format!("{start}-{}", end.saturating_sub(1));
    let mut text = match (bytes.is_whole, bytes.size) {
        (true, size) => size::display(size.unwrap_or_default()),
        (false, Some(size)) if bytes.ranges.is_empty() => format!("cut to {}", size::display(size)),
        (false, size) => {
            let shown: Vec<_> = bytes.ranges.iter().take(RANGES_MAX).map(range).collect();
            let more = match bytes.ranges.len().saturating_sub(RANGES_MAX) {
                0 => String::new(),
                more => format!(" and {more} more ranges"),
            };
            let cut = size.map_or_else(String::new, |size| format!(" of {}", size::display(size)));
            format!("only bytes {}{more}{cut}", shown.join(", "))
        }
    };
    if !bytes.unknown.is_empty() {
        let shown: Vec<_> = bytes.unknown.iter().take(RANGES_MAX).map(range).collect();
        let _ = write!(text, "; not kept, since copied on the server: bytes {}", shown.join(", "));
    }
    text
}
