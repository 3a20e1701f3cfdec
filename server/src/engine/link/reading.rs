//! Read links: questions about a session's tree, answered in any order.
//!
//! A question is answered from the tree as of the last op applied. The questions of a session take
//! turns at its tree with its ops; what is read beside the tree, for all sessions together, is bounded.
//! So whoever waits for a tree, be it for a long op, keeps no thread and nobody else's place.
//!
//! An answer is written down at once and held as the bytes that will be sent, which are bounded for
//! each session and for all (`answer_room`).
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
use xfer_protocol::limits::{BLOCK_BYTES, MESSAGE_BYTES_MAX, PAGE_BYTES, READ_BYTES_MAX};
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response};
use xfer_protocol::tree::{FileData, Item, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, Seq};

use crate::engine::deliveries::post::Post;
use crate::engine::link::answer_room::Held;
use crate::engine::session::Session;
use crate::engine::session::counters::{Counters, add};
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::Tree;
use crate::engine::tree::listing::{list, storage};
use xfer_link::patience::Patient;
use xfer_link::{LinkError, receive_after, send_encoded};
use xfer_store::StoreError;

/// How many questions of one link are in work at a time.
const LINK_WORK_MAX: usize = 64;

/// How long a question waits for the ops it is to be answered after.
const AFTER_PATIENCE: Duration = Duration::from_secs(120);

/// The size at which a page of a delivery's items ends, in bytes.
const ITEMS_BYTES: usize = 4 * PAGE_BYTES;

/// What an answer takes up at most that has neither bytes of a content nor a node nor an item in it, and
/// what others take up beside those, in bytes.
const SMALL_ANSWER_BYTES: usize = 256;

/// What answering needs.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) session: Arc<Session>,
    pub(crate) stores: Stores,
    pub(crate) post: Arc<Post>,
    /// Bounds what is in work beside the trees, on all links together.
    pub(crate) work: Arc<Semaphore>,
}

/// An answer on its way, as it will be sent.
struct Answered {
    message: Vec<u8>,
    payload: Vec<u8>,
    /// Given back when the answer is sent.
    _held: Option<Held>,
}

/// A response that is written down, and its payload.
type Written = (Vec<u8>, Vec<u8>);

impl Reading {
    /// Answers what comes, until the link or the session ends.
    ///
    /// Between two questions the client may be silent for as long as it likes, but not in the midst
    /// of one.
    pub(crate) async fn serve<R, W>(self, mut reader: Patient<R>, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, mut answered) = mpsc::channel::<Answered>(1);
        let session = self.session.clone();
        // Dropped with this function, and with it all that works for the link.
        let mut tasks = JoinSet::<Result<(), LinkError>>::new();
        tasks.spawn(async move {
            while let Some(Answered { message, payload, _held }) = answered.recv().await {
                send_encoded(&mut writer, &message, &[payload], Bounds::OPEN).await?;
            }
            Ok(())
        });
        tasks.spawn(async move {
            let room = Arc::new(Semaphore::new(LINK_WORK_MAX));
            let mut work = JoinSet::new();
            loop {
                let first = reader.first_byte().await?;
                let (request, _) =
                    receive_after::<Request, _>(first, &mut reader, Bounds::REQUEST).await?;
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
                    tracing::debug!(user = %session.user(), %error, "a read link ended");
                }
            }
            () = session.seat.orders.wait_over() => {}
        }
    }

    async fn answer(self, request: Request) -> Answered {
        count(self.session.counters(), &request.ask);
        let id = request.id;
        match self.answer_in_turn(request).await {
            Ok(((message, payload), held)) => Answered { message, payload, _held: Some(held) },
            Err(error) => {
                // So short a message is never too long.
                let message = codec::encode(&Response { id, answer: Err(error) });
                let message = message.unwrap_or_default();
                Answered { message, payload: Vec::new(), _held: None }
            }
        }
    }

    async fn answer_in_turn(&self, request: Request) -> Result<(Written, Held), ReadError> {
        self.wait_applied(request.after).await?;
        let bytes_max = bytes_max(&request.ask)?;
        let mut held = self.session.reads.answers.take(bytes_max).await;
        let _place = acquire(&self.session.reads.work).await?;
        let written = self.answer_now(request).await?;
        held.shrink(written.0.capacity() + written.1.capacity());
        Ok((written, held))
    }

    async fn wait_applied(&self, after: Seq) -> Result<(), ReadError> {
        let mut applied = self.session.position.follow_applied();
        let reached = applied.wait_for(|applied| *applied >= after);
        match tokio::time::timeout(AFTER_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            // The session, which holds the sender, is there.
            Ok(Err(_)) => Err(ReadError::Ended),
            Err(_) => Err(ReadError::Invalid),
        }
    }

    #[tracing::instrument(level = "trace", skip(self), fields(user = %self.session.user()))]
    async fn answer_now(&self, request: Request) -> Result<Written, ReadError> {
        let Request { id, after: _, ask } = request;
        match ask {
            Ask::Node(ino) => self.in_tree(move |tree| write_down(id, node(tree, ino)?)).await,
            Ask::Entry(parent, name) => {
                self.in_tree(move |tree| write_down(id, entry(tree, parent, &name)?)).await
            }
            Ask::List { directory, after } => {
                let list = move |tree: &mut Tree| list(tree, directory, after.as_ref());
                self.in_tree(move |tree| write_down(id, Answer::Pages(list(tree)?))).await
            }
            Ask::Read { ino, content, offset, len } => {
                let end = offset.checked_add(u64::from(len)).ok_or(ReadError::Invalid)?;
                let data = self.read(ino, content, offset..end).await?;
                add(&self.session.counters().bytes_out, data.len() as u64);
                Ok((write_down(id, Answer::Data)?.0, data))
            }
            Ask::Delivery { id: delivery, from } => {
                let items = move |tree: &mut Tree| items(tree, delivery, from as usize);
                self.in_tree(move |tree| write_down(id, items(tree)?)).await
            }
            Ask::State(delivery) => {
                let (meta, account) = (self.stores.meta.clone(), self.session.account());
                let state = move || meta.delivery_state(account, delivery).map_err(storage);
                write_down(id, Answer::State(self.beside_tree(state).await?))
            }
            Ask::Reserve { to, ino, bytes, items } => {
                let size = Usage { bytes, nodes: u64::from(items) };
                let (post, session) = (self.post.clone(), self.session.clone());
                self.beside_tree(move || post.reserve(&session, &to, ino, size)).await?;
                write_down(id, Answer::Reserved)
            }
        }
    }

    /// Asks the tree, when it is this session's questions' turn.
    async fn in_tree<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tree) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let turn = self.session.tree.turn().await.map_err(no_tree)?;
        let session = self.session.clone();
        let done = spawn_blocking(move || {
            let done = session.tree.with(work);
            drop(turn);
            done
        });
        done.await.map_err(|_| ReadError::Storage)?.map_err(no_tree)?
    }

    /// Does what needs no tree, and so never waits for an op.
    async fn beside_tree<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let place = acquire(&self.work).await?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        done.await.unwrap_or(Err(ReadError::Storage))
    }

    /// Bytes of a node's content. They are read without the tree's lock, so the content may go
    /// meanwhile: then the node has another one.
    async fn read(
        &self,
        ino: Ino,
        content: ContentId,
        range: Range<u64>,
    ) -> Result<Vec<u8>, ReadError> {
        let must_have = || {
            let range = range.clone();
            self.in_tree(move |tree| must_have(tree, ino, content, &range))
        };
        must_have().await?;
        let (contents, part) = (self.stores.contents.clone(), range.clone());
        let read = self.beside_tree(move || {
            let mut data = vec![0; (part.end - part.start) as usize];
            let read = contents.read(content, part.start, &mut data);
            Ok(read.map(|count| {
                data.truncate(count);
                data
            }))
        });
        let error = match read.await? {
            Ok(data) => return Ok(data),
            Err(error) => error,
        };
        must_have().await?;
        if !matches!(error, StoreError::Damaged(_)) {
            return Err(storage(error));
        }
        let (session, meta) = (self.session.clone(), self.stores.meta.clone());
        let report = move || {
            session.damage.report(&*meta, (session.user(), session.account()), ino, &error);
            Err(ReadError::Damaged)
        };
        self.beside_tree(report).await
    }
}

