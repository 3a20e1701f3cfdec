//! The user's systemd: where its units are, enabling them, and starting them if it runs.
//!
//! Units are enabled without the running systemd, which needs no more than the files. So it also works
//! where none runs for this user: over `su`, or on a machine that is only being set up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::exit::{Exit, Failure};

/// The longest wait for a mount to be usable, or to fail.
const START_MAX: Duration = Duration::from_secs(10);

/// How often it is looked.
const START_LOOK: Duration = Duration::from_millis(100);

/// How the start of a unit went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The mount is usable.
    Done,
    /// Not yet: the server can't be reached.
    UnderWay,
    /// It failed, and the journal says why.
    Failed,
    /// There is no systemd of this user that runs.
    Nobody,
}

/// The directory of this user's units.
///
/// # Errors
/// If there is no home directory.
pub fn directory() -> Result<PathBuf, Failure> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".config"));
    let absolute = |path: &PathBuf| path.is_absolute();
    let config = config.filter(absolute).or_else(|| home().filter(absolute));
    let none =
        || Failure::usage("there is no home directory to keep the mount's unit in; set HOME");
    Ok(config.ok_or_else(none)?.join("systemd/user"))
}

/// Checks that this machine has systemd at all.
///
/// # Errors
/// If not.
pub fn check() -> Result<(), Failure> {
    match systemctl(&["--version"]) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) | Err(_) => Err(Failure::new(
            Exit::Other,
            "this machine has no systemd, which mounts at login; use /etc/fstab, or the startup programs of your desktop",
        )),
    }
}

/// Has a unit started at each login.
///
/// # Errors
/// If systemd refuses it.
pub fn enable(unit: &str) -> Result<(), Failure> {
    offline(&["enable", unit])
}

/// Takes that back.
///
/// # Errors
/// If systemd refuses it.
pub fn disable(unit: &str) -> Result<(), Failure> {
    offline(&["disable", unit])
}

/// Whether a unit is started at each login.
pub fn is_enabled(directory: &Path, unit: &str) -> bool {
    fs::symlink_metadata(directory.join("default.target.wants").join(unit)).is_ok()
}

/// Has the running systemd read the units again; returns whether there is one.
pub fn reload() -> bool {
    systemctl(&["daemon-reload"]).is_ok_and(|output| output.status.success())
}

/// Has the running systemd forget that a unit failed which is gone.
pub fn forget_failure(unit: &str) {
    let _ = systemctl(&["reset-failed", unit]);
}

/// Starts a unit, if a systemd of this user runs.
pub fn start(unit: &str) -> Start {
    let is_asked = || systemctl(&["start", "--no-block", unit]).is_ok_and(|of| of.status.success());
    if !reload() || !is_asked() {
        return Start::Nobody;
    }
    let end = Instant::now() + START_MAX;
    loop {
        match state(unit).as_str() {
            "active" => return Start::Done,
            "failed" | "auto-restart" => return Start::Failed,
            _ if Instant::now() > end => return Start::UnderWay,
            _ => thread::sleep(START_LOOK),
        }
    }
}

/// The state of a unit, in systemd's words.
fn state(unit: &str) -> String {
    let show = systemctl(&["show", "--property=ActiveState,SubState", unit]);
    let said = show.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let said = said.unwrap_or_default();
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    match value("SubState=") {
        waits @ "auto-restart" => waits.to_owned(),
        _ => value("ActiveState=").to_owned(),
    }
}

fn offline(arguments: &[&str]) -> Result<(), Failure> {
    let output = command(arguments).env("SYSTEMD_OFFLINE", "1").output();
    let refused = |why: String| {
        Err(Failure::new(Exit::Other, format!("systemctl --user {}: {why}", arguments.join(" "))))
    };
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => refused(error.to_string()),
    }
}

fn systemctl(arguments: &[&str]) -> io::Result<Output> {
    command(arguments).output()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(arguments).stdin(Stdio::null());
    command
}
