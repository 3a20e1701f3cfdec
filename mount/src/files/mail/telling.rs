//! What is done for an arrival: a line, a command, a notice on the desktop.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use xfer_protocol::shown::shown;

use super::super::place::absolute;
use super::super::report::Report;
use super::super::show::word;
use super::arrival::Arrival;
use super::notice;
use super::told::Told;
use crate::process::exit::Failure;

/// Something that is done once for each arrival.
pub(super) struct Task {
    deed: Deed,
    pub(super) told: Told,
}

/// What is done.
enum Deed {
    /// Nothing but printing it.
    Print,
    /// A command of the shell.
    Run(OsString),
    /// A notice on the desktop.
    Notify(notice::Desktop),
}

/// Where the tree is, for the environment of commands.
pub(super) struct Whereabouts {
    /// `user@host:port`.
    pub(super) account: String,
    /// The mount point, if it is mounted.
    pub(super) mountpoint: Option<std::path::PathBuf>,
}

impl Task {
    pub(super) fn print() -> Task {
        Task { deed: Deed::Print, told: Told::for_now() }
    }

    /// Runs a command for each arrival.
    ///
    /// # Errors
    /// As [`Told::load`].
    pub(super) fn run(account: &str, command: OsString) -> Result<Task, Failure> {
        let purpose = [b"exec ", command.as_encoded_bytes()].concat();
        Ok(Task { told: Told::load(account, &purpose)?, deed: Deed::Run(command) })
    }

    /// Shows a notice for each arrival.
    ///
    /// # Errors
    /// As [`Told::load`], or if there is no desktop.
    pub(super) fn notify(account: &str) -> Result<Task, Failure> {
        let desktop = notice::Desktop::find()?;
        Ok(Task { deed: Deed::Notify(desktop), told: Told::load(account, b"notify")? })
    }

    /// Whether it runs commands, which may want to use the tree.
    pub(super) fn runs_commands(&self) -> bool {
        matches!(self.deed, Deed::Run(_))
    }

    /// Does it for those arrivals for which it was not done.
    ///
    /// # Errors
    /// If it can't be noted that it was done. What fails otherwise is reported, and done again later.
    pub(super) fn perform(
        &mut self,
        arrivals: &[&Arrival],
        whereabouts: &Whereabouts,
        report: &Report,
    ) -> Result<(), Failure> {
        let left: Vec<&Arrival> =
            arrivals.iter().copied().filter(|arrival| !self.told.has(arrival)).collect();
        match &self.deed {
            Deed::Print => left.iter().try_for_each(|arrival| self.told.note(arrival)),
            Deed::Run(command) => {
                for arrival in left {
                    match run(command, arrival, whereabouts) {
                        Ok(()) => self.told.note(arrival)?,
                        Err(why) => {
                            let path = absolute(&arrival.path).display().to_string();
                            report.fail_line(&format!(
                                "the command for '{path}' failed: {why}; it is run again with the \
                                 next arrival"
                            ));
                        }
                    }
                }
                Ok(())
            }
            Deed::Notify(_) if left.is_empty() => Ok(()),
            Deed::Notify(desktop) => match desktop.show(&left) {
                Ok(()) => left.iter().try_for_each(|arrival| self.told.note(arrival)),
                Err(error) => {
                    tracing::debug!(%error, "notices");
                    report.fail_line(
                        "the desktop shows no notice; it is asked again with the next arrival",
                    );
                    Ok(())
                }
            },
        }
    }
}

/// Runs a command for an arrival.
fn run(command: &OsString, arrival: &Arrival, whereabouts: &Whereabouts) -> Result<(), String> {
    let Whereabouts { account, mountpoint } = whereabouts;
    let path = absolute(&arrival.path);
    let mut place = OsString::from(format!("{account}:"));
    place.push(&path);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null());
    shell.env("XFER_ACCOUNT", account).env("XFER_PLACE", place);
    shell.env("XFER_FROM", &arrival.from).env("XFER_NAME", arrival.name());
    shell.env("XFER_KIND", word(&arrival.meta.kind));
    shell.env("XFER_SIZE", arrival.meta.size.to_string());
    let file =
        mountpoint.as_ref().map(|mountpoint| mountpoint.join(&arrival.path).into_os_string());
    let (sent, note) = (arrival.sent.as_ref(), arrival.note.as_ref());
    for (name, value) in [
        ("XFER_FILE", file),
        ("XFER_SENT", sent.map(OsString::from)),
        ("XFER_NOTE", note.map(OsString::from)),
    ] {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let status = shell.status().map_err(|error| format!("/bin/sh: {error}"))?;
    if status.success() { Ok(()) } else { Err(ending(status)) }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => shown(&status.to_string()),
    }
}
