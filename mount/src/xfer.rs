//! `xfer`: what each of its commands runs.

#[cfg(target_os = "linux")]
use crate::command::xfer_line::MountsCommand;
use crate::command::xfer_line::XferCommand;
use crate::process::exit::Failure;
#[cfg(target_os = "linux")]
use crate::process::output::print;
use crate::{account, files};
#[cfg(target_os = "linux")]
use crate::{at_login, control, rescue};

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
        MountsCommand::Unmount { mountpoint, abandon: false } => control::unmount(&mountpoint),
        MountsCommand::Unmount { mountpoint, abandon: true } => control::abandon(&mountpoint),
        MountsCommand::Rescue { command } => {
            print(&rescue::commands::run(command, control::mount_of)?)
        }
    }
}
