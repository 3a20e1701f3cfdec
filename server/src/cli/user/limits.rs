//! `xfer-server user quota`: what an account may take up, and what it does.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xfer_protocol::size;
use xfer_protocol::tree::Quota;
use xfer_store::{Account, Change};

use super::super::output::{self, Shape};
use super::super::table;
use super::ledger::{self, Context};
use crate::program::control::Command;
use crate::program::exit::Failure;

/// The default bound on the nodes of an account with a quota.
const NODES: u64 = 10_000_000;

/// The default bound on what may wait in an account's inbox.
pub const INBOX: Quota = Quota { bytes: 1 << 30, nodes: 10_000 };

/// How much a user may store, as typed on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limit(pub Quota);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Limit, &'static str> {
        if text == "none" {
            return Ok(Limit(Quota::UNLIMITED));
        }
        let bytes = size::parse(text).ok_or("give a size like 10GiB, or none")?;
        Ok(Limit(Quota { bytes, nodes: NODES }))
    }
}

/// A bound as typed on the command line: a number, or `none`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bound(u64);

impl FromStr for Bound {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Bound, &'static str> {
        match text {
            "none" => Ok(Bound(u64::MAX)),
            text => text.parse().map(Bound).map_err(|_| "give a number, or none"),
        }
    }
}

/// What an account may take up, as far as it is to change.
#[derive(clap::Args, Serialize, Deserialize, Debug)]
pub struct NewLimits {
    /// How much the user may store: a size like 10GiB, or none for no limit
    #[arg(long, value_name = "SIZE")]
    quota: Option<Limit>,
    /// How many files, directories and links the user may have, or none for no limit
    #[arg(long, value_name = "N")]
    nodes: Option<Bound>,
    /// How much may wait in the user's inbox: a size, or none for no limit
    #[arg(long, value_name = "SIZE")]
    inbox: Option<Limit>,
    /// How many items may wait there, or none for no limit
    #[arg(long, value_name = "N")]
    inbox_items: Option<Bound>,
}

impl NewLimits {
    /// The changes to an account that this asks for.
    fn changes(&self, account: &Account) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.quota.is_some() || self.nodes.is_some() {
            let Limit(mut quota) = self.quota.unwrap_or(Limit(account.quota));
            quota.nodes = self.nodes.map_or(quota.nodes, |Bound(nodes)| nodes);
            changes.push(Change::Quota(quota));
        }
        if self.inbox.is_some() || self.inbox_items.is_some() {
            let bytes = self.inbox.map_or(account.inbox.bytes, |Limit(inbox)| inbox.bytes);
            let nodes = self.inbox_items.map_or(account.inbox.nodes, |Bound(items)| items);
            changes.push(Change::Inbox(Quota { bytes, nodes }));
        }
        changes
    }
}

/// What an account takes up, and what it may; a bound that is `None` is no bound.
#[derive(Serialize)]
pub struct Limits {
    pub used_bytes: u64,
    pub quota_bytes: Option<u64>,
    pub used_nodes: u64,
    pub quota_nodes: Option<u64>,
    pub inbox_used_bytes: u64,
    pub inbox_quota_bytes: Option<u64>,
    pub inbox_used_items: u64,
    pub inbox_quota_items: Option<u64>,
}

impl Limits {
    /// Those of an account.
    pub fn of(account: &Account) -> Limits {
        let Account { usage, quota, waiting, inbox, .. } = account;
        Limits {
            used_bytes: usage.bytes,
            quota_bytes: bound(quota.bytes),
            used_nodes: usage.nodes,
            quota_nodes: bound(quota.nodes),
            inbox_used_bytes: waiting.bytes,
            inbox_quota_bytes: bound(inbox.bytes),
            inbox_used_items: waiting.nodes,
            inbox_quota_items: bound(inbox.nodes),
        }
    }

    fn rows(&self) -> [[String; 3]; 4] {
        let size = |what: &str, used: u64, max| {
            [what.to_owned(), size::display(used), or_none(max, size::display)]
        };
        let count = |what: &str, used: u64, max| {
            [what.to_owned(), used.to_string(), or_none(max, |max| max.to_string())]
        };
        [
            size("data", self.used_bytes, self.quota_bytes),
            count("nodes", self.used_nodes, self.quota_nodes),
            size("inbox", self.inbox_used_bytes, self.inbox_quota_bytes),
            count("items in the inbox", self.inbox_used_items, self.inbox_quota_items),
        ]
    }
}

/// A quota in words, of bytes and of as many things.
pub fn said(quota: Quota, one: &str) -> String {
    let Quota { bytes, nodes } = quota;
    let nodes = bound(nodes).map(|nodes| size::count(nodes, one));
    match (bound(bytes), nodes) {
        (Some(bytes), Some(nodes)) => format!("{} and {nodes}", size::display(bytes)),
        (Some(bytes), None) => size::display(bytes),
        (None, Some(nodes)) => nodes,
        (None, None) => "none".to_owned(),
    }
}

/// A bound, unless it is as good as none.
fn bound(bound: u64) -> Option<u64> {
    Some(bound).filter(|bound| *bound != u64::MAX)
}

/// Shows a bound.
pub fn or_none(bound: Option<u64>, display: impl Fn(u64) -> String) -> String {
    bound.map_or("none".to_owned(), display)
}

/// The limits of an account, as they are printed for programs.
#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    limits: Limits,
}

/// Sets the bounds on an account's tree and inbox that are given, and prints all of them if none is,
/// or for a program.
pub fn quota(
    context: &mut Context<'_>,
    name: &str,
    new: &NewLimits,
    shape: Shape,
) -> Result<(), Failure> {
    let (ledger, account) = ledger::find(context, name)?;
    let changes = new.changes(&account);
    let are_set = !changes.is_empty();
    for change in changes {
        ledger.change(&account, change)?;
    }
    if are_set {
        ledger::tell(context, Command::AccountChanged { user: name.to_owned() })?;
    }
    let account = ledger.find(&account.name)?.ok_or_else(|| ledger::no_user(name))?;
    let limits = Limits::of(&account);
    match shape {
        Shape::Json => {
            output::print_json(context.console, &Named { name: account.name.to_string(), limits })
        }
        Shape::Table if are_set => {
            let (quota, inbox) = (said(account.quota, "node"), said(account.inbox, "item"));
            context.console.note(&format!("quota of {name}: {quota}; of the inbox: {inbox}"));
            Ok(())
        }
        Shape::Table => table::print(context.console, ["", "USED", "MAX"], &limits.rows()),
    }
}
