//! `xfer-server import` and `export`: copies a user's tree to or from the store itself, whether or
//! not a server is running.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use xfer_protocol::Name;
use xfer_store::embedded::Beside;
use xfer_store::{Account, Claim, Purpose, Store, Use};

use super::here::Here;
use super::output::print_line;
use super::running::{self, Server};
use super::user::{Context, Ledger, find, no_user};
use crate::moment;
use crate::program::control::{Answer, Command, Session};
use crate::program::exit::{Exit, Failure};
use crate::program::store_location::StoreLocation;
use crate::transfer::export::{self, Export};
use crate::transfer::import::{self, Import};

/// Copies the entries of a directory into a user's tree.
pub fn import(store: &StoreLocation, name: &str, from: &Path, into: &OsStr) -> Result<(), Failure> {
    let into = names(into)?;
    let Opened { ledger, store, account, _claim } = open(store, name, Purpose::Change)?;
    let (line, done) =
        import::import(&ledger.waiter, store, &account, &Import { from, into: &into });
    print_line(&line)?;
    done.map(|_| ())
}

/// Copies a user's tree into a directory.
pub fn export(store: &StoreLocation, name: &str, to: &Path, replace: bool) -> Result<(), Failure> {
    let Opened { ledger, store, account, _claim } = open(store, name, Purpose::Read)?;
    let (line, done) = export::export(&ledger.waiter, store, &account, &Export { to, replace });
    print_line(&line)?;
    done.map(|_| ())
}

/// An open store with an account that has no session.
struct Opened {
    ledger: Ledger,
    store: Store,
    account: Account,
    /// Keeps the account without a session.
    _claim: Claim,
}

fn open(place: &StoreLocation, name: &str, purpose: Purpose) -> Result<Opened, Failure> {
    let (ledger, account) = find(&Context::here(place, &mut Here::default()), name)?;
    let claim = ledger.claim(&account, purpose)?;
    // From now on new sessions are refused; an earlier one is found here.
    must_not_be_mounted(&place.dir, name)?;
    // Read it again: a session may have changed it just before it ended.
    let account = ledger.find(&account.name)?.ok_or_else(|| no_user(name))?;
    let beside = match purpose {
        Purpose::Change => Beside::Making,
        Purpose::Read => Beside::Keeping,
    };
    let store = xfer_store::open(&place.location, Use::Command(beside));
    let store = ledger.waiter.wait(store)?;
    if purpose == Purpose::Change {
        must_have_no_changes_to_come(&ledger, &store, &account)?;
    }
    Ok(Opened { ledger, store, account, _claim: claim })
}

fn must_not_be_mounted(store: &Path, name: &str) -> Result<(), Failure> {
    match Server::of(store).ask(&Command::List) {
        Ok(Answer::Sessions { sessions }) => {
            let is_there = |session: &&Session| session.user == name && session.away_secs.is_none();
            let Some(session) = sessions.iter().find(is_there) else { return Ok(()) };
            let line = format!(
                "{name} is in use on {}, since {}; unmount it there, or run: xfer-server session end {name}",
                session.host,
                moment::display(session.since_secs),
            );
            Err(Failure::new(Exit::AccountInUse, line))
        }
        Ok(_) => Err(running::nonsense()),
        Err(Failure { exit: Exit::NotRunning, .. }) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// A client that is away may have changes that it has not sent. It could not send them any more once
/// the tree was changed here.
fn must_have_no_changes_to_come(
    ledger: &Ledger,
    store: &Store,
    account: &Account,
) -> Result<(), Failure> {
    let Some(known) = ledger.waiter.wait(store.trees.resumable(account.id))? else {
        return Ok(());
    };
    let name = &account.name;
    let line = format!(
        "{name} is in use on {}, since {}, by a client that is away and may have changes to send; unmount it there \
             once it is back, or give them up, while the server runs: xfer-server session end {name}",
        known.host,
        moment::display(known.since.secs()),
    );
    Err(Failure::new(Exit::AccountInUse, line))
}

/// The names of a path within a tree. A leading `/` makes no difference.
fn names(path: &OsStr) -> Result<Vec<Name>, Failure> {
    let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            Name::new(part).map_err(|error| {
                let part = String::from_utf8_lossy(part);
                let line = format!(
                    "--into: '{part}' is not a name ({error}); see: xfer-server import --help"
                );
                Failure::new(Exit::Usage, line)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(path: &str, expected: Option<&[&str]>) {
        let found = names(OsStr::new(path)).ok();
        let expected = expected.map(|names| -> Vec<Name> {
            names.iter().map(|name| Name::new(name.as_bytes()).unwrap()).collect()
        });
        assert_eq!(found, expected, "{path:?}");
    }

    #[test]
    fn a_path_within_a_tree_has_no_way_up() {
        check("", Some(&[]));
        check("/", Some(&[]));
        check("a/b", Some(&["a", "b"]));
        check("/a//b/", Some(&["a", "b"]));
        check("a/../b", None);
        check("./a", None);
    }
}
