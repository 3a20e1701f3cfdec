//! What is in the inbox: what others have sent, and what the user has put there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::Serialize;
use xfer_protocol::shown::shown;

use super::super::opening::Opened;
use super::super::show::{Listed, Output, moment_for_people};
use super::super::tree::Meta;
use super::{attribute, for_each_below, row};

/// How an arrival is known: by the number of its node, and when it was sent.
pub(super) type Known = (u64, String);

/// Something in the inbox.
pub(super) struct Arrival {
    /// The name of the sender's directory.
    pub(super) from: OsString,
    /// Where it is in the tree.
    pub(super) path: PathBuf,
    pub(super) meta: Meta,
    /// When it was sent; `None` if it is not from another user.
    pub(super) sent: Option<String>,
    /// What the sender wrote to it.
    pub(super) note: Option<String>,
}

/// Something in the inbox, as `--json` prints it.
#[derive(Serialize)]
struct Described {
    from: String,
    #[serde(flatten)]
    listed: Listed,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Everything in the inbox, by sender and name.
pub(super) fn all(opened: &Opened) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for_each_below(opened, "inbox", |from, path, meta| {
        arrivals.push(Arrival::of(opened, from, path, meta));
    });
    arrivals
}

impl Arrival {
    fn of(opened: &Opened, from: &OsStr, path: &Path, meta: &Meta) -> Arrival {
        let attribute = |name| attribute(opened, path, meta, name);
        let sent = attribute("user.xfer.sent");
        let note = sent.as_ref().and_then(|_| attribute("user.xfer.from.note"));
        let (from, path, meta) = (from.to_owned(), path.to_owned(), meta.clone());
        Arrival { from, path, meta, sent, note }
    }

    /// How it is known.
    pub(super) fn known(&self) -> Known {
        (self.meta.inode, self.sent.clone().unwrap_or_default())
    }

    /// Its name in the inbox.
    pub(super) fn name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    /// Prints it for people.
    pub(super) fn print(&self, output: &mut Output) {
        let mut last = match &self.sent {
            Some(sent) => shown(sent),
            None => moment_for_people(self.meta.mtime),
        };
        if let Some(note) = &self.note {
            last = format!("{last}  {}", shown(note));
        }
        row(output, &self.from, &self.path, &self.meta, &last);
    }

    /// Prints it for programs, in one line.
    pub(super) fn print_json(&self, output: &mut Output) {
        output.json_line(&self.described());
    }

    /// It, as `--json` prints it.
    pub(super) fn described(&self) -> impl Serialize {
        Described {
            from: self.from.to_string_lossy().into_owned(),
            listed: Listed::new(&self.path, &self.meta),
            sent: self.sent.clone(),
            note: self.note.clone(),
        }
    }
}
