//! The session's read links: questions are spread over them, and links that broke are opened again.
//!
//! **Invariant:** every question may be asked twice, so that one whose link broke is asked on
//! another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use xfer_protocol::message::{Ask, Grant, ReadError, Silence};
use xfer_protocol::{Errno, Seq};

use super::read_link::{Answered, Late, ReadLink};
use super::traffic::Traffic;
use crate::connect::{Credentials, Dial, EndpointError};
use crate::drive::tasks::Tasks;

/// The number of links. There are several, so that a long answer does not hold up short ones.
const LINKS: usize = 3;

/// The session's read links. The first is opened with the session. The others, and those that
/// broke, are opened when they are needed.
pub(in crate::drive) struct ReadLinks {
    dial: Arc<dyn Dial>,
    /// Those of the present log link, and how long the server may be silent.
    granted: Mutex<(Credentials, Silence)>,
    slots: [Slot; LINKS],
    next: AtomicUsize,
    traffic: Arc<Traffic>,
    tasks: Tasks,
}

/// The place of one link.
#[derive(Default)]
struct Slot {
    link: Mutex<Option<ReadLink>>,
    /// Held while a link is being opened here.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    /// The link, if there is one and it is not broken.
    fn link(&self) -> Option<ReadLink> {
        self.link.lock().as_ref().filter(|link| !link.is_broken()).cloned()
    }
}

impl ReadLinks {
    pub(in crate::drive) fn new(
        dial: Arc<dyn Dial>,
        grant: &Grant,
        traffic: Arc<Traffic>,
        runtime: Handle,
    ) -> ReadLinks {
        let (slots, next) = (Default::default(), AtomicUsize::new(0));
        let (granted, tasks) = (Mutex::new(granted(grant)), Tasks::new(runtime));
        ReadLinks { dial, granted, traffic, slots, next, tasks }
    }

    /// Opens a link before it is needed, so that the first question does not wait for it.
    pub(in crate::drive) async fn open_first(self: Arc<Self>) {
        // The first question tries again, and gets the error if there is one.
        let _ = self.open(0).await;
    }

    /// How long the server may be silent on any link, as it last granted.
    pub(in crate::drive) fn silence(&self) -> Silence {
        self.granted.lock().1
    }

    /// Closes all links. The questions on them stay without an answer.
    pub(in crate::drive) fn close(&self) {
        self.slots.iter().for_each(|slot| drop(slot.link.lock().take()));
        self.tasks.abort_all();
    }

    /// Opens all further links by this grant. One that was being opened by another goes.
    pub(in crate::drive) fn renew(&self, grant: &Grant) {
        *self.granted.lock() = granted(grant);
        self.close();
    }

    /// Asks a question, on a link that may have to be opened first. If that link breaks, or nothing comes
    /// over it for too long, it is asked once more on another.
    #[tracing::instrument(level = "trace", skip(self))]
    pub(in crate::drive) async fn ask(
        self: &Arc<Self>,
        after: Seq,
        ask: Ask,
    ) -> Result<Answered, Unanswered> {
        let link = self.link().await?;
        let answer = match link.ask(after, ask.clone()).await {
            Ok(Some(answer)) => answer,
            broken => {
                // It may be that link alone: the server speaks on the log link.
                if broken.is_err() {
                    self.give_up(&link);
                }
                self.link().await?.ask(after, ask).await?.ok_or(Unanswered::Broken)?
            }
        };
        Ok(answer?)
    }

    /// Asks nothing more over a link.
    fn give_up(&self, link: &ReadLink) {
        for slot in &self.slots {
            drop(slot.link.lock().take_if(|there| there.is_same(link)));
        }
    }

    /// The link whose turn it is. While that one is being opened, any other that is open.
    async fn link(self: &Arc<Self>) -> Result<ReadLink, EndpointError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LINKS;
        if let Some(link) = self.slots[turn].link() {
            return Ok(link);
        }
        let Some(other) = self.slots.iter().find_map(Slot::link) else {
            return self.open(turn).await;
        };
        if self.slots[turn].opening.try_lock().is_ok() {
            let links = self.clone();
            self.tasks.spawn(async move { drop(links.open(turn).await) });
        }
        Ok(other)
    }

    async fn open(&self, slot: usize) -> Result<ReadLink, EndpointError> {
        let slot = &self.slots[slot];
        let _opening = slot.opening.lock().await;
        if let Some(link) = slot.link() {
            return Ok(link);
        }
        let (credentials, silence) = self.granted.lock().clone();
        let (reader, writer) = self.dial.read_link(credentials).await?;
        let (reader, writer) = self.traffic.counted(reader, writer);
        let link = ReadLink::serve(reader, writer, silence, &self.tasks);
        *slot.link.lock() = Some(link.clone());
        Ok(link)
    }
}

fn granted(grant: &Grant) -> (Credentials, Silence) {
    (Credentials::new(grant), grant.silence)
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::drive) enum Unanswered {
    /// The server gave a reason.
    #[error(transparent)]
    Refused(#[from] ReadError),
    /// No link could be opened.
    #[error("cannot open a read link: {0}")]
    NoLink(#[from] EndpointError),
    /// Two links broke before the answer.
    #[error("the read links broke")]
    Broken,
    /// Nothing came over the link for too long.
    #[error("the server does not answer")]
    Late,
    /// The link to the server has been down for too long.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The session ended first.
    #[error("the connection was lost")]
    Over,
}

impl From<Late> for Unanswered {
    fn from(_: Late) -> Unanswered {
        Unanswered::Late
    }
}

impl Unanswered {
    /// Whether the link is to blame, so that another one may bring the answer.
    pub(in crate::drive) fn is_of_link(&self) -> bool {
        match self {
            Unanswered::NoLink(_)
            | Unanswered::Broken
            | Unanswered::Late
            | Unanswered::Refused(ReadError::Ended) => true,
            Unanswered::Refused(
                ReadError::OtherContent
                | ReadError::NoDirectory
                | ReadError::NoUser
                | ReadError::InboxFull
                | ReadError::Invalid
                | ReadError::Storage
                | ReadError::Damaged,
            )
            | Unanswered::Unreachable
            | Unanswered::Over => false,
        }
    }

    /// The errno for the operation that asked.
    pub(in crate::drive) fn errno(&self) -> Errno {
        match self {
            Unanswered::Refused(ReadError::OtherContent) => Errno::ESTALE,
            Unanswered::Refused(ReadError::NoDirectory | ReadError::NoUser) => Errno::ENOENT,
            Unanswered::Refused(ReadError::InboxFull) => Errno::EDQUOT,
            Unanswered::Late | Unanswered::Unreachable => Errno::ETIMEDOUT,
            Unanswered::Refused(
                ReadError::Invalid | ReadError::Storage | ReadError::Ended | ReadError::Damaged,
            )
            | Unanswered::NoLink(_)
            | Unanswered::Broken
            | Unanswered::Over => Errno::EIO,
        }
    }
}
