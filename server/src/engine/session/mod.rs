//! A session: who has it, its tree, and how to reach whoever serves its log link.
//!
//! It is apart from the link: it knows a queue to the client, not the connection beneath.
//!
//! **Invariant:** the tree is touched only on threads that may block, under its mutex, and is never
//! held across an await. The mutex is a fair one: questions get their turn between the ops of a log
//! that never pauses.

pub(crate) mod counters;
pub(crate) mod damage;
pub(crate) mod registry;
pub(crate) mod begin;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use xfer_protocol::message::{DeliveryState, EndReason, Secret, ToClient};
use xfer_protocol::{DeliveryId, Epoch, Name, Seq, SessionId, Timestamp};
use xfer_store::{Account, AccountId};

use crate::engine::link::answer_room::AnswerShare;
use crate::engine::session::counters::{Counters, Counts};
use crate::engine::session::damage::Damage;
use crate::engine::tree::Tree;

/// How many messages may wait for a client to read them.
const OUTGOING_MAX: usize = 1024;

/// How much news may wait for a client to hear it.
const NEWS_MAX: usize = 1 << 16;

/// How many messages made of news wait beside the session's own.
const TOLD_NEWS_MAX: usize = 16;

/// How many questions of a session are in work at a time.
const READ_WORK_MAX: usize = 16;

/// How many read links a session may have.
const READ_LINKS_MAX: usize = 32;

/// News from other users' sessions. There may be much of it at once, so it waits apart from what
/// the session itself has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// Something was sent to this user.
    Arrived,
    /// Something that this user sent was accepted, declined or refused.
    Settled(DeliveryId, DeliveryState),
}

/// What waits to be said to a client.
pub(crate) struct Queues {
    /// Messages, in order.
    pub(crate) outgoing: mpsc::Receiver<ToClient>,
    /// Messages made of news. They have a queue of their own, so that others' doings never make
    /// this client one that lets too much wait.
    pub(crate) told_news: mpsc::Receiver<ToClient>,
    /// News that messages are to be made of.
    pub(crate) news: mpsc::Receiver<News>,
}

/// What a session is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// Tell the client to send what it has and log out, and end by this moment.
    Drain { reason: EndReason, deadline: Instant },
    /// The link broke: nothing can be said any more.
    Lost { why: String },
    /// End now, with what was applied made durable.
    End { reason: EndReason },
}

impl Order {
    fn is_stronger(&self, other: &Order) -> bool {
        match (self, other) {
            (Order::Drain { deadline, .. }, Order::Drain { deadline: held, .. }) => deadline < held,
            (
                Order::Run | Order::Drain { .. } | Order::Lost { .. } | Order::End { .. },
                Order::Run | Order::Drain { .. } | Order::Lost { .. } | Order::End { .. },
            ) => self.rank() > other.rank(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Order::Run => 0,
            Order::Drain { .. } => 1,
            Order::Lost { .. } | Order::End { .. } => 2,
        }
    }
}

/// The tree is not there (yet, or any more).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTree;

/// What the admin sees of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// The user.
    pub user: Name,
    /// The client's host, as it named itself.
    pub host: String,
    /// The client's address.
    pub address: String,
    /// When it began.
    pub since: Timestamp,
    /// Which session of the account it is.
    pub epoch: Epoch,
    /// The last op applied.
    pub applied: Seq,
    /// The last op that is durable.
    pub durable: Seq,
    /// What it did so far.
    pub counts: Counts,
}

