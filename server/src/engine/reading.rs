//! Read links: questions about a session's tree, answered in any order.
//!
//! A question is answered on a thread that may block, from the tree as of the last op applied; how
//! many are in work on one link, and in all, is bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use xfer_protocol::codec;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{BLOCK_BYTES, PAGE_BYTES, READ_BYTES_MAX};
use xfer_protocol::message::{Answer, Ask, ReadError, Request, Response};
use xfer_protocol::tree::{Item, Usage};
use xfer_protocol::{ContentId, DeliveryId, Ino, Name, Seq};

use super::counters::add;
use super::listing::{list, storage};
use super::post::Post;
use super::session::{NoTree, Session};
use super::tree::Stores;
use crate::link::{LinkError, receive, send};
use crate::store::StoreError;

/// How many questions of one link are in work at a time.
const LINK_WORK_MAX: usize = 64;

/// How long a question waits for the ops it is to be answered after.
const AFTER_PATIENCE: Duration = Duration::from_secs(120);

/// The size at which a page of a delivery's items ends, in bytes.
const ITEMS_BYTES: usize = 4 * PAGE_BYTES;

/// What answering needs.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) session: Arc<Session>,
    pub(super) stores: Stores,
    pub(super) post: Arc<Post>,
    /// Bounds what is in work on all links together.
    pub(super) work: Arc<Semaphore>,
}

/// An answer on its way, with its payload.
type Answered = (Response, Vec<u8>);

impl Reading {
    /// Answers what comes, until the link or the session ends.
    pub(super) async fn serve<R, W>(self, mut reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, mut answered) = mpsc::channel::<Answered>(LINK_WORK_MAX);
        let session = self.session.clone();
        // Dropped with this function, and with it all that works for the link.
        let mut tasks = JoinSet::<Result<(), LinkError>>::new();
        tasks.spawn(async move {
            while let Some((response, payload)) = answered.recv().await {
                send(&mut writer, &response, &payload, Bounds::OPEN).await?;
            }
            Ok(())
        });
        tasks.spawn(async move {
            let room = Arc::new(Semaphore::new(LINK_WORK_MAX));
            let mut work = JoinSet::new();
            loop {
                let (request, _) = receive::<Request, _>(&mut reader, Bounds::OPEN).await?;
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
        add(&self.session.counters.reads, 1);
        let answer = match self.wait_applied(after).await {
            Ok(()) => self.answer_blocking(ask).await,
            Err(error) => Err(error),
        };
        let (answer, payload) = match answer {
            Ok((answer, payload)) => (Ok(answer), payload),
            Err(error) => (Err(error), Vec::new()),
        };
        let response = Response { id, answer };
        match codec::encode(&response) {
            Ok(_) => (response, payload),
            Err(error) => {
                tracing::error!(%error, "an answer is too long");
                (Response { id, answer: Err(ReadError::Storage) }, Vec::new())
            }
        }
    }

    async fn wait_applied(&self, after: Seq) -> Result<(), ReadError> {
        let mut applied = self.session.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= after);
        match tokio::time::timeout(AFTER_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::Invalid),
        }
    }

    async fn answer_blocking(self, ask: Ask) -> Result<(Answer, Vec<u8>), ReadError> {
        let permit = self.work.clone().acquire_owned().await.map_err(|_| ReadError::Storage)?;
        let answered = spawn_blocking(move || {
            let answered = self.answer_now(ask);
            drop(permit);
            answered
        });
        answered.await.unwrap_or(Err(ReadError::Storage))
    }

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
                self.post.reserve(self.session.account, &to, size)?;
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
        if len > READ_BYTES_MAX {
            return Err(ReadError::Invalid);
        }
        self.must_have(ino, content)?;
        let mut data = vec![0; len];
        match self.stores.contents.read(content, offset, &mut data) {
            Ok(count) => {
                data.truncate(count);
                Ok(data)
            }
            Err(error) => {
                self.must_have(ino, content)?;
                Err(storage(error))
            }
        }
    }

    fn must_have(&self, ino: Ino, content: ContentId) -> Result<(), ReadError> {
        let node = self.session.with_tree(|tree| tree.node(ino));
        let node = node.map_err(no_tree)?.map_err(storage)?;
        let has = node.is_some_and(|node| node.content() == Some(content));
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

fn no_tree(_: NoTree) -> ReadError {
    ReadError::Storage
}

/// What an item takes up in a message, in bytes, counted generously.
fn size(item: &Item) -> usize {
    codec::encode(item).map_or(BLOCK_BYTES as usize, |bytes| bytes.len())
}
