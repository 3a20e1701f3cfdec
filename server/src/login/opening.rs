//! The beginning of a link, until the client is identified.
//!
//! All code that a stranger can reach is here: small frames, one deadline for all of them, and the
//! same answer for an unknown name and a wrong password. The engine takes over from there.
//!
//! **Invariant:** a login reaches the engine only after its password was right. Neither the answer
//! nor the work done for it shows whether the name or the password was wrong.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::OPENING_TIMEOUT_MS;
use xfer_protocol::message::{
    Binding, ClientHello, Opened, Opening, Password, PublicKey, Purpose, Refusal, Resume, Secret,
    ServerHello, Terms, VERSION,
};
use xfer_protocol::shown::is_visible;
use xfer_protocol::{Name, SessionId, user};

use crate::listener::half_open::Slot;
use crate::login::lockout::{LockedOut, Lockouts};
use crate::login::password;
use crate::login::source::Source;
use crate::login::turns::Turns;
use xfer_link::LinkError;
use xfer_store::{Account, AccountId, Accounts, Failures, StoreError};

/// The server's name and version in its greeting.
pub const SOFTWARE: &str = concat!("xfer-server ", env!("CARGO_PKG_VERSION"));

/// The longest part of a client's host name or software that is kept, in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// Attempts with an invalid account name are counted under this one.
const NO_NAME: &str = "?";

/// The number of concurrent password checks; each takes a core and 64 MiB.
const CHECKS_RUNNING: usize = 2;

/// The most logins that wait for a check: about ten seconds' worth, less than clients wait.
const CHECKS_WAITING: usize = 128;

/// The longest time to send a refusal.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client that logged in with the right password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authenticated {
    /// The account.
    pub account: AccountId,
    /// The account's name.
    pub user: Name,
    /// The stored hash that the password matched. It may have changed before the session begins.
    pub password: String,
    /// What to do if the account already has a session.
    pub purpose: Purpose,
    /// The key with which the client can resume the session.
    pub key: PublicKey,
    /// A session that makes way for this one, because its client has crashed.
    pub replaces: Option<SessionId>,
    /// What the client asks for.
    pub terms: Terms,
    /// The client's host name, as that client gave it, without control characters.
    pub host: String,
    /// The client's address, as the server saw it.
    pub address: String,
}

/// A client that wants to continue its session. Nothing is checked yet.
#[derive(Debug)]
pub struct Resuming {
    /// The account's name.
    pub user: Name,
    /// The request.
    pub request: Resume,
    /// The TLS connection that the request's proof must be for.
    pub binding: Binding,
    /// The client's address, as the server saw it.
    pub address: String,
}

/// The purpose of an admitted link. The engine still has to answer it.
#[derive(Debug)]
pub enum Admitted {
    /// Begin a session; the link is to be its log link.
    Log(Authenticated),
    /// Continue a session, if the client can prove that it is its own; the link is to be its log
    /// link.
    Resumed(Resuming),
    /// Join a session, if it is running and the secret is right.
    Read {
        /// The session's public name.
        session: SessionId,
        /// The secret that the client claims.
        secret: Secret,
    },
}

/// Why a link was not admitted. The client has been told, if that was possible.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The client sent nothing in time.
    #[error("it sent nothing for {} s", OPENING_TIMEOUT_MS / 1000)]
    Silent,
    /// The connection broke, or the data was not a valid frame.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Another connection needed its place.
    #[error("closed to make room for others: it had not logged in yet")]
    Crowded,
    /// The data was not xfer's protocol.
    #[error("it does not speak the xfer protocol")]
    Stranger,
    /// The two have no protocol version in common.
    #[error("speaks versions {version_min} to {version_max}")]
    Incompatible {
        /// The oldest version the client speaks.
        version_min: u16,
        /// The newest version the client speaks.
        version_max: u16,
    },
    /// The login was refused.
    #[error("{user:?} was refused: {refusal}")]
    Refused {
        /// The user name that the client gave.
        user: String,
        /// The refusal that it was sent.
        refusal: Refusal,
    },
}

/// Checks logins.
pub struct Door {
    accounts: Arc<dyn Accounts>,
    lockouts: Arc<Lockouts>,
    checks: Arc<Turns>,
}

impl Door {
    /// A door to these accounts, beside which wrong passwords are counted.
    pub fn new(accounts: Arc<dyn Accounts>, failures: Arc<dyn Failures>) -> Door {
        let lockouts = Arc::new(Lockouts::new(failures));
        Door { accounts, lockouts, checks: Turns::new(CHECKS_RUNNING, CHECKS_WAITING) }
    }

