//! Bounds on a session's questions: links, work and memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::link::answer_room::AnswerShare;

/// The most questions of a session that are answered at a time.
const WORK_MAX: usize = 16;

/// The most read links of a session.
const LINKS_MAX: usize = 32;

/// The bounds of one session.
pub(crate) struct ReadBounds {
    links: Arc<Semaphore>,
    /// Bounds the questions being answered, on all read links together.
    pub(crate) work: Arc<Semaphore>,
    /// Bounds the bytes of answers that are not sent yet.
    pub(crate) answers: Arc<AnswerShare>,
}

impl ReadBounds {
    pub(crate) fn new(answers: Arc<AnswerShare>) -> ReadBounds {
        ReadBounds {
            links: Arc::new(Semaphore::new(LINKS_MAX)),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            answers,
        }
    }

    /// Takes a place for one more read link, if there is one.
    pub(crate) fn take_link(&self) -> Option<OwnedSemaphorePermit> {
        self.links.clone().try_acquire_owned().ok()
    }
}
