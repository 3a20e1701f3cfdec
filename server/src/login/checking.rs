//! Checks whether a client acts for an account: by its password, by the key of one of its devices, or
//! by an invitation.
//!
//! **Invariant:** neither the answer nor the work done for it shows whether a name or what was shown
//! with it was wrong. A client that shows a good proof of a key is told more.
//! **Invariant:** all that can be guessed is counted: passwords, and codes of invitations.

use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use xfer_link::proof::is_device_of;
use xfer_protocol::limits::LABEL_BYTES_MAX;
use xfer_protocol::message::{
    Binding, DeviceKey, InviteCode, Password, PublicKey, Refusal, Signature,
};
use xfer_protocol::shown::is_visible;
use xfer_protocol::{Name, Timestamp, user};
use xfer_store::{Account, AccountId, Accounts, CodeHash, Enrolment, Failures, Keys, StoreError};

use crate::login::authority::Authority;
use crate::login::lockout::{LockedOut, Lockouts};
use crate::login::password;
use crate::login::source::Source;

/// Attempts with an invalid account name are counted under this one.
const NO_NAME: &str = "?";

/// Checks clients.
pub struct Checker {
    accounts: Arc<dyn Accounts>,
    pub(super) keys: Arc<dyn Keys>,
    lockouts: Lockouts,
}

/// A client that acts for an account.
#[derive(Debug)]
pub struct Identified {
    /// The account.
    pub account: Account,
    /// By what right.
    pub authority: Authority,
}

/// A key that a client wants to have enrolled, and its proof.
pub struct Enrolling {
    /// The key.
    pub key: PublicKey,
    /// The signature of the connection by that key.
    pub proof: Signature,
    /// What the device is called.
    pub label: String,
}

impl Checker {
    /// Checks clients of these accounts, and counts wrong passwords beside them.
    pub fn new(
        accounts: Arc<dyn Accounts>,
        failures: Arc<dyn Failures>,
        keys: Arc<dyn Keys>,
    ) -> Checker {
        Checker { accounts, keys, lockouts: Lockouts::new(failures) }
    }

    /// Checks a password, and counts the attempt. Slow.
    pub async fn password(
        &self,
        user: &str,
        password: Password,
        source: Source,
    ) -> Result<Identified, Refusal> {
        if password::check_length(&password.0).is_err() {
            return Err(Refusal::WrongPassword);
        }
        let name = user::parse(user);
        let key = counted_as(name.as_ref());
        let begun = self.lockouts.begin(&key, source).await;
        let attempt = begun.map_err(|LockedOut { seconds }| Refusal::Blocked { seconds })?;
        match self.find_verified(name, password, &key).await {
            Ok(Some(identified)) => {
                self.lockouts.succeed(attempt).await;
                match identified.account.takes_passwords {
                    true => enabled(identified),
                    false => Err(Refusal::KeysOnly),
                }
            }
            Ok(None) => {
                self.lockouts.fail(attempt).await;
                Err(Refusal::WrongPassword)
            }
            Err(refusal) => {
                self.lockouts.take_back(attempt);
                Err(refusal)
            }
        }
    }

    /// The account of this name, if the password is right. `key` is the name for the log.
    async fn find_verified(
        &self,
        name: Option<Name>,
        password: Password,
        key: &str,
    ) -> Result<Option<Identified>, Refusal> {
        let account = self.find(name).await?;
        let stored = account.as_ref().and_then(|account| account.password.clone());
        let hash = stored.clone();
        let right = is_right(password, stored, key).await?;
        let authority = hash.map(Authority::Password);
        let identified = account.zip(authority).filter(|_| right);
        Ok(identified.map(|(account, authority)| Identified { account, authority }))
    }

    /// Checks the proof of a device. It can't be guessed, so it is not counted.
    pub async fn device(
        &self,
        user: &str,
        (key, proof): (PublicKey, Signature),
        binding: Binding,
    ) -> Result<Identified, Refusal> {
        if !is_device_of(key, user, binding, proof) {
            return Err(Refusal::UnknownKey);
        }
        let account = self.find(user::parse(user)).await?;
        let keys = self.keys.of(number_of(account.as_ref())).await.map_err(internal)?;
        let now = Timestamp::from(SystemTime::now());
        let is_good =
            |known: &DeviceKey| known.key == key && known.expires.is_none_or(|at| now < at);
        match account.filter(|_| keys.iter().any(is_good)) {
            Some(account) => enabled(Identified { account, authority: Authority::Device(key) }),
            None => Err(Refusal::UnknownKey),
        }
    }

