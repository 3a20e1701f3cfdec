//! `xfer rescue`: lists what is kept, shows it, applies it, and drops it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xfer_protocol::shown::Shown;

use super::item::Contents;
use super::{Rescue, Rescues, apply, text};
use crate::command::cli::RescueCommand;
use crate::process::exit::{Exit, Failure};

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
        RescueCommand::Drop { name } => {
            if let Some(path) = rescues.unfinished(&name) {
                return drop_unfinished(&path, &name);
            }
            let rescue = open(&rescues, &name)?;
            rescue.remove().map_err(|error| other(format!("{name}: {error}")))?;
            Ok(String::new())
        }
    }
}

fn open(rescues: &Rescues, name: &str) -> Result<Rescue, Failure> {
    rescues.open(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            other(format!("there is no rescue {name}; `xfer rescue list` lists those there are"))
        }
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

fn drop_unfinished(path: &Path, name: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| other(format!("{name}: {error}"));
    let writer = super::writer_of(path).map_err(failed)?;
    let _writer = writer.ok_or_else(|| other(format!("{name}: it is being written")))?;
    fs::remove_dir_all(path).map_err(failed)?;
    Ok(String::new())
}

/// What is said of a rescue beside its name.
fn line(rescues: &Rescues, name: &str) -> String {
    if let Some(path) = rescues.unfinished(name) {
        return match super::writer_of(&path) {
            Ok(None) => "being written".to_owned(),
            _ => format!(
                "unfinished, since its writer was killed; see {}, and then drop it",
                Shown(&path.to_string_lossy())
            ),
        };
    }
    match rescues.open(name) {
        Ok(Rescue { contents, .. }) => {
            let left = contents.items.iter().filter(|item| !item.applied).count();
            let left = if left == 0 { "applied".to_owned() } else { format!("{left} not applied") };
            format!("{} changes, {left}: {}", contents.changes, Shown(&contents.why))
        }
        Err(error) => format!("can't be read: {error}"),
    }
}

fn apply_to(mut rescue: Rescue, place: &Path) -> Result<String, Failure> {
    if !place.is_dir() {
        return Err(other(format!("{}: not a directory", place.display())));
    }
    let kept = rescue.path.clone();
    let note = |contents: &Contents| super::write(&kept, contents);
    let applied = apply::apply(&mut rescue.contents, &kept, place, note);
    let outcome = applied.map_err(|error| other(format!("{}: {error}", kept.display())))?;
    let (name, applied) = (rescue.name(), outcome.applied);
    for note in &outcome.notes {
        eprintln!("xfer: {}", Shown(note));
    }
    if outcome.skipped.is_empty() {
        return Ok(format!(
            "{applied} applied, all of it; now: xfer rescue drop '{}'\n",
            Shown(&name)
        ));
    }
    for skipped in &outcome.skipped {
        eprintln!("xfer: {}", Shown(skipped));
    }
    let (skipped, total) = (outcome.skipped.len(), rescue.contents.items.len());
    let line = format!(
        "{applied} of {total} applied; {skipped} need a decision of yours (see above); everything is \
         still kept in {}",
        kept.display()
    );
    Err(Failure::new(Exit::Other, line))
}

fn other(line: String) -> Failure {
    Failure::new(Exit::Other, line)
}
