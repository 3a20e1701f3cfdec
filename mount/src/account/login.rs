//! `xfer login`: this machine gets a key for an account.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use xfer_client::connect::{
    Asker, DeviceKeys, Fingerprint, Identity, NoAnswer, TrustMode, host_name,
};
use xfer_protocol::invitation::Invitation;
use xfer_protocol::message::Password;

use super::{Reached, device_keys, target};
use crate::command::cli::PasswordLine;
use crate::command::config::PasswordSource;
use crate::command::terminal::OnTerminal;
use crate::command::xfer_line::LoginLine;
use crate::command::{identity, password, settings};
use crate::process::exit::{Exit, Failure};
use crate::process::output::print_line;

/// The variable that holds an invitation, which would be seen by all among the arguments.
const INVITATION: &str = "XFER_INVITATION";

/// Enrols this machine: with the account's password, or with an invitation.
pub(super) fn log_in(mut line: LoginLine) -> Result<(), Failure> {
    let text = match &line.target {
        Some(target) if target.contains('#') => return Err(again_unseen(target)),
        Some(target) => target.clone(),
        None => match std::env::var(INVITATION) {
            Ok(invitation) => invitation,
            Err(_) => asked()?,
        },
    };
    let (name, invitation) = split(&text)?;
    let trust = &line.server.trust;
    if invitation.is_some()
        && (trust.accept_new || trust.fingerprint.is_some() || trust.ca.is_some())
    {
        let line = "an invitation says itself which server to trust; leave --fingerprint, --ca and \
                    --accept-new out";
        return Err(Failure::usage(line));
    }
    let (target, keys) = (target(name)?, device_keys()?);
    let device = line.label.unwrap_or_else(host_name);
    let enrolling = match &invitation {
        None => {
            let reached = Reached::server(&target, line.server, &mut line.password)?;
            let source = PasswordSource::from(line.password.clone());
            let identity = identity::by_password(&source, reached.peer.label())?;
            Enrolling { reached, identity, keys, device }
        }
        Some(invitation) => {
            // A password of the settings is not the new one.
            settings::complete_access(&target, &mut line.server, &mut PasswordLine::default())?;
            let mode = TrustMode::Vouched(Fingerprint::from(invitation.fingerprint));
            let reached = Reached::trusting(&target, &mode, line.server.known_hosts)?;
            let identity = Identity::Invitation(invitation.code.clone());
            Enrolling { reached, identity, keys, device }
        }
    };
    match invitation {
        None => enrolling.enrol(None)?,
        Some(_) => enrolling.redeem(&line.password.into())?,
    }
    let account = enrolling.reached.peer.label();
    print_line(&format!(
        "this machine logs in to {account} by a key from now on; mount it with: xfer-mount {name} \
         MOUNTPOINT; or at each login: xfer mount --at-login {name} MOUNTPOINT"
    ))
}

/// What it takes to give this machine a key.
struct Enrolling {
    reached: Reached,
    identity: Identity,
    keys: DeviceKeys,
    /// What this machine is called in lists.
    device: String,
}

impl Enrolling {
    /// Makes this machine's key known, and sets the account's password if there is one, which takes an
    /// invitation.
    fn enrol(&self, password: Option<Password>) -> Result<(), Failure> {
        let Enrolling { reached, identity, keys, device } = self;
        let account = reached.peer.label();
        let unkept = |error| unkept(keys, account, &error);
        let key = keys.begin(account).map_err(unkept)?;
        match reached.runtime.block_on(reached.peer.enrol(identity, &key, device, password)) {
            Ok(_) => keys.settle(account, &key, true).map_err(unkept),
            Err(error) => {
                // If the answer was lost, the server may know the key.
                if error.is_refusal() {
                    keys.settle(account, &key, false).map_err(unkept)?;
                }
                Err(error.into())
            }
        }
    }

    /// Uses an invitation. A password is asked for only once the invitation has turned out to be good: the
    /// machine that used it may come with it again.
    fn redeem(&self, source: &PasswordSource) -> Result<(), Failure> {
        let account = self.reached.peer.label();
        let password = match source {
            PasswordSource::File(_) | PasswordSource::Stdin => {
                password::obtain_new(source, account)?
            }
            PasswordSource::Prompt => {
                password::asked_on()?;
                self.enrol(None)?;
                password::obtain_new(source, account).map_err(|Failure { exit, line }| {
                    let line = format!(
                        "{line}; this machine is logged in, but no password was set: to set one, use \
                         the invitation here again"
                    );
                    Failure { exit, line }
                })?
            }
        };
        self.enrol(Some(password))
    }
}

/// Runs this program again with an invitation in its environment, which other users can't read, and not
/// among its arguments, which `ps` shows to all. Returns only if that is impossible.
fn again_unseen(invitation: &str) -> Failure {
    let others = std::env::args_os().skip(1).filter(|argument| argument != invitation);
    let program = match cfg!(target_os = "linux") {
        // This leads to it even if it was replaced meanwhile.
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    };
    let error = match program {
        Ok(program) => {
            Command::new(program).arg0("xfer").args(others).env(INVITATION, invitation).exec()
        }
        Err(error) => error,
    };
    Failure::new(
        Exit::Other,
        format!(
            "cannot hide the invitation from other users ({error}); check that /proc is mounted"
        ),
    )
}

/// Asks for what was not given: then it is neither in a list of processes nor in a shell's history.
fn asked() -> Result<String, Failure> {
    let answer = OnTerminal.ask("Account (USER@HOST), or the invitation: ");
    let answer = answer.map_err(|error| match error {
        NoAnswer::Interrupted => Failure::new(Exit::Interrupted, "interrupted"),
        NoAnswer::Nobody => {
            Failure::usage("give an account, or an invitation; see: xfer login --help")
        }
    })?;
    // The whole line may have been pasted.
    let answer = answer.trim().trim_start_matches("xfer login").trim();
    Ok(answer.trim_matches('\'').to_owned())
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
    let line = format!(
        "the key cannot be kept in {}: {error}; log in again when it can be",
        path.display()
    );
    Failure::new(Exit::Other, line)
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
