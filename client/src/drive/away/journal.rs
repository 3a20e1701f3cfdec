//! The journal of an offline client: while the link is down, changes are written to this machine's
//! disk, so that a crash does not lose them.
//!
//! The core decides what is written. How, and where, is a [`Journal`]'s business.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::{sleep, timeout};
use xfer_protocol::Seq;

use crate::connect::Ticket;
use crate::core::{Ending, JournalStep, Trace};
use crate::drive::Client;
use crate::durable::is_full;

/// The pause after the disk has failed.
const RETRY: Duration = Duration::from_secs(5);

/// The longest time that the disk may take for the claim to a session.
const NOTE_MAX: Duration = Duration::from_secs(5);

/// Work on this machine's disk.
pub type Writing<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Keeps what a client needs to go on with its session after a crash. Each call is done once its
/// effect is on the disk.
pub trait Journal: Send + Sync + 'static {
    /// Notes the client's claim to its session, in the place of the last one.
    fn note_ticket(&self, ticket: Ticket) -> Writing<'_>;

    /// Adds a part of the trace. If the disk is full ([`is_full`]), what is there is as it was; after
    /// another error, that is not known.
    fn add(&self, trace: Vec<Trace>) -> Writing<'_>;

    /// Puts a whole trace in the place of what there is, at once. Errors mean the same.
    fn replace(&self, trace: Vec<Trace>) -> Writing<'_>;
}

impl Client {
    /// Keeps the journal until the session is over.
    pub(in crate::drive) async fn keep_journal(self: Arc<Self>) {
        let Some(journal) = self.journal.clone() else { return };
        // Whether it is known what is on the disk, and whether the last step was taken.
        let (mut is_sound, mut is_taken) = (true, true);
        while !self.lock().is_over() {
            let writing = self.journaling.lock().await;
            let step = self.lock().journal_step();
            let written = match step {
                JournalStep::None => {
                    drop(writing);
                    self.unkept.notified().await;
                    continue;
                }
                JournalStep::Clear => journal.replace(Vec::new()).await.map(|()| None),
                JournalStep::Add(trace, upto) if is_sound => {
                    journal.add(trace).await.map(|()| Some(upto))
                }
                JournalStep::Add(trace, upto) => journal.replace(trace).await.map(|()| Some(upto)),
            };
            let was_taken = std::mem::replace(&mut is_taken, written.is_ok());
            match written {
                Ok(upto) => {
                    is_sound = true;
                    self.note_kept(upto);
                }
                Err(error) => {
                    is_sound &= is_full(&error);
                    let why = format!("changes cannot be kept on this machine: {error}");
                    if was_taken {
                        tracing::error!("{why}");
                    }
                    self.note_no_more_kept(is_sound, why);
                    drop(writing);
                    sleep(RETRY).await;
                }
            }
            self.tick();
            // A logout may have waited for this.
            self.outgoing.notify_one();
        }
    }

    /// Removes everything from the journal, and keeps it so until the result is dropped. Tries again
    /// for as long as it takes: what is there must not be sent any more.
    ///
    /// # Errors
    /// Why the session is over.
    pub(in crate::drive) async fn clear_journal(&self) -> Result<MutexGuard<'_, ()>, Ending> {
        let writing = self.journaling.lock().await;
        let Some(journal) = &self.journal else { return Ok(writing) };
        let mut was_told = false;
        while let Err(error) = journal.replace(Vec::new()).await {
            if !std::mem::replace(&mut was_told, true) {
                let line = "this mount cannot go on before its journal on this machine is cleared";
                self.lock().note_error(format!("{line}: {error}"));
            }
            tokio::select! {
                biased;
                () = self.wait_over() => return Err(self.ending()),
                () = sleep(RETRY) => {}
            }
        }
        Ok(writing)
    }

    /// Notes that the journal reaches up to an op, or is empty.
    fn note_kept(&self, upto: Option<Seq>) {
        let mut core = self.lock();
        match upto {
            Some(upto) => core.note_kept(upto),
            None => core.note_none_kept(),
        }
    }

    /// Notes that the last step was not taken, and why. What was kept before still is, if the journal is
    /// sound.
    fn note_no_more_kept(&self, is_sound: bool, why: String) {
        let mut core = self.lock();
        match is_sound {
            true => core.note_no_more_kept(),
            false => core.note_none_kept(),
        }
        core.note_trouble(why);
    }

    /// Notes the claim to the session where a crash does not lose it.
    pub(in crate::drive) async fn note_ticket(&self, ticket: &Ticket) {
        let Some(journal) = &self.journal else { return };
        // A disk that hangs must not keep the link from being served.
        let noted = timeout(NOTE_MAX, journal.note_ticket(ticket.clone())).await;
        let noted = noted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut core = self.lock();
        core.note_claim(noted.is_ok());
        if let Err(error) = noted {
            core.note_error(format!(
                "a crash of this machine would lose what is not on the server: {error}"
            ));
        }
    }
}
