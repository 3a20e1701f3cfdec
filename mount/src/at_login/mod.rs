//! `xfer mount --at-login`: a mount that is there after each login, by a unit of the user's systemd.
//!
//! Reading order: this file (the commands), `unit` (the unit's text), `systemd`.
//!
//! **Invariant:** a unit is written only if the mount needs no question: no one can be asked at a login.

mod systemd;
mod unit;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use xfer_client::connect::TrustMode;
use xfer_client::durable::{make_directory, replace};

use crate::command::cli::MountLine;
use crate::command::config::{Config, PasswordSource};
use crate::command::mounting::{LoginFlags, MountingLine};
use crate::command::{identity, options, password, settings};
use crate::mountpoint::{self, mountinfo, permission};
use crate::process::exit::{Exit, Failure};
use crate::process::output::print_line;
use crate::{control, reaching, run};
use systemd::Start;
use unit::Unit;

/// Runs `xfer mount`. A plain mount is that of `xfer-mount`: if it fails, this process ends with its code
/// once the line was said.
///
/// # Errors
/// If something has to be put right, or systemd refuses.
pub fn run(line: MountingLine) -> Result<(), Failure> {
    let LoginFlags { at_login, not_at_login, list } = line.login;
    match (line.line, not_at_login) {
        (Some(line), _) if at_login => add(line),
        (Some(line), _) => {
            let line = settings::complete(line)?;
            let is_printed = line.print_config;
            let config = Config::try_from(line)?;
            match if is_printed { 0 } else { run::run(config) } {
                0 => Ok(()),
                code => std::process::exit(code.into()),
            }
        }
        (None, Some(place)) => remove(&place),
        (None, None) if list => show(),
        (None, None) => {
            Err(Failure::usage("give USER@HOST and MOUNTPOINT; see: xfer mount --help"))
        }
    }
}

/// Writes a unit, enables it, and starts it if that can be.
fn add(mut line: MountLine) -> Result<(), Failure> {
    let words = std::mem::take(&mut line.options);
    line.options = options::take_settings(words, &mut line)?;
    // The settings are read again at each login.
    let config = Config::try_from(settings::complete(line.clone())?)?;
    permission::check_fuse(&config.options)?;
    let account = config.target.to_string();
    // One whose process was killed is made anew.
    let there = mountpoint::resolve(&config.mountpoint).ok();
    let there = there.filter(|place| is_mounted(place) && control::is_served(place));
    let is_there = there.is_some();
    let place = there.map_or_else(|| mountpoint::prepare(&config.mountpoint), Ok)?;
    check_questions(&config, &account)?;
    systemd::check()?;
    must_be_free(&account, &place)?;
    let mountpoint = text(&place)?;
    let name = unit::name(&place).ok_or_else(|| {
        refused(&place, "the path is too long for the name of a unit; give a shorter one")
    })?;
    let unit = Unit {
        account: account.clone(),
        start: start_command(line, &mountpoint)?,
        stop: vec![program("xfer")?, "unmount".to_owned(), mountpoint.clone()],
        mountpoint,
    };
    let directory = systemd::directory()?;
    write(&directory, &name, &unit.text())?;
    systemd::enable(&name)?;
    let started = if is_there { None } else { Some(systemd::start(&name)) };
    print_line(&format!("{account} is mounted at {} at each login from now on", place.display()))?;
    tell(started, &name, &place)
}

/// Refuses a second mount of an account, which would take the tree from the first at each login.
fn must_be_free(account: &str, place: &Path) -> Result<(), Failure> {
    let units = units(&systemd::directory()?)?;
    let other = units.iter().find(|unit| unit.account == account && unit.place != place);
    if let Some(other) = other.map(|unit| unit.place.display()) {
        return Err(Failure::usage(format!(
            "{account} is mounted at {other} at each login already; to end that: xfer mount --not-at-login {other}"
        )));
    }
    let mounted = control::mount_of(account).filter(|mounted| mounted != place);
    match mounted.as_ref().map(|mounted| mounted.display()) {
        Some(mounted) => Err(Failure::usage(format!(
            "{account} is mounted at {mounted}; to mount it elsewhere, first: xfer unmount {mounted}"
        ))),
        None => Ok(()),
    }
}