    /// Checks the code of an invitation, counts the attempt, and uses the invitation up: its user has
    /// a key from then on, and a password if one is given. Slow.
    pub async fn invitation(
        &self,
        user: &str,
        code: InviteCode,
        (key, password): (DeviceKey, Option<Password>),
        source: Source,
    ) -> Result<Name, Refusal> {
        let name = user::parse(user);
        let begun = self.lockouts.begin(&counted_as(name.as_ref()), source).await;
        let attempt = begun.map_err(|LockedOut { seconds }| Refusal::Blocked { seconds })?;
        let redeemed = async {
            let hash = match password.clone() {
                Some(password) => Some(hashed(password).await?),
                None => None,
            };
            let account = self.find(name).await?;
            let code = CodeHash(Sha256::digest(code.0).into());
            let number = number_of(account.as_ref());
            let public = key.key;
            let redeemed = self.keys.redeem(number, code, key, hash).await.map_err(internal)?;
            let Some(account) = account else { return Ok(None) };
            let is_repeated = redeemed == Enrolment::NotInvited
                && self.was_redeemed(&account, public, password).await?;
            let redeemed = if is_repeated { Enrolment::Done } else { redeemed };
            Ok(Some((account.name, redeemed)))
        };
        match redeemed.await {
            Ok(Some((name, Enrolment::Done))) => {
                self.lockouts.succeed(attempt).await;
                Ok(name)
            }
            Ok(Some((_, Enrolment::TooMany))) => {
                self.lockouts.take_back(attempt);
                Err(Refusal::TooManyKeys)
            }
            Ok(Some((_, Enrolment::NotInvited)) | None) => {
                self.lockouts.fail(attempt).await;
                Err(Refusal::UsedInvitation)
            }
            Err(refusal) => {
                self.lockouts.take_back(attempt);
                Err(refusal)
            }
        }
    }

    /// Whether a client that comes with an invitation has used one before and did not hear the answer: its
    /// key is known, and its password is the one that was set.
    async fn was_redeemed(
        &self,
        account: &Account,
        key: PublicKey,
        password: Option<Password>,
    ) -> Result<bool, Refusal> {
        let (Some(password), Some(stored)) = (password, account.password.clone()) else {
            return Ok(false);
        };
        let keys = self.keys.of(account.id).await.map_err(internal)?;
        let is_known = keys.iter().any(|known| known.key == key);
        Ok(is_known && is_right(password, Some(stored), &account.name.to_string()).await?)
    }

    /// Sets an account's password. Slow.
    pub async fn set_password(&self, account: &Account, password: Password) -> Result<(), Refusal> {
        let hash = hashed(password).await?;
        let change = xfer_store::Change::Password(hash);
        self.accounts.change(account.id, change).await.map_err(internal)
    }

    async fn find(&self, name: Option<Name>) -> Result<Option<Account>, Refusal> {
        match name {
            Some(name) => self.accounts.find(name).await.map_err(internal),
            None => Ok(None),
        }
    }
}

impl Enrolling {
    /// The key to enrol now, if the client has it.
    pub fn checked(self, user: &str, binding: Binding) -> Result<DeviceKey, Refusal> {
        let Enrolling { key, proof, label } = self;
        if !is_device_of(key, user, binding, proof) {
            return Err(Refusal::UnknownKey);
        }
        let enrolled = SystemTime::now().into();
        let label = shortened(&label, LABEL_BYTES_MAX);
        Ok(DeviceKey { key, label, enrolled, used: None, expires: None })
    }
}

/// Makes text from a client fit to be shown: short, and without invisible characters.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    let mut label = String::new();
    for c in text.chars().filter(|c| is_visible(*c)) {
        if label.len() + c.len_utf8() > bytes_max {
            break;
        }
        label.push(c);
    }
    label
}

/// Refuses a client whose account is disabled. Only one that has proved who it is hears that.
fn enabled(identified: Identified) -> Result<Identified, Refusal> {
    match identified.account.is_disabled(SystemTime::now().into()) {
        true => Err(Refusal::Disabled),
        false => Ok(identified),
    }
}

/// The name under which an attempt is counted.
fn counted_as(name: Option<&Name>) -> String {
    name.map_or(NO_NAME.to_owned(), Name::to_string)
}

/// The account's number, or one that no account has, which takes as much work to look up.
fn number_of(account: Option<&Account>) -> AccountId {
    account.map_or(AccountId(0), |account| account.id)
}

/// Whether a password is the one that was stored for an account. As slow if none was.
async fn is_right(password: Password, stored: Option<String>, user: &str) -> Result<bool, Refusal> {
    let verify = move || password::verify(&password.0, stored.as_deref());
    let verified = tokio::task::spawn_blocking(verify).await.map_err(|error| {
        tracing::error!(%error, "checking a password failed");
        Refusal::Internal
    })?;
    verified.map_err(|error| {
        tracing::error!(user, %error, "the password of a user cannot be checked; run: xfer-server user passwd {user}");
        Refusal::Internal
    })
}

async fn hashed(password: Password) -> Result<String, Refusal> {
    let hash = tokio::task::spawn_blocking(move || password::hash(&password.0));
    let hash = hash.await.map_err(|error| error.to_string());
    hash.and_then(|hash| hash.map_err(|error| error.to_string())).map_err(|error| {
        tracing::error!(error, "a password cannot be hashed");
        Refusal::Internal
    })
}

pub(super) fn internal(error: StoreError) -> Refusal {
    tracing::error!(%error, "an account cannot be read or changed");
    Refusal::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_short_and_shows_nothing_that_moves_the_cursor() {
        assert_eq!(shortened("host\x1b[2J\n", 64), "host[2J");
        assert_eq!(shortened(&"é".repeat(40), 64), "é".repeat(32));
    }
}