/// A session of an account.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) account: AccountId,
    pub(crate) user: Name,
    /// The hash of the password that was given for it.
    password: String,
    pub(crate) host: String,
    pub(crate) address: String,
    pub(crate) since: Timestamp,
    pub(crate) counters: Counters,
    /// The last op applied.
    pub(crate) applied: watch::Sender<Seq>,
    outgoing: mpsc::Sender<ToClient>,
    told_news: mpsc::Sender<ToClient>,
    news: mpsc::Sender<News>,
    order: watch::Sender<Order>,
    over: watch::Sender<bool>,
    tree: Mutex<Place>,
    durable: AtomicU64,
    epoch: OnceLock<Epoch>,
    read_links: Arc<Semaphore>,
    /// Bounds what is in work for it on read links.
    pub(crate) read_work: Arc<Semaphore>,
    /// Bounds the bytes of answers to it that are not sent yet.
    pub(crate) answers: Arc<AnswerShare>,
    /// One at a time, ops and questions, in the order in which they came.
    tree_turn: Arc<Semaphore>,
    /// How many wait for their turn at the tree.
    tree_waiting: AtomicUsize,
    /// Which of its files are known to be damaged.
    pub(crate) damage: Damage,
    /// Its tree was taken away.
    ended: AtomicBool,
}

/// Where a session's tree is, if it is there.
#[derive(Default)]
struct Place {
    tree: Option<Tree>,
    /// Set while something is done with the tree, and for good after a panic in the midst of that.
    at_work: bool,
}

