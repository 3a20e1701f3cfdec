//! `xfer-server user ...`: changes accounts in the store itself, whether or not a server is running.
//!
//! A running server is notified afterwards. It then ends sessions that are no longer allowed, and
//! sends the other clients the new list of users.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xfer_protocol::{Name, Timestamp, user};
use xfer_store::{Account, Change, NewAccount, Revoked, StoreError};

use super::invite;
use super::ledger::{Context, Ledger, find, tell};
use super::limits::{self, INBOX, Limit};
use crate::login::password;
use crate::moment;
use crate::program::control::Command;
use crate::program::exit::{Exit, Failure};

/// How a new user logs in first.
pub enum Entry {
    /// With a password.
    Password,
    /// By an invitation.
    Invitation(Option<invite::Host>),
}

/// Creates an account.
pub fn add(
    context: &mut Context<'_>,
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
    let ledger = Ledger::if_there(context)?;
    if let Some(ledger) = &ledger
        && ledger.find(&name)?.is_some()
    {
        return Err(exists());
    }
    let password = match entry {
        Entry::Password => Some(hash(context)?),
        Entry::Invitation(_) => None,
    };
    // The first user is often added before the server's first start.
    let ledger = ledger.map_or_else(|| Ledger::make(context), Ok)?;
    let time = Timestamp::from(SystemTime::now());
    let new = NewAccount { name: name.clone(), password, quota, inbox: INBOX, time };
    ledger.create(new).map_err(|error| {
        match error {
            // Another process created it while the password was typed.
            StoreError::Exists(_) => exists(),
            other => other.into(),
        }
    })?;
    tell(context, Command::AccountChanged { user: name.to_string() })?;
    if let Some(removed) = ledger.removed_of(&name)? {
        context.console.note(&format!(
            "a removed {name} is kept until {}; to have that one back too: xfer-server user restore \
             {name} --as NAME",
            moment::display(removed.until.secs())
        ));
    }
    match (entry, ledger.find(&name)?) {
        (Entry::Invitation(host), Some(account)) => {
            invite::invite(context, &ledger, &account, host.as_ref())
        }
        (Entry::Password, _) | (Entry::Invitation(_), None) => {
            context
                .console
                .note(&format!("{name} is added; quota: {}", limits::said(quota, "node")));
            Ok(())
        }
    }
}

/// Reads the name of an account that is to be.
pub fn parse_new(name: &str) -> Result<Name, Failure> {
    user::parse(name).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("'{name}' is not a user name; use {}", user::RULE))
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
pub fn set_password(context: &mut Context<'_>, name: &str, keys: KeysThen) -> Result<(), Failure> {
    let (ledger, account) = find(context, name)?;
    let hash = hash(context)?;
    let count = ledger.waiter.wait(ledger.keys().of(account.id))?.len();
    let are_revoked = are_revoked(context, &account, keys, count)?;
    if are_revoked {
        ledger.waiter.wait(ledger.keys().revoke(account.id, Revoked::AllBut(None)))?;
    }
    ledger.change(&account, Change::Password(hash))?;
    tell(context, Command::AccountChanged { user: name.to_owned() })?;
    let revoked = if are_revoked && count > 0 { ", and all keys are revoked" } else { "" };
    context.console.note(&format!("the password of {name} is set{revoked}"));
    if !account.takes_passwords {
        context.console.note(&format!(
            "{name} logs in with keys alone; to let the password in: xfer-server user passwords {name} on"
        ));
    }
    Ok(())
}

fn are_revoked(
    context: &mut Context<'_>,
    account: &Account,
    keys: KeysThen,
    count: usize,
) -> Result<bool, Failure> {
    let name = &account.name;
    let (keep, them) = match count {
        1 => (format!("{name} has 1 key of a machine, which still logs in"), "it"),
        _ => (format!("{name} has {count} keys of machines, which still log in"), "them"),
    };
    match keys {
        KeysThen::Revoke => Ok(true),
        KeysThen::Ask if count > 0 && context.console.can_be_asked() => {
            let answer = context.console.ask(&format!("{keep}. Revoke {them} too? [y/N] "));
            Ok(matches!(answer?.trim(), "y" | "Y" | "yes"))
        }
        KeysThen::Ask if count > 0 => {
            context.console.note(&format!(
                "{keep}; to revoke {them}: xfer-server user keys revoke {name} --all"
            ));
            Ok(false)
        }
        KeysThen::Keep | KeysThen::Ask => Ok(false),
    }
}

/// `on` or `off`, as typed on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Sets whether an account may log in with its password.
pub fn take_passwords(context: &mut Context<'_>, name: &str, on: Switch) -> Result<(), Failure> {
    let (ledger, account) = find(context, name)?;
    ledger.change(&account, Change::TakesPasswords(on == Switch::On))?;
    let ways = if on == Switch::On { "a password or by keys" } else { "keys alone" };
    context.console.note(&format!("{name} logs in by {ways}"));
    let keys = ledger.waiter.wait(ledger.keys().of(account.id))?;
    if on == Switch::Off && keys.is_empty() {
        context.console.note(&format!(
            "no machine of {name} has a key, so {name} cannot log in now; run: xfer-server user \
             invite {name}"
        ));
    }
    Ok(())
}

/// Sets when an account is disabled, if ever. If that is now, its session ends.
pub fn disable(
    context: &mut Context<'_>,
    name: &str,
    from: Option<Timestamp>,
) -> Result<(), Failure> {
    let (ledger, account) = find(context, name)?;
    ledger.change(&account, Change::DisabledFrom(from))?;
    tell(context, Command::AccountChanged { user: name.to_owned() })?;
    context.console.note(&match from {
        Some(from) if from > SystemTime::now().into() => {
            format!("{name} is disabled from {} on", moment::display(from.secs()))
        }
        Some(_) => format!("{name} is disabled; to undo that: xfer-server user enable {name}"),
        None => format!("{name} is not disabled, and does not expire"),
    });
    Ok(())
}

/// Sets when an account expires, if ever. One that is disabled already stays so.
pub fn expire(context: &mut Context<'_>, name: &str, at: Option<Timestamp>) -> Result<(), Failure> {
    let (_, account) = find(context, name)?;
    if account.is_disabled(SystemTime::now().into()) {
        let line = format!("{name} is disabled; to undo that: xfer-server user enable {name}");
        return Err(Failure::new(Exit::Other, line));
    }
    disable(context, name, at)
}

fn hash(context: &mut Context<'_>) -> Result<String, Failure> {
    let password = context.console.new_password()?;
    password::hash(&password)
        .map_err(|error| Failure::new(Exit::Other, format!("{error}; free some memory")))
}