fn node(tree: &mut Tree, ino: Ino) -> Result<Answer, ReadError> {
    tree.trim();
    Ok(Answer::Node(tree.node(ino).map_err(storage)?.map(Arc::unwrap_or_clone)))
}

fn entry(tree: &mut Tree, parent: Ino, name: &Name) -> Result<Answer, ReadError> {
    tree.trim();
    let Some(ino) = tree.entry(parent, name).map_err(storage)? else {
        return Ok(Answer::Entry(None));
    };
    let node = tree.node(ino).map_err(storage)?;
    Ok(Answer::Entry(node.map(|node| (ino, Arc::unwrap_or_clone(node)))))
}

fn must_have(
    tree: &mut Tree,
    ino: Ino,
    content: ContentId,
    range: &Range<u64>,
) -> Result<(), ReadError> {
    let node = tree.node(ino).map_err(storage)?;
    let has = node.is_some_and(|node| {
        node.file().is_some_and(|data| data.content == Some(content) && may_read(data, range))
    });
    has.then_some(()).ok_or(ReadError::OtherContent)
}

fn items(tree: &mut Tree, id: DeliveryId, from: usize) -> Result<Answer, ReadError> {
    let delivery = tree.delivery(id).map_err(storage)?;
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

/// A response as it will be sent: what it is made of takes several times as much memory.
fn write_down(id: u32, answer: Answer) -> Result<Written, ReadError> {
    let mut message = codec::encode(&Response { id, answer: Ok(answer) }).map_err(|error| {
        tracing::error!(%error, "an answer is too long");
        ReadError::Storage
    })?;
    message.shrink_to_fit();
    Ok((message, Vec::new()))
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

/// The most bytes that an answer holds.
fn bytes_max(ask: &Ask) -> Result<usize, ReadError> {
    match ask {
        Ask::Read { len, .. } if *len as usize > READ_BYTES_MAX => Err(ReadError::Invalid),
        Ask::Read { len, .. } => Ok(*len as usize + SMALL_ANSWER_BYTES),
        // A single node may have a large map, or large attributes.
        Ask::List { .. } | Ask::Delivery { .. } | Ask::Node(_) | Ask::Entry(..) => {
            Ok(MESSAGE_BYTES_MAX)
        }
        Ask::State(_) | Ask::Reserve { .. } => Ok(SMALL_ANSWER_BYTES),
    }
}

async fn acquire(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ReadError> {
    // No semaphore is ever closed.
    of.clone().acquire_owned().await.map_err(|_| ReadError::Storage)
}

/// What an item takes up in a message, in bytes, counted generously.
fn size(item: &Item) -> usize {
    codec::encode(item).map_or(BLOCK_BYTES as usize, |bytes| bytes.len())
}
