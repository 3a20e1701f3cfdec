//! The beginning of a link, until the client is identified.
//!
//! All code that a stranger can reach is here: small frames, one deadline for all of them, and the
//! same answer for an unknown name and a wrong password. The engine takes over from there.
//!
//! **Invariant:** a login reaches the engine only after its client has proved that it acts for the
//! account.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::OPENING_TIMEOUT_MS;
use xfer_protocol::message::{
    Binding, ClientHello, Credential, Done, Opened, Opening, PublicKey, Purpose, Refusal, Resume,
    Secret, ServerHello, Task, Terms, VERSION,
};
use xfer_protocol::{Name, SessionId, user};

use crate::listener::half_open::Slot;
use crate::login::authority::Authority;
use crate::login::checking::{Checker, Enrolling, Identified, shortened};
use crate::login::outcomes::{Evidence, Logins};
use crate::login::source::Source;
use crate::login::tasks::TaskDone;
use crate::login::turns::Turns;
use xfer_link::LinkError;
use xfer_store::{AccountId, Register};

/// The server's name and version in its greeting.
pub const SOFTWARE: &str = concat!("xfer-server ", env!("CARGO_PKG_VERSION"));

/// The longest part of a client's host name or software that is kept, in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// The number of passwords that are hashed at a time; each takes a core and 64 MiB.
const TURNS_RUNNING: usize = 2;

/// The most clients that wait for that: about ten seconds' worth, less than clients wait.
const TURNS_WAITING: usize = 128;

/// The longest time to send a refusal.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client that logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authenticated {
    /// The account.
    pub account: AccountId,
    /// The account's name.
    pub user: Name,
    /// By what right. It may be lost before the session begins.
    pub authority: Authority,
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
    /// None any more: a task was done, which the engine still has to hear of and to answer.
    Task(TaskDone),
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
    #[error("'{user}' was refused: {refusal}")]
    Refused {
        /// The user name that the client gave.
        user: String,
        /// The refusal that it was sent.
        refusal: Refusal,
    },
}

/// Checks logins, and does tasks that need no session.
pub struct Door {
    checker: Arc<Checker>,
    turns: Arc<Turns>,
    logins: Logins,
}

impl Door {
    /// A door to the accounts of this store.
    pub fn new(register: Register) -> Door {
        let Register { accounts, failures, keys } = register;
        let checker = Arc::new(Checker::new(accounts, failures, keys));
        let turns = Turns::new(TURNS_RUNNING, TURNS_WAITING);
        Door { checker, turns, logins: Logins::default() }
    }

    /// The number of clients that wait for a password to be hashed.
    pub fn waiting(&self) -> usize {
        self.turns.waiting()
    }

    /// How checks of clients came out.
    pub fn logins(&self) -> &Logins {
        &self.logins
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
            Opening::Login { user, credential, purpose, host, key, replaces, terms } => {
                let client = Client { user: &user, address, binding };
                match self.identify(stream, client, credential).await? {
                    Ok(Identified { account, authority }) => Ok(Admitted::Log(Authenticated {
                        account: account.id,
                        user: account.name,
                        authority,
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
            Opening::Account { user, credential, task } => {
                let client = Client { user: &user, address, binding };
                match self.perform(stream, client, credential, task).await? {
                    Ok(done) => Ok(Admitted::Task(done)),
                    Err(refusal) => turn_away(stream, &user, refusal).await,
                }
            }
        }
    }

    /// Checks what a client shows; a password in its turn, unless the client hangs up first.
    async fn identify<S>(
        &self,
        stream: &mut S,
        client: Client<'_>,
        credential: Credential,
    ) -> Result<Result<Identified, Refusal>, NotAdmitted>
    where
        S: AsyncRead + Unpin,
    {
        let Client { user, address, binding } = client;
        let shown = Evidence::of(&credential);
        let identified = match credential {
            Credential::Password(password) => {
                let (checker, user) = (self.checker.clone(), user.to_owned());
                let source = Source::of(address);
                let check = async move { checker.password(&user, password, source).await };
                self.in_turn(stream, source, check).await?
            }
            Credential::Device { key, proof } => {
                self.checker.device(user, (key, proof), binding).await
            }
            // It is good for enrolling a device alone.
            Credential::Invitation(_) => Err(Refusal::UsedInvitation),
        };
        self.logins.note(shown, &identified);
        Ok(identified)
    }

    /// Does a task of a client that acts for its account, in its turn.
    async fn perform<S>(
        &self,
        stream: &mut S,
        client: Client<'_>,
        credential: Credential,
        task: Task,
    ) -> Result<Result<TaskDone, Refusal>, NotAdmitted>
    where
        S: AsyncRead + Unpin,
    {
        let Client { user, address, binding } = client;
        let (checker, source) = (self.checker.clone(), Source::of(address));
        match (credential, task) {
            (Credential::Invitation(code), Task::Enrol { key, proof, label, password }) => {
                let key = match (Enrolling { key, proof, label }).checked(user, binding) {
                    Ok(key) => key,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let user = user.to_owned();
                let enrol = async move {
                    let done = checker.invitation(&user, code, (key, password), source).await;
                    done.map(|user| TaskDone::quiet(user.clone(), Done::Enrolled { user }))
                };
                let enrolled = self.in_turn(stream, source, enrol).await?;
                self.logins.note(Evidence::Invitation, &enrolled);
                Ok(enrolled)
            }
            (credential, task) => match self.identify(stream, client, credential).await? {
                Ok(client) => {
                    let perform = async move { checker.perform(client, task, binding).await };
                    self.in_turn(stream, source, perform).await
                }
                Err(refusal) => Ok(Err(refusal)),
            },
        }
    }

    /// Does slow work for a client in its turn, unless the client hangs up before that.
    async fn in_turn<S, T>(
        &self,
        stream: &mut S,
        source: Source,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<Result<T, Refusal>, NotAdmitted>
    where
        S: AsyncRead + Unpin,
        T: Send + 'static,
    {
        let turn = tokio::select! {
            turn = self.turns.wait(source) => turn,
            end = early(stream) => return Err(end),
        };
        let Ok(turn) = turn else { return Ok(Err(Refusal::Busy)) };
        let done = tokio::spawn(async move {
            // Work that has begun keeps its turn to the end, even if its client has gone.
            let _turn = turn;
            work.await
        });
        Ok(done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "work for a client that logs in failed");
            Err(Refusal::Internal)
        }))
    }
}

/// A client that has not proved anything yet.
#[derive(Clone, Copy)]
struct Client<'a> {
    /// The name of the account, as the client gave it.
    user: &'a str,
    address: IpAddr,
    /// Stands for its TLS connection.
    binding: Binding,
}

/// Resolves if a link ends, or sends something, before it was answered.
async fn early<S: AsyncRead + Unpin>(stream: &mut S) -> NotAdmitted {
    match stream.read(&mut [0]).await {
        Ok(0) => NotAdmitted::Link(LinkError::Io(ErrorKind::UnexpectedEof.into())),
        Ok(_) => NotAdmitted::Stranger,
        Err(error) => NotAdmitted::Link(LinkError::Io(error)),
    }
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

/// Makes text from a stranger fit to be shown.
fn label(text: &str) -> String {
    shortened(text, LABEL_BYTES_MAX)
}
