//! `xfer status`: shows mounts once or again and again, or says by its exit code alone how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use xfer_client::offline::Left;
use xfer_protocol::shown::Shown;

use super::call::Call;
use super::find::find_call;
use super::{DORMANT, Status, directory, show, unserved};
use crate::command::xfer_line::StatusLine;
use crate::process::exit::{Exit, Failure};
use crate::process::output::{Repeated, print, print_json};
use crate::process::report::complain;
use crate::rescue;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The codes that say that not all is well.
const WORST_FIRST: [Exit; 6] =
    [Exit::Lost, Exit::Over, Exit::NotMounted, Exit::InUse, Exit::Unreachable, Exit::Other];

/// Runs the command.
///
/// # Errors
/// If there is no such mount, or with `--quiet`, if not all is well.
pub fn run(line: StatusLine) -> Result<(), Failure> {
    let StatusLine { mountpoint, json, quiet, watch: again } = line;
    let mountpoint = mountpoint.as_deref();
    if quiet {
        return health(mountpoint);
    }
    if again {
        return watch(mountpoint);
    }
    match mountpoint {
        Some(path) => {
            let status = of(find_call(path)?)?;
            if json { print_json(&status) } else { print(&show::details(&status)) }
        }
        None => {
            let all = All::look();
            all.troubles.iter().for_each(|line| complain(format_args!("xfer: {}", Shown(line))));
            if !json {
                return print(&all.text());
            }
            all.waiting.iter().for_each(|line| complain(format_args!("xfer: {line}")));
            print_json(&all.mounts)
        }
    }
}

/// The status of a mount, with the rescues of its account.
fn of(call: Call) -> Result<Status, Failure> {
    let status = call.status()?;
    let rescues = rescue::count(&status.account()) as u64;
    Ok(Status { rescues, ..status })
}

/// All of this user's mounts, and what else there is to say.
struct All {
    mounts: Vec<Status>,
    /// What waits here for the next mount of an account, a line each.
    waiting: Vec<String>,
    /// What could not be looked at, and mounts that no process serves, a line each.
    troubles: Vec<String>,
    has_dead: bool,
}

impl All {
    fn look() -> All {
        let (mut mounts, mut served, mut troubles) = (Vec::new(), BTreeSet::new(), Vec::new());
        for socket in directory::sockets() {
            let Some(call) = Call::to(&socket, socket.clone()) else { continue };
            served.extend(directory::ending_of(&socket));
            match of(call) {
                Ok(status) => mounts.push(status),
                Err(failure) => troubles.push(failure.line),
            }
        }
        let dead = unserved::dead_mounts(&served);
        let has_dead = !dead.is_empty();
        troubles.extend(dead);
        mounts.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        let waiting = Left::waiting().unwrap_or_else(|error| {
            troubles.push(format!("what earlier mounts left here cannot be looked at: {error}"));
            BTreeMap::new()
        });
        let waiting = waiting.iter().map(|(account, changes)| show::waiting(account, *changes));
        All { mounts, waiting: waiting.collect(), troubles, has_dead }
    }

    fn text(&self) -> String {
        let mut text = match self.mounts.is_empty() {
            // One whose process died is a mount, and told of elsewhere.
            true if self.has_dead => String::new(),
            true => "no xfer mounts\n".to_owned(),
            false => show::table(&self.mounts),
        };
        self.waiting.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text
    }
}

/// Shows mounts again and again, until the user has seen enough or the one that is meant is gone.
fn watch(mountpoint: Option<&Path>) -> Result<(), Failure> {
    let mut output = Repeated::new();
    loop {
        let text = match mountpoint {
            Some(path) => show::details(&of(find_call(path)?)?),
            None => {
                let all = All::look();
                let troubles = all.troubles.iter().map(|line| format!("{}\n", Shown(line)));
                all.text() + &troubles.collect::<String>()
            }
        };
        if !output.print(&text)? {
            return Ok(());
        }
        sleep(WATCH_EVERY);
    }
}

/// Says nothing, and fails with the code of what is worst.
fn health(mountpoint: Option<&Path>) -> Result<(), Failure> {
    let told = |failure: Failure| Failure::told(failure.exit);
    let mut found: Vec<Exit> = match mountpoint {
        Some(path) => {
            trouble(&of(find_call(path).map_err(told)?).map_err(told)?).into_iter().collect()
        }
        None => {
            let all = All::look();
            let dead = Some(Exit::NotMounted).filter(|_| all.has_dead);
            let other = Some(Exit::Other).filter(|_| !all.troubles.is_empty());
            all.mounts.iter().filter_map(trouble).chain(dead).chain(other).collect()
        }
    };
    found.sort_by_key(|exit| WORST_FIRST.iter().position(|other| other == exit));
    match found.first() {
        Some(worst) => Err(Failure::told(*worst)),
        None => Ok(()),
    }
}

/// The code for a mount with which not all is well.
fn trouble(status: &Status) -> Option<Exit> {
    match status {
        lost if lost.is_lost() && lost.pending_ops > 0 => Some(Exit::Lost),
        lost if lost.is_lost() => Some(Exit::Over),
        dormant if dormant.state == DORMANT => Some(Exit::InUse),
        down if down.disconnected.is_some() => Some(Exit::Unreachable),
        _ => None,
    }
}
