//! Work on an account's files without a mount: `xfer ls`, `xfer get` and so on. If the account is mounted
//! on this machine by the same user, that mount does the work.
//!
//! Reading order: `place` (what users write), `pattern` (`*` and so on), `errno`, `tree` (what can be done with a
//! tree, both ways), `mounts` (one way), `opening` (which way it is), `report` (what fails, and progress), `show` (output), then
//! the commands: `listing`, `reading`, `walking`, `changing` with `plan` (which node goes where) and
//! `staging` (files that are not complete), `transfer`, `mail`.
//!
//! **Invariant:** a command that succeeds has all its changes on the server's disk.

mod place;
mod pattern;
mod errno;
mod tree;
mod mounts;
mod opening;
mod report;
mod show;
mod listing;
mod reading;
mod walking;
mod plan;
mod staging;
mod changing;
mod transfer;
mod mail;

use crate::command::file_lines::FileCommand;
use crate::process::exit::Failure;

/// Runs a command.
///
/// # Errors
/// If the account can't be reached, or some of the work failed. A line has told of each of these.
pub fn run(command: FileCommand) -> Result<(), Failure> {
    match command {
        FileCommand::Ls(line) => listing::ls(line),
        FileCommand::Stat(line) => listing::stat(line),
        FileCommand::Cat(line) => reading::cat(line),
        FileCommand::Head(line) => reading::head(line),
        FileCommand::Find(line) => walking::find(line),
        FileCommand::Du(line) => walking::du(line),
        FileCommand::Cp(line) => changing::cp(line),
        FileCommand::Mv(line) => changing::mv(line),
        FileCommand::Rm(line) => changing::rm(line),
        FileCommand::Mkdir(line) => changing::mkdir(line),
        FileCommand::Get(line) => transfer::get(line),
        FileCommand::Put(line) => transfer::put(line),
        FileCommand::Send(line) => mail::send(line),
        FileCommand::Inbox(line) => mail::inbox(line),
        FileCommand::Outbox(line) => mail::outbox(line),
    }
}
