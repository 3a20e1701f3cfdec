//! What a running server can be asked, by a line of JSON on a socket, and how it answers.
//!
//! There are two sockets, and access rights are the only check of each. The one in the store is for the
//! store's owner and root. The *admin socket* is for whoever its directory's group has in it, so that users
//! can be managed without the right to read what they store. It also takes commands that change
//! accounts, which the store's owner carries out beside the server: see `conversation`.
//!
//! Reading order: this file (commands and answers), `place` (where the sockets are), `asking`,
//! `serving`, and `conversation`.

mod place;
mod asking;
mod serving;
mod turns;
mod conversation;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{Counts, SessionInfo};
use crate::figures::{Figures, Lockout};
use crate::listener::identity::Fingerprint;

pub use asking::{AskError, ask, ask_as_admin, manage_as_admin};
pub use place::AdminSocket;
pub use serving::{About, Control, Manage, Served};

/// A command for a running server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// List the running sessions.
    List,
    /// End a user's session.
    End {
        /// The user's name.
        user: String,
    },
    /// Report the server's commit counters, for measurements.
    Commits,
    /// Report how clients reach the server.
    Address,
    /// Report how the server is.
    Status,
    /// Read an account again after it was changed in the store.
    AccountChanged {
        /// The account's name.
        user: String,
    },
    /// Carry out a command about accounts, in a conversation.
    Manage {
        /// The command, which this module passes on as it is.
        order: serde_json::Value,
        /// Whether there is somebody to answer questions.
        can_be_asked: bool,
    },
}

/// A command, and for which server it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Request {
    /// The version of the program that sends it. Another may mean other things by the same words.
    version: String,
    /// The store that it is about, if the socket does not say so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    store: Option<PathBuf>,
    #[serde(flatten)]
    command: Command,
}

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The server's answer to a command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// Answers [`Command::List`].
    Sessions {
        /// In order of user names.
        sessions: Vec<Session>,
    },
    /// Answers [`Command::End`].
    Ended {
        /// Whether there was a session to end.
        was_running: bool,
    },
    /// Answers [`Command::Commits`]: counts since the server's start.
    Commits {
        /// Transactions, each with the batches of all sessions that waited for it.
        transactions: u64,
        /// Batches in those transactions, each from one session.
        batches: u64,
    },
    /// Answers [`Command::Address`].
    Address {
        /// The port that it listens on.
        port: u16,
        /// The fingerprint of its certificate.
        fingerprint: Fingerprint,
    },
    /// Answers [`Command::Status`].
    Status(Box<Status>),
    /// The command was carried out.
    Done,
    /// The command could not be parsed.
    Invalid,
    /// This user has so many commands under way that it was not carried out.
    Busy,
    /// The server has another store than the command is about.
    OtherStore {
        /// The one that it has.
        store: PathBuf,
    },
}

/// How a server is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The fingerprint of its certificate.
    pub fingerprint: String,
    /// Its figures.
    pub figures: Figures,
    /// Its sessions, in order of user names.
    pub sessions: Vec<Session>,
    /// Lockouts in force.
    pub lockouts: Vec<Lockout>,
}

/// A session in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The account's name.
    pub user: String,
    /// The client's host name, as that client gave it.
    pub host: String,
    /// The client's address, as the server saw it.
    pub address: String,
    /// The time when it began, in seconds since 1970.
    pub since_secs: i64,
    /// How long its client has been away, in seconds; absent while it is connected.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub away_secs: Option<u64>,
    /// Its number among all the account's sessions.
    pub epoch: u64,
    /// The seq of the last applied op.
    pub applied: u64,
    /// The seq of the last durable op.
    pub durable: u64,
    /// Counters of its activity so far.
    pub counts: Counts,
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Session {
        let SessionInfo { user, host, address, since, away, epoch, applied, durable, counts } =
            info;
        Session {
            user: user.to_string(),
            host,
            address,
            since_secs: since.secs(),
            away_secs: away.map(|away| away.as_secs()),
            epoch: epoch.0,
            applied: applied.0,
            durable: durable.0,
            counts,
        }
    }
}
