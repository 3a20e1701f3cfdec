//! By what right a client acts for an account, and whether it still has that right.

use std::time::SystemTime;

use xfer_protocol::message::PublicKey;
use xfer_store::{Account, Resumable, Store, StoreError};

/// By what right a client acts for an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// It gave the password with this hash.
    Password(String),
    /// It has the device's key.
    Device(PublicKey),
}

impl Authority {
    /// The right by which a session was begun that the store knows. A session that a password began is
    /// forgotten when that changes, so it was begun with the present one.
    pub(crate) fn of(known: &Resumable, account: &Account) -> Authority {
        match known.device {
            Some(device) => Authority::Device(device),
            None => Authority::Password(account.password.clone().unwrap_or_default()),
        }
    }

    /// The device, if there is one.
    pub(crate) fn device(&self) -> Option<PublicKey> {
        match self {
            Authority::Password(_) => None,
            Authority::Device(device) => Some(*device),
        }
    }

    /// Whether the present account still grants it. An expired key keeps its sessions: only a login
    /// is refused. A disabled account keeps none.
    pub(crate) async fn holds(&self, store: &Store, account: &Account) -> Result<bool, StoreError> {
        if account.is_disabled(SystemTime::now().into()) {
            return Ok(false);
        }
        match self {
            Authority::Password(hash) => Ok(account.password.as_deref() == Some(&**hash)),
            Authority::Device(device) => {
                let keys = store.keys.of(account.id).await?;
                Ok(keys.iter().any(|known| known.key == *device))
            }
        }
    }
}
