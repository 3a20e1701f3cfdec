//! The way from a client to an engine in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{DuplexStream, split};
use xfer_client::connect::{
    Begin, Bid, Credentials, Dial, Dialling, EndpointError, Identity, LogLink, Missed, Phase,
    Reader, Ticket, Writer,
};
use xfer_link::proof::SigningKey;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    Binding, Changed, Credential, Done, Grant, Opened, Opening, Purpose, Resume, Return, Task,
    Terms,
};
use xfer_protocol::{Name, SessionId};
use xfer_server::engine::Engine;
use xfer_server::login::authority::Authority;
use xfer_server::login::opening::{Authenticated, Resuming};
use xfer_store::Store;

use super::cable::Cable;
use super::gate::{Gate, knock};
use super::peers::Reached;

/// The address from which clients come.
const ADDRESS: &str = "192.0.2.1";

/// The name of all clients' hosts.
const HOST: &str = "laptop";

/// How many numbers a client has left that has used up most of them.
const NUMBERS_LEFT: u64 = 1000;

/// The way to an engine over a cable. Without a gate, it lets everybody in, whatever the password.
pub(super) struct Line {
    pub(super) reached: Reached,
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) user: Name,
    /// Proves that the session is this client's.
    pub(super) key: Arc<SigningKey>,
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
        identity: Identity,
        purpose: Purpose,
        replaces: Option<SessionId>,
        terms: Terms,
    ) -> Result<LogLink, EndpointError> {
        let opened = match &self.gate {
            Some(gate) => {
                let (user, key, host) = (self.user.to_string(), self.key.public(), HOST.to_owned());
                let credential = credential(identity, &user);
                let opening =
                    Opening::Login { user, credential, purpose, host, key, replaces, terms };
                self.through(gate, opening, self.cable.lay_log(), Phase::Login).await?
            }
            None => self.walk_in(purpose, replaces, terms).await?,
        };
        match opened {
            (Opened::Session(grant), reader, writer) => {
                Ok(LogLink { grant: self.granted(*grant), missed: None, reader, writer })
            }
            (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
            _ => Err(EndpointError::Nonsense("attached")),
        }
    }

    /// Has a task done, through the gate.
    pub(super) async fn perform(
        &self,
        identity: Identity,
        task: Task,
    ) -> Result<Done, EndpointError> {
        let gate = self.gate.as_ref().expect("a gate, which does tasks");
        let user = self.user.to_string();
        let credential = credential(identity, &user);
        let opening = Opening::Account { user, credential, task };
        let opened = self.through(gate, opening, self.cable.lay_log(), Phase::Login).await?.0;
        match opened {
            Opened::Done(done) => Ok(done),
            Opened::Refused(refusal) => Err(EndpointError::Refused(refusal)),
            _ => Err(EndpointError::Nonsense("attached")),
        }
    }

    /// Begins a link through a gate.
    async fn through(
        &self,
        gate: &Arc<Gate>,
        opening: Opening,
        (mut ours, theirs): (DuplexStream, DuplexStream),
        phase: Phase,
    ) -> Result<(Opened, Reader, Writer), EndpointError> {
        let (engine, _) = self.reach()?;
        let gate = gate.clone();
        let address = ADDRESS.parse().unwrap();
        tokio::spawn(async move { gate.serve(engine, address, theirs).await });
        let opened = knock(&mut ours, &opening, phase).await?;
        let (reader, writer) = split(ours);
        Ok((opened, Box::new(reader), Box::new(writer)))
    }

    /// The grant as its client sees it.
    fn granted(&self, mut grant: Grant) -> Grant {
        if self.cable.wiring().spends_numbers {
            grant.ids.drain(..grant.ids.len().saturating_sub(1));
            for range in &mut grant.ids {
                range.first = range.first.max(range.end.saturating_sub(NUMBERS_LEFT));
            }
        }
        grant
    }

    /// Logs in without a gate.
    async fn walk_in(
        &self,
        purpose: Purpose,
        replaces: Option<SessionId>,
        terms: Terms,
    ) -> Result<(Opened, Reader, Writer), EndpointError> {
        let (engine, store) = self.reach()?;
        let account = store.accounts.find(self.user.clone()).await.unwrap().unwrap();
        let who = Authenticated {
            account: account.id,
            user: account.name,
            authority: Authority::Password(account.password.unwrap_or_default()),
            purpose,
            key: self.key.public(),
            replaces,
            terms,
            host: HOST.to_owned(),
            address: ADDRESS.to_owned(),
        };
        let (ours, theirs) = self.cable.lay_log();
        let (reader, writer) = split(theirs);
        tokio::spawn(async move { engine.run_session(who, reader, writer).await });
        opened(ours, Phase::Login).await
    }

    async fn resume(&self, ticket: Ticket, bid: Bid) -> Result<LogLink, EndpointError> {
        let (engine, _) = self.reach()?;
        let Ticket { session, secret, epoch, durable, attempt } = ticket;
        let (user, binding) = (self.user.clone(), Binding::default());
        let proof = self.key.prove_session(session, binding);
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
        let opened = match &self.gate {
            Some(gate) => {
                let opening = Opening::Resume(Box::new(request));
                self.through(gate, opening, self.cable.lay_log(), Phase::Resume).await?
            }
            None => {
                let (ours, theirs) = self.cable.lay_log();
                let (reader, writer) = split(theirs);
                let resuming = Resuming { user, request, binding, address: ADDRESS.to_owned() };
                tokio::spawn(async move {
                    match engine.prove(resuming).await {
                        Ok(proved) => engine.run_resumed(proved, reader, writer).await,
                        Err(refusal) => engine.refuse(refusal, writer).await,
                    }
                });
                opened(ours, Phase::Resume).await?
            }
        };
        match opened {
            (Opened::Resumed(grant), reader, writer) => {
                Ok(LogLink { grant: self.granted(*grant), missed: None, reader, writer })
            }
            (Opened::Returned(back), reader, writer) => {
                let Return { grant, base, mut changed } = *back;
                if self.hides.load(Ordering::Relaxed) {
                    changed = Changed::Nodes(Vec::new());
                }
                let (grant, missed) = (self.granted(grant), Some(Missed { base, changed }));
                Ok(LogLink { grant, missed, reader, writer })
            }
            (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
            _ => Err(EndpointError::Nonsense("attached")),
        }
    }
}

/// What a client shows on a simulated connection, all of which have the same binding.
fn credential(identity: Identity, user: &str) -> Credential {
    match identity {
        Identity::Password(password) => Credential::Password(password),
        Identity::Device(key) => {
            let proof = key.prove_device(user, Binding::default());
            Credential::Device { key: key.public(), proof }
        }
        Identity::Invitation(code) => Credential::Invitation(code),
    }
}

impl Dial for Line {
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink> {
        Box::pin(async move {
            match begin {
                Begin::New { identity, purpose, replaces, terms } => {
                    self.log_in(identity, purpose, replaces, terms).await
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
            let opened = match &self.gate {
                Some(gate) => {
                    let opening = Opening::Attach { session, secret };
                    self.through(gate, opening, (ours, theirs), Phase::Attach).await?
                }
                None => {
                    let (reader, writer) = split(theirs);
                    let serving = async move {
                        engine.run_reads(session, secret, reader, writer).await;
                    };
                    tokio::spawn(serving);
                    opened(ours, Phase::Attach).await?
                }
            };
            match opened {
                (Opened::Attached, reader, writer) => Ok((reader, writer)),
                (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
                _ => Err(EndpointError::Nonsense("logged in")),
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
