//! Read links: questions about a session's tree, answered in any order.
//!
//! A question is answered from the tree as of the last op applied. The questions of a session take
//! turns at its tree with its ops. Calls to the store without that turn are bounded for all
//! sessions together. A question that waits for its tree, even during a long op, takes neither a
//! thread nor a place that another session could use.
//!
//! An answer is encoded at once and held as the bytes to be sent, which are bounded for each
//! session and for all together (`answer_room`).
//!
//! **Invariant:** an answer with a content's bytes holds only data of the node in question, within
//! its size. Other nodes may share the content and have more of it: a user who truncates a file and
//! sends it sends only the part that is left.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use xfer_protocol::codec;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{BLOCK_BYTES, MESSAGE_BYTES_MAX, PAGE_BYTES, READ_BYTES_MAX};
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response};
use xfer_protocol::tree::{Delivery, Item, Need, Node, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, Seq};

use crate::engine::deliveries::exchange::Exchange;
use crate::engine::link::answer_room::Held;
use crate::engine::session::Session;
use crate::engine::session::counters::{Counters, add};
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::Tree;
use crate::engine::tree::holding;
use crate::engine::tree::listing::list;
use crate::engine::tree::refusing::{storage, unmade};
use xfer_link::patience::Patient;
use xfer_link::{LinkError, receive_after, send_encoded};
use xfer_store::StoreError;

/// The most questions of one link that are answered at a time.
const LINK_WORK_MAX: usize = 64;

/// How long a question waits until the op that it names is applied.
const AFTER_PATIENCE: Duration = Duration::from_secs(120);

/// The size at which a page of a delivery's items ends, in bytes.
const ITEMS_BYTES: usize = 4 * PAGE_BYTES;

/// The most that an answer takes up without the content's bytes, nodes and items in it, in bytes.
const SMALL_ANSWER_BYTES: usize = 256;

/// A read link's session, with the parts of the engine that answer its questions.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) session: Arc<Session>,
    pub(crate) stores: Stores,
    pub(crate) exchange: Arc<Exchange>,
    /// Bounds the questions that use the store without their tree's turn, on all links together.
    pub(crate) work: Arc<Semaphore>,
}

/// An encoded answer that waits to be sent.
struct Answered {
    message: Vec<u8>,
    payload: Vec<u8>,
    /// Given back when the answer is sent.
    _held: Option<Held>,
}

/// An encoded response, and its payload.
type Written = (Vec<u8>, Vec<u8>);