    /// The number of logins that wait for their password check.
    pub fn waiting(&self) -> usize {
        self.checks.waiting()
    }

    /// Talks to a new link until its purpose is known. The link must state that by the deadline,
    /// and needs its place only until then; checking the password may take longer. `binding` stands
    /// for the link's TLS connection.
    ///
    /// # Errors
    /// If the link is turned away; the caller must close it.
    pub async fn open<S>(
        &self,
        stream: &mut S,
        binding: Binding,
        address: IpAddr,
        place: Slot,
        deadline: Instant,
    ) -> Result<Admitted, NotAdmitted>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shown = address.to_canonical().to_string();
        match hear(stream, place, deadline).await? {
            Opening::Attach { session, secret } => Ok(Admitted::Read { session, secret }),
            Opening::Resume(request) => match user::parse(&request.user) {
                Some(user) => {
                    let request = *request;
                    Ok(Admitted::Resumed(Resuming { user, request, binding, address: shown }))
                }
                None => turn_away(stream, &request.user, Refusal::NoSession).await,
            },
            Opening::Login { user, password, purpose, host, key, replaces, terms } => {
                match self.check(stream, &user, password, address).await? {
                    Ok(account) => Ok(Admitted::Log(Authenticated {
                        account: account.id,
                        user: account.name,
                        password: account.password,
                        purpose,
                        key,
                        replaces,
                        terms,
                        host: label(&host),
                        address: shown,
                    })),
                    Err(refusal) => turn_away(stream, &user, refusal).await,
                }
            }
        }
    }

    /// Checks a password in its turn, unless the client hangs up first.
    async fn check<S>(
        &self,
        stream: &mut S,
        user: &str,
        password: Password,
        address: IpAddr,
    ) -> Result<Result<Account, Refusal>, NotAdmitted>
    where
        S: AsyncRead + Unpin,
    {
        if password::check_length(&password.0).is_err() {
            return Ok(Err(Refusal::WrongPassword));
        }
        let (accounts, lockouts) = (self.accounts.clone(), self.lockouts.clone());
        let (name, source) = (user::parse(user), Source::of(address));
        let turn = tokio::select! {
            turn = self.checks.wait(source) => turn,
            end = early(stream) => return Err(end),
        };
        let Ok(turn) = turn else { return Ok(Err(Refusal::Busy)) };
        let done = tokio::spawn(async move {
            // A running check keeps its turn to the end, even if its client has gone.
            let _turn = turn;
            check_now(&*accounts, &lockouts, name, password, source).await
        });
        Ok(done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "checking a password failed");
            Err(Refusal::Internal)
        }))
    }
}

/// Resolves if a link ends, or sends something, before it was answered.
async fn early<S: AsyncRead + Unpin>(stream: &mut S) -> NotAdmitted {
    match stream.read(&mut [0]).await {
        Ok(0) => NotAdmitted::Link(LinkError::Io(ErrorKind::UnexpectedEof.into())),
        Ok(_) => NotAdmitted::Stranger,
        Err(error) => NotAdmitted::Link(LinkError::Io(error)),
    }
}

/// Counts the attempt, then reads the account and hashes the password. Slow.
async fn check_now(
    accounts: &dyn Accounts,
    lockouts: &Lockouts,
    name: Option<Name>,
    password: Password,
    source: Source,
) -> Result<Account, Refusal> {
    let key = name.as_ref().map_or(NO_NAME.to_owned(), Name::to_string);
    let begun = lockouts.begin(&key, source).await;
    let attempt = begun.map_err(|LockedOut { seconds }| Refusal::Blocked { seconds })?;
    match find_verified(accounts, name, password, &key).await {
        Ok(Some(account)) => {
            lockouts.succeed(attempt).await;
            Ok(account)
        }
        Ok(None) => {
            lockouts.fail(attempt).await;
            Err(Refusal::WrongPassword)
        }
        Err(refusal) => {
            lockouts.take_back(attempt);
            Err(refusal)
        }
    }
}

