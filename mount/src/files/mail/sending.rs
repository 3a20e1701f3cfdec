//! `xfer send` and `xfer outbox`.
//!
//! What is sent is completed outside the mailbox and moved into it, so it is sent at once and whole, or an
//! error says why not and nothing is left in the mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Serialize;
use xfer_client::core::Order;
use xfer_protocol::limits::NOTE_BYTES_MAX;
use xfer_protocol::shown::shown;
use xfer_protocol::tree::is_note;
use xfer_protocol::user;

use super::super::changing::{Purpose, copy};
use super::super::errno::Why;
use super::super::mounts::as_places;
use super::super::opening::Opened;
use super::super::pattern::expand;
use super::super::place::{Either, Place, absolute};
use super::super::plan::{Job, SAME_PLACE};
use super::super::show::{Listed, Output};
use super::super::transfer::{Given, Transfer, scan};
use super::super::tree::{Changes, Meta};
use super::{attribute, for_each_below, row, target};
use crate::command::file_lines::{AccessLine, OrderCommand, OrderLine, OutboxLine, SendLine};
use crate::process::exit::Failure;

/// The attribute with the note to what is sent.
const NOTE: &str = "user.xfer.note";

/// Sends files and directories.
pub(in crate::files) fn send(line: SendLine) -> Result<(), Failure> {
    let Some((account, texts)) = line.places.split_last() else { return Ok(()) };
    let account = target(&account.to_string_lossy())?;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for text in texts {
        match Either::parse(text)? {
            Either::Here(path) => here.push(path),
            Either::There(place) if place.account == account => there.push(place),
            Either::There(place) => {
                let line =
                    format!("{account} cannot send what is in the tree of {}", place.account);
                return Err(Failure::usage(line));
            }
        }
    }
    if let Some(wrong) = line.to.iter().find(|name| user::parse(name).is_none()) {
        let line = format!("--to: '{}' cannot be a user name: {}", shown(wrong), user::RULE);
        return Err(Failure::usage(line));
    }
    if line.note.as_ref().is_some_and(|note| !is_note(note.as_bytes())) {
        let line = format!(
            "--note: a note has 1 to {NOTE_BYTES_MAX} bytes of text, without control characters other than line ends"
        );
        return Err(Failure::usage(line));
    }
    if line.to.contains(&account.user) {
        let line = format!("--to {}: that is the account that sends; name others", account.user);
        return Err(Failure::usage(line));
    }
    let opened = Opened::open(&account, line.access)?;
    let (mut users, mut named) = (line.to, BTreeSet::new());
    users.retain(|user| named.insert(user.clone()));
    users.retain(|user| {
        let is_user = opened.tree.stat(&mailbox(user)).is_ok_and(|found| found.is_directory());
        if !is_user {
            opened.report.fail_line(&format!("there is no user {user} to send to"));
        }
        is_user
    });
    let note = line.note.as_deref();
    let (here, there) = found(&opened, &here, &there);
    let is_any_sent = send_from_here(&opened, here, &users, note, line.quiet)
        | send_from_there(&opened, &there, &users, note);
    opened.close(if is_any_sent { Changes::Made } else { Changes::None })
}

/// Something that is to be sent.
struct Sent {
    /// Its name where it arrives.
    name: OsString,
    from: PathBuf,
    meta: Meta,
}

/// What is to be sent of this machine, and of the tree. Of several with one name, only the first is.
fn found(opened: &Opened, here: &[PathBuf], there: &[Place]) -> (Vec<Sent>, Vec<Sent>) {
    let mut names = BTreeSet::new();
    let mut with_name = |from: PathBuf, meta, shown: &dyn Fn(&Path) -> PathBuf| {
        let refused = match from.file_name() {
            None => "the root has no name to arrive under; name what is in it",
            Some(name) if names.insert(name.to_owned()) => {
                return Some(Sent { name: name.to_owned(), from, meta });
            }
            Some(_) => SAME_PLACE,
        };
        opened.report.fail_with("send", &shown(&from), refused);
        None
    };
    let scanned = here.iter().filter_map(|path| {
        scan(path, Given::ToBeSent).map_err(|trouble| trouble.tell(&opened.report)).ok()
    });
    let here = scanned.filter_map(|(from, meta)| with_name(from, meta, &Path::to_owned)).collect();
    let expanded = expand(&*opened.tree, there, "send", &opened.report).into_iter();
    let there = expanded.filter_map(|(from, meta)| with_name(from, meta, &absolute)).collect();
    (here, there)
}

/// Sends files of this machine. They are stored once; the copies for others share their data. Returns
/// whether any was sent.
fn send_from_here(
    opened: &Opened,
    found: Vec<Sent>,
    users: &[String],
    note: Option<&str>,
    is_quiet: bool,
) -> bool {
    let transfer =
        Transfer::new(&*opened.tree, &opened.report, &opened.label, false).with_note(note);
    // Where each was stored, once a user has got it.
    let mut stored: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for user in users {
        if opened.report.is_over() {
            break;
        }
        for (name, from) in &stored {
            match opened.tree.stat(from) {
                Ok(meta) => {
                    let to = mailbox(user).join(name);
                    let purpose = Purpose::Sending(note);
                    copy(&*opened.tree, &opened.report, (from, meta), &to, purpose);
                }
                Err(errno) => opened.report.fail("send", from, errno),
            }
        }
        let left = found.iter().filter(|sent| !stored.contains_key(&sent.name));
        let storing = |Sent { name, from, meta }: &Sent| {
            let (from, meta) = (from.clone(), meta.clone());
            Job { from, meta, to: mailbox(user).join(name) }
        };
        let left: Vec<Job> = left.map(storing).collect();
        if !left.is_empty() {
            let done = transfer.store_all(left, is_quiet);
            let done = done.into_iter().filter(|to| to.parent() == Some(&mailbox(user)));
            stored.extend(done.filter_map(|to| Some((to.file_name()?.to_owned(), to.clone()))));
        }
    }
    !stored.is_empty()
}