impl Reading {
    /// Answers questions until the link or the session ends.
    ///
    /// The client may be silent for as long as it likes between two questions, but not in the
    /// middle of one.
    pub(crate) async fn serve<R, W>(self, mut reader: Patient<R>, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, mut answered) = mpsc::channel::<Answered>(1);
        let session = self.session.clone();
        // Dropping this set, when the function returns, aborts all tasks of the link.
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
            biased;
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
                // A message with an error is too short to exceed the bound.
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
        let place = acquire(&self.session.reads.work).await?;
        let reading = self.clone();
        // A separate task keeps the places until the store has answered, even if the link ends
        // before, because a call to the store can't be cancelled.
        let answered = tokio::spawn(async move {
            let _place = place;
            let written = reading.answer_now(request).await?;
            held.shrink(written.0.capacity() + written.1.capacity());
            Ok((written, held))
        });
        answered.await.unwrap_or(Err(ReadError::Storage))
    }

    async fn wait_applied(&self, after: Seq) -> Result<(), ReadError> {
        let mut applied = self.session.position.follow_applied();
        let reached = applied.wait_for(|applied| *applied >= after);
        match tokio::time::timeout(AFTER_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            // Can't happen: the session holds the sender.
            Ok(Err(_)) => Err(ReadError::Ended),
            Err(_) => Err(ReadError::Invalid),
        }
    }

    #[tracing::instrument(level = "trace", skip(self), fields(user = %self.session.user()))]
    async fn answer_now(&self, request: Request) -> Result<Written, ReadError> {
        let Request { id, after: _, ask } = request;
        match ask {
            Ask::Node(ino) => {
                let _turn = self.turn().await?;
                write_down(id, Answer::Node(self.node(ino).await?.map(Arc::unwrap_or_clone)))
            }
            Ask::Entry(parent, name) => {
                let _turn = self.turn().await?;
                write_down(id, self.entry(parent, name).await?)
            }
            Ask::List { directory, after } => {
                let _turn = self.turn().await?;
                self.node(directory)
                    .await?
                    .filter(|node| node.is_directory())
                    .ok_or(ReadError::NoDirectory)?;
                let pages = list(&self.stores.store, &self.session, directory, after).await?;
                write_down(id, Answer::Pages(pages))
            }
            Ask::Read { ino, content, offset, len } => {
                let end = offset.checked_add(u64::from(len)).ok_or(ReadError::Invalid)?;
                let data = self.read(ino, content, offset..end).await?;
                add(&self.session.counters().bytes_out, data.len() as u64);
                Ok((write_down(id, Answer::Data)?.0, data))
            }
            Ask::Delivery { id: delivery, from } => {
                let _turn = self.turn().await?;
                write_down(id, items(self.delivery(delivery).await?.as_deref(), from as usize))
            }
            Ask::State(delivery) => {
                let _place = acquire(&self.work).await?;
                let deliveries = &self.stores.store.deliveries;
                let state = deliveries.state(self.session.account(), delivery).await;
                write_down(id, Answer::State(state.map_err(storage)?))
            }
            Ask::Reserve { to, ino, bytes, items } => {
                let _place = acquire(&self.work).await?;
                let size = Usage { bytes, nodes: u64::from(items) };
                self.exchange.reserve(&self.session, to, ino, size).await?;
                write_down(id, Answer::Reserved)
            }
        }
    }

    /// Takes the turn at the session's tree for a question, and trims the tree if it is too large.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        let turn = self.session.tree.turn().await.map_err(no_tree)?;
        self.session.tree.with(Tree::trim).map_err(no_tree)?;
        Ok(turn)
    }

    /// Makes an attempt on the tree until it misses no rows.
    async fn attempt<T>(
        &self,
        attempt: impl FnMut(&mut Tree) -> Result<T, Vec<Need>>,
    ) -> Result<T, ReadError> {
        let made = holding::attempt(&self.stores.store, &self.session.tree, attempt).await;
        made.map_err(unmade)
    }

    /// Looks up a node as of the last op applied.
    async fn node(&self, ino: Ino) -> Result<Option<Arc<Node>>, ReadError> {
        self.attempt(|tree| tree.node(ino)).await
    }

    /// Looks up an entry as of the last op applied. The table does not keep it, because a client
    /// could ask for any number of names, even in directories that don't exist.
    async fn entry(&self, parent: Ino, name: Name) -> Result<Answer, ReadError> {
        let known = self.session.tree.with(|tree| tree.entry(parent, &name)).map_err(no_tree)?;
        let ino = match known {
            Ok(ino) => ino,
            Err(needs) => {
                let trees = &self.stores.store.trees;
                let mut found = trees.load(self.session.account(), needs).await.map_err(storage)?;
                let ino = found.entries.drain(..).find_map(|(_, _, ino)| ino);
                self.session.tree.with(|tree| tree.fill(found)).map_err(no_tree)?;
                ino
            }
        };
        let Some(ino) = ino else { return Ok(Answer::Entry(None)) };
        let node = self.node(ino).await?;
        Ok(Answer::Entry(node.map(|node| (ino, Arc::unwrap_or_clone(node)))))
    }

    /// Looks up a delivery that waits for this user as of the last op applied. A missing delivery
    /// may still arrive, so the table notes only one that is present.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Arc<Delivery>>, ReadError> {
        let known = self.session.tree.with(|tree| tree.delivery(id)).map_err(no_tree)?;
        let needs = match known {
            Ok(delivery) => return Ok(delivery),
            Err(needs) => needs,
        };
        let trees = &self.stores.store.trees;
        let mut found = trees.load(self.session.account(), needs).await.map_err(storage)?;
        found.deliveries.retain(|(_, delivery)| delivery.is_some());
        let delivery = found.deliveries.first().and_then(|(_, delivery)| delivery.clone());
        self.session.tree.with(|tree| tree.fill(found)).map_err(no_tree)?;
        Ok(delivery)
    }

    /// Reads bytes of a node's content. This happens without the tree's turn, so the content may be
    /// removed meanwhile; then the node has another content.
    async fn read(
        &self,
        ino: Ino,
        content: ContentId,
        range: Range<u64>,
    ) -> Result<Vec<u8>, ReadError> {
        self.must_have(ino, content, &range).await?;
        let place = acquire(&self.work).await?;
        let read = self.stores.store.contents.read(content, range.clone()).await;
        drop(place);
        let error = match read {
            Ok(data) => return Ok(data),
            Err(error) => error,
        };
        self.must_have(ino, content, &range).await?;
        if !matches!(error, StoreError::Damaged(_)) {
            return Err(storage(error));
        }
        let (session, trees) = (&self.session, &*self.stores.store.trees);
        let _place = acquire(&self.work).await?;
        session.damage.report(trees, (session.user(), session.account()), ino, &error).await;
        Err(ReadError::Damaged)
    }

    /// Checks that all bytes of the range are data of the node, in this content. Answering zeros for
    /// other bytes would be wrong: the client takes the answer for the bytes of the content, and
    /// another of its nodes may share that content and have data there.
    async fn must_have(
        &self,
        ino: Ino,
        content: ContentId,
        range: &Range<u64>,
    ) -> Result<(), ReadError> {
        let _turn = self.session.tree.turn().await.map_err(no_tree)?;
        let node = self.node(ino).await?;
        let has = node.is_some_and(|node| {
            node.file().is_some_and(|data| data.content == Some(content) && data.is_data(range))
        });
        has.then_some(()).ok_or(ReadError::OtherContent)
    }
}

/// The items of a delivery from the index `from` on, as many as fit into an answer.
fn items(delivery: Option<&Delivery>, from: usize) -> Answer {
    let rest = delivery.and_then(|delivery| delivery.items.get(from..)).unwrap_or(&[]);
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
    Answer::Items { items, last }
}

/// Encodes a response at once, because the values that it is made of take several times as much
/// memory.
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

/// The most bytes that the answer to a question can take up.
fn bytes_max(ask: &Ask) -> Result<usize, ReadError> {
    match ask {
        Ask::Read { len, .. } if *len as usize > READ_BYTES_MAX => Err(ReadError::Invalid),
        Ask::Read { len, .. } => Ok(*len as usize + SMALL_ANSWER_BYTES),
        // Even a single node may have a large map of extents, or large attributes.
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

/// The size of an item in a message, in bytes, or a generous guess.
fn size(item: &Item) -> usize {
    codec::encode(item).map_or(BLOCK_BYTES as usize, |bytes| bytes.len())
}
