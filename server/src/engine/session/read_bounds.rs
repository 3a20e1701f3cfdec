//! What a session's questions may take up: links, work and memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::link::answer_room::AnswerShare;

/// How many questions of a session are in work at a time.
const WORK_MAX: usize = 16;

/// How many read links a session may have.
const LINKS_MAX: usize = 32;

/// The bounds of one session.
pub(crate) struct ReadBounds {
    links: Arc<Semaphore>,
    /// Bounds the questions in work, on all read links together.
    pub(crate) work: Arc<Semaphore>,
    /// Bounds the bytes of answers that are not sent yet.
    pub(crate) answers: Arc<AnswerShare>,
}

impl ReadBounds {
    /// Nothing is taken up yet.
    pub(crate) fn new(answers: Arc<AnswerShare>) -> ReadBounds {
        ReadBounds {
            links: Arc::new(Semaphore::new(LINKS_MAX)),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            answers,
        }
    }

    /// Room for one more read link, if there may be one.
    pub(crate) fn take_link(&self) -> Option<OwnedSemaphorePermit> {
        self.links.clone().try_acquire_owned().ok()
    }
}