/// Who a session is for.
pub(crate) struct Holder {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) account: AccountId,
    pub(crate) user: Name,
    pub(crate) password: String,
    pub(crate) host: String,
    pub(crate) address: String,
    pub(crate) since: Timestamp,
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// A session without a tree yet, and what it has to say to its client.
    pub(crate) fn new(holder: Holder, answers: Arc<AnswerShare>) -> (Session, Queues) {
        let (outgoing, outgoing_end) = mpsc::channel(OUTGOING_MAX);
        let (told_news, told_news_end) = mpsc::channel(TOLD_NEWS_MAX);
        let (news, news_end) = mpsc::channel(NEWS_MAX);
        let Holder { id, secret, account, user, password, host, address, since } = holder;
        let session = Session {
            id,
            secret,
            account,
            user,
            password,
            host,
            address,
            since,
            counters: Counters::default(),
            applied: watch::Sender::new(Seq::default()),
            outgoing,
            told_news,
            news,
            order: watch::Sender::new(Order::Run),
            over: watch::Sender::new(false),
            tree: Mutex::default(),
            durable: AtomicU64::new(0),
            epoch: OnceLock::new(),
            read_links: Arc::new(Semaphore::new(READ_LINKS_MAX)),
            read_work: Arc::new(Semaphore::new(READ_WORK_MAX)),
            answers,
            tree_turn: Arc::new(Semaphore::new(1)),
            tree_waiting: AtomicUsize::new(0),
            damage: Damage::default(),
            ended: AtomicBool::new(false),
        };
        let (outgoing, told_news, news) = (outgoing_end, told_news_end, news_end);
        (session, Queues { outgoing, told_news, news })
    }

    /// Whether this is its secret; takes the same time whether it is or not.
    pub(crate) fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.0.ct_eq(&secret.0).into()
    }

    /// Says something to the client. One that lets more wait than it may is cut off.
    pub(crate) fn tell(&self, message: ToClient) {
        if self.outgoing.try_send(message).is_err() {
            self.end(EndReason::Protocol("the client does not read".to_owned()));
        }
    }

    /// Tells the client news, as soon as there is room for it.
    pub(crate) async fn tell_news(&self, message: ToClient) {
        // Nobody is left to hear it once the session is over.
        let _ = self.told_news.send(message).await;
    }

    /// Passes on news. Others send it, so too much of it is dropped rather than held against this
    /// client, which asks for deliveries and their states at its next login anyway.
    pub(crate) fn pass_on(&self, news: News) {
        if self.news.try_send(news).is_err() {
            tracing::debug!(user = %self.user, "too much news");
        }
    }

    /// Says the last word, for which the client gets some time.
    pub(crate) async fn tell_last(&self, message: ToClient, patience: Duration) {
        // One that is not taken in time is for a client that does not read.
        let _ = tokio::time::timeout(patience, self.outgoing.send(message)).await;
    }

    /// Asks the client to log out within `patience`.
    pub(crate) fn drain(&self, reason: EndReason, patience: Duration) {
        self.order(Order::Drain { reason, deadline: Instant::now() + patience });
    }

    /// Ends the session.
    pub(crate) fn end(&self, reason: EndReason) {
        self.order(Order::End { reason });
    }

    /// Ends the session since its link broke.
    pub(crate) fn lose_link(&self, why: String) {
        self.order(Order::Lost { why });
    }

    /// What it is told to do.
    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }

    /// Waits until the session is over.
    pub(crate) async fn wait_over(&self) {
        let mut over = self.over.subscribe();
        // The sender is part of `self`, so this can't fail.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Notes that nothing of the session will change anything any more.
    pub(crate) fn set_over(&self) {
        self.over.send_replace(true);
    }

    /// A place for one more read link, if there may be one.
    pub(crate) fn take_read_link(&self) -> Option<OwnedSemaphorePermit> {
        self.read_links.clone().try_acquire_owned().ok()
    }

    /// Begins, with the tree of the account as it was then. Said once.
    pub(crate) fn begin(&self, account: &Account, tree: Tree) {
        self.epoch.get_or_init(|| account.epoch);
        self.set_durable(tree.applied());
        self.set_tree(tree);
    }

    /// Which session of the account it is, once it has begun.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch.get().copied()
    }

    /// Whether this account may still have this session: it is the same, with the very password
    /// that was given.
    pub(crate) fn may_be_of(&self, account: &Account) -> bool {
        account.id == self.account && account.password == self.password
    }

    fn set_tree(&self, tree: Tree) {
        self.applied.send_replace(tree.applied());
        self.tree.lock().tree = Some(tree);
    }

    /// Notes how far the log is durable, for the admin to see.
    pub(crate) fn set_durable(&self, seq: Seq) {
        self.durable.store(seq.0, Ordering::Relaxed);
    }

    /// Waits for a turn at the tree, without a thread.
    pub(crate) async fn tree_turn(&self) -> Result<OwnedSemaphorePermit, NoTree> {
        self.tree_waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.tree_waiting);
        // It is never closed.
        self.tree_turn.clone().acquire_owned().await.map_err(|_| NoTree)
    }

    /// Whether somebody waits for a turn at the tree.
    pub(crate) fn is_tree_awaited(&self) -> bool {
        self.tree_waiting.load(Ordering::Relaxed) > 0
    }

    /// Does something with the tree. Blocks. What takes long, or may come often, waits for its turn
    /// first.
    pub(crate) fn with_tree<T>(&self, work: impl FnOnce(&mut Tree) -> T) -> Result<T, NoTree> {
        let mut place = self.tree.lock();
        if std::mem::replace(&mut place.at_work, true) {
            return Err(NoTree);
        }
        let done = place.tree.as_mut().map(work).ok_or(NoTree);
        place.at_work = false;
        done
    }

    /// Takes the tree away for good, even after a panic in the midst of a change.
    pub(crate) fn take_tree(&self) -> Option<Tree> {
        self.ended.store(true, Ordering::Release);
        self.tree.lock().tree.take()
    }

    /// Whether its tree was taken away, so that what it asks for comes too late.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo {
            user: self.user.clone(),
            host: self.host.clone(),
            address: self.address.clone(),
            since: self.since,
            epoch: self.epoch().unwrap_or_default(),
            applied: *self.applied.borrow(),
            durable: Seq(self.durable.load(Ordering::Relaxed)),
            counts: self.counters.counts(),
        }
    }

    /// A weaker order never replaces a stronger one; of two to drain, the earlier deadline holds.
    fn order(&self, new: Order) {
        self.order.send_if_modified(|order| {
            let stronger = new.is_stronger(order);
            if stronger {
                *order = new;
            }
            stronger
        });
    }
}
