//! What users do with their accounts without a mount: log this machine in and out, look after the keys
//! of their machines, set the password.

mod login;
mod logout;
#[cfg(target_os = "linux")]
mod mounts;
mod keys;
mod passwd;

use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};
use xfer_client::connect::{DeviceKeys, Peer, Target, TrustMode};

use crate::command::cli::{PasswordLine, ServerLine};
use crate::command::config::trust_mode;
use crate::command::settings;
use crate::command::xfer_line::AccountCommand;
use crate::process::exit::{Exit, Failure};
use crate::reaching::reach;

/// Runs a command.
///
/// # Errors
/// If the server can't be reached, is not trusted, or refuses.
pub fn run(command: AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::Login(line) => login::log_in(line),
        AccountCommand::Logout(line) => logout::run(line),
        AccountCommand::Keys(line) => keys::run(line),
        AccountCommand::Passwd(line) => passwd::run(line),
    }
}

/// A trusted server, and the runtime to talk to it.
struct Reached {
    runtime: Runtime,
    peer: Peer,
}

impl Reached {
    /// Reaches the server by a command line, which is completed with the settings.
    fn server(
        target: &Target,
        mut line: ServerLine,
        password: &mut PasswordLine,
    ) -> Result<Reached, Failure> {
        settings::complete_access(target, &mut line, password)?;
        Reached::trusting(target, &trust_mode(line.trust)?, line.known_hosts)
    }

    fn trusting(
        target: &Target,
        mode: &TrustMode,
        known_hosts: Option<PathBuf>,
    ) -> Result<Reached, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
        let peer = reach(target, mode, known_hosts, &runtime)?;
        Ok(Reached { runtime, peer })
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        // A thread that resolves a name can't be interrupted, so it is not waited for.
        let runtime = Builder::new_current_thread().build();
        if let Ok(empty) = runtime {
            std::mem::replace(&mut self.runtime, empty).shutdown_background();
        }
    }
}

/// The place of this machine's keys.
fn device_keys() -> Result<DeviceKeys, Failure> {
    DeviceKeys::of_user().ok_or_else(|| {
        Failure::usage("there is no home directory to keep this machine's key in; set HOME")
    })
}

fn target(text: &str) -> Result<Target, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("{error}")))
}
