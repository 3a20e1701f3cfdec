//! `xfer-server user keys ...`: the keys by which a user's machines log in.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use xfer_protocol::Timestamp;
use xfer_protocol::message::DeviceKey;
use xfer_store::{Account, Revoked};

use super::super::{output, table};
use super::ledger::{self, Context, Ledger};
use crate::moment;
use crate::program::control::Command;
use crate::program::exit::{Exit, Failure};

/// What to do with a user's keys.
#[derive(clap::Subcommand, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// List the machines that log in by a key
    List {
        /// The user's name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a machine log in no more, and end its session
    Revoke {
        /// The user's name
        name: String,
        /// The key as listed, the beginning of it, or its label
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// All of the user's keys
        #[arg(long, conflicts_with = "key")]
        all: bool,
    },
    /// Set when a machine may log in no more; its session goes on
    Expire {
        /// The user's name
        name: String,
        /// The key as listed, the beginning of it, or its label
        key: String,
        /// A number of days from now, or never
        #[arg(long, value_name = "DAYS")]
        within: Days,
    },
}

/// A number of days from now, or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Days(Option<u32>);

impl FromStr for Days {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Days, &'static str> {
        match text {
            "never" => Ok(Days(None)),
            text => {
                text.parse().map(|days| Days(Some(days))).map_err(|_| "give a number, or never")
            }
        }
    }
}

impl Days {
    /// The time in so many days; `None` for never.
    pub fn later(self) -> Option<Timestamp> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        self.0.map(|days| (SystemTime::now() + DAY * days).into())
    }
}

/// A key as it is listed for programs.
#[derive(Serialize)]
struct Listed {
    key: String,
    label: String,
    enrolled_secs: i64,
    used_secs: Option<i64>,
    expires_secs: Option<i64>,
}

/// Does what a command asks for.
pub fn run(context: &mut Context<'_>, command: Keys) -> Result<(), Failure> {
    match command {
        Keys::List { name, json } => list(context, &name, json),
        Keys::Revoke { name, key, all: _ } => revoke(context, &name, key.as_deref()),
        Keys::Expire { name, key, within } => {
            let (ledger, account) = ledger::find(context, &name)?;
            let known = find(&ledger, &account, &key)?;
            let set = ledger.keys().set_expiry(account.id, known.key, within.later());
            ledger.waiter.wait(set)?;
            let expires = match within.later() {
                Some(at) => format!("expires at {}", moment::display(at.secs())),
                None => "does not expire".to_owned(),
            };
            context.console.note(&format!("key {} of {name} {expires}", short(&known)));
            Ok(())
        }
    }
}

fn list(context: &mut Context<'_>, name: &str, json: bool) -> Result<(), Failure> {
    let (ledger, account) = ledger::find(context, name)?;
    let keys = all(&ledger, &account)?;
    if json {
        let listed: Vec<_> = keys.iter().map(listed).collect();
        return output::print_json(context.console, &listed);
    }
    let rows: Vec<_> = keys.iter().map(row).collect();
    table::print(context.console, ["KEY", "LABEL", "ENROLLED", "LAST USED", "EXPIRES"], &rows)
}

/// Revokes one key or all, and has the running server end the sessions that they began.
fn revoke(context: &mut Context<'_>, name: &str, key: Option<&str>) -> Result<(), Failure> {
    let (ledger, account) = ledger::find(context, name)?;
    let known = key.map(|key| find(&ledger, &account, key)).transpose()?;
    let which = known.as_ref().map_or(Revoked::AllBut(None), |known| Revoked::Key(known.key));
    ledger.waiter.wait(ledger.keys().revoke(account.id, which))?;
    ledger::tell(context, Command::AccountChanged { user: name.to_owned() })?;
    context.console.note(&match known {
        Some(known) => format!("key {} of {name} is revoked", short(&known)),
        None => format!("all keys of {name} are revoked"),
    });
    Ok(())
}

fn all(ledger: &Ledger, account: &Account) -> Result<Vec<DeviceKey>, Failure> {
    Ok(ledger.waiter.wait(ledger.keys().of(account.id))?)
}

/// The one key that the text means.
fn find(ledger: &Ledger, account: &Account, text: &str) -> Result<DeviceKey, Failure> {
    let keys = all(ledger, account)?;
    let mut meant: Vec<_> = keys.into_iter().filter(|known| is_meant(known, text)).collect();
    let name = &account.name;
    match (meant.pop(), meant.is_empty()) {
        (Some(known), true) => Ok(known),
        (Some(_), false) => {
            let line = format!("'{text}' means several keys of {name}; give more of the key");
            Err(Failure::new(Exit::Usage, line))
        }
        (None, _) => {
            let line =
                format!("{name} has no key '{text}'; see: xfer-server user keys list {name}");
            Err(Failure::new(Exit::NoUser, line))
        }
    }
}

fn is_meant(known: &DeviceKey, text: &str) -> bool {
    let begins = !text.is_empty() && hex::encode(known.key.0).starts_with(text);
    begins || known.label == text
}

fn row(known: &DeviceKey) -> [String; 5] {
    let time = |time: Option<Timestamp>, none: &str| {
        time.map_or(none.to_owned(), |time| moment::display(time.secs()))
    };
    [
        short(known),
        known.label.clone(),
        moment::display(known.enrolled.secs()),
        time(known.used, "never"),
        time(known.expires, "never"),
    ]
}

/// Enough of a key to tell an account's keys apart.
fn short(known: &DeviceKey) -> String {
    hex::encode(&known.key.0[..6])
}

fn listed(known: &DeviceKey) -> Listed {
    Listed {
        key: hex::encode(known.key.0),
        label: known.label.clone(),
        enrolled_secs: known.enrolled.secs(),
        used_secs: known.used.map(Timestamp::secs),
        expires_secs: known.expires.map(Timestamp::secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xfer_protocol::message::PublicKey;

    #[test]
    fn a_key_is_meant_by_its_beginning_or_its_label() {
        let mut key = [7; 32];
        key[0] = 0xab;
        let known = DeviceKey {
            key: PublicKey(key),
            label: "laptop".to_owned(),
            enrolled: Timestamp::default(),
            used: None,
            expires: None,
        };
        assert_eq!(short(&known), "ab0707070707");
        for text in ["ab", "ab0707070707", "laptop"] {
            assert!(is_meant(&known, text), "{text}");
        }
        for text in ["", "07", "lap", "AB"] {
            assert!(!is_meant(&known, text), "{text}");
        }
    }

    #[test]
    fn days_are_a_number_or_never() {
        assert_eq!("never".parse(), Ok(Days(None)));
        assert_eq!("30".parse(), Ok(Days(Some(30))));
        assert!("soon".parse::<Days>().is_err() && "-1".parse::<Days>().is_err());
    }
}
