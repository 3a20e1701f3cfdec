//! `xfer-server user list`: the accounts, where each is mounted, and who gave wrong passwords.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use xfer_protocol::{Timestamp, size};
use xfer_store::{Account, WrongPasswords};

use super::super::output::{self, Shape};
use super::super::running::{self, Server};
use super::super::table;
use super::ledger::{Context, Ledger};
use super::limits::{self, Limits};
use crate::moment;
use crate::program::console::Console;
use crate::program::control::{Answer, Command, Session};
use crate::program::exit::{Exit, Failure};

/// All of it, as it is printed for programs.
#[derive(Serialize)]
struct Listing {
    users: Vec<User>,
    wrong_passwords: Vec<Wrong>,
    /// Accounts that were removed and are kept.
    removed_users: usize,
    /// What they take up.
    removed_bytes: u64,
}

/// An account in the list.
#[derive(Serialize)]
struct User {
    name: String,
    #[serde(flatten)]
    limits: Limits,
    takes_passwords: bool,
    has_password: bool,
    /// The number of keys by which machines can log in.
    keys: usize,
    disabled: bool,
    /// When it is disabled, or was.
    disabled_from_secs: Option<i64>,
    session: Option<Mounted>,
}

/// The session of an account.
#[derive(Clone, Serialize)]
struct Mounted {
    /// As the client calls itself.
    host: String,
    address: String,
    since_secs: i64,
    /// Whether its client has no connection now.
    away: bool,
    /// For how long, as far as a running server knows.
    away_secs: Option<u64>,
}

/// Wrong passwords in the list.
#[derive(Serialize)]
struct Wrong {
    /// `None`: of all users together.
    user: Option<String>,
    address: String,
    count: u32,
    last_secs: i64,
    /// `None`: not blocked now.
    blocked_until_secs: Option<i64>,
}

/// Prints the accounts, then the counts of wrong passwords.
pub fn list(context: &mut Context<'_>, shape: Shape) -> Result<(), Failure> {
    let listing = gather(context)?;
    match shape {
        Shape::Json => output::print_json(context.console, &listing),
        Shape::Table => {
            print(context.console, &listing)?;
            if listing.removed_users > 0 {
                context.console.note(&format!(
                    "removed users that are kept: {}, with {}; see: xfer-server user list --removed",
                    listing.removed_users,
                    size::display(listing.removed_bytes)
                ));
            }
            Ok(())
        }
    }
}

fn gather(context: &mut Context<'_>) -> Result<Listing, Failure> {
    let ledger = Ledger::existing(context)?;
    let now = Timestamp::from(SystemTime::now());
    let accounts = ledger.list()?;
    let mut mounted = mounted(context, &ledger, &accounts)?;
    let keys = ledger.waiter.wait(ledger.keys().count_good(now))?;
    let users = accounts.into_iter().map(|account| User {
        name: account.name.to_string(),
        limits: Limits::of(&account),
        takes_passwords: account.takes_passwords,
        has_password: account.password.is_some(),
        keys: keys.get(&account.id).copied().unwrap_or_default(),
        disabled: account.is_disabled(now),
        disabled_from_secs: account.disabled_from.map(Timestamp::secs),
        session: mounted.remove(&account.name.to_string()),
    });
    let users = users.collect();
    let mut failures = ledger.wrong_passwords()?;
    // Counts for single users come first, those for all users of an address last.
    failures.sort_by_key(|failures| failures.user.is_empty());
    let wrong_passwords = failures.into_iter().map(|failures| wrong(failures, now)).collect();
    let removed = ledger.removed()?;
    let bytes = |account: &Account| account.usage.bytes + account.waiting.bytes;
    let removed_bytes = removed.iter().map(|one| bytes(&one.account)).sum();
    Ok(Listing { users, wrong_passwords, removed_users: removed.len(), removed_bytes })
}

