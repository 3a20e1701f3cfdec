//! One read link: questions go up, answers come down in any order.
//!
//! Two tasks serve it, one for each direction. When either ends, the other does too, and all
//! questions that wait are given up.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use xfer_link::LinkError;
use xfer_link::patience::{Heard, Looks, Patient};
use xfer_protocol::Seq;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response, Silence};

use crate::connect::{Reader, Writer};
use crate::drive::tasks::Tasks;

/// The most questions that wait to be written.
const QUEUE: usize = 256;

/// The longest time that a question waits while nothing comes over its link.
const ANSWER_SILENCE: Duration = Duration::from_secs(30);

/// An answer, with the bytes that came with it.
pub(in crate::drive) type Answered = (Answer, Bytes);

/// An answer, or the server's reason why there is none.
pub(in crate::drive) type Reply = Result<Answered, ReadError>;

/// The server sends nothing although a question waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::drive) struct Late;

/// An open link.
#[derive(Clone)]
pub(in crate::drive) struct ReadLink {
    questions: mpsc::Sender<Question>,
    heard: Heard,
}

struct Question {
    after: Seq,
    ask: Ask,
    reply: oneshot::Sender<Reply>,
}

/// The questions that were written and are not answered. `None` once the link is broken.
type Pending = Arc<Mutex<Option<BTreeMap<u32, oneshot::Sender<Reply>>>>>;

impl ReadLink {
    /// Starts the tasks that serve an open link.
    pub(in crate::drive) fn serve(
        reader: Reader,
        writer: Writer,
        silence: Silence,
        tasks: &Tasks,
    ) -> ReadLink {
        let reader = Patient::new(reader, silence.time());
        let (sender, questions) = mpsc::channel(QUEUE);
        let link = ReadLink { questions: sender, heard: reader.heard() };
        let pending: Pending = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let (alive, ended) = oneshot::channel();
        tasks.spawn(receive(reader, pending.clone(), alive));
        tasks.spawn(transmit(writer, questions, pending, ended));
        link
    }

    /// Whether the link broke.
    pub(in crate::drive) fn is_broken(&self) -> bool {
        self.questions.is_closed()
    }

    /// Whether this is the same link.
    pub(in crate::drive) fn is_same(&self, other: &ReadLink) -> bool {
        self.questions.same_channel(&other.questions)
    }

    /// Asks a question. Returns `None` if the link breaks before the answer. The wait continues as
    /// long as bytes arrive, of this answer or of an earlier one.
    pub(in crate::drive) async fn ask(&self, after: Seq, ask: Ask) -> Result<Option<Reply>, Late> {
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
                return Err(Late);
            }
        }
    }
}

/// Writes questions until the link is no longer used, or breaks.
async fn transmit(
    mut writer: Writer,
    mut questions: mpsc::Receiver<Question>,
    pending: Pending,
    mut ended: oneshot::Receiver<()>,
) {
    let mut id = 0u32;
    loop {
        let question = tokio::select! {
            biased;
            _ = &mut ended => None,
            question = questions.recv() => question,
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

/// Passes answers on until the link breaks. Then the end of `pending` tells the questions that
/// still wait, and the end of `_alive` tells the task that writes.
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
            // This fails if the operation that asked was interrupted.
            Some(reply) => drop(reply.send(response.answer.map(|answer| (answer, payload)))),
            None => {
                tracing::error!("the server answered a question that was not asked");
                break;
            }
        }
    }
    pending.lock().take();
}

/// Reads the next answer. The link may be silent before it, but not within it.
async fn next_response(reader: &mut Patient<Reader>) -> Result<(Response, Bytes), LinkError> {
    let first = reader.first_byte().await?;
    xfer_link::receive_after(first, reader, Bounds::OPEN).await
}
