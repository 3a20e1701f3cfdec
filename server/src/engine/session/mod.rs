//! A session: a seat, a tree, a position in the log, and the queues to the client.
//!
//! A session in memory lives as long as its log link, but knows no connection: it gives the reading
//! ends of its queues to the link, which writes the messages in them. When the link is lost, the
//! session is committed and leaves memory. Its seat stands on, and the store keeps all that its
//! client needs to resume it. So a broken link and a crash of the server are the same case.
//!
//! Reading order: `orders` and `counters`, `turn` (the tree), `position`, `queues` and `lending` (to a
//! link), `read_bounds` and `damage`; then `begin`.

pub(crate) mod orders;
pub(crate) mod counters;
pub(crate) mod turn;
pub(crate) mod position;
pub(crate) mod queues;
pub(crate) mod lending;
pub(crate) mod read_bounds;
pub(crate) mod damage;
pub(crate) mod begin;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{EndReason, ToClient};
use xfer_protocol::{Epoch, Name, Seq, Timestamp};
use xfer_store::{Account, AccountId};

use super::link::answer_room::AnswerShare;
use super::seats::seat::Seat;
use super::tree::Tree;
use counters::{Counters, Counts};
use damage::Damage;
use lending::FromLink;
use position::Position;
use queues::{News, Outbound, Queues, queues};
use read_bounds::ReadBounds;
use turn::TreeTurn;

/// A description of a session, for the administrator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// The user whose tree the session holds.
    pub user: Name,
    /// The client's host, as it named itself.
    pub host: String,
    /// The client's address.
    pub address: String,
    /// The time at which the session began.
    pub since: Timestamp,
    /// How long the client has been away; `None` while it has a link.
    pub away: Option<Duration>,
    /// The number of the session among all sessions of its tree.
    pub epoch: Epoch,
    /// The last op applied.
    pub applied: Seq,
    /// The last op that is durable.
    pub durable: Seq,
    /// The session's counts so far.
    pub counts: Counts,
}

pub(crate) struct Session {
    pub(crate) seat: Seat,
    counters: Arc<Counters>,
    /// The link's messages on their way to the driver, once there is a link.
    heard: OnceLock<mpsc::WeakSender<FromLink>>,
    pub(crate) tree: TreeTurn,
    pub(crate) position: Position,
    pub(crate) outbound: Outbound,
    pub(crate) reads: ReadBounds,
    /// The files that are known to be damaged.
    pub(crate) damage: Damage,
}

/// The parts of a new session that are not shared.
pub(crate) struct Ends {
    /// For the link.
    pub(crate) queues: Queues,
    /// For the task that turns news into messages.
    pub(crate) news: mpsc::Receiver<News>,
}

impl Session {
    /// A session that has no tree yet.
    pub(crate) fn new(
        seat: Seat,
        counters: Arc<Counters>,
        answers: Arc<AnswerShare>,
    ) -> (Session, Ends) {
        let (outbound, queues, news) = queues();
        let session = Session {
            seat,
            counters,
            heard: OnceLock::new(),
            tree: TreeTurn::new(),
            position: Position::new(),
            outbound,
            reads: ReadBounds::new(answers),
            damage: Damage::default(),
        };
        (session, Ends { queues, news })
    }

    /// Begins the session with the account and its tree. To be called once.
    pub(crate) fn begin(&self, account: &Account, tree: Tree) {
        self.position.begin(account.epoch, tree.applied());
        self.tree.set(tree);
    }

    pub(crate) fn user(&self) -> &Name {
        &self.seat.who.user
    }

    pub(crate) fn account(&self) -> AccountId {
        self.seat.who.account
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Notes where the link's messages come from. To be called once.
    pub(crate) fn note_link(&self, heard: mpsc::WeakSender<FromLink>) {
        self.heard.get_or_init(|| heard);
    }

    /// The number of the client's messages that wait for the driver.
    pub(crate) fn messages_waiting(&self) -> usize {
        let heard = self.heard.get().and_then(mpsc::WeakSender::upgrade);
        heard.map_or(0, |heard| heard.max_capacity() - heard.capacity())
    }

    /// Queues a message to the client. If too many messages wait already, its link counts as lost.
    pub(crate) fn tell(&self, message: ToClient) {
        if self.outbound.tell(message).is_err() {
            let seconds = CLIENT_SILENCE_TIMEOUT_MS / 1000;
            self.seat.orders.end(EndReason::Silent { seconds });
        }
    }

    /// Passes news on. If too much waits, the news is dropped and the session goes on, because
    /// other users cause the news. The client asks for deliveries and their states at its next
    /// login anyway.
    pub(crate) fn pass_on(&self, news: News) {
        if self.outbound.pass_on(news).is_err() {
            tracing::debug!(user = %self.user(), "too much news");
        }
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let who = &self.seat.who;
        SessionInfo {
            user: who.user.clone(),
            host: who.host.clone(),
            address: who.address.clone(),
            since: who.since,
            away: None,
            epoch: self.position.epoch().unwrap_or_default(),
            applied: self.position.applied(),
            durable: self.position.durable(),
            counts: self.counters.counts(),
        }
    }
}
