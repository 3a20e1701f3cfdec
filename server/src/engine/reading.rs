//! Read links: questions about a session's tree, answered in any order.
//!
//! A question is answered on a thread that may block, from the tree as of the last op applied; how
//! many are in work on one link, of one session, and in all, is bounded, and so are the bytes of
//! answers that are not written yet.
//!
//! **Invariant:** of a content, only what is data of the node asked about is answered, and nothing past
//! its size. Others may have the content too, with more of it: who sends a file that was cut short
//! sends what is left of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use xfer_protocol::codec;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{BLOCK_BYTES, PAGE_BYTES, READ_BYTES_MAX};
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response};
use xfer_protocol::tree::{FileData, Item, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, Seq};

use super::counters::{Counters, add};
use super::listing::{list, storage};
use super::post::Post;
use super::session::{NoTree, Session};
use super::tree::Stores;
use crate::store::StoreError;
use xfer_link::patience::Patient;
use xfer_link::{LinkError, receive_after, send};

/// How many questions of one link are in work at a time.
const LINK_WORK_MAX: usize = 64;

/// How long a question waits for the ops it is to be answered after.
const AFTER_PATIENCE: Duration = Duration::from_secs(120);

/// The size at which a page of a delivery's items ends, in bytes.
const ITEMS_BYTES: usize = 4 * PAGE_BYTES;

/// What an answer counts for that is neither bytes nor a listing nor a delivery's items, in bytes.
const SMALL_ANSWER_BYTES: usize = 4 << 10;

/// What answering needs.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) session: Arc<Session>,
    pub(super) stores: Stores,
    pub(super) post: Arc<Post>,
    /// Bounds what is in work on all links together.
    pub(super) work: Arc<Semaphore>,
    /// Bounds the bytes of answers on all links together.
    pub(super) bytes: Arc<Semaphore>,
}

/// An answer on its way, with its payload.
struct Answered {
    response: Response,
    payload: Vec<u8>,
    /// Given back when the answer is written.
    _permits: Option<Permits>,
}

/// Room for an answer: of the session's, and of all.
type Permits = [OwnedSemaphorePermit; 2];

