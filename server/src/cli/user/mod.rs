//! `xfer-server user ...`: the accounts of a store, whether or not a server is running.
//!
//! Reading order: `accounts` (the store, and most of the commands), `secret` (new passwords), `limits`,
//! `listing`, `removal`, `invite` and `keys`.

mod accounts;
mod secret;
mod limits;
mod listing;
mod removal;
mod invite;
mod keys;

use std::time::SystemTime;

use clap::Subcommand;

use super::output::Shape;
use crate::program::exit::Failure;
use crate::program::store_location::StoreLocation;

pub(super) use accounts::{Ledger, find, no_user};

/// What can be done with accounts.
#[derive(Subcommand, Debug)]
pub(super) enum User {
    /// Make an account; asks for its password
    Add {
        /// The user's name
        name: String,
        #[command(flatten)]
        password: secret::Origin,
        /// Print a line for the user to paste, which sets the password, instead of asking for one
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        invite: bool,
        /// With --invite: the host name or address by which clients reach this server, with its port
        /// if that is not the one that it listens on [default: this machine's name]
        #[arg(long, value_name = "HOST[:PORT]", requires = "invite")]
        host: Option<invite::Host>,
        /// How much the user may store: a size like 10GiB, or none for no limit
        #[arg(long, value_name = "SIZE", default_value = "10GiB")]
        quota: limits::Limit,
    },
    /// Invite a user to enrol a machine: print a line to paste, good once and for a day
    Invite {
        /// The user's name
        name: String,
        /// The host name or address by which clients reach this server, with its port if that is not
        /// the one that it listens on [default: this machine's name]
        #[arg(long, value_name = "HOST[:PORT]")]
        host: Option<invite::Host>,
    },
    /// See, revoke and limit the keys by which a user's machines log in
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Set a user's password; asks for it, and ends the session that the old one began
    Passwd {
        /// The user's name
        name: String,
        #[command(flatten)]
        password: secret::Origin,
        /// Revoke the keys of the user's machines too [default: asks, if there are any]
        #[arg(long, conflicts_with = "keep_keys")]
        revoke_keys: bool,
        /// Let the user's machines go on logging in by their keys
        #[arg(long)]
        keep_keys: bool,
    },
    /// Let a user not log in, and end the user's session; files stay, and what others send waits
    Disable {
        /// The user's name
        name: String,
    },
    /// Let a user log in again, and not expire
    Enable {
        /// The user's name
        name: String,
    },
    /// Set when a user is disabled
    Expire {
        /// The user's name
        name: String,
        /// A number of days from now, or never
        #[arg(long, value_name = "DAYS")]
        within: keys::Days,
    },
    /// Set whether a user may log in with a password, and not only by the keys of machines
    Passwords {
        /// The user's name
        name: String,
        /// on or off
        on: accounts::Switch,
    },
    /// Remove a user; asks for the name once more
    ///
    /// The user's session ends after it has sent its changes, the keys of the user's machines are
    /// revoked, and the name is free. Files, and what waits in the inbox, are kept for 30 days, unless
    /// the server is run with another --keep-removed. `user restore` brings all that back.
    Remove {
        /// The user's name
        name: String,
        /// Remove without asking
        #[arg(long)]
        yes: bool,
        /// Keep nothing: delete the user's files at once, and for good
        #[arg(long)]
        now: bool,
        /// Delete one that was removed before, by its number in `user list --removed`
        #[arg(long, value_name = "N", requires = "now")]
        number: Option<u64>,
    },
    /// Bring back a user who was removed
    ///
    /// With files, quota, password, and what waited in the inbox. The keys of the user's machines stay
    /// revoked. Of several who had the name, the one who was removed last.
    Restore {
        /// The name that the user had
        name: String,
        /// Another name for the user
        #[arg(long = "as", value_name = "NAME")]
        new_name: Option<String>,
        /// Which one, by its number in `user list --removed`
        #[arg(long, value_name = "N")]
        number: Option<u64>,
    },
    /// List users, where they are mounted, and who is blocked after wrong passwords
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// List those who were removed and are kept
        #[arg(long)]
        removed: bool,
    },
    /// Show or set how much a user may store, and how much may wait in the user's inbox
    Quota {
        /// The user's name
        name: String,
        #[command(flatten)]
        limits: limits::NewLimits,
        /// Print what is in force as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command.
pub(super) fn manage(store: &StoreLocation, command: User) -> Result<(), Failure> {
    match command {
        User::Add { name, password, invite, host, quota } => {
            let entry = match invite {
                true => accounts::Entry::Invitation(host),
                false => accounts::Entry::Password(password),
            };
            accounts::add(store, &name, &entry, quota)
        }
        User::Invite { name, host } => invite::again(store, &name, host.as_ref()),
        User::Keys(command) => keys::run(store, command),
        User::Passwd { name, password, revoke_keys, keep_keys } => {
            let keys = match (revoke_keys, keep_keys) {
                (true, _) => accounts::KeysThen::Revoke,
                (false, true) => accounts::KeysThen::Keep,
                (false, false) => accounts::KeysThen::Ask,
            };
            accounts::set_password(store, &name, &password, keys)
        }
        User::Disable { name } => accounts::disable(store, &name, Some(SystemTime::now().into())),
        User::Enable { name } => accounts::disable(store, &name, None),
        User::Expire { name, within } => accounts::expire(store, &name, within.later()),
        User::Passwords { name, on } => accounts::take_passwords(store, &name, on),
        User::Remove { name, yes, now, number } => {
            let consent = if yes { removal::Consent::Given } else { removal::Consent::Asked };
            let fate = if now { removal::Fate::Deleted } else { removal::Fate::Kept };
            match number {
                Some(number) => removal::delete(store, &name, number, consent),
                None => removal::remove(store, &name, fate, consent),
            }
        }
        User::Restore { name, new_name, number } => {
            removal::restore(store, &name, new_name.as_deref(), number)
        }
        User::List { json, removed: true } => removal::list(store, Shape::of(json)),
        User::List { json, removed: false } => listing::list(store, Shape::of(json)),
        User::Quota { name, limits, json } => limits::quota(store, &name, &limits, Shape::of(json)),
    }
}
