//! `xfer-server user ...`: changes accounts in the store itself, whether or not a server is running.
//!
//! A running server is notified afterwards. It then ends sessions that are no longer allowed, and
//! sends the other clients the new list of users.

use std::io::{ErrorKind, IsTerminal};
use std::time::SystemTime;

use xfer_protocol::{Name, Timestamp, user};
use xfer_store::{
    Account, AccountId, Change, Claim, IfMissing, Keys, NewAccount, Purpose, Register, Removed,
    Resumable, Revoked, StoreError, WrongPasswords,
};
use xfer_terminal::{Terminal, Unanswered};

use super::super::output;
use super::limits::{INBOX, Limit};
use super::{invite, secret};
use crate::login::password;
use crate::moment;
use crate::program::control::{self, AskError, Command};
use crate::program::exit::{Exit, Failure};
use crate::program::store_location::StoreLocation;
use crate::program::waiting::Waiter;

/// How a new user logs in first.
pub enum Entry {
    /// With a password.
    Password(secret::Origin),
    /// By an invitation.
    Invitation(Option<invite::Host>),
}

/// Creates an account.
pub fn add(
    store: &StoreLocation,
    name: &str,
    entry: &Entry,
    Limit(quota): Limit,
) -> Result<(), Failure> {
    let name = parse_new(name)?;
    let exists = || {
        let line = format!(
            "user {name} exists; for another machine: xfer-server user invite {name}; for a new \
             password: xfer-server user passwd {name}"
        );
        Failure::new(Exit::UserExists, line)
    };
    let ledger = Ledger::if_there(store)?;
    if let Some(ledger) = &ledger
        && ledger.find(&name)?.is_some()
    {
        return Err(exists());
    }
    let password = match entry {
        Entry::Password(origin) => Some(hash(origin)?),
        Entry::Invitation(_) => None,
    };
    // The first user is often added before the server's first start.
    let ledger = ledger.map_or_else(|| Ledger::make(store), Ok)?;
    let time = Timestamp::from(SystemTime::now());
    let new = NewAccount { name: name.clone(), password, quota, inbox: INBOX, time };
    ledger.waiter.wait(ledger.register.accounts.create(new)).map_err(|error| {
        match error {
            // Another process created it while the password was typed.
            StoreError::Exists(_) => exists(),
            other => other.into(),
        }
    })?;
    tell(store, Command::AccountChanged { user: name.to_string() })?;
    if let Some(removed) = ledger.removed_of(&name)? {
        output::note(&format!(
            "a removed {name} is kept until {}; to have that one back too: xfer-server user restore \
             {name} --as NAME",
            moment::display(removed.until.secs())
        ));
    }
    match (entry, ledger.find(&name)?) {
        (Entry::Invitation(host), Some(account)) => {
            invite::invite(store, &ledger, &account, host.as_ref())
        }
        (Entry::Password(_), _) | (Entry::Invitation(_), None) => Ok(()),
    }
}

/// Reads the name of an account that is to be.
pub fn parse_new(name: &str) -> Result<Name, Failure> {
    user::parse(name).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{name:?} is not a user name; use {}", user::RULE))
    })
}

/// What becomes of the keys of a user's machines when the password is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysThen {
    /// They stay.
    Keep,
    /// They are revoked.
    Revoke,
    /// The administrator is asked, if there are any and there is a terminal. Otherwise they stay.
    Ask,
}

/// Sets an account's password. A session that the old one began ends, since it may belong to a thief
/// of it; those of machines' keys only if these are revoked.
pub fn set_password(
    store: &StoreLocation,
    name: &str,
    origin: &secret::Origin,
    keys: KeysThen,
) -> Result<(), Failure> {
    let (ledger, account) = find(store, name)?;
    let hash = hash(origin)?;
    let count = ledger.waiter.wait(ledger.register.keys.of(account.id))?.len();
    if are_revoked(&account, keys, count)? {
        ledger.waiter.wait(ledger.register.keys.revoke(account.id, Revoked::AllBut(None)))?;
    }
    ledger.change(&account, Change::Password(hash))?;
    tell(store, Command::AccountChanged { user: name.to_owned() })
}

