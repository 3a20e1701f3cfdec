//! `xfer rescue`: lists what is kept, shows it, applies it, and drops it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xfer_protocol::shown::Shown;
use xfer_protocol::size;
use xfer_terminal::plain;

use super::item::Contents;
use super::{Rescue, Rescues, applying, text};
use crate::command::xfer_line::RescueCommand;
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// Runs a command, and returns the text for standard output. `find_mount` finds where an account,
/// as `user@host:port`, is mounted.
///
/// # Errors
/// If there is no such rescue, or not all of it could be applied.
pub fn run(
    command: RescueCommand,
    find_mount: impl Fn(&str) -> Option<PathBuf>,
) -> Result<String, Failure> {
    let rescues = Rescues::of_user();
    match command {
        RescueCommand::List => list(&rescues),
        RescueCommand::Show { name } => {
            let rescue = open(&rescues, &name)?;
            let place = format!("files    {}\n", Shown(&rescue.path().to_string_lossy()));
            Ok(place + &text::list(&rescue.contents))
        }
        RescueCommand::Apply { name, directory } => {
            let rescue = open(&rescues, &name)?;
            let account = rescue.contents.account.clone();
            let place = directory.or_else(|| find_mount(&account)).ok_or_else(|| {
                let line = format!(
                    "{account} is not mounted here; mount it first, or name a directory to apply to"
                );
                Failure::new(Exit::NotMounted, line)
            })?;
            apply_to(rescue, &place)
        }
        RescueCommand::Drop { name, unapplied } => drop_one(&rescues, &name, unapplied),
    }
}

fn open(rescues: &Rescues, name: &str) -> Result<Rescue, Failure> {
    rescues.open(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => none(name),
        _ => other(format!("{name}: {error}")),
    })
}

fn list(rescues: &Rescues) -> Result<String, Failure> {
    let names = rescues.names().map_err(|error| other(format!("the rescues: {error}")))?;
    if names.is_empty() {
        return Ok("nothing was rescued\n".to_owned());
    }
    Ok(names.iter().map(|name| format!("{}  {}\n", Shown(name), line(rescues, name))).collect())
}

/// Drops a rescue. One that may hold what is nowhere else is dropped only if `unapplied` says so.
fn drop_one(rescues: &Rescues, name: &str, unapplied: bool) -> Result<String, Failure> {
    let failed = |error: io::Error| other(format!("{name}: {error}"));
    let unfinished = rescues.unfinished(name);
    let writer = unfinished.as_deref().map(super::writer_of).transpose().map_err(failed)?;
    if matches!(writer, Some(None)) {
        return Err(other(format!("{name}: it is being written; try again later")));
    }
    let (path, held) = match unfinished {
        Some(path) => {
            let held = format!("it is unfinished, so look into {} first", path.display());
            (path, Some(held))
        }
        None => {
            let path = rescues.path(name).ok_or_else(|| none(name))?;
            if super::writer_of(&path).map_err(failed)?.is_none() {
                return Err(other(format!("{name}: it is being applied; try again later")));
            }
            let held = held(&path);
            (path, held)
        }
    };
    if let Some(held) = held.filter(|_| !unapplied) {
        let line = format!(
            "{name}: {held}; to drop it all the same: xfer rescue drop --unapplied '{name}'"
        );
        return Err(other(line));
    }
    fs::remove_dir_all(&path).map_err(failed)?;
    Ok(String::new())
}

/// What a rescue may hold that is nowhere else; `None` if all of it is applied.
fn held(path: &Path) -> Option<String> {
    let contents = match super::read(path) {
        Ok(contents) => contents,
        Err(error) => {
            return Some(format!(
                "it cannot be read ({error}), so look into {} first",
                path.display()
            ));
        }
    };
    let (left, total) = (contents.unapplied(), contents.items.len());
    (left > 0).then(|| format!("{left} of {total} items are not applied, so apply it first"))
}

fn none(name: &str) -> Failure {
    other(format!("there is no rescue {name}; see: xfer rescue list"))
}

/// What is said of a rescue beside its name.
fn line(rescues: &Rescues, name: &str) -> String {
    if let Some(path) = rescues.unfinished(name) {
        return match super::writer_of(&path) {
            Ok(None) => "being written".to_owned(),
            _ => format!(
                "unfinished, since its writer was killed; look into {}, then run: xfer rescue drop \
                 --unapplied '{}'",
                Shown(&path.to_string_lossy()),
                Shown(name)
            ),
        };
    }
    match rescues.open(name) {
        Ok(Rescue { contents, .. }) => {
            let left = match contents.unapplied() {
                0 => "applied".to_owned(),
                left => format!("{left} not applied"),
            };
            let changes = size::count(contents.changes, "change");
            format!("{changes}, {left}: {}", Shown(&contents.why))
        }
        Err(error) => plain(&format!("cannot be read: {error}")),
    }
}

fn apply_to(mut rescue: Rescue, place: &Path) -> Result<String, Failure> {
    if !place.is_dir() {
        return Err(other(format!("{}: not a directory", place.display())));
    }
    let kept = rescue.path.clone();
    let failed = |error: io::Error| other(format!("{}: {error}", kept.display()));
    let Some(_writer) = super::writer_of(&kept).map_err(failed)? else {
        return Err(other(format!("{}: it is being applied; try again later", rescue.name())));
    };
    // Another process may have applied it meanwhile.
    rescue.contents = super::read(&kept).map_err(failed)?;
    let note = |contents: &Contents| super::write(&kept, contents);
    let applied = applying::apply(&mut rescue.contents, &kept, place, note);
    let outcome = applied.map_err(failed)?;
    let (name, applied) = (rescue.name(), outcome.applied);
    for note in &outcome.notes {
        complain(format_args!("xfer: {}", Shown(&plain(note))));
    }
    for line in outcome.failed.iter().chain(&outcome.skipped) {
        complain(format_args!("xfer: {}", Shown(&plain(line))));
    }
    let (failed, skipped) = (outcome.failed.len(), outcome.skipped.len());
    if rescue.contents.unapplied() == 0 && failed + skipped == 0 {
        return Ok(format!(
            "{applied} applied, all of it; now: xfer rescue drop '{}'\n",
            Shown(&name)
        ));
    }
    let mut line = format!("{applied} of {} applied", rescue.contents.items.len());
    if failed > 0 {
        line += &format!("; failed: {failed} (see above), so apply it again");
    }
    if skipped > 0 {
        line += &format!("; left for you to decide: {skipped} (see above)");
    }
    line += &format!("; everything is still kept in {}", kept.display());
    Err(Failure::new(Exit::Other, line))
}

fn other(line: String) -> Failure {
    Failure::new(Exit::Other, line)
}
