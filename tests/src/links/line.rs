//! The way from a client to an engine in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{DuplexStream, split};
use xfer_client::connect::{
    Begin, Bid, Credentials, Dial, Dialling, EndpointError, LogLink, Missed, Phase, Reader, Ticket,
    Writer,
};
use xfer_link::proof::SessionKey;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{Binding, Changed, Opened, Purpose, Resume, Return, Terms};
use xfer_protocol::{Name, SessionId};
use xfer_server::engine::Engine;
use xfer_server::login::opening::{Authenticated, Resuming};
use xfer_store::Store;

use super::cable::Cable;
use super::peers::Reached;

/// The address from which clients come.
const ADDRESS: &str = "192.0.2.1";

/// The way to an engine over a cable. It lets everybody in, whatever the password.
pub(super) struct Line {
    pub(super) reached: Reached,
    pub(super) user: Name,
    /// Proves that the session is this client's.
    pub(super) key: Arc<SessionKey>,
    pub(super) cable: Cable,
    /// Whether it hides what others have changed.
    pub(super) hides: Arc<AtomicBool>,
}

impl Line {
    /// The engine that is reached, and its store.
    fn reach(&self) -> Result<(Arc<Engine>, Store), EndpointError> {
        let reached = self.reached.lock().unwrap().clone();
        reached.filter(|_| self.cable.is_whole()).ok_or(EndpointError::NothingThere)
    }

    async fn log_in(
        &self,
        purpose: Purpose,
        replaces: Option<SessionId>,
        terms: Terms,
    ) -> Result<LogLink, EndpointError> {
        let (engine, store) = self.reach()?;
        let account = store.accounts.find(self.user.clone()).await.unwrap().unwrap();
        let who = Authenticated {
            account: account.id,
            user: account.name,
            password: account.password,
            purpose,
            key: self.key.public(),
            replaces,
            terms,
            host: "laptop".to_owned(),
            address: ADDRESS.to_owned(),
        };
        let (ours, theirs) = self.cable.lay_log();
        let (reader, writer) = split(theirs);
        tokio::spawn(async move { engine.run_session(who, reader, writer).await });
        match opened(ours, Phase::Login).await? {
            (Opened::Session(grant), reader, writer) => {
                Ok(LogLink { grant: *grant, missed: None, reader, writer })
            }
            (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
            (Opened::Attached | Opened::Resumed(_) | Opened::Returned(_), ..) => {
                Err(EndpointError::Nonsense("attached"))
            }
        }
    }

    async fn resume(&self, ticket: Ticket, bid: Bid) -> Result<LogLink, EndpointError> {
        let (engine, _) = self.reach()?;
        let Ticket { session, secret, epoch, durable, attempt } = ticket;
        let (user, binding) = (self.user.clone(), Binding::default());
        let proof = self.key.prove(session, binding);
        let user_name = user.to_string();
        let Bid { wish, terms } = bid;
        let request = Resume {
            user: user_name,
            session,
            secret,
            epoch,
            durable,
            attempt,
            wish,
            terms,
            proof,
        };
        let (ours, theirs) = self.cable.lay_log();
        let (reader, writer) = split(theirs);
        let resuming = Resuming { user, request, binding, address: ADDRESS.to_owned() };
        tokio::spawn(async move {
            match engine.prove(resuming).await {
                Ok(proved) => engine.run_resumed(proved, reader, writer).await,
                Err(refusal) => engine.refuse(refusal, writer).await,
            }
        });
        match opened(ours, Phase::Resume).await? {
            (Opened::Resumed(grant), reader, writer) => {
                Ok(LogLink { grant: *grant, missed: None, reader, writer })
            }
            (Opened::Returned(back), reader, writer) => {
                let Return { grant, base, mut changed } = *back;
                if self.hides.load(Ordering::Relaxed) {
                    changed = Changed::Nodes(Vec::new());
                }
                Ok(LogLink { grant, missed: Some(Missed { base, changed }), reader, writer })
            }
            (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
            (Opened::Attached | Opened::Session(_), ..) => Err(EndpointError::Nonsense("attached")),
        }
    }
}

impl Dial for Line {
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink> {
        Box::pin(async move {
            match begin {
                Begin::New { purpose, replaces, terms, .. } => {
                    self.log_in(purpose, replaces, terms).await
                }
                Begin::Resume(ticket, bid) => self.resume(ticket, bid).await,
            }
        })
    }

    fn read_link(&self, credentials: Credentials) -> Dialling<'_, (Reader, Writer)> {
        Box::pin(async move {
            let (engine, _) = self.reach()?;
            let Credentials { session, secret } = credentials;
            let (ours, theirs) = self.cable.lay_reads();
            let (reader, writer) = split(theirs);
            tokio::spawn(async move { engine.run_reads(session, secret, reader, writer).await });
            match opened(ours, Phase::Attach).await? {
                (Opened::Attached, reader, writer) => Ok((reader, writer)),
                (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
                (Opened::Session(_) | Opened::Resumed(_) | Opened::Returned(_), ..) => {
                    Err(EndpointError::Nonsense("logged in"))
                }
            }
        })
    }
}

/// The server's answer to an opening, and the link.
async fn opened(
    ours: DuplexStream,
    phase: Phase,
) -> Result<(Opened, Reader, Writer), EndpointError> {
    let (mut reader, writer) = split(ours);
    let opened = xfer_link::receive::<Opened, _>(&mut reader, Bounds::OPEN).await;
    let broken = |error| EndpointError::Broken(phase, std::io::Error::other(error));
    let (opened, _) = opened.map_err(broken)?;
    Ok((opened, Box::new(reader), Box::new(writer)))
}
