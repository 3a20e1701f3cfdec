//! What a client does with its account without a session: keys of devices, and the password.

use xfer_protocol::Name;
use xfer_protocol::message::{Binding, Done, KeysThen, Refusal, Task};
use xfer_store::{Enrolment, Revoked};

use crate::login::authority::Authority;
use crate::login::checking::{Checker, Enrolling, Identified, internal};
use crate::login::password;

/// A task that was done.
#[derive(Debug)]
pub struct TaskDone {
    /// The account.
    pub user: Name,
    /// What to tell the client.
    pub done: Done,
    /// Whether sessions of the account may have lost their right to be.
    pub takes_rights: bool,
}

impl TaskDone {
    /// A task that leaves sessions alone.
    pub(super) fn quiet(user: Name, done: Done) -> TaskDone {
        TaskDone { user, done, takes_rights: false }
    }
}

impl Checker {
    /// Does a task of a client that acts for the account. May be slow.
    pub async fn perform(
        &self,
        client: Identified,
        task: Task,
        binding: Binding,
    ) -> Result<TaskDone, Refusal> {
        check_right(&client.authority, &task)?;
        let Identified { account, authority: _ } = client;
        let user = account.name.clone();
        match task {
            Task::Enrol { key, proof, label, password: _ } => {
                let enrolling = Enrolling { key, proof, label };
                let key = enrolling.checked(&user.to_string(), binding)?;
                let label = key.label.clone();
                match self.keys.enrol(account.id, key).await.map_err(internal)? {
                    Enrolment::Done => {
                        tracing::info!(%user, label, "a device was enrolled");
                        Ok(TaskDone::quiet(user.clone(), Done::Enrolled { user }))
                    }
                    Enrolment::TooMany | Enrolment::NotInvited => Err(Refusal::TooManyKeys),
                }
            }
            Task::Keys => {
                let keys = self.keys.of(account.id).await.map_err(internal)?;
                Ok(TaskDone::quiet(user, Done::Keys(keys)))
            }
            Task::Revoke(key) => {
                let revoked = self.keys.revoke(account.id, Revoked::Key(key)).await;
                let was_known = revoked.map_err(internal)? > 0;
                tracing::info!(%user, was_known, "a device's key was revoked");
                Ok(TaskDone { user, done: Done::Revoked { was_known }, takes_rights: true })
            }
            Task::SetPassword { password, keys } => {
                if let KeysThen::AreRevokedBut(kept) = keys {
                    let revoked = self.keys.revoke(account.id, Revoked::AllBut(kept)).await;
                    revoked.map_err(internal)?;
                }
                self.set_password(&account, password).await?;
                tracing::info!(%user, ?keys, "the password was changed by its user");
                Ok(TaskDone { user, done: Done::PasswordSet, takes_rights: true })
            }
        }
    }
}

/// Refuses what a device's key alone is not enough for, and what no client of ours sends.
fn check_right(authority: &Authority, task: &Task) -> Result<(), Refusal> {
    let is_enough = match (authority, task) {
        (_, Task::SetPassword { password, .. }) if password::check_length(&password.0).is_err() => {
            return Err(Refusal::Internal);
        }
        (Authority::Password(_), _) | (Authority::Device(_), Task::Keys) => true,
        (Authority::Device(own), Task::Revoke(key)) => own == key,
        (Authority::Device(_), Task::Enrol { .. } | Task::SetPassword { .. }) => false,
    };
    if is_enough { Ok(()) } else { Err(Refusal::PasswordNeeded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xfer_protocol::message::{Password, PublicKey};

    #[test]
    fn a_stolen_device_neither_keeps_the_account_nor_locks_its_owner_out() {
        let (own, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let enrol = || Task::Enrol {
            key: other,
            proof: Default::default(),
            label: String::new(),
            password: None,
        };
        let set = || Task::SetPassword { password: Password(b"new".into()), keys: KeysThen::Stay };
        let (device, password) = (Authority::Device(own), Authority::Password("hash".to_owned()));
        for (task, is_enough) in [
            (Task::Keys, true),
            (Task::Revoke(own), true),
            (Task::Revoke(other), false),
            (enrol(), false),
            (set(), false),
        ] {
            let expected = if is_enough { Ok(()) } else { Err(Refusal::PasswordNeeded) };
            assert_eq!(check_right(&device, &task), expected, "{task:?}");
            assert_eq!(check_right(&password, &task), Ok(()), "{task:?}");
        }
        let empty = Task::SetPassword { password: Password(Vec::new()), keys: KeysThen::Stay };
        assert_eq!(check_right(&password, &empty), Err(Refusal::Internal));
    }
}