/// Sends what is in the tree. Returns whether any of it was sent.
fn send_from_there(opened: &Opened, found: &[Sent], users: &[String], note: Option<&str>) -> bool {
    let mut is_any_sent = false;
    for Sent { name, from, meta } in found {
        for user in users {
            if opened.report.is_over() {
                return is_any_sent;
            }
            let (to, before) = (mailbox(user).join(name), opened.report.failures());
            copy(&*opened.tree, &opened.report, (from, meta.clone()), &to, Purpose::Sending(note));
            is_any_sent |= opened.report.failures() == before;
        }
    }
    is_any_sent
}

fn mailbox(user: &str) -> PathBuf {
    Path::new("outbox").join(user)
}

/// Something in a mailbox, as `--json` prints it.
#[derive(Serialize)]
struct Outgoing {
    to: String,
    #[serde(flatten)]
    listed: Listed,
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// The state of something in a mailbox: `user.xfer.state` in its parts.
#[derive(Serialize, PartialEq, Debug, Default)]
struct State {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl State {
    /// Parses `sent TIME`, `waiting: REASON` or a word alone.
    fn parse(text: &str) -> State {
        if let Some((state, reason)) = text.split_once(": ") {
            return State { state: state.to_owned(), time: None, reason: Some(reason.to_owned()) };
        }
        match text.split_once(' ') {
            Some((state, time)) => {
                State { state: state.to_owned(), time: Some(time.to_owned()), reason: None }
            }
            None => State { state: text.to_owned(), ..State::default() },
        }
    }
}

/// Lists what is in the mailboxes, or gives orders for it.
pub(in crate::files) fn outbox(line: OutboxLine) -> Result<(), Failure> {
    let OutboxLine { order: given, account, json, access } = line;
    match given {
        Some(OrderCommand::Send(line)) => order(line, Order::Send),
        Some(OrderCommand::Cancel(line)) => order(line, Order::Cancel),
        Some(OrderCommand::Retry(line)) => retry(&line.account, line.access),
        // Without a command, clap requires the account.
        None => list(&account.unwrap_or_default(), json, access),
    }
}

fn order(line: OrderLine, order: Order) -> Result<(), Failure> {
    let (places, opened) = Opened::of(&as_places(&line.places), line.access)?;
    let verb = match order {
        Order::Send => "send",
        Order::Cancel => "hold",
    };
    for (path, _) in expand(&*opened.tree, &places, verb, &opened.report) {
        give(&opened, &path, order, verb);
    }
    opened.close(Changes::Made)
}

/// Has everything tried again that waits. What is refused again waits on.
fn retry(account: &str, access: AccessLine) -> Result<(), Failure> {
    let opened = Opened::open(&target(account)?, access)?;
    for_each_below(&opened, "outbox", |_, path, meta| {
        let state = attribute(&opened, path, meta, Order::ATTRIBUTE).unwrap_or_default();
        if State::parse(&state).state == "waiting" {
            give(&opened, path, Order::Send, "send");
        }
    });
    opened.close(Changes::Made)
}

fn give(opened: &Opened, path: &Path, order: Order, verb: &str) {
    let Err(errno) = opened.tree.order(path, order) else { return };
    let why: Why = match errno {
        Errno::INVAL => "it is not in the outbox; to send other files: xfer send".into(),
        Errno::EXIST => "it was sent already; to send it again: xfer send".into(),
        Errno::BUSY => "a program is writing to it; try again when it has closed it".into(),
        Errno::DQUOT => "the inbox is full; it is sent when there is room".into(),
        errno => errno.into(),
    };
    opened.report.fail_with(verb, &absolute(path), why);
}

fn list(account: &str, json: bool, access: AccessLine) -> Result<(), Failure> {
    let opened = Opened::open(&target(account)?, access)?;
    let mut output = Output::new();
    let mut listed = Vec::new();
    for_each_below(&opened, "outbox", |to, path, meta| {
        let state = attribute(&opened, path, meta, Order::ATTRIBUTE).unwrap_or_default();
        if json {
            let (to, state) = (to.to_string_lossy().into_owned(), State::parse(&state));
            let note = attribute(&opened, path, meta, NOTE);
            listed.push(Outgoing { to, listed: Listed::new(path, meta), state, note });
            return;
        }
        row(&mut output, to, path, meta, &shown(&state));
    });
    if json {
        output.json(&listed);
    }
    output.end().and(opened.close(Changes::None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_word_with_a_time_or_a_reason() {
        let state = |state: &str, time: Option<&str>, reason: Option<&str>| State {
            state: state.to_owned(),
            time: time.map(str::to_owned),
            reason: reason.map(str::to_owned),
        };
        assert_eq!(State::parse("sending"), state("sending", None, None));
        let time = "2026-11-30T10:42:00Z";
        assert_eq!(State::parse(&format!("sent {time}")), state("sent", Some(time), None));
        let reason = "the inbox of bob is full";
        let waiting = format!("waiting: {reason}");
        assert_eq!(State::parse(&waiting), state("waiting", None, Some(reason)));
    }
}
