//! The control socket of a running server, in the store: one line of JSON in each direction.
//!
//! Access rights of the socket (its owner and root) are the only check.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
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
use crate::figures::{Figures, Lockout, Source};
use crate::listener::identity::Fingerprint;

/// The longest command line, in bytes.
const COMMAND_BYTES_MAX: u64 = 4 << 10;

/// The longest answer, in bytes: some ten thousand sessions.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The longest wait for an answer: a session that is being ended lets its client drain first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest wait for a connection to send its command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections served at once.
const CONNECTIONS_MAX: usize = 16;

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
}

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

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No server runs on this store.
    #[error("no server runs on this store")]
    NotRunning,
    /// The socket failed.
    #[error("the server's control socket: {0}")]
    Io(#[from] io::Error),
}

/// Sends a command to the server that runs on a store.
///
/// # Errors
/// If there is no server, or it does not answer in time.
pub fn ask(store: &Path, command: &Command) -> Result<Answer, AskError> {
    let place = SocketPath::of(store)?;
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

/// The server's end of the control socket.
pub struct Control {
    listener: UnixListener,
    served: Arc<Served>,
}

/// What the commands are about.
struct Served {
    engine: Arc<Engine>,
    source: Arc<Source>,
    about: About,
}

/// What commands are told of the server.
pub struct About {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The fingerprint of its certificate.
    pub fingerprint: Fingerprint,
}

impl Control {
    /// Creates the socket. The caller must hold the store's lock: an existing socket is then a
    /// leftover of an earlier server and is replaced.
    ///
    /// # Errors
    /// If the socket can't be created.
    pub fn bind(
        store: &Path,
        engine: Arc<Engine>,
        source: Arc<Source>,
        about: About,
    ) -> io::Result<Control> {
        let place = SocketPath::of(store)?;
        match std::fs::remove_file(&place.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&place.path)?;
        std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o600))?;
        let served = Arc::new(Served { engine, source, about });
        Ok(Control { listener, served })
    }

    /// Answers commands until it is dropped.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                    if let Ok((socket, _)) = accepted {
                        connections.spawn(connection(socket, self.served.clone()));
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

async fn connection(socket: UnixStream, served: Arc<Served>) {
    let answered = async {
        let (reader, mut writer) = socket.into_split();
        let mut line = String::new();
        let mut reader = tokio::io::BufReader::new(reader.take(COMMAND_BYTES_MAX));
        tokio::time::timeout(COMMAND_TIMEOUT, reader.read_line(&mut line)).await??;
        let answer = match serde_json::from_str(&line) {
            Ok(command) => obey(&served, command).await,
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

async fn obey(served: &Served, command: Command) -> Answer {
    let engine = &served.engine;
    match command {
        Command::Address => {
            let About { address, fingerprint } = &served.about;
            Answer::Address { port: address.port(), fingerprint: fingerprint.clone() }
        }
        Command::List => Answer::Sessions { sessions: sessions(engine) },
        Command::Status => Answer::Status(Box::new(served.status().await)),
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

impl Served {
    async fn status(&self) -> Status {
        let About { address, fingerprint } = &self.about;
        let (figures, lockouts) = self.source.read().await;
        Status {
            address: *address,
            fingerprint: fingerprint.to_string(),
            figures,
            sessions: sessions(&self.engine),
            lockouts,
        }
    }
}

/// All sessions, in order of user names.
fn sessions(engine: &Engine) -> Vec<Session> {
    let mut sessions: Vec<_> = engine.sessions().into_iter().map(Session::from).collect();
    sessions.sort_by(|a, b| a.user.cmp(&b.user));
    sessions
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

/// The socket's path. A socket address holds only about a hundred bytes; a store with a longer path
/// is reached through an open descriptor.
struct SocketPath {
    path: PathBuf,
    _directory: Option<std::fs::File>,
}

impl SocketPath {
    const PATH_BYTES_MAX: usize = 100;

    fn of(store: &Path) -> io::Result<SocketPath> {
        use std::os::fd::AsRawFd;
        let path = store.join("control.sock");
        if path.as_os_str().len() <= Self::PATH_BYTES_MAX {
            return Ok(SocketPath { path, _directory: None });
        }
        let directory = std::fs::File::open(store)?;
        let path = format!("/proc/self/fd/{}/control.sock", directory.as_raw_fd()).into();
        Ok(SocketPath { path, _directory: Some(directory) })
    }
}