/// Whether something is mounted at a place at each login.
pub fn is_mounted_at_login(place: &Path) -> bool {
    let units = systemd::directory().and_then(|directory| units(&directory));
    units.is_ok_and(|units| units.iter().any(|unit| unit.place == place))
}

/// Refuses a mount at which a question would have to be answered.
fn check_questions(config: &Config, account: &str) -> Result<(), Failure> {
    match &config.password {
        PasswordSource::Stdin => {
            return Err(Failure::usage(format!(
                "at login there is no standard input; for a key of this machine, first run: xfer login \
                 {account}"
            )));
        }
        source @ PasswordSource::File(_) => drop(password::obtain(source, account)?),
        PasswordSource::Prompt if identity::device(account)?.is_some() => {}
        PasswordSource::Prompt => {
            return Err(Failure::usage(format!(
                "this machine has no key for {account}, and at login no password can be asked for; first run: xfer login {account}"
            )));
        }
    }
    if config.trust != TrustMode::Ask {
        return Ok(());
    }
    let known = reaching::file(config.known_hosts.clone())?;
    let hosts = known.lookup(&config.target.endpoint()).map_err(|error| {
        Failure::usage(format!("known hosts file {}: {error}", known.path().display()))
    })?;
    match hosts.is_empty() {
        false => Ok(()),
        true => Err(Failure::new(
            Exit::Key,
            format!(
                "{} is not known yet, and at login no question can be asked; mount it once by hand, \
                 or give --fingerprint",
                config.target.endpoint()
            ),
        )),
    }
}

/// Says what came of the start, and how to have the mount before a login.
fn tell(started: Option<Start>, name: &str, place: &Path) -> Result<(), Failure> {
    match started {
        None => print_line("it is mounted already; the unit has effect from the next login on")?,
        Some(Start::Done) => print_line("it is mounted")?,
        Some(Start::UnderWay) => {
            print_line("the server cannot be reached now; it is mounted as soon as it can be")?
        }
        Some(Start::Nobody) => {
            print_line("your systemd does not run here, so it is not mounted yet")?
        }
        Some(Start::Failed) => {
            let line = format!(
                "{}: not mounted now; to see why: journalctl --user --unit {name}",
                place.display()
            );
            return Err(Failure::new(Exit::Other, line));
        }
    }
    match is_lingering() {
        true => Ok(()),
        false => {
            let user = std::env::var("USER").unwrap_or_else(|_| "USER".to_owned());
            print_line(&format!(
                "to mount it when the machine starts, before a login: sudo loginctl enable-linger {user}"
            ))
        }
    }
}

/// Whether this user's systemd runs without a login.
fn is_lingering() -> bool {
    std::env::var_os("USER")
        .is_some_and(|user| Path::new("/var/lib/systemd/linger").join(user).exists())
}

/// Removes the unit of a mount point. A mount that is there stays.
fn remove(place: &Path) -> Result<(), Failure> {
    let resolved = mountpoint::resolve(place).or_else(|_| std::path::absolute(place));
    let resolved = resolved.map_err(|error| refused(place, &error.to_string()))?;
    let directory = systemd::directory()?;
    let name = unit::name(&resolved).filter(|name| directory.join(name).exists());
    let name = name.ok_or_else(|| {
        Failure::new(
            Exit::NotMounted,
            format!(
                "{}: nothing is mounted there at login; see: xfer mount --list",
                place.display()
            ),
        )
    })?;
    systemd::disable(&name)?;
    let path = directory.join(&name);
    fs::remove_file(&path).map_err(|error| refused(&path, &error.to_string()))?;
    systemd::reload();
    systemd::forget_failure(&name);
    let place = resolved.display();
    print_line(&format!("nothing is mounted at {place} at login from now on"))?;
    match is_mounted(&resolved) {
        true => print_line(&format!(
            "{place} stays mounted until it is unmounted or you log out: xfer unmount {place}"
        )),
        false => Ok(()),
    }
}

