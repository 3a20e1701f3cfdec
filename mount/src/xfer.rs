//! `xfer`: what each of its commands runs.

#[cfg(target_os = "linux")]
use crate::command::xfer_line::MountsCommand;
use crate::command::xfer_line::XferCommand;
use crate::process::exit::Failure;
#[cfg(target_os = "linux")]
use crate::process::output::print;
#[cfg(target_os = "linux")]
use crate::process::report::complain;
use crate::{account, files};
#[cfg(target_os = "linux")]
use crate::{at_login, control, mountpoint, rescue};

/// Runs a command of `xfer`; results go to standard output.
///
/// # Errors
/// If it can't be done.
pub fn run(command: XferCommand) -> Result<(), Failure> {
    match command {
        #[cfg(target_os = "linux")]
        XferCommand::Mounts(command) => of_mounts(command),
        XferCommand::Account(command) => account::run(command),
        XferCommand::Files(command) => files::run(command),
    }
}

#[cfg(target_os = "linux")]
fn of_mounts(command: MountsCommand) -> Result<(), Failure> {
    match command {
        MountsCommand::Mount(line) => at_login::run(*line),
        MountsCommand::Status(line) => control::show_status(line),
        MountsCommand::Stats { mountpoint, json } => {
            control::show_stats(mountpoint.as_deref(), json)
        }
        MountsCommand::Sync { mountpoint } => control::sync(&mountpoint),
        MountsCommand::Unmount { mountpoint, abandon } => {
            let place = mountpoint::resolve(&mountpoint).unwrap_or_else(|_| mountpoint.clone());
            match abandon {
                false => control::unmount(&mountpoint)?,
                true => control::abandon(&mountpoint)?,
            }
            tell_of_login(&place);
            Ok(())
        }
        MountsCommand::Rescue { command } => {
            print(&rescue::commands::run(command, control::mount_of)?)
        }
    }
}

/// Tells a person that what was unmounted comes back.
#[cfg(target_os = "linux")]
fn tell_of_login(place: &std::path::Path) {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() && at_login::is_mounted_at_login(place) {
        let place = place.display();
        complain(format_args!(
            "xfer: {place} is mounted again at the next login; to end that: xfer mount --not-at-login {place}"
        ));
    }
}