fn are_revoked(account: &Account, keys: KeysThen, count: usize) -> Result<bool, Failure> {
    let name = &account.name;
    let keep = format!("{name} has {count} keys of machines, which still log in");
    match keys {
        KeysThen::Revoke => Ok(true),
        KeysThen::Ask if count > 0 && std::io::stdin().is_terminal() => {
            let answer = ask(&format!("{keep}. Revoke them too? [y/N] "));
            Ok(matches!(answer?.trim(), "y" | "Y" | "yes"))
        }
        KeysThen::Ask if count > 0 => {
            output::note(&format!(
                "{keep}; to revoke them: xfer-server user keys revoke {name} --all"
            ));
            Ok(false)
        }
        KeysThen::Keep | KeysThen::Ask => Ok(false),
    }
}

/// `on` or `off`, as typed on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Sets whether an account may log in with its password.
pub fn take_passwords(store: &StoreLocation, name: &str, on: Switch) -> Result<(), Failure> {
    let (ledger, account) = find(store, name)?;
    ledger.change(&account, Change::TakesPasswords(on == Switch::On))?;
    let keys = ledger.waiter.wait(ledger.register.keys.of(account.id))?;
    if on == Switch::Off && keys.is_empty() {
        output::note(&format!(
            "no machine of {name} has a key, so {name} can't log in now; run: xfer-server user \
             invite {name}"
        ));
    }
    Ok(())
}

/// Sets when an account is disabled, if ever. If that is now, its session ends.
pub fn disable(store: &StoreLocation, name: &str, from: Option<Timestamp>) -> Result<(), Failure> {
    let (ledger, account) = find(store, name)?;
    ledger.change(&account, Change::DisabledFrom(from))?;
    tell(store, Command::AccountChanged { user: name.to_owned() })
}

/// Sets when an account expires, if ever. One that is disabled already stays so.
pub fn expire(store: &StoreLocation, name: &str, at: Option<Timestamp>) -> Result<(), Failure> {
    let (_, account) = find(store, name)?;
    if account.is_disabled(SystemTime::now().into()) {
        let line = format!("{name} is disabled; to undo that: xfer-server user enable {name}");
        return Err(Failure::new(Exit::Other, line));
    }
    disable(store, name, at)
}

/// The accounts of a store, for a command that waits for what it asks.
pub struct Ledger {
    /// What it waits with.
    pub waiter: Waiter,
    register: Register,
}

impl Ledger {
    /// The keys of the users' machines.
    pub fn keys(&self) -> &dyn Keys {
        &*self.register.keys
    }

    /// Opens the accounts of a store that exists.
    pub fn existing(store: &StoreLocation) -> Result<Ledger, Failure> {
        Ledger::open(store, IfMissing::Fail)
    }

