//! `xfer-server session ...`: asks the server that is running on the store.

use std::path::Path;

use super::output::{self, Shape};
use super::running::{ask, nonsense};
use super::table;
use super::user::no_user;
use crate::moment;
use crate::program::control::{Answer, Command, Session};
use crate::program::exit::{Exit, Failure};

/// Prints the sessions, also those whose clients are away.
pub fn list(store: &Path, shape: Shape) -> Result<(), Failure> {
    match (ask(store, &Command::List)?, shape) {
        (Answer::Sessions { sessions }, Shape::Json) => output::print_json(&sessions),
        (Answer::Sessions { sessions }, Shape::Table) => {
            let heading =
                ["USER", "HOST", "ADDRESS", "SINCE", "AWAY", "EPOCH", "APPLIED", "DURABLE"];
            table::print(heading, &sessions.iter().map(row).collect::<Vec<_>>())
        }
        _ => Err(nonsense()),
    }
}

/// Ends a user's session.
pub fn end(store: &Path, user: &str) -> Result<(), Failure> {
    match ask(store, &Command::End { user: user.to_owned() })? {
        Answer::Ended { was_running: true } => Ok(()),
        Answer::Ended { was_running: false } => {
            let line = format!("{user} has no session; see xfer-server session list");
            Err(Failure::new(Exit::NoUser, line))
        }
        Answer::Invalid => Err(no_user(user)),
        _ => Err(nonsense()),
    }
}

fn row(session: &Session) -> [String; 8] {
    [
        session.user.clone(),
        session.host.clone(),
        session.address.clone(),
        moment::display(session.since_secs),
        session.away_secs.map_or("-".to_owned(), |secs| format!("{secs} s")),
        session.epoch.to_string(),
        session.applied.to_string(),
        session.durable.to_string(),
    ]
}