impl Reading {
    /// Answers what comes, until the link or the session ends.
    ///
    /// Between two questions the client may be silent for as long as it likes, but not in the midst
    /// of one.
    pub(super) async fn serve<R, W>(self, mut reader: Patient<R>, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, mut answered) = mpsc::channel::<Answered>(1);
        let session = self.session.clone();
        // Dropped with this function, and with it all that works for the link.
        let mut tasks = JoinSet::<Result<(), LinkError>>::new();
        tasks.spawn(async move {
            while let Some(answered) = answered.recv().await {
                send(&mut writer, &answered.response, &answered.payload, Bounds::OPEN).await?;
            }
            Ok(())
        });
        tasks.spawn(async move {
            let room = Arc::new(Semaphore::new(LINK_WORK_MAX));
            let mut work = JoinSet::new();
            loop {
                let first = reader.first_byte().await?;
                let (request, _) =
                    receive_after::<Request, _>(first, &mut reader, Bounds::OPEN).await?;
                while work.try_join_next().is_some() {}
                let Ok(permit) = room.clone().acquire_owned().await else { return Ok(()) };
                let (reading, answers) = (self.clone(), answers.clone());
                work.spawn(async move {
                    let answered = reading.answer(request).await;
                    // The permit is kept until the answer has its place in the queue.
                    let _ = answers.send(answered).await;
                    drop(permit);
                });
            }
        });
        tokio::select! {
            ended = tasks.join_next() => {
                if let Some(Ok(Err(error))) = ended {
                    tracing::debug!(user = %session.user, %error, "a read link ended");
                }
            }
            () = session.wait_over() => {}
        }
    }

    async fn answer(self, request: Request) -> Answered {
        let Request { id, after, ask } = request;
        count(&self.session.counters, &ask);
        let (answer, payload, room) = match self.answer_in_turn(after, ask).await {
            Ok(((answer, payload), room)) => (Ok(answer), payload, Some(room)),
            Err(error) => (Err(error), Vec::new(), None),
        };
        let response = Response { id, answer };
        match codec::encode(&response) {
            Ok(_) => Answered { response, payload, _permits: room },
            Err(error) => {
                tracing::error!(%error, "an answer is too long");
                let response = Response { id, answer: Err(ReadError::Storage) };
                Answered { response, payload: Vec::new(), _permits: None }
            }
        }
    }

    async fn answer_in_turn(
        self,
        after: Seq,
        ask: Ask,
    ) -> Result<((Answer, Vec<u8>), Permits), ReadError> {
        self.wait_applied(after).await?;
        let bytes = bytes_max(&ask)?;
        // The session's own first: one who waits there keeps nothing from the others.
        let own = acquire(&self.session.answer_bytes, bytes).await?;
        let room = [own, acquire(&self.bytes, bytes).await?];
        Ok((self.answer_blocking(ask).await?, room))
    }

    async fn wait_applied(&self, after: Seq) -> Result<(), ReadError> {
        let mut applied = self.session.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= after);
        match tokio::time::timeout(AFTER_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The session, which holds the sender, is there.
            Ok(Err(_)) => Err(ReadError::Ended),
            Err(_) => Err(ReadError::Invalid),
        }
    }

    async fn answer_blocking(self, ask: Ask) -> Result<(Answer, Vec<u8>), ReadError> {
        // Many questions of a session may wait for one op of its own: not in others' places.
        let own = acquire(&self.session.read_work, 1).await?;
        let permits = [own, acquire(&self.work, 1).await?];
        let answered = spawn_blocking(move || {
            let answered = self.answer_now(ask);
            drop(permits);
            answered
        });
        answered.await.unwrap_or(Err(ReadError::Storage))
    }

    #[tracing::instrument(level = "trace", skip(self), fields(user = %self.session.user))]
    fn answer_now(&self, ask: Ask) -> Result<(Answer, Vec<u8>), ReadError> {
        let answer = match ask {
            Ask::Node(ino) => self.node(ino)?,
            Ask::Entry(parent, name) => self.entry(parent, &name)?,
            Ask::List { directory, after } => {
                let pages = self.session.with_tree(|tree| list(tree, directory, after.as_ref()));
                Answer::Pages(pages.map_err(no_tree)??)
            }
            Ask::Read { ino, content, offset, len } => {
                let data = self.read(ino, content, offset, len as usize)?;
                add(&self.session.counters.bytes_out, data.len() as u64);
                return Ok((Answer::Data, data));
            }
            Ask::Delivery { id, from } => self.items(id, from as usize)?,
            Ask::State(id) => {
                let state = self.stores.meta.delivery_state(self.session.account, id);
                Answer::State(state.map_err(storage)?)
            }
            Ask::Reserve { to, bytes, items } => {
                let size = Usage { bytes, nodes: u64::from(items) };
                self.post.reserve(&self.session, &to, size)?;
                Answer::Reserved
            }
        };
        Ok((answer, Vec::new()))
    }

    fn node(&self, ino: Ino) -> Result<Answer, ReadError> {
        let node = self.session.with_tree(|tree| {
            tree.trim();
            tree.node(ino)
        });
        let node = node.map_err(no_tree)?.map_err(storage)?;
        Ok(Answer::Node(node.map(Arc::unwrap_or_clone)))
    }

    fn entry(&self, parent: Ino, name: &Name) -> Result<Answer, ReadError> {
        let found = self.session.with_tree(|tree| -> Result<_, StoreError> {
            tree.trim();
            let Some(ino) = tree.entry(parent, name)? else { return Ok(None) };
            Ok(tree.node(ino)?.map(|node| (ino, Arc::unwrap_or_clone(node))))
        });
        Ok(Answer::Entry(found.map_err(no_tree)?.map_err(storage)?))
    }

    /// Bytes of a node's content. They are read without the tree's lock, so the content may go
    /// meanwhile: then the node has another one.
    fn read(
        &self,
        ino: Ino,
        content: ContentId,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let range = offset..offset.checked_add(len as u64).ok_or(ReadError::Invalid)?;
        self.must_have(ino, content, &range)?;
        let mut data = vec![0; len];
        match self.stores.contents.read(content, offset, &mut data) {
            Ok(count) => {
                data.truncate(count);
                Ok(data)
            }
            Err(error @ StoreError::Damaged(_)) => {
                self.must_have(ino, content, &range)?;
                let Session { user, account, damage, .. } = &*self.session;
                damage.report(&*self.stores.meta, (user, *account), ino, &error);
                Err(ReadError::Damaged)
            }
            Err(error) => {
                self.must_have(ino, content, &range)?;
                Err(storage(error))
            }
        }
    }

    fn must_have(&self, ino: Ino, content: ContentId, range: &Range<u64>) -> Result<(), ReadError> {
        let node = self.session.with_tree(|tree| tree.node(ino));
        let node = node.map_err(no_tree)?.map_err(storage)?;
        let has = node.is_some_and(|node| {
            node.file().is_some_and(|data| data.content == Some(content) && may_read(data, range))
        });
        has.then_some(()).ok_or(ReadError::OtherContent)
    }

    fn items(&self, id: DeliveryId, from: usize) -> Result<Answer, ReadError> {
        let delivery = self.session.with_tree(|tree| tree.delivery(id));
        let delivery = delivery.map_err(no_tree)?.map_err(storage)?;
        let rest = delivery.as_ref().and_then(|delivery| delivery.items.get(from..)).unwrap_or(&[]);
        let mut bytes = 0;
        let mut items = Vec::new();
        for item in rest {
            bytes += size(item);
            if bytes > ITEMS_BYTES && !items.is_empty() {
                break;
            }
            items.push(item.clone());
        }
        let last = items.len() == rest.len();
        Ok(Answer::Items { items, last })
    }
}

