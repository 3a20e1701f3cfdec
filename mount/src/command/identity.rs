//! How the user shows that an account is theirs: by this machine's key if it has one, unless a password
//! is given on the command line.

use std::sync::Arc;

use xfer_client::connect::{DeviceKeys, Identity};

use crate::command::config::PasswordSource;
use crate::command::password::{self, Obtained};
use crate::process::exit::{Exit, Failure};
use crate::process::report::report;

/// How the user shows that the account `label` (`user@host:port`) is theirs.
///
/// # Errors
/// If this machine's key can't be used, or there is no password either.
pub fn obtain(source: &PasswordSource, label: &str) -> Result<Identity, Failure> {
    match source {
        PasswordSource::Prompt => match device(label)? {
            Some(device) => Ok(device),
            None => by_password(source, label),
        },
        PasswordSource::File(_) | PasswordSource::Stdin => by_password(source, label),
    }
}

/// The password of an account, from the command line or the terminal.
///
/// # Errors
/// If there is none, or the text can't be a password.
pub fn by_password(source: &PasswordSource, label: &str) -> Result<Identity, Failure> {
    let Obtained { password, warning } = password::obtain(source, label)?;
    warning.iter().for_each(|warning| report(&format!("warning: {warning}")));
    Ok(Identity::Password(password))
}

/// This machine's key for the account, if it has one.
///
/// # Errors
/// If it can't be used.
pub fn device(label: &str) -> Result<Option<Identity>, Failure> {
    let Some(keys) = DeviceKeys::of_user() else { return Ok(None) };
    let key = keys.find(label).map_err(|error| {
        let path = keys.path(label);
        let line = format!("this machine's key {}: {error}", path.display());
        Failure::new(Exit::Usage, line)
    })?;
    Ok(key.map(|key| Identity::Device(Arc::new(key))))
}
