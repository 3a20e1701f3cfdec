//! Sending what a client has left that is gone: its session goes on for as long as that takes.
//!
//! **Invariant:** it is settled only once it is durable on the server, or is kept as a rescue.

use std::io;
use std::sync::Arc;

use xfer_protocol::Seq;
use xfer_protocol::message::{Purpose, Refusal, Terms, Wish};

use crate::connect::{Begin, Bid, Dial, EndpointError, LogLink, NewSession, Ticket};
use crate::core::{Change, Ending, LinkLoss, Options, Trace};
use crate::drive::{Client, Journal, Rescue, Surroundings};

/// The new client's requests to resume the session have numbers from so much higher on, since its
/// predecessor may have made some that it did not note.
const ATTEMPTS_APART: u64 = 1 << 32;

/// The changes that a client has left, and its claim to the session.
pub struct Leftover {
    ticket: Ticket,
    trace: Vec<Trace>,
}

/// Why they could not be sent or kept now. They stay for the next time.
#[derive(Debug)]
pub enum Unsent {
    /// The claim can't be noted on this machine's disk.
    Disk(io::Error),
    /// They can't be kept as a rescue.
    Unkept(io::Error),
    /// Another client has the account.
    InUse(EndpointError),
    /// The server can't be reached, or refuses for now.
    Unreachable(EndpointError),
    /// The link was lost meanwhile.
    LinkLost(LinkLoss),
}

impl Leftover {
    /// What a journal has: the claim that was noted last, and the trace.
    pub fn new(noted: Ticket, trace: Vec<Trace>) -> Leftover {
        // What is before the first change that was kept was durable by then.
        let first = trace.iter().find_map(Trace::change).map_or(0, |change| change.seq.0);
        let durable = noted.durable.max(Seq(first.saturating_sub(1)));
        let attempt = noted.attempt + ATTEMPTS_APART;
        Leftover { ticket: Ticket { durable, attempt, ..noted }, trace }
    }

    /// Sends the changes, and ends the session. What the server no longer takes is given to
    /// `rescue`. `journal` is where the claim is noted meanwhile.
    ///
    /// # Errors
    /// If neither is possible now.
    pub async fn settle(
        &self,
        dial: Arc<dyn Dial>,
        purpose: Purpose,
        options: &Options,
        journal: Arc<dyn Journal>,
        rescue: &dyn Rescue,
        surroundings: Surroundings,
    ) -> Result<(), Unsent> {
        // Before it is used, since the server takes no request with this number a second time.
        journal.note_ticket(self.ticket.clone()).await.map_err(Unsent::Disk)?;
        // As a login would: the server then waits no longer than it must for a client that is away.
        let terms = Terms { handoff: false, ..options.terms() };
        let bid = Bid { wish: Wish::Now, terms };
        let link = match dial.log_link(Begin::Resume(self.ticket.clone(), bid)).await {
            Ok(link) => link,
            Err(error) if error.holder().is_some() && purpose == Purpose::Mount => {
                return Err(Unsent::InUse(error));
            }
            Err(error) if error.holder().is_some() || error.ends_session().is_some() => {
                let ended =
                    error.ends_session().map(|refusal| Ending::Refused(refusal).to_string());
                return self.give_up(rescue, ended.unwrap_or_else(|| error.to_string())).await;
            }
            Err(error) => return Err(Unsent::Unreachable(error)),
        };
        // What is kept already is not written again: this client knows less of where it belongs.
        let options = Options { offline_bytes: None, ..options.clone() };
        let surroundings = Surroundings { journal: Some(journal.clone()), ..surroundings };
        let replay = Replay { dial, attempt: self.ticket.attempt, options, surroundings };
        match link.missed.clone() {
            None => self.send(link, replay, rescue).await,
            Some(missed) => {
                // Before the server learns that this client knows of the changes.
                if self.changes_after(missed.base).next().is_some() {
                    self.give_up(rescue, Ending::Displaced.to_string()).await?;
                }
                // Also before this client notes that it knows, since what the journal has then is sent.
                journal.replace(Vec::new()).await.map_err(Unsent::Disk)?;
                // A session that can't be ended now is replaced by the next one.
                let _ = replay.of(link, Vec::new()).await;
                Ok(())
            }
        }
    }

    fn changes_after(&self, seq: Seq) -> impl Iterator<Item = &Change> {
        self.trace.iter().filter_map(Trace::change).filter(move |change| change.seq > seq)
    }

    /// Sends what the server has not applied.
    async fn send(&self, link: LogLink, replay: Replay, rescue: &dyn Rescue) -> Result<(), Unsent> {
        let applied = link.grant.applied;
        let rest: Vec<_> = self.changes_after(applied).cloned().collect();
        if !is_gapless(&rest, applied) {
            return self.give_up(rescue, Ending::Refused(Refusal::RolledBack).to_string()).await;
        }
        match replay.of(link, rest).await {
            Ok(()) => Ok(()),
            Err(ending @ Ending::LinkLost(LinkLoss::DiskFull)) => {
                self.give_up(rescue, ending.to_string()).await
            }
            Err(Ending::LinkLost(loss)) => Err(Unsent::LinkLost(loss)),
            Err(ending) => self.give_up(rescue, ending.to_string()).await,
        }
    }

    async fn give_up(&self, rescue: &dyn Rescue, why: String) -> Result<(), Unsent> {
        rescue.keep(why, self.trace.clone()).await.map_err(Unsent::Unkept)
    }
}

/// The parts of a client that only sends.
struct Replay {
    dial: Arc<dyn Dial>,
    attempt: u64,
    options: Options,
    surroundings: Surroundings,
}

impl Replay {
    /// Sends these changes, and ends the session.
    async fn of(self, link: LogLink, changes: Vec<Change>) -> Result<(), Ending> {
        let Replay { dial, attempt, options, surroundings } = self;
        let session = NewSession { link, dial };
        let sent = Client::replay(session, attempt, changes, options, surroundings).await;
        sent.map_err(|lost| lost.ending)
    }
}

/// Whether changes follow on those that the server has applied, and on each other.
fn is_gapless(changes: &[Change], applied: Seq) -> bool {
    changes.iter().map(|change| change.seq.0).eq((applied.0 + 1..).take(changes.len()))
}
