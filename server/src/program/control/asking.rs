//! Asking the server that runs on a store.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Command, Request, VERSION, conversation, place};
use crate::program::console::Console;
use crate::program::exit::Failure;

/// The longest answer, in bytes: some ten thousand sessions.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The longest wait for an answer: a session that is being ended lets its client drain first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No server runs on this store.
    #[error("no server runs on this store")]
    NotRunning,
    /// This user may not use the socket.
    #[error("the server's {socket} is not for this user")]
    Forbidden {
        /// The socket.
        socket: String,
    },
    /// The server that listens on the admin socket has another store.
    #[error("the server at that admin socket has the store {store}", store = .0.display())]
    OtherStore(PathBuf),
    /// It was not carried out.
    #[error(
        "the server has too many commands under way; try again when they have ended, or answer their questions"
    )]
    Busy,
    /// The server did not answer in time.
    #[error("the server did not answer within {secs} s", secs = ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The answer is not one to that question: the server is of another version.
    #[error("the server answered another question")]
    Misunderstood,
    /// The socket failed.
    #[error("the server's control socket: {0}")]
    Io(#[from] io::Error),
}

/// Sends a command to the server that runs on a store, by the socket there.
///
/// # Errors
/// If there is no server, or it does not answer in time.
pub fn ask(store: &Path, command: &Command) -> Result<Answer, AskError> {
    let socket = send(&place::in_store(store), None, command, "control socket")?;
    read_answer(&mut BufReader::new(socket))
}

/// The same by its admin socket.
///
/// # Errors
/// The same, or if that server has another store.
pub fn ask_as_admin(admin: &Path, store: &Path, command: &Command) -> Result<Answer, AskError> {
    let socket = send(admin, Some(store), command, &admin.display().to_string())?;
    match read_answer(&mut BufReader::new(socket))? {
        Answer::OtherStore { store } => Err(AskError::OtherStore(store)),
        answer => Ok(answer),
    }
}

/// Has the server carry out a command about accounts, which talks with the person at `console`.
///
/// # Errors
/// If the server can't be asked, or did not understand it. The inner result says what became of the command.
pub fn manage_as_admin(
    admin: &Path,
    store: &Path,
    order: serde_json::Value,
    console: &mut dyn Console,
) -> Result<Result<(), Failure>, AskError> {
    let command = Command::Manage { order, can_be_asked: console.can_be_asked() };
    let socket = send(admin, Some(store), &command, &admin.display().to_string())?;
    let mut reader = BufReader::new(socket);
    match read_answer(&mut reader)? {
        Answer::OtherStore { store } => Err(AskError::OtherStore(store)),
        Answer::Done => {
            // People take their time to answer, and so does the deletion of a large tree.
            reader.get_ref().set_read_timeout(None)?;
            Ok(conversation::follow(reader, console)?)
        }
        _ => Err(AskError::Misunderstood),
    }
}

fn send(
    socket: &Path,
    store: Option<&Path>,
    command: &Command,
    name: &str,
) -> Result<UnixStream, AskError> {
    let mut connected = match place::connect(socket) {
        Ok(connected) => connected,
        Err(error) => {
            return Err(match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::NotRunning,
                ErrorKind::PermissionDenied => AskError::Forbidden { socket: name.to_owned() },
                _ => error.into(),
            });
        }
    };
    connected.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connected.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let store = store.map(std::path::absolute).transpose()?;
    let request = Request { version: VERSION.to_owned(), store, command: command.clone() };
    let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
    line.push(b'\n');
    match connected.write_all(&line) {
        // A server that is busy says so before it has read the question.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(connected)
}

fn read_answer(reader: &mut BufReader<UnixStream>) -> Result<Answer, AskError> {
    let mut answer = String::new();
    reader.take(ANSWER_BYTES_MAX).read_line(&mut answer).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AskError::Silent,
        _ => AskError::Io(error),
    })?;
    match serde_json::from_str(&answer).map_err(io::Error::from)? {
        Answer::Busy => Err(AskError::Busy),
        answer => Ok(answer),
    }
}