fn count(counters: &Counters, ask: &Ask) {
    add(&counters.reads, 1);
    match ask {
        Ask::Node(_) | Ask::Entry(..) => add(&counters.looks, 1),
        Ask::List { .. } => add(&counters.listings, 1),
        Ask::Read { .. } => add(&counters.fetches, 1),
        Ask::Delivery { .. } | Ask::State(_) | Ask::Reserve { .. } => {}
    }
}

fn no_tree(_: NoTree) -> ReadError {
    ReadError::Ended
}

/// Whether a range of the node's content is the node's own to see. Zeros in place of what is not
/// would be wrong: the client takes what is answered for what the content holds, which another of
/// its nodes may have there.
fn may_read(data: &FileData, range: &Range<u64>) -> bool {
    let runs = || data.extents.data_in(data.size, range.clone());
    range.is_empty() || range.end <= data.size && runs().first() == Some(range)
}

/// The most bytes that an answer holds, about.
fn bytes_max(ask: &Ask) -> Result<usize, ReadError> {
    match ask {
        Ask::Read { len, .. } if *len as usize > READ_BYTES_MAX => Err(ReadError::Invalid),
        Ask::Read { len, .. } => Ok(*len as usize),
        Ask::List { .. } => Ok(PAGE_BYTES),
        Ask::Delivery { .. } => Ok(ITEMS_BYTES),
        Ask::Node(_) | Ask::Entry(..) | Ask::State(_) | Ask::Reserve { .. } => {
            Ok(SMALL_ANSWER_BYTES)
        }
    }
}

async fn acquire(of: &Arc<Semaphore>, count: usize) -> Result<OwnedSemaphorePermit, ReadError> {
    // No question is for more than a few MiB, and no semaphore is ever closed.
    let count = u32::try_from(count).map_err(|_| ReadError::Invalid)?;
    of.clone().acquire_many_owned(count).await.map_err(|_| ReadError::Storage)
}

/// What an item takes up in a message, in bytes, counted generously.
fn size(item: &Item) -> usize {
    codec::encode(item).map_or(BLOCK_BYTES as usize, |bytes| bytes.len())
}