    /// Opens the accounts of a store, if it exists.
    fn if_there(store: &StoreLocation) -> Result<Option<Ledger>, Failure> {
        let waiter = Waiter::new()?;
        match waiter.wait(xfer_store::open_register(&store.location, IfMissing::Fail)) {
            Ok(register) => Ok(Some(Ledger { waiter, register })),
            Err(StoreError::Missing { error, .. }) if error.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            // The failure to make one says more.
            Err(StoreError::Missing { .. }) => Ledger::open(store, IfMissing::Make).map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a store, and says so, since its directory may have been mistyped.
    fn make(store: &StoreLocation) -> Result<Ledger, Failure> {
        let ledger = Ledger::open(store, IfMissing::Make)?;
        output::note(&format!("made a new store in {}", store.location));
        Ok(ledger)
    }

    fn open(store: &StoreLocation, if_missing: IfMissing) -> Result<Ledger, Failure> {
        let waiter = Waiter::new()?;
        let register = waiter.wait(xfer_store::open_register(&store.location, if_missing))?;
        Ok(Ledger { waiter, register })
    }

    /// An account.
    pub fn find(&self, name: &Name) -> Result<Option<Account>, Failure> {
        Ok(self.waiter.wait(self.register.accounts.find(name.clone()))?)
    }

    /// All accounts, sorted by name.
    pub fn list(&self) -> Result<Vec<Account>, Failure> {
        Ok(self.waiter.wait(self.register.accounts.list())?)
    }

    /// The sessions that their clients may resume.
    pub fn sessions(&self) -> Result<Vec<(AccountId, Resumable)>, Failure> {
        Ok(self.waiter.wait(self.register.accounts.sessions())?)
    }

    /// The counts of wrong passwords.
    pub fn wrong_passwords(&self) -> Result<Vec<WrongPasswords>, Failure> {
        Ok(self.waiter.wait(self.register.failures.list())?)
    }

    /// Removes an account, and keeps what it has.
    pub fn remove(&self, account: AccountId) -> Result<(), Failure> {
        let now = SystemTime::now().into();
        Ok(self.waiter.wait(self.register.accounts.remove(account, now))?)
    }

    /// The removed accounts that are kept, the last one first.
    pub fn removed(&self) -> Result<Vec<Removed>, Failure> {
        Ok(self.waiter.wait(self.register.accounts.removed())?)
    }

    /// The last of those that had this name.
    pub fn removed_of(&self, name: &Name) -> Result<Option<Removed>, Failure> {
        Ok(self.removed()?.into_iter().find(|removed| removed.account.name == *name))
    }

    /// For how many days they are kept.
    pub fn days_kept(&self) -> Result<u16, Failure> {
        Ok(self.waiter.wait(self.register.accounts.days_kept())?)
    }

    /// Brings a removed account back.
    pub fn restore(&self, account: AccountId, name: &Name) -> Result<(), StoreError> {
        self.waiter.wait(self.register.accounts.restore(account, name.clone()))
    }

    /// Deletes a removed account, which takes a while.
    pub fn delete(&self, account: AccountId) -> Result<(), StoreError> {
        let accounts = &self.register.accounts;
        self.waiter.wait(accounts.give_up(account))?;
        self.waiter.wait(accounts.clear_deleted(SystemTime::now().into()))
    }

    /// Claims an account, so that nothing else changes it, or reads it while it is changed.
    pub fn claim(&self, account: &Account, purpose: Purpose) -> Result<Claim, Failure> {
        let claim = self.waiter.wait(self.register.accounts.claim(account.id, purpose));
        claim.map_err(|error| match error {
            StoreError::Claimed => {
                let name = &account.name;
                let line = format!(
                    "another command is working on {name}, or {name} is being mounted; try again later"
                );
                Failure::new(Exit::AccountInUse, line)
            }
            other => other.into(),
        })
    }

    /// Changes an account.
    pub fn change(&self, account: &Account, change: Change) -> Result<(), Failure> {
        Ok(self.waiter.wait(self.register.accounts.change(account.id, change))?)
    }
}

/// Finds an existing account in an existing store.
pub fn find(store: &StoreLocation, name: &str) -> Result<(Ledger, Account), Failure> {
    let ledger = Ledger::existing(store)?;
    let Some(parsed) = user::parse(name) else { return Err(no_user(name)) };
    if let Some(account) = ledger.find(&parsed)? {
        return Ok((ledger, account));
    }
    match ledger.removed_of(&parsed)? {
        Some(_) => {
            let line = format!(
                "there is no user {name:?} any more; to bring back the one that was removed: \
                 xfer-server user restore {name}"
            );
            Err(Failure::new(Exit::NoUser, line))
        }
        None => Err(no_user(name)),
    }
}

/// The failure for an unknown account, whose name may even be invalid.
pub fn no_user(name: &str) -> Failure {
    let line = match user::parse(name) {
        Some(_) => format!("there is no user {name:?}; see xfer-server user list"),
        None => format!("{name:?} is not a user name; use {}", user::RULE),
    };
    Failure::new(Exit::NoUser, line)
}

/// Asks a question on the terminal.
pub fn ask(question: &str) -> Result<String, Failure> {
    let answer = Terminal::open().map_err(Unanswered::from).and_then(|tty| tty.ask(question));
    answer.map_err(|error| match error {
        Unanswered::Interrupted => Failure::new(Exit::Interrupted, error.to_string()),
        Unanswered::Terminal(_) => {
            Failure::new(Exit::Other, format!("{error}; answer on a terminal"))
        }
    })
}

fn hash(origin: &secret::Origin) -> Result<String, Failure> {
    let password = secret::read(origin)?;
    password::hash(&password)
        .map_err(|error| Failure::new(Exit::Other, format!("{error}; free some memory")))
}

/// Notifies the server that runs on the store, if there is one.
pub fn tell(store: &StoreLocation, command: Command) -> Result<(), Failure> {
    match control::ask(&store.dir, &command) {
        Ok(_) | Err(AskError::NotRunning) => Ok(()),
        Err(error @ AskError::Io(_)) => {
            let line = format!("done, but the running server was not told ({error}); restart it");
            Err(Failure::new(Exit::Other, line))
        }
    }
}
