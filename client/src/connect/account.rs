//! How a client shows that it acts for an account, and what it does with that without a session:
//! enrolling this device, looking after keys, setting the password.

use std::sync::Arc;

use xfer_link::proof::SigningKey;
use xfer_protocol::Name;
use xfer_protocol::message::{
    Binding, Credential, DeviceKey, Done, InviteCode, KeysThen, Password, PublicKey, Task,
};

use super::error::{ConnectError, EndpointError};
use super::login::Peer;

/// How a client shows that it acts for an account.
#[derive(Clone, Debug)]
pub enum Identity {
    /// By the account's password.
    Password(Password),
    /// By the key of this device, which the account knows.
    Device(Arc<SigningKey>),
    /// By the code of an invitation, which is good once, and for enrolling a device alone.
    Invitation(InviteCode),
}

impl Identity {
    /// What is shown on the connection with this binding.
    pub(super) fn shown(&self, user: &str, binding: Binding) -> Credential {
        match self {
            Identity::Password(password) => Credential::Password(password.clone()),
            Identity::Device(key) => {
                let proof = key.prove_device(user, binding);
                Credential::Device { key: key.public(), proof }
            }
            Identity::Invitation(code) => Credential::Invitation(code.clone()),
        }
    }
}

impl Peer {
    /// Enrols a device: from then on it logs in by this key. With an invitation, the account's password
    /// can be set too. Returns the account's name, as the server writes it.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn enrol(
        &self,
        identity: &Identity,
        key: &SigningKey,
        label: &str,
        password: Option<Password>,
    ) -> Result<Name, ConnectError> {
        let user = &self.server.target().user;
        let task = |binding: Binding| Task::Enrol {
            key: key.public(),
            proof: key.prove_device(user, binding),
            label: label.to_owned(),
            password: password.clone(),
        };
        match self.perform(identity, &task).await? {
            Done::Enrolled { user } => Ok(user),
            _ => Err(self.nonsense()),
        }
    }

    /// The keys by which the account's devices log in.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn keys(&self, identity: &Identity) -> Result<Vec<DeviceKey>, ConnectError> {
        match self.perform(identity, &|_| Task::Keys).await? {
            Done::Keys(keys) => Ok(keys),
            _ => Err(self.nonsense()),
        }
    }

    /// Revokes a key, and ends the session that it began. Returns whether the account knew it.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn revoke(&self, identity: &Identity, key: PublicKey) -> Result<bool, ConnectError> {
        match self.perform(identity, &|_| Task::Revoke(key)).await? {
            Done::Revoked { was_known } => Ok(was_known),
            _ => Err(self.nonsense()),
        }
    }

    /// Sets the account's password.
    ///
    /// # Errors
    /// If the server refuses, or the connection breaks.
    pub async fn set_password(
        &self,
        identity: &Identity,
        password: Password,
        keys: KeysThen,
    ) -> Result<(), ConnectError> {
        let task = |_| Task::SetPassword { password: password.clone(), keys };
        match self.perform(identity, &task).await? {
            Done::PasswordSet => Ok(()),
            _ => Err(self.nonsense()),
        }
    }

    async fn perform(
        &self,
        identity: &Identity,
        task: &(dyn Fn(Binding) -> Task + Sync),
    ) -> Result<Done, ConnectError> {
        let done = self.server.perform(identity, task).await;
        done.map_err(|error| error.at(self.label()))
    }

    /// That the server says to have done another task.
    fn nonsense(&self) -> ConnectError {
        EndpointError::Nonsense("done with another task").at(self.label())
    }
}