/// A unit that `xfer mount --at-login` wrote.
struct Written {
    name: String,
    account: String,
    place: PathBuf,
}

/// All of them, in no order.
fn units(directory: &Path) -> Result<Vec<Written>, Failure> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| refused(directory, &error.to_string()))?,
    };
    let mut units = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = match name.starts_with("xfer-") && name.ends_with(".service") {
            true => fs::read_to_string(entry.path()).unwrap_or_default(),
            false => continue,
        };
        let Some((account, place)) = unit::parse(&text) else { continue };
        units.push(Written { name, account, place });
    }
    Ok(units)
}

/// Prints a line for each unit.
fn show() -> Result<(), Failure> {
    let directory = systemd::directory()?;
    let line = |Written { name, account, place }: &Written| {
        let mounted = if is_mounted(place) { "mounted" } else { "not mounted" };
        let enabled = if systemd::is_enabled(&directory, name) { "" } else { ", disabled" };
        format!("{account}  {}  {mounted}{enabled}", place.display())
    };
    let mut lines: Vec<String> = units(&directory)?.iter().map(line).collect();
    lines.sort();
    lines.iter().try_for_each(|line| print_line(line))
}

/// The command that mounts in the foreground, with all paths absolute.
fn start_command(line: MountLine, mountpoint: &str) -> Result<Vec<String>, Failure> {
    let mut words = vec![program("xfer-mount")?, "--foreground".to_owned()];
    let has_retry = line.options.iter().any(|word| word.starts_with("retry="));
    let retry = if has_retry { None } else { Some("retry=forever".to_owned()) };
    for option in retry.into_iter().chain(line.options) {
        words.extend(["-o".to_owned(), option]);
    }
    let files = [
        ("--password-file", line.password.password_file),
        ("--known-hosts", line.known_hosts),
        ("--ca", line.trust.ca),
        ("--config", line.config),
    ];
    for (name, file) in files.into_iter().filter_map(|(name, file)| Some((name, file?))) {
        let absolute =
            std::path::absolute(&file).map_err(|error| refused(&file, &error.to_string()))?;
        words.extend([name.to_owned(), text(&absolute)?]);
    }
    if let Some(fingerprint) = line.trust.fingerprint {
        words.extend(["--fingerprint".to_owned(), fingerprint]);
    }
    let flags = [(line.trust.accept_new, "--accept-new"), (line.takeover, "--takeover")];
    words
        .extend(flags.iter().filter(|(is_given, _)| *is_given).map(|(_, name)| (*name).to_owned()));
    let sizes = [
        ("--cache-size", line.cache_size),
        ("--log-size", line.log_size),
        ("--tree-size", line.tree_size),
    ];
    for (name, size) in sizes.into_iter().filter_map(|(name, size)| Some((name, size?))) {
        words.extend([name.to_owned(), size]);
    }
    words.extend([line.target, mountpoint.to_owned()]);
    Ok(words)
}

/// The path of one of the programs, which are side by side.
fn program(name: &str) -> Result<String, Failure> {
    let own =
        std::env::current_exe().map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
    text(&own.with_file_name(name))
}

/// A path as text that a unit can hold.
fn text(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or_else(|| {
        refused(path, "systemd takes only paths in UTF-8, without control characters; give another")
    })
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    let written = make_directory(directory)
        .and_then(|()| replace(&path, |mut file| file.write_all(text.as_bytes())));
    written.map(drop).map_err(|error| refused(&path, &error.to_string()))
}

/// Whether an xfer mount is there.
fn is_mounted(place: &Path) -> bool {
    let entry = mountpoint::resolve(place).and_then(|place| mountinfo::find(&place));
    entry.is_ok_and(|entry| entry.is_some_and(|entry| entry.is_xfer()))
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(Exit::Other, format!("{}: {why}", path.display()))
}