/// The sessions by their users: those that the running server has, and those whose clients may come
/// back, which are in the store.
fn mounted(
    context: &mut Context<'_>,
    ledger: &Ledger,
    accounts: &[Account],
) -> Result<BTreeMap<String, Mounted>, Failure> {
    let names: BTreeMap<_, _> =
        accounts.iter().map(|account| (account.id, account.name.to_string())).collect();
    let known = ledger.sessions()?.into_iter().filter_map(|(account, known)| {
        let session = Mounted {
            host: known.host,
            address: known.address,
            since_secs: known.since.secs(),
            away: true,
            away_secs: None,
        };
        Some((names.get(&account)?.clone(), session))
    });
    let mut mounted: BTreeMap<_, _> = known.collect();
    match Server::of(&context.store.dir).ask(&Command::List) {
        Ok(Answer::Sessions { sessions }) => {
            mounted.extend(sessions.into_iter().map(|session| (session.user.clone(), of(session))));
            Ok(mounted)
        }
        Ok(_) => Err(running::nonsense()),
        Err(Failure { exit: Exit::NotRunning, .. }) => Ok(mounted),
        Err(failure) => Err(failure),
    }
}

fn of(session: Session) -> Mounted {
    Mounted {
        host: session.host,
        address: session.address,
        since_secs: session.since_secs,
        away: session.away_secs.is_some(),
        away_secs: session.away_secs,
    }
}

fn wrong(failures: WrongPasswords, now: Timestamp) -> Wrong {
    let blocked = Some(failures.blocked_until).filter(|until| *until > now);
    Wrong {
        user: Some(failures.user).filter(|user| !user.is_empty()),
        address: failures.address,
        count: failures.count,
        last_secs: failures.last.secs(),
        blocked_until_secs: blocked.map(Timestamp::secs),
    }
}

fn print(
    console: &mut dyn Console,
    Listing { users, wrong_passwords, .. }: &Listing,
) -> Result<(), Failure> {
    let heading = [
        "USER",
        "USED",
        "QUOTA",
        "NODES",
        "NODES MAX",
        "INBOX",
        "INBOX MAX",
        "ITEMS",
        "ITEMS MAX",
        "LOGIN",
        "MOUNTED FROM",
    ];
    table::print(console, heading, &users.iter().map(user_row).collect::<Vec<_>>())?;
    if wrong_passwords.is_empty() {
        return Ok(());
    }
    console.print("")?;
    let rows: Vec<_> = wrong_passwords.iter().map(wrong_row).collect();
    table::print(console, ["WRONG PASSWORDS FOR", "FROM", "COUNT", "LAST", "BLOCKED UNTIL"], &rows)
}

fn user_row(user: &User) -> [String; 11] {
    let limits = &user.limits;
    [
        user.name.clone(),
        size::display(limits.used_bytes),
        limits::or_none(limits.quota_bytes, size::display),
        limits.used_nodes.to_string(),
        limits::or_none(limits.quota_nodes, |count| count.to_string()),
        size::display(limits.inbox_used_bytes),
        limits::or_none(limits.inbox_quota_bytes, size::display),
        limits.inbox_used_items.to_string(),
        limits::or_none(limits.inbox_quota_items, |count| count.to_string()),
        login(user),
        mounted_from(user.session.as_ref()),
    ]
}

/// How a user can log in, in one word or two.
fn login(user: &User) -> String {
    match user.disabled_from_secs {
        Some(_) if user.disabled => "disabled".to_owned(),
        Some(from) => format!("until {}", moment::display(from)),
        None if user.takes_passwords && user.has_password => "yes".to_owned(),
        None if user.keys > 0 => "by keys".to_owned(),
        None => "no".to_owned(),
    }
}

/// The host that an account is mounted from, and whether it is away.
fn mounted_from(session: Option<&Mounted>) -> String {
    let Some(Mounted { host, address, away, .. }) = session else { return "-".to_owned() };
    // A client may call itself nothing.
    let place = if host.trim().is_empty() { address } else { host };
    if *away { format!("{place} (away)") } else { place.clone() }
}

fn wrong_row(wrong: &Wrong) -> [String; 5] {
    [
        wrong.user.clone().unwrap_or("(all users)".to_owned()),
        wrong.address.clone(),
        wrong.count.to_string(),
        moment::display(wrong.last_secs),
        wrong.blocked_until_secs.map_or("not blocked".to_owned(), moment::display),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_shown_by_its_host_and_one_without_a_connection_as_away() {
        let session = |host: &str, away| Mounted {
            host: host.to_owned(),
            address: "192.0.2.1".to_owned(),
            since_secs: 0,
            away,
            away_secs: None,
        };
        assert_eq!(mounted_from(None), "-");
        assert_eq!(mounted_from(Some(&session("laptop", false))), "laptop");
        assert_eq!(mounted_from(Some(&session("laptop", true))), "laptop (away)");
        assert_eq!(mounted_from(Some(&session(" ", true))), "192.0.2.1 (away)");
    }
}
