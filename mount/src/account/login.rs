//! `xfer login` and `xfer logout`: this machine gets a key for an account, or gives it up.

use std::io;
use std::path::PathBuf;

use xfer_client::connect::{DeviceKeys, Fingerprint, Identity, Target, TrustMode, host_name};
use xfer_protocol::invitation::Invitation;

use super::{Reached, device_keys, target};
use crate::command::cli::{LoginLine, LogoutLine};
use crate::command::config::PasswordSource;
use crate::command::{identity, password};
use crate::process::exit::{Exit, Failure};
use crate::reaching;

/// Enrols this machine: with the account's password, or with an invitation.
pub(super) fn log_in(line: LoginLine) -> Result<(), Failure> {
    let (name, invitation) = split(&line.target)?;
    let (target, keys) = (target(name)?, device_keys()?);
    let source = PasswordSource::from(line.password);
    let device = line.label.unwrap_or_else(host_name);
    let (reached, identity, password) = match invitation {
        None => {
            let reached = Reached::server(&target, line.server)?;
            let identity = identity::by_password(&source, reached.peer.label())?;
            (reached, identity, None)
        }
        Some(invitation) => {
            let reached = Reached::invited(&target, &invitation, line.server.known_hosts)?;
            let password = password::obtain_new(&source, reached.peer.label())?;
            (reached, Identity::Invitation(invitation.code), Some(password))
        }
    };
    let account = reached.peer.label();
    let unkept = |error| unkept(&keys, account, &error);
    let key = keys.begin(account).map_err(unkept)?;
    match reached.runtime.block_on(reached.peer.enrol(&identity, &key, &device, password)) {
        Ok(_) => keys.settle(account, &key, true).map_err(unkept)?,
        Err(error) => {
            // If the answer was lost, the server may know the key.
            if error.is_refusal() {
                keys.settle(account, &key, false).map_err(unkept)?;
            }
            return Err(error.into());
        }
    }
    println_or_fail(&format!(
        "this machine logs in to {account} by a key from now on; mount it with: xfer-mount {name} \
         MOUNTPOINT; or at each login: xfer mount --at-login {name} MOUNTPOINT"
    ))
}

/// Gives this machine's key up, on the server and here.
pub(super) fn log_out(line: LogoutLine) -> Result<(), Failure> {
    let target = target(&line.target)?;
    let (keys, label) = (device_keys()?, target.to_string());
    let Some(Identity::Device(key)) = identity::device(&label)? else {
        let line = format!("this machine has no key for {target}");
        return Err(Failure::new(Exit::Other, line));
    };
    if !line.local {
        let reached = Reached::server(&target, line.server)?;
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
    Ok(())
}

impl Reached {
    /// The server of an invitation, which names its certificate. It is known from now on.
    fn invited(
        target: &Target,
        invitation: &Invitation,
        known_hosts: Option<PathBuf>,
    ) -> Result<Reached, Failure> {
        let fingerprint = Fingerprint::from(invitation.fingerprint);
        let (known, endpoint) = (reaching::file(known_hosts.clone())?, target.endpoint());
        let reached = Reached::trusting(target, &TrustMode::Fingerprint(fingerprint), known_hosts)?;
        let noted = known.lookup(&endpoint).and_then(|there| {
            match there.iter().any(|known| known.fingerprint == fingerprint) {
                true => Ok(()),
                false => known.add(&endpoint, fingerprint),
            }
        });
        noted.map_err(|error| {
            Failure::usage(format!("known hosts file {}: {error}", known.path().display()))
        })?;
        Ok(reached)
    }
}

/// The account, and the invitation after the `#`, if there is one.
fn split(text: &str) -> Result<(&str, Option<Invitation>), Failure> {
    match text.split_once('#') {
        None => Ok((text, None)),
        Some((name, invitation)) => {
            let invitation =
                invitation.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            Ok((name, Some(invitation)))
        }
    }
}

fn unkept(keys: &DeviceKeys, account: &str, error: &io::Error) -> Failure {
    let path = keys.path(account);
    let line = format!("the key can't be kept in {}: {error}; then log in again", path.display());
    Failure::new(Exit::Other, line)
}

/// Writes a line to standard output.
pub(super) fn println_or_fail(line: &str) -> Result<(), Failure> {
    io::Write::write_all(&mut io::stdout(), format!("{line}\n").as_bytes())
        .map_err(|error| Failure::new(Exit::Other, format!("can't write the output: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use xfer_protocol::message::InviteCode;

    #[test]
    fn an_invitation_stands_behind_its_account() {
        let invitation = Invitation { code: InviteCode([1; 16]), fingerprint: [2; 32] };
        let text = format!("alice@host#{invitation}");
        assert_eq!(split(&text).unwrap(), ("alice@host", Some(invitation)));
        assert_eq!(split("alice@host").unwrap(), ("alice@host", None));
        assert_eq!(split("alice@host#part").unwrap_err().exit, Exit::Usage);
    }
}
