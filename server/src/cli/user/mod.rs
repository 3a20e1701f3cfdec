//! `xfer-server user ...`: the accounts of a store, whether or not a server is running.
//!
//! If this user may not enter the store, the server does it, asked through its admin socket.
//!
//! Reading order: `ledger` (the store), `accounts` (most of the commands), `limits`, `listing`,
//! `removal`, `invite` and `keys`.

mod ledger;
mod accounts;
mod limits;
mod listing;
mod removal;
mod invite;
mod keys;

use std::time::SystemTime;

use clap::Subcommand;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xfer_store::Register;

use super::here::Here;
use super::output::Shape;
use super::running::{self, Server};
use super::secret;
use crate::program::console::Console;
use crate::program::control::{self, AdminSocket};
use crate::program::exit::{Exit, Failure};
use crate::program::store_location::StoreLocation;

pub(super) use ledger::{Context, Ledger, find, no_user};

/// What can be done with accounts.
#[derive(Subcommand, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum User {
    /// Make an account; asks for its password
    Add {
        /// The user's name
        name: String,
        #[command(flatten)]
        #[serde(skip)]
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
    /// Invite a user to enrol a machine: print a line to paste, good for one machine and for a day
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
        #[serde(skip)]
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
        /// On or off
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

impl User {
    /// Where the new password comes from, if the command sets one.
    fn password(&mut self) -> secret::Origin {
        match self {
            User::Add { password, .. } | User::Passwd { password, .. } => std::mem::take(password),
            _ => secret::Origin::default(),
        }
    }
}

/// Runs a command that was typed here.
pub(super) fn run(
    store: &StoreLocation,
    server: &Server,
    mut command: User,
) -> Result<(), Failure> {
    let mut here = Here { password: command.password() };
    match server.admin() {
        AdminSocket::At(path) if is_closed(store) => {
            let order = serde_json::to_value(&command)
                .map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
            let outcome = control::manage_as_admin(path, &store.dir, order, &mut here);
            outcome.unwrap_or_else(|error| Err(server.unasked(&error)))
        }
        AdminSocket::At(_) | AdminSocket::Off => {
            manage(&mut Context::here(store, &mut here), command)
        }
    }
}

/// Whether this user may not change what is in the store.
fn is_closed(store: &StoreLocation) -> bool {
    access(&store.dir, Access::WRITE_OK | Access::EXEC_OK) == Err(Errno::ACCESS)
}

/// Carries out a command that was given by the admin socket of this server.
pub(super) fn carry_out(
    store: &StoreLocation,
    register: &Register,
    order: Value,
    console: &mut dyn Console,
) -> Result<(), Failure> {
    let command = serde_json::from_value(order).map_err(|_| running::nonsense())?;
    manage(&mut Context::in_server(store, register, console), command)
}

fn manage(context: &mut Context<'_>, command: User) -> Result<(), Failure> {
    match command {
        User::Add { name, invite, host, quota, .. } => {
            let entry = match invite {
                true => accounts::Entry::Invitation(host),
                false => accounts::Entry::Password,
            };
            accounts::add(context, &name, &entry, quota)
        }
        User::Invite { name, host } => invite::again(context, &name, host.as_ref()),
        User::Keys(command) => keys::run(context, command),
        User::Passwd { name, revoke_keys, keep_keys, .. } => {
            let keys = match (revoke_keys, keep_keys) {
                (true, _) => accounts::KeysThen::Revoke,
                (false, true) => accounts::KeysThen::Keep,
                (false, false) => accounts::KeysThen::Ask,
            };
            accounts::set_password(context, &name, keys)
        }
        User::Disable { name } => accounts::disable(context, &name, Some(SystemTime::now().into())),
        User::Enable { name } => accounts::disable(context, &name, None),
        User::Expire { name, within } => accounts::expire(context, &name, within.later()),
        User::Passwords { name, on } => accounts::take_passwords(context, &name, on),
        User::Remove { name, yes, now, number } => {
            let consent = if yes { removal::Consent::Given } else { removal::Consent::Asked };
            let fate = if now { removal::Fate::Deleted } else { removal::Fate::Kept };
            match number {
                Some(number) => removal::delete(context, &name, number, consent),
                None => removal::remove(context, &name, fate, consent),
            }
        }
        User::Restore { name, new_name, number } => {
            removal::restore(context, &name, new_name.as_deref(), number)
        }
        User::List { json, removed: true } => removal::list(context, Shape::of(json)),
        User::List { json, removed: false } => listing::list(context, Shape::of(json)),
        User::Quota { name, limits, json } => {
            limits::quota(context, &name, &limits, Shape::of(json))
        }
    }
}
