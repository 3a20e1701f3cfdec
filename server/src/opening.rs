//! The beginning of a link, until it is known who is there.
//!
//! Everything a stranger can reach is here: small frames, one deadline for all of them, and one
//! answer for an unknown name and a wrong password. What comes after is the engine's.
//!
//! **Invariant:** nothing is asked of the engine before the password was right; which of name and
//! password was wrong shows neither in the answer nor in the work done for it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::OPENING_TIMEOUT_MS;
use xfer_protocol::message::{
    ClientHello, Opened, Opening, Password, Purpose, Refusal, Secret, ServerHello, VERSION,
};
use xfer_protocol::shown::is_visible;
use xfer_protocol::{Name, SessionId, user};

use crate::blocks::{Blocked, Blocks};
use crate::half_open::Place;
use crate::password;
use crate::source::Source;
use crate::turns::Turns;
use xfer_link::LinkError;
use xfer_store::{Account, AccountId, MetaStore, StoreError};

/// How the server names itself.
pub const SOFTWARE: &str = concat!("xfer-server ", env!("CARGO_PKG_VERSION"));

/// The longest that a client's host or software is kept, in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// What names that no account can have are counted under.
const NO_NAME: &str = "?";

/// How many passwords are checked at a time: each takes a core and 64 MiB.
const CHECKS_RUNNING: usize = 2;

/// How many more logins may wait for that: about ten seconds' worth, less than clients wait.
const CHECKS_WAITING: usize = 128;

/// How long a link that is refused may take to be told.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who logged in, with the right password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authenticated {
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub user: Name,
    /// The hash that the password was right for: by the time a session begins it may be another.
    pub password: String,
    /// What the login is for.
    pub purpose: Purpose,
    /// The client's host, as it names itself; without control characters.
    pub host: String,
    /// The client's address.
    pub address: String,
}

/// What a link was opened for. The engine has to answer it.
#[derive(Debug)]
pub enum Admitted {
    /// A session is wanted; the link is to be its log link.
    Log(Authenticated),
    /// A session is to be joined, if it runs and this is its secret.
    Read {
        /// The session.
        session: SessionId,
        /// What is said to be its secret.
        secret: Secret,
    },
}

/// Why a link was not opened. The client was told, if there was anything to tell it.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// Nothing came in time.
    #[error("it sent nothing for {} s", OPENING_TIMEOUT_MS / 1000)]
    Silent,
    /// It broke, or what came was no frame.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Others needed the place.
    #[error("closed to make room for others: it had not logged in yet")]
    Crowded,
    /// What came was not our protocol.
    #[error("it does not speak the xfer protocol")]
    Stranger,
    /// There is no version that both speak.
    #[error("speaks versions {version_min} to {version_max}")]
    Incompatible {
        /// The oldest version the client speaks.
        version_min: u16,
        /// The newest version the client speaks.
        version_max: u16,
    },
    /// It was refused.
    #[error("{user:?} was refused: {refusal}")]
    Refused {
        /// The name that was given.
        user: String,
        /// What was answered.
        refusal: Refusal,
    },
}

/// What logins are checked with.
pub struct Door {
    store: Arc<dyn MetaStore>,
    blocks: Arc<Blocks>,
    checks: Arc<Turns>,
}

impl Door {
    /// A door to the accounts of this store.
    pub fn new(store: Arc<dyn MetaStore>) -> Door {
        let blocks = Arc::new(Blocks::new(store.clone()));
        Door { store, blocks, checks: Turns::new(CHECKS_RUNNING, CHECKS_WAITING) }
    }

    /// How many logins wait until their passwords are checked.
    pub fn waiting(&self) -> usize {
        self.checks.waiting()
    }

    /// Talks to a new link until it is known what it is for. The link has to say that by the
    /// deadline, and needs its place only until then; checking the password may take longer.
    ///
    /// # Errors
    /// If it is turned away; then it is to be closed.
    pub async fn open<S>(
        &self,
        stream: &mut S,
        address: IpAddr,
        place: Place,
        deadline: Instant,
    ) -> Result<Admitted, NotAdmitted>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match hear(stream, place, deadline).await? {
            Opening::Attach { session, secret } => Ok(Admitted::Read { session, secret }),
            Opening::Login { user, password, purpose, host } => {
                match self.check(stream, &user, password, address).await? {
                    Ok(account) => Ok(Admitted::Log(Authenticated {
                        account: account.id,
                        user: account.name,
                        password: account.password,
                        purpose,
                        host: label(&host),
                        address: address.to_canonical().to_string(),
                    })),
                    Err(refusal) => {
                        refuse(stream, refusal.clone()).await?;
                        Err(NotAdmitted::Refused { user: label(&user), refusal })
                    }
                }
            }
        }
    }

    /// Checks a password when it is its turn. One whose client hangs up meanwhile is not checked.
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
        let (store, blocks) = (self.store.clone(), self.blocks.clone());
        let (name, source) = (user::parse(user), Source::of(address));
        let turn = tokio::select! {
            turn = self.checks.wait(source) => turn,
            end = early(stream) => return Err(end),
        };
        let Ok(turn) = turn else { return Ok(Err(Refusal::Busy)) };
        let done = tokio::task::spawn_blocking(move || {
            // The work keeps its turn until it is done, even if nobody waits for it any more.
            let _turn = turn;
            check_now(&*store, &blocks, name, &password, source)
        });
        Ok(done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "checking a password failed");
            Err(Refusal::Internal)
        }))
    }
}

/// Completes when a link ends, or says something, before it was answered.
async fn early<S: AsyncRead + Unpin>(stream: &mut S) -> NotAdmitted {
    match stream.read(&mut [0]).await {
        Ok(0) => NotAdmitted::Link(LinkError::Io(ErrorKind::UnexpectedEof.into())),
        Ok(_) => NotAdmitted::Stranger,
        Err(error) => NotAdmitted::Link(LinkError::Io(error)),
    }
}

/// Counts, then looks the account up and hashes. Takes long.
fn check_now(
    store: &dyn MetaStore,
    blocks: &Blocks,
    name: Option<Name>,
    password: &Password,
    source: Source,
) -> Result<Account, Refusal> {
    let key = name.as_ref().map_or(NO_NAME.to_owned(), Name::to_string);
    let attempt =
        blocks.begin(&key, source).map_err(|Blocked { seconds }| Refusal::Blocked { seconds })?;
    let account = name.map_or(Ok(None), |name| store.account(&name)).map_err(internal)?;
    let stored = account.as_ref().map(|account| account.password.as_str());
    let right = password::verify(&password.0, stored).map_err(|error| {
        tracing::error!(user = key, %error, "set the password anew: xfer-server user passwd {key}");
        Refusal::Internal
    })?;
    let account = account.filter(|_| right).ok_or(Refusal::WrongPassword)?;
    blocks.succeed(attempt);
    Ok(account)
}

fn internal(error: StoreError) -> Refusal {
    tracing::error!(%error, "an account can't be read");
    Refusal::Internal
}

/// Greets, and hears what the link is for. One that loses its place is told so.
async fn hear<S>(
    stream: &mut S,
    mut place: Place,
    deadline: Instant,
) -> Result<Opening, NotAdmitted>
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

/// Refuses a link. It may be gone already, or take nothing.
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

/// A stranger's words, fit to be shown: short, and without what can't be seen.
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
