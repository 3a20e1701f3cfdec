//! Read links: questions to the server, answered in any order.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response};
use xfer_protocol::{Errno, Seq};

use crate::session::{Dial, Reader, Writer};
use xfer_link::LinkError;
use xfer_link::patience::{Heard, Looks, Patient};

/// How many links questions are spread over: so that a long answer does not hold up short ones.
const LINKS: usize = 3;

/// Questions that wait to be written, on each link.
const QUEUE: usize = 256;

/// How long a question waits while nothing comes over its link.
const ANSWER_SILENCE: Duration = Duration::from_secs(30);

/// An answer, with the bytes that came along.
pub(super) type Answered = (Answer, Bytes);

/// The session's read links. The first is opened with the session; the others, and those that broke,
/// when they are needed.
pub(super) struct ReadLinks {
    dial: Dial,
    places: [Place; LINKS],
    next: AtomicUsize,
}

/// A link that is open.
#[derive(Clone)]
struct Link {
    questions: mpsc::Sender<Question>,
    heard: Heard,
}

/// A place for a link.
#[derive(Default)]
struct Place {
    link: Mutex<Option<Link>>,
    /// Held by whoever opens one here.
    opening: tokio::sync::Mutex<()>,
}

impl Place {
    /// The link, if there is one that is not broken.
    fn link(&self) -> Option<Link> {
        let link = self.link.lock();
        link.as_ref().filter(|link| !link.questions.is_closed()).cloned()
    }
}

impl Link {
    /// Asks, and gives nothing if the link breaks before the answer. The wait goes on as long as
    /// bytes arrive, of this answer or of an earlier one.
    async fn ask(&self, after: Seq, ask: Ask) -> Result<Option<Reply>, Unanswered> {
        let (reply, answered) = oneshot::channel();
        let asking = async {
            self.questions.send(Question { after, ask, reply }).await.ok()?;
            answered.await.ok()
        };
        tokio::pin!(asking);
        let (mut looks, mut before) = (Looks::new(ANSWER_SILENCE), self.heard.count());
        loop {
            let is_silent = tokio::select! {
                biased;
                reply = &mut asking => return Ok(reply),
                is_silent = poll_fn(|cx| looks.poll_look(cx)) => is_silent,
            };
            let now = self.heard.count();
            if now != before {
                before = now;
                looks.found();
            } else if is_silent {
                return Err(Unanswered::Late);
            }
        }
    }
}

/// What is answered, or why the server says that it can't be.
type Reply = Result<Answered, ReadError>;

struct Question {
    after: Seq,
    ask: Ask,
    reply: oneshot::Sender<Reply>,
}

/// Questions that were written and not answered; `None` once the link is broken.
type Pending = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Reply>>>>>;

impl ReadLinks {
    pub(super) fn new(dial: Dial) -> ReadLinks {
        ReadLinks { dial, places: Default::default(), next: AtomicUsize::new(0) }
    }

    /// Opens a link that nobody needs yet, so that the first question does not wait for it.
    pub(super) async fn open_first(self: Arc<Self>) {
        // Whoever asks will try again, and be told if it fails.
        let _ = self.open(0).await;
    }

    /// Asks, on a link that may have to be opened first. If that link breaks, once more on another:
    /// every question may be asked twice.
    #[tracing::instrument(level = "trace", skip(self))]
    pub(super) async fn ask(
        self: &Arc<Self>,
        after: Seq,
        ask: Ask,
    ) -> Result<Answered, Unanswered> {
        let answer = match self.link().await?.ask(after, ask.clone()).await? {
            Some(answer) => answer,
            None => self.link().await?.ask(after, ask).await?.ok_or(Unanswered::Broken)?,
        };
        Ok(answer?)
    }

