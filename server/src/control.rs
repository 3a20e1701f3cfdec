//! How the command line talks to a server that runs: a socket in the store, one JSON line each way.
//!
//! Whoever may open the socket (its owner, and root) may ask; there is no other check.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use xfer_protocol::message::EndReason;
use xfer_protocol::user;

use crate::engine::{Counts, Engine, SessionInfo};

/// The longest command, in bytes.
const COMMAND_BYTES_MAX: u64 = 4 << 10;

/// The longest answer, in bytes: some ten thousand sessions.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How long the command line waits for an answer. Ending a session waits for its client to drain.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to say what it wants.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 16;

/// What can be asked of a server that runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// The sessions that run.
    List,
    /// End a user's session.
    End {
        /// The user.
        user: String,
    },
    /// How much was committed for all sessions together, for whoever measures a server.
    Commits,
    /// Read again what the store says of an account.
    AccountChanged {
        /// The user.
        user: String,
    },
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// The sessions that run.
    Sessions {
        /// In order of users.
        sessions: Vec<Session>,
    },
    /// Whether there was a session to end.
    Ended {
        /// Whether there was.
        was_running: bool,
    },
    /// What was committed since the server's start.
    Commits {
        /// Transactions, each with the batches of all who waited for it.
        transactions: u64,
        /// Batches in them, each of one session.
        batches: u64,
    },
    /// It is done.
    Done,
    /// The command was no command.
    Invalid,
}

/// A session, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Whose.
    pub user: String,
    /// The client's host, as it named itself.
    pub host: String,
    /// The client's address.
    pub address: String,
    /// When it began, in seconds since 1970.
    pub since_secs: i64,
    /// Which of the account's sessions it is.
    pub epoch: u64,
    /// The last op that was applied.
    pub applied: u64,
    /// The last op that is durable.
    pub durable: u64,
    /// What it did so far.
    pub counts: Counts,
}

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None runs on this store.
    #[error("no server runs on this store")]
    NotRunning,
    /// The socket failed.
    #[error("the server's control socket: {0}")]
    Io(#[from] io::Error),
}

/// Asks the server that runs on a store.
///
/// # Errors
/// If none runs, or it does not answer in time.
pub fn ask(store: &Path, command: &Command) -> Result<Answer, AskError> {
    let place = Place::of(store)?;
    let mut socket = match std::os::unix::net::UnixStream::connect(&place.path) {
        Ok(socket) => socket,
        Err(error) if is_nobody(&error) => return Err(AskError::NotRunning),
        Err(error) => return Err(error.into()),
    };
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(command).map_err(io::Error::from)?;
    line.push(b'\n');
    socket.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(socket.take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer).map_err(io::Error::from)?)
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The server's end of the socket.
pub struct Control {
    listener: UnixListener,
    engine: Arc<Engine>,
}

impl Control {
    /// Opens the socket. To be called by whoever has the store's lock: a socket that is there
    /// already is one that a server left behind.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn bind(store: &Path, engine: Arc<Engine>) -> io::Result<Control> {
        let place = Place::of(store)?;
        match std::fs::remove_file(&place.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&place.path)?;
        std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Control { listener, engine })
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    if let Ok((socket, _)) = accepted {
                        connections.spawn(connection(socket, self.engine.clone()));
                    } else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a command's task failed");
                    }
                }
            }
        }
    }
}

async fn connection(socket: UnixStream, engine: Arc<Engine>) {
    let answered = async {
        let (reader, mut writer) = socket.into_split();
        let mut line = String::new();
        let mut reader = tokio::io::BufReader::new(reader.take(COMMAND_BYTES_MAX));
        tokio::time::timeout(COMMAND_TIMEOUT, reader.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(command) => obey(&engine, command).await,
            Err(_) => Answer::Invalid,
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        tokio::time::timeout(COMMAND_TIMEOUT, writer.write_all(&line)).await??;
        Ok::<(), io::Error>(())
    };
    if let Err(error) = answered.await {
        tracing::info!(%error, "a command was not answered");
    }
}

async fn obey(engine: &Arc<Engine>, command: Command) -> Answer {
    match command {
        Command::List => {
            let mut sessions: Vec<_> = engine.sessions().into_iter().map(Session::from).collect();
            sessions.sort_by(|a, b| a.user.cmp(&b.user));
            Answer::Sessions { sessions }
        }
        Command::End { user } => {
            let Some(name) = user::parse(&user) else { return Answer::Invalid };
            let was_running = engine.end(&name, EndReason::Administrator).await;
            Answer::Ended { was_running }
        }
        Command::Commits => {
            Answer::Commits { transactions: engine.transactions(), batches: engine.batches() }
        }
        Command::AccountChanged { user } => {
            let Some(name) = user::parse(&user) else { return Answer::Invalid };
            engine.account_changed(&name).await;
            Answer::Done
        }
    }
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Session {
        let SessionInfo { user, host, address, since, epoch, applied, durable, counts } = info;
        Session {
            user: user.to_string(),
            host,
            address,
            since_secs: since.secs(),
            epoch: epoch.0,
            applied: applied.0,
            durable: durable.0,
            counts,
        }
    }
}

/// The socket's path. A socket's address has room for about a hundred bytes; a store whose path is
/// longer is named by an open descriptor instead.
struct Place {
    path: PathBuf,
    _directory: Option<std::fs::File>,
}

impl Place {
    const PATH_BYTES_MAX: usize = 100;

    fn of(store: &Path) -> io::Result<Place> {
        use std::os::fd::AsRawFd;
        let path = store.join("control.sock");
        if path.as_os_str().len() <= Self::PATH_BYTES_MAX {
            return Ok(Place { path, _directory: None });
        }
        let directory = std::fs::File::open(store)?;
        let path = format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd()).into();
        Ok(Place { path, _directory: Some(directory) })
    }
}