/// The account of this name, if the password is right. `key` is the name for the log.
async fn find_verified(
    accounts: &dyn Accounts,
    name: Option<Name>,
    password: Password,
    key: &str,
) -> Result<Option<Account>, Refusal> {
    let account = match name {
        Some(name) => accounts.find(name).await.map_err(internal)?,
        None => None,
    };
    let stored = account.as_ref().map(|account| account.password.clone());
    let verify = move || password::verify(&password.0, stored.as_deref());
    let verified = tokio::task::spawn_blocking(verify).await.map_err(|error| {
        tracing::error!(%error, "checking a password failed");
        Refusal::Internal
    })?;
    let right = verified.map_err(|error| {
        tracing::error!(user = key, %error, "set the password anew: xfer-server user passwd {key}");
        Refusal::Internal
    })?;
    Ok(account.filter(|_| right))
}

fn internal(error: StoreError) -> Refusal {
    tracing::error!(%error, "an account can't be read");
    Refusal::Internal
}

/// Exchanges greetings and reads the link's purpose. A link that loses its place is told so.
async fn hear<S>(stream: &mut S, mut place: Slot, deadline: Instant) -> Result<Opening, NotAdmitted>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(hello) = place.keep(receive(stream, deadline)).await else {
        send(stream, &ServerHello::Busy, Instant::now() + FAREWELL).await?;
        return Err(NotAdmitted::Crowded);
    };
    greet(stream, hello?, deadline).await?;
    let Ok(opening) = place.keep(receive(stream, deadline)).await else {
        refuse(stream, Refusal::Busy).await?;
        return Err(NotAdmitted::Crowded);
    };
    opening
}

async fn greet<S>(stream: &mut S, hello: ClientHello, deadline: Instant) -> Result<(), NotAdmitted>
where
    S: AsyncWrite + Unpin,
{
    let ClientHello { magic, version_min, version_max, capabilities: _, software } = hello;
    if magic != ClientHello::MAGIC {
        return Err(NotAdmitted::Stranger);
    }
    if !(version_min..=version_max).contains(&VERSION) {
        let answer = ServerHello::Incompatible { version_min: VERSION, version_max: VERSION };
        send(stream, &answer, deadline).await?;
        return Err(NotAdmitted::Incompatible { version_min, version_max });
    }
    tracing::debug!(software = label(&software), "hello");
    let answer = ServerHello::Welcome {
        version: VERSION,
        capabilities: 0,
        software: SOFTWARE.to_owned(),
        time: SystemTime::now().into(),
    };
    send(stream, &answer, deadline).await
}

/// Refuses a user's link.
async fn turn_away<S>(stream: &mut S, user: &str, refusal: Refusal) -> Result<Admitted, NotAdmitted>
where
    S: AsyncWrite + Unpin,
{
    refuse(stream, refusal.clone()).await?;
    Err(NotAdmitted::Refused { user: label(user), refusal })
}

/// Sends a refusal. The link may be gone, or not accept it.
async fn refuse<S>(stream: &mut S, refusal: Refusal) -> Result<(), NotAdmitted>
where
    S: AsyncWrite + Unpin,
{
    send(stream, &Opened::Refused(refusal), Instant::now() + FAREWELL).await
}

async fn receive<T, S>(stream: &mut S, deadline: Instant) -> Result<T, NotAdmitted>
where
    T: serde::de::DeserializeOwned,
    S: AsyncRead + Unpin,
{
    let (message, _) = in_time(xfer_link::receive(stream, Bounds::OPENING), deadline).await?;
    Ok(message)
}

async fn send<T, S>(stream: &mut S, message: &T, deadline: Instant) -> Result<(), NotAdmitted>
where
    T: serde::Serialize,
    S: AsyncWrite + Unpin,
{
    in_time(xfer_link::send(stream, message, &[], Bounds::OPENING), deadline).await
}

async fn in_time<T>(
    phase: impl Future<Output = Result<T, LinkError>>,
    deadline: Instant,
) -> Result<T, NotAdmitted> {
    Ok(tokio::time::timeout_at(deadline, phase).await.map_err(|_| NotAdmitted::Silent)??)
}

/// Makes text from a stranger fit to be shown: short, and without invisible characters.
fn label(text: &str) -> String {
    let mut label = String::new();
    for c in text.chars().filter(|c| is_visible(*c)) {
        if label.len() + c.len_utf8() > LABEL_BYTES_MAX {
            break;
        }
        label.push(c);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_short_and_shows_nothing_that_moves_the_cursor() {
        assert_eq!(label("host\x1b[2J\n"), "host[2J");
        assert_eq!(label(&"é".repeat(40)), "é".repeat(32));
    }
}
