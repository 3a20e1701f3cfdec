//! The accounts of a store, and the person for whom a command works on them.

use std::io::ErrorKind;
use std::time::SystemTime;

use xfer_protocol::{Name, user};
use xfer_store::{
    Account, AccountId, Change, Claim, IfMissing, Keys, NewAccount, Purpose, Register, Removed,
    Resumable, StoreError, WrongPasswords,
};

use crate::program::console::Console;
use crate::program::control::{self, AskError, Command};
use crate::program::exit::{Exit, Failure};
use crate::program::store_location::StoreLocation;
use crate::program::waiting::Waiter;

/// Where a command works, and for whom.
pub struct Context<'a> {
    /// The store.
    pub store: &'a StoreLocation,
    /// The accounts, if this process is the server and has them open.
    register: Option<&'a Register>,
    /// The person.
    pub console: &'a mut dyn Console,
}

impl<'a> Context<'a> {
    /// For a command that opens the store itself.
    pub fn here(store: &'a StoreLocation, console: &'a mut dyn Console) -> Context<'a> {
        Context { store, register: None, console }
    }

    /// For a command that the server carries out.
    pub fn in_server(
        store: &'a StoreLocation,
        register: &'a Register,
        console: &'a mut dyn Console,
    ) -> Context<'a> {
        Context { store, register: Some(register), console }
    }
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
    pub fn existing(context: &Context<'_>) -> Result<Ledger, Failure> {
        match context.register {
            Some(register) => Ok(Ledger { waiter: Waiter::new()?, register: register.clone() }),
            None => Ledger::open(context.store, IfMissing::Fail),
        }
    }

    /// Opens the accounts of a store, if it exists.
    pub fn if_there(context: &Context<'_>) -> Result<Option<Ledger>, Failure> {
        if context.register.is_some() {
            return Ledger::existing(context).map(Some);
        }
        let store = context.store;
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
    pub fn make(context: &mut Context<'_>) -> Result<Ledger, Failure> {
        let ledger = Ledger::open(context.store, IfMissing::Make)?;
        context.console.note(&format!("made a new store in {}", context.store.location));
        Ok(ledger)
    }

    fn open(store: &StoreLocation, if_missing: IfMissing) -> Result<Ledger, Failure> {
        let waiter = Waiter::new()?;
        let register = waiter.wait(xfer_store::open_register(&store.location, if_missing))?;
        Ok(Ledger { waiter, register })
    }

    /// Makes an account.
    pub fn create(&self, new: NewAccount) -> Result<(), StoreError> {
        self.waiter.wait(self.register.accounts.create(new)).map(drop)
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
pub fn find(context: &Context<'_>, name: &str) -> Result<(Ledger, Account), Failure> {
    let ledger = Ledger::existing(context)?;
    let Some(parsed) = user::parse(name) else { return Err(no_user(name)) };
    if let Some(account) = ledger.find(&parsed)? {
        return Ok((ledger, account));
    }
    match ledger.removed_of(&parsed)? {
        Some(_) => {
            let line = format!(
                "there is no user '{name}' any more; to bring back the one that was removed: \
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
        Some(_) => format!("there is no user '{name}'; see: xfer-server user list"),
        None => format!("'{name}' is not a user name; use {}", user::RULE),
    };
    Failure::new(Exit::NoUser, line)
}

/// Notifies the server that runs on the store, if there is one.
pub fn tell(context: &Context<'_>, command: Command) -> Result<(), Failure> {
    match control::ask(&context.store.dir, &command) {
        Ok(_) | Err(AskError::NotRunning) => Ok(()),
        Err(error) => {
            let line = format!("done, but the running server was not told ({error}); restart it");
            Err(Failure::new(Exit::Other, line))
        }
    }
}
