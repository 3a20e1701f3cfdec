//! `xfer-server user ...`: changes accounts in the store itself, whether or not a server is running.
//!
//! A running server is notified afterwards. It then ends sessions that are no longer allowed, and
//! sends the other clients the new list of users.

use std::io::{ErrorKind, IsTerminal};
use std::time::SystemTime;

use xfer_protocol::{Name, Timestamp, size, user};
use xfer_store::{
    Account, AccountId, Change, Claim, IfMissing, Keys, NewAccount, Purpose, Register, Resumable,
    Revoked, StoreError, WrongPasswords,
};
use xfer_terminal::{Terminal, Unanswered};

use super::limits::{INBOX, Limit};
use super::{invite, secret};
use crate::login::password;
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
    match (entry, ledger.find(&name)?) {
        (Entry::Invitation(host), Some(account)) => {
            invite::invite(store, &ledger, &account, host.as_ref())
        }
        (Entry::Password(_), _) | (Entry::Invitation(_), None) => Ok(()),
    }
}

/// Reads the name of an account that is to be.
fn parse_new(name: &str) -> Result<Name, Failure> {
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
            super::note(&format!(
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
        super::note(&format!(
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

/// Removes an account, then its tree. A running server is told first, since the tree takes a while.
pub fn remove(store: &StoreLocation, name: &str, consent: Consent) -> Result<(), Failure> {
    let (ledger, account) = find(store, name)?;
    confirm(&account, consent)?;
    let _claim = ledger.claim(&account, Purpose::Change)?;
    let accounts = &ledger.register.accounts;
    ledger.waiter.wait(accounts.remove(account.id))?;
    let told = tell(store, Command::AccountChanged { user: name.to_owned() });
    ledger.waiter.wait(accounts.clear_removed(SystemTime::now().into()))?;
    told
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
        super::note(&format!("made a new store in {}", store.location));
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
    let account = match user::parse(name) {
        Some(name) => ledger.find(&name)?,
        None => None,
    };
    account.ok_or_else(|| no_user(name)).map(|account| (ledger, account))
}

/// The failure for an unknown account, whose name may even be invalid.
pub fn no_user(name: &str) -> Failure {
    let line = match user::parse(name) {
        Some(_) => format!("there is no user {name:?}; see xfer-server user list"),
        None => format!("{name:?} is not a user name; use {}", user::RULE),
    };
    Failure::new(Exit::NoUser, line)
}

/// Whether the administrator has confirmed that an account may be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consent {
    /// On the command line.
    Given,
    /// Not yet: ask on the terminal.
    Asked,
}

/// Asks the administrator to type the name of the account that is about to be deleted.
fn confirm(account: &Account, consent: Consent) -> Result<(), Failure> {
    let Account { name, usage, .. } = account;
    if consent == Consent::Given {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let line = format!(
            "this deletes {name} and all files of {name}, and there is no terminal to confirm it; use --yes"
        );
        return Err(Failure::new(Exit::Usage, line));
    }
    let (files, bytes) = (usage.nodes, size::display(usage.bytes));
    let question = format!(
        "This deletes {name} and everything that {name} stores, for good: {files} files, \
         {bytes}.\nType the name to confirm: "
    );
    match ask(&question) {
        Ok(typed) if typed.trim().as_bytes() == name.as_bytes() => Ok(()),
        Err(failure) if failure.exit == Exit::Interrupted => Err(failure),
        Ok(_) | Err(_) => {
            let line = format!("{name} was not removed; type the name to confirm, or use --yes");
            Err(Failure::new(Exit::Other, line))
        }
    }
}

/// Asks a question on the terminal.
fn ask(question: &str) -> Result<String, Failure> {
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