    /// The link whose turn it is, or while that is being opened, any other that is there.
    async fn link(self: &Arc<Self>) -> io::Result<Link> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LINKS;
        if let Some(link) = self.places[turn].link() {
            return Ok(link);
        }
        let Some(other) = self.places.iter().find_map(Place::link) else {
            return self.open(turn).await;
        };
        if self.places[turn].opening.try_lock().is_ok() {
            let links = self.clone();
            tokio::spawn(async move { links.open(turn).await });
        }
        Ok(other)
    }

    async fn open(&self, place: usize) -> io::Result<Link> {
        let place = &self.places[place];
        let _opening = place.opening.lock().await;
        if let Some(link) = place.link() {
            return Ok(link);
        }
        let (reader, writer) = (self.dial)().await?;
        let reader = Patient::new(reader, Duration::from_millis(SILENCE_TIMEOUT_MS));
        let (sender, questions) = mpsc::channel(QUEUE);
        let link = Link { questions: sender, heard: reader.heard() };
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let (alive, ended) = oneshot::channel();
        tokio::spawn(receive(reader, pending.clone(), alive));
        tokio::spawn(transmit(writer, questions, pending, ended));
        *place.link.lock() = Some(link.clone());
        Ok(link)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The server says so.
    #[error(transparent)]
    Refused(#[from] ReadError),
    /// No link could be opened.
    #[error("cannot open a read link: {0}")]
    NoLink(#[from] io::Error),
    /// Two links broke before the answer.
    #[error("the read links broke")]
    Broken,
    /// The server says nothing.
    #[error("the server does not answer")]
    Late,
    /// The session ended before.
    #[error("the connection was lost")]
    Lost,
}

impl Unanswered {
    /// What an operation fails with for it.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Unanswered::Refused(ReadError::OtherContent) => Errno::ESTALE,
            Unanswered::Refused(ReadError::NoDirectory | ReadError::NoUser) => Errno::ENOENT,
            Unanswered::Refused(ReadError::InboxFull) => Errno::EDQUOT,
            Unanswered::Late => Errno::ETIMEDOUT,
            Unanswered::Refused(
                ReadError::Invalid | ReadError::Storage | ReadError::Ended | ReadError::Damaged,
            )
            | Unanswered::NoLink(_)
            | Unanswered::Broken
            | Unanswered::Lost => Errno::EIO,
        }
    }
}

/// Writes questions until nobody asks any more or the link breaks.
async fn transmit(
    mut writer: Writer,
    mut questions: mpsc::Receiver<Question>,
    pending: Pending,
    mut ended: oneshot::Receiver<()>,
) {
    let mut id = 0u32;
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            _ = &mut ended => None,
        };
        let Some(Question { after, ask, reply }) = question else { break };
        id = id.wrapping_add(1);
        match pending.lock().as_mut() {
            Some(pending) => drop(pending.insert(id, reply)),
            None => return,
        }
        let request = Request { id, after, ask };
        if let Err(error) = xfer_link::send(&mut writer, &request, &[], Bounds::REQUEST).await {
            tracing::warn!("a read link broke: {error}");
            break;
        }
    }
    pending.lock().take();
}

/// Hands answers out until the link breaks; then whoever still waits is told by its end, and so is
/// the task that writes, by the end of `_alive`.
async fn receive(mut reader: Patient<Reader>, pending: Pending, _alive: oneshot::Sender<()>) {
    loop {
        let (response, payload) = match next_response(&mut reader).await {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!("a read link ended: {error}");
                break;
            }
        };
        let reply = match pending.lock().as_mut() {
            Some(pending) => pending.remove(&response.id),
            None => break,
        };
        match reply {
            // Who asked may have stopped waiting.
            Some(reply) => drop(reply.send(response.answer.map(|answer| (answer, payload)))),
            None => {
                tracing::error!("the server answered a question that was not asked");
                break;
            }
        }
    }
    pending.lock().take();
}

/// The link may be silent between two answers, but not in the midst of one.
async fn next_response(reader: &mut Patient<Reader>) -> Result<(Response, Bytes), LinkError> {
    let first = reader.first_byte().await?;
    xfer_link::receive_after(first, reader, Bounds::OPEN).await
}
