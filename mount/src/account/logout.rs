//! `xfer logout`: this machine gives its key for an account up.
//!
//! The server ends a mount whose key it forgets. So if one runs here, its user is asked, and its changes are
//! made durable first.

use xfer_client::connect::Identity;

use super::{Reached, device_keys, target};
use crate::command::cli::PasswordLine;
use crate::command::identity;
use crate::command::xfer_line::LogoutLine;
use crate::process::exit::{Exit, Failure};
use crate::process::output::print_line;

/// Gives this machine's key up, on the server and here.
pub(super) fn run(line: LogoutLine) -> Result<(), Failure> {
    let target = target(&line.target)?;
    let (keys, label) = (device_keys()?, target.to_string());
    let no_key = || {
        let line = format!(
            "this machine has no key for {target}, so there is nothing to log out of; for the \
             machines that have one: xfer keys {target}"
        );
        Failure::new(Exit::Other, line)
    };
    if line.local {
        // One that is damaged or that others can read is forgotten all the same.
        keys.path(&label).symlink_metadata().map_err(|_| no_key())?;
    } else {
        let Some(Identity::Device(key)) = identity::device(&label)? else { return Err(no_key()) };
        let reached = Reached::server(&target, line.server, &mut PasswordLine::default())?;
        #[cfg(target_os = "linux")]
        super::mounts::settle(&label, key.public(), line.yes)?;
        let own = Identity::Device(key.clone());
        match reached.runtime.block_on(reached.peer.revoke(&own, key.public())) {
            Ok(_) => {}
            // It was revoked there, or has expired.
            Err(error) if error.is_unknown_key() => {}
            Err(error) => return Err(error.into()),
        }
    }
    keys.forget(&label).map_err(|error| {
        let line = format!("{}: {error}; remove it", keys.path(&label).display());
        Failure::new(Exit::Other, line)
    })?;
    print_line(&format!("this machine does not log in to {label} by a key any more"))
}
