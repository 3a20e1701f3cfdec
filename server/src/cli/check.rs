//! `xfer-server check`: looks through the store for what contradicts itself or is missing.

use serde::Serialize;
use xfer_protocol::Name;
use xfer_protocol::shown::Shown;
use xfer_protocol::size;
use xfer_store::{Checked, Fault, Place};

use super::here::Here;
use super::output::{self, Shape};
use super::user::{Context, find};
use crate::program::exit::{Exit, Failure};
use crate::program::store_location::StoreLocation;

/// All that a look found, as it is printed for programs.
#[derive(Serialize)]
struct Found {
    users: u64,
    nodes: u64,
    contents: u64,
    faults: Vec<Listed>,
}

/// A fault as it is printed for programs.
#[derive(Serialize)]
struct Listed {
    rule: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Absent if no way leads there.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ino: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<u64>,
    what: String,
}

/// Looks through the store, or one user's part of it.
pub fn check(store: &StoreLocation, user: Option<&str>, shape: Shape) -> Result<(), Failure> {
    let mut here = Here::default();
    let context = Context::here(store, &mut here);
    let only = user.map(|user| find(&context, user)).transpose()?.map(|(_, account)| account.name);
    let mut faults = Vec::new();
    let mut report = |fault: Fault| match shape {
        Shape::Table => {
            // A reader who has seen enough still gets the exit code.
            let _ = output::print_line(&line(&fault));
        }
        Shape::Json => faults.push(listed(fault)),
    };
    let checked = xfer_store::check(&store.location, only.as_ref(), &mut report)?;
    let Checked { accounts, nodes, contents, faults: count } = checked;
    match shape {
        Shape::Json => {
            let found = Found { users: accounts, nodes, contents, faults };
            output::print_json(&mut here, &found)?;
        }
        Shape::Table => output::note(&format!("looked at {}", amount(&checked))),
    }
    match count {
        0 => Ok(()),
        _ => {
            let line = format!(
                "the store has {}; keep a copy of it as it is, and bring back a backup of what is \
                 damaged",
                size::count(count, "fault")
            );
            Err(Failure::new(Exit::Faulty, line))
        }
    }
}

fn amount(checked: &Checked) -> String {
    format!("{} with {}", size::count(checked.accounts, "user"), size::count(checked.nodes, "node"))
}

/// A fault in a line: whose it is, where, and what.
fn line(fault: &Fault) -> String {
    let place = match &fault.place {
        Place::Store => "the database".to_owned(),
        Place::Account(name) => name.to_string(),
        Place::Node { account, ino, path } => match path {
            Some(path) => format!("{account}: /{}", joined(path)),
            None => format!("{account}: number {ino}, which has no path"),
        },
        Place::Content(content) => format!("content {content}"),
    };
    Shown(&format!("{place}: {}", fault.what)).to_string()
}

fn joined(path: &[Name]) -> String {
    path.iter().map(Name::to_string).collect::<Vec<_>>().join("/")
}

fn listed(Fault { place, rule, what }: Fault) -> Listed {
    let none = Listed { rule: rule.name(), user: None, path: None, ino: None, content: None, what };
    match place {
        Place::Store => none,
        Place::Account(name) => Listed { user: Some(name.to_string()), ..none },
        Place::Node { account, ino, path } => Listed {
            user: Some(account.to_string()),
            path: path.map(|path| joined(&path)),
            ino: Some(ino.0),
            ..none
        },
        Place::Content(content) => Listed { content: Some(content.0), ..none },
    }
}
