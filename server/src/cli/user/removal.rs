//! `xfer-server user remove`, `restore` and `list --removed`: accounts that can't be used any
//! more, and what is kept of them.

use std::time::SystemTime;

use serde::Serialize;
use xfer_protocol::tree::Usage;
use xfer_protocol::{Name, size};
use xfer_store::{Account, Purpose, Removed, StoreError};

use super::super::output::{self, Shape};
use super::super::table;
use super::accounts::parse_new;
use super::ledger::{self, Context, Ledger};
use crate::moment;
use crate::program::control::{self, Command};
use crate::program::exit::{Exit, Failure};

/// What becomes of an account that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is kept for the days that are set.
    Kept,
    /// It is deleted at once.
    Deleted,
}

/// Whether the administrator has confirmed a removal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consent {
    /// On the command line.
    Given,
    /// Not yet: ask on the terminal.
    Asked,
}

/// Removes an account.
pub fn remove(
    context: &mut Context<'_>,
    name: &str,
    fate: Fate,
    consent: Consent,
) -> Result<(), Failure> {
    let (ledger, account) = match ledger::find(context, name) {
        Err(failure) if fate == Fate::Deleted => {
            return Err(deleted_by_number(context, name, failure));
        }
        found => found?,
    };
    let days = ledger.days_kept()?;
    match fate {
        Fate::Kept if days > 0 => {
            let what = format!(
                "This removes {name}: {name} cannot log in or be sent to any more. What {name} stores \
                 ({}) is kept for {}.",
                amount(&account),
                size::count(days.into(), "day")
            );
            confirm(context, &account.name, &what, consent)?;
            keep(context, &ledger, &account)
        }
        Fate::Kept | Fate::Deleted => {
            confirm(context, &account.name, &for_good(&account), consent)?;
            let _claim = ledger.claim(&account, Purpose::Change)?;
            ledger.remove(account.id)?;
            // A running server is told first, since the tree takes a while.
            let told = tell(context, &account.name);
            match ledger.delete(account.id) {
                // The server was faster, as it keeps removed accounts for no day.
                Ok(()) | Err(StoreError::NoAccount) => {
                    context.console.note(&format!("{name} is deleted for good"));
                    told
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// What to say of an account that can't be found: one that was removed before is deleted by its number.
fn deleted_by_number(context: &Context<'_>, name: &str, failure: Failure) -> Failure {
    let last = Ledger::existing(context)
        .and_then(|ledger| choose(&ledger, name, None).map(|(removed, _)| removed.account.id.0));
    match last {
        Ok(number) => {
            let line = format!(
                "{name} was removed before, and is kept; to delete it for good: xfer-server user \
                 remove {name} --now --number {number}"
            );
            Failure::new(failure.exit, line)
        }
        Err(_) => failure,
    }
}

/// Removes an account that is to be kept. Its session is ended before, so that what its client has to
/// send is kept too; a claim sees to it that no other begins.
fn keep(context: &mut Context<'_>, ledger: &Ledger, account: &Account) -> Result<(), Failure> {
    let name = &account.name;
    let _claim = ledger.claim(account, Purpose::Change)?;
    // A server that can't be asked is told of the removal, which ends the session in any case.
    let _ = control::ask(&context.store.dir, &Command::End { user: name.to_string() });
    ledger.remove(account.id)?;
    let told = tell(context, name);
    if let Some(kept) = ledger.removed()?.into_iter().find(|kept| kept.account.id == account.id) {
        context.console.note(&format!(
            "{name} is removed, and kept until {}; to bring it back: xfer-server user restore {name}",
            moment::display(kept.until.secs())
        ));
    }
    told
}

/// Deletes an account that was removed before its days are over.
pub fn delete(
    context: &mut Context<'_>,
    name: &str,
    number: u64,
    consent: Consent,
) -> Result<(), Failure> {
    let ledger = Ledger::existing(context)?;
    let (removed, _) = choose(&ledger, name, Some(number))?;
    confirm(context, &removed.account.name, &for_good(&removed.account), consent)?;
    ledger.delete(removed.account.id).map_err(|error| match error {
        // It was restored, or deleted, meanwhile.
        StoreError::NoAccount => not_kept(name, Some(number)),
        other => other.into(),
    })?;
    context.console.note(&format!("the removed {name} with number {number} is deleted for good"));
    Ok(())
}

/// Brings a removed account back.
pub fn restore(
    context: &mut Context<'_>,
    name: &str,
    new_name: Option<&str>,
    number: Option<u64>,
) -> Result<(), Failure> {
    let ledger = Ledger::existing(context)?;
    let (Removed { account, at, .. }, others) = choose(&ledger, name, number)?;
    let new_name = new_name.map_or(Ok(account.name.clone()), parse_new)?;
    ledger.restore(account.id, &new_name).map_err(|error| match error {
        StoreError::Exists(_) => {
            let line = format!(
                "there is a user {new_name}; to restore the removed one under another name: \
                 xfer-server user restore {name} --as NAME"
            );
            Failure::new(Exit::UserExists, line)
        }
        // The server has deleted it meanwhile.
        StoreError::NoAccount => not_kept(name, number),
        other => other.into(),
    })?;
    tell(context, &new_name)?;
    context.console.note(&format!(
        "{new_name} is back as it was when it was removed, at {}; its machines have to log in again, \
         since their keys are revoked",
        moment::display(at.secs())
    ));
    if account.password.is_none() || !account.takes_passwords {
        context.console.note(&format!(
            "{new_name} cannot log in by a password; run: xfer-server user invite {new_name}"
        ));
    }
    if account.is_disabled(SystemTime::now().into()) {
        context.console.note(&format!(
            "{new_name} is disabled; to undo that: xfer-server user enable {new_name}"
        ));
    }
    for other in others {
        context.console.note(&format!(
            "another {name} is kept: number {}, removed at {}",
            other.account.id.0,
            moment::display(other.at.secs())
        ));
    }
    Ok(())
}

/// The removed account that is meant, the last one unless a number is given, and the others of its name.
fn choose(
    ledger: &Ledger,
    name: &str,
    number: Option<u64>,
) -> Result<(Removed, Vec<Removed>), Failure> {
    let mut all = ledger.removed()?;
    all.retain(|removed| removed.account.name.as_bytes() == name.as_bytes());
    let is_meant = |removed: &Removed| number.is_none_or(|number| removed.account.id.0 == number);
    match all.iter().position(is_meant) {
        Some(place) => Ok((all.remove(place), all)),
        None => Err(not_kept(name, number)),
    }
}

fn not_kept(name: &str, number: Option<u64>) -> Failure {
    let number = number.map(|number| format!(" with number {number}")).unwrap_or_default();
    let line =
        format!("no removed user '{name}'{number} is kept; see: xfer-server user list --removed");
    Failure::new(Exit::NoUser, line)
}

fn tell(context: &mut Context<'_>, name: &Name) -> Result<(), Failure> {
    ledger::tell(context, Command::AccountChanged { user: name.to_string() })
}

fn for_good(account: &Account) -> String {
    let name = &account.name;
    format!("This deletes {name} and everything that {name} stores, for good: {}.", amount(account))
}

fn amount(account: &Account) -> String {
    let Usage { nodes, bytes } = account.usage;
    format!("{}, {}", size::count(nodes, "node"), size::display(bytes))
}

/// Asks the administrator to type the name of the account that is about to be removed.
fn confirm(
    context: &mut Context<'_>,
    name: &Name,
    what: &str,
    consent: Consent,
) -> Result<(), Failure> {
    if consent == Consent::Given {
        return Ok(());
    }
    if !context.console.can_be_asked() {
        let line = "this has to be confirmed, and there is no terminal to confirm it; use --yes";
        return Err(Failure::new(Exit::Usage, line));
    }
    match context.console.ask(&format!("{what}\nType the name to confirm: ")) {
        Ok(typed) if typed.trim().as_bytes() == name.as_bytes() => Ok(()),
        Err(failure) if failure.exit == Exit::Interrupted => Err(failure),
        Ok(_) | Err(_) => {
            let line = format!("{name} stays as it is; type the name to confirm, or use --yes");
            Err(Failure::new(Exit::Other, line))
        }
    }
}

/// The removed accounts, as they are printed for programs.
#[derive(Serialize)]
struct Listing {
    keep_days: u16,
    removed: Vec<Kept>,
}

#[derive(Serialize)]
struct Kept {
    name: String,
    number: u64,
    removed_secs: i64,
    gone_secs: i64,
    used_bytes: u64,
    used_nodes: u64,
    inbox_used_bytes: u64,
    inbox_used_items: u64,
}

impl Kept {
    fn of(Removed { account, at, until }: Removed) -> Kept {
        Kept {
            name: account.name.to_string(),
            number: account.id.0,
            removed_secs: at.secs(),
            gone_secs: until.secs(),
            used_bytes: account.usage.bytes,
            used_nodes: account.usage.nodes,
            inbox_used_bytes: account.waiting.bytes,
            inbox_used_items: account.waiting.nodes,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.number.to_string(),
            moment::display(self.removed_secs),
            moment::display(self.gone_secs),
            size::display(self.used_bytes),
            self.used_nodes.to_string(),
            size::display(self.inbox_used_bytes),
            self.inbox_used_items.to_string(),
        ]
    }
}

/// Prints the removed accounts that are kept, the last one first.
pub fn list(context: &mut Context<'_>, shape: Shape) -> Result<(), Failure> {
    let ledger = Ledger::existing(context)?;
    let removed: Vec<_> = ledger.removed()?.into_iter().map(Kept::of).collect();
    match shape {
        Shape::Json => output::print_json(
            context.console,
            &Listing { keep_days: ledger.days_kept()?, removed },
        ),
        Shape::Table => {
            let heading = ["USER", "NUMBER", "REMOVED", "GONE", "USED", "NODES", "INBOX", "ITEMS"];
            table::print(
                context.console,
                heading,
                &removed.iter().map(Kept::row).collect::<Vec<_>>(),
            )
        }
    }
}
