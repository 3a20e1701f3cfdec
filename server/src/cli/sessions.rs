//! `xfer-server session ...`: asks the server that is running on the store.

use super::here::Here;
use super::output::{self, Shape};
use super::running::{Server, nonsense};
use super::table;
use super::user::no_user;
use crate::moment;
use crate::program::control::{Answer, Command, Session};
use crate::program::exit::{Exit, Failure};

/// Prints the sessions, also those whose clients are away.
pub fn list(server: &Server, shape: Shape) -> Result<(), Failure> {
    match (server.ask(&Command::List)?, shape) {
        (Answer::Sessions { sessions }, Shape::Json) => {
            output::print_json(&mut Here::default(), &sessions)
        }
        (Answer::Sessions { sessions }, Shape::Table) => {
            let heading =
                ["USER", "HOST", "ADDRESS", "SINCE", "AWAY", "EPOCH", "APPLIED", "DURABLE"];
            let rows: Vec<_> = sessions.iter().map(row).collect();
            table::print(&mut Here::default(), heading, &rows)
        }
        _ => Err(nonsense()),
    }
}

/// Ends a user's session.
pub fn end(server: &Server, user: &str) -> Result<(), Failure> {
    match server.ask(&Command::End { user: user.to_owned() })? {
        Answer::Ended { was_running: true } => {
            output::note(&format!("the session of {user} is ended"));
            Ok(())
        }
        Answer::Ended { was_running: false } => {
            let line = format!("{user} has no session; see: xfer-server session list");
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
