//! The server's end of its sockets.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinSet, spawn_blocking};
use xfer_protocol::message::EndReason;
use xfer_protocol::shown::shown_json;
use xfer_protocol::user;
use xfer_store::Register;

use super::conversation::Caller;
use super::turns::{Seat, Turns};
use super::{Answer, Command, Request, Session, Status, VERSION, place};
use crate::engine::Engine;
use crate::figures::Source;
use crate::listener::identity::Fingerprint;
use crate::program::console::Console;
use crate::program::exit::Failure;
use crate::program::store_location::StoreLocation;

/// The longest command, in bytes.
const COMMAND_BYTES_MAX: u64 = 64 << 10;

/// The longest wait for a connection to send its command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries out a command about accounts.
pub type Manage =
    fn(&StoreLocation, &Register, serde_json::Value, &mut dyn Console) -> Result<(), Failure>;

/// What commands are about.
pub struct Served {
    /// The sessions.
    pub engine: Arc<Engine>,
    /// The figures.
    pub source: Arc<Source>,
    /// What is told of the server.
    pub about: About,
    /// The accounts.
    pub register: Register,
    /// What changes them.
    pub manage: Manage,
}

/// What commands are told of the server.
pub struct About {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The fingerprint of its certificate.
    pub fingerprint: Fingerprint,
    /// Its store.
    pub store: StoreLocation,
}

/// One of the sockets.
pub struct Control {
    listener: UnixListener,
    served: Arc<Served>,
    is_admin: bool,
}

impl Control {
    /// Creates the socket in the store.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn in_store(served: Arc<Served>) -> io::Result<Control> {
        let listener = place::listen(&place::in_store(&served.about.store.dir), false)?;
        Ok(Control { listener, served, is_admin: false })
    }

    /// Creates the admin socket.
    ///
    /// # Errors
    /// If it can't be created, or another server listens there.
    pub fn for_admins(path: &Path, served: Arc<Served>) -> io::Result<Control> {
        let listener = place::listen(path, true)?;
        Ok(Control { listener, served, is_admin: true })
    }

    /// Answers commands until it is dropped.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        let turns = Arc::new(Turns::new());
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((socket, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    let Ok(caller) = socket.peer_cred() else { continue };
                    let Some(seat) = turns.seat(caller.uid()) else {
                        connections.spawn(turn_away(socket));
                        continue;
                    };
                    let admin = self.is_admin.then_some(caller);
                    let (served, turns) = (self.served.clone(), turns.clone());
                    connections.spawn(connection(socket, served, admin, turns, seat));
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

async fn connection(
    socket: UnixStream,
    served: Arc<Served>,
    admin: Option<UCred>,
    turns: Arc<Turns>,
    seat: Seat,
) {
    if let Err(error) = answer(socket, &served, admin, (&turns, &seat)).await {
        tracing::info!(%error, "a command was not answered");
    }
}

async fn turn_away(mut socket: UnixStream) {
    // One that does not take the answer is closed all the same.
    let _ = tell(&mut socket, &Answer::Busy).await;
}

async fn answer(
    socket: UnixStream,
    served: &Arc<Served>,
    admin: Option<UCred>,
    (turns, seat): (&Turns, &Seat),
) -> io::Result<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    let mut limited = (&mut reader).take(COMMAND_BYTES_MAX);
    tokio::time::timeout(COMMAND_TIMEOUT, limited.read_line(&mut line)).await??;
    let mut socket = reader.into_inner();
    if line.is_empty() {
        // A server that starts has looked whether another one has this socket.
        return Ok(());
    }
    let Some(_turn) = turns.turn(seat).await else {
        return tell(&mut socket, &Answer::Busy).await;
    };
    match served.command(&line) {
        Ok(Command::Manage { order, can_be_asked }) => {
            tell(&mut socket, &Answer::Done).await?;
            let caller = Caller::new(socket.into_std()?, can_be_asked)?;
            let served = served.clone();
            let carried_out = spawn_blocking(move || converse(caller, &served, order, admin));
            carried_out.await?
        }
        Ok(command) => {
            let answer = obey(served, command.clone()).await;
            if let (Some(admin), Command::End { user }) = (&admin, &command) {
                let is_done = matches!(answer, Answer::Ended { was_running: true });
                let outcome = if is_done { "done" } else { "there was no session" };
                note(admin, &format!("session end {user}"), outcome);
            }
            tell(&mut socket, &answer).await
        }
        Err(answer) => tell(&mut socket, &answer).await,
    }
}

async fn tell(socket: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(COMMAND_TIMEOUT, socket.write_all(&line)).await?
}

/// Carries out a command about accounts.
fn converse(
    mut caller: Caller,
    served: &Served,
    order: serde_json::Value,
    admin: Option<UCred>,
) -> io::Result<()> {
    let Served { about, register, manage, .. } = served;
    let asked = order.to_string();
    let outcome = manage(&about.store, register, order, &mut caller);
    if let Some(admin) = admin {
        let outcome = outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
        note(&admin, &asked, &outcome);
    }
    caller.end(outcome)
}

/// Notes in the log what an admin has done. Passwords are not in commands.
fn note(admin: &UCred, command: &str, outcome: &str) {
    let command = shown_json(command);
    tracing::info!(uid = admin.uid(), %command, %outcome, "a command by the admin socket");
}

async fn obey(served: &Served, command: Command) -> Answer {
    let engine = &served.engine;
    match command {
        Command::Address => {
            let About { address, fingerprint, .. } = &served.about;
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
        // Answered by a conversation.
        Command::Manage { .. } => Answer::Invalid,
    }
}

impl Served {
    /// The command in a line, if it is for this server.
    fn command(&self, line: &str) -> Result<Command, Answer> {
        let request: Request = serde_json::from_str(line).map_err(|_| Answer::Invalid)?;
        let own = &self.about.store.dir;
        match request.store {
            _ if request.version != VERSION => Err(Answer::Invalid),
            Some(store) if real(&store) != real(own) => {
                Err(Answer::OtherStore { store: own.clone() })
            }
            Some(_) | None => Ok(request.command),
        }
    }

    async fn status(&self) -> Status {
        let About { address, fingerprint, .. } = &self.about;
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

/// A path without symbolic links, as far as it can be told.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// All sessions, in order of user names.
fn sessions(engine: &Engine) -> Vec<Session> {
    let mut sessions: Vec<_> = engine.sessions().into_iter().map(Session::from).collect();
    sessions.sort_by(|a, b| a.user.cmp(&b.user));
    sessions
}
