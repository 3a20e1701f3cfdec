//! Serving one link from its opening to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use xfer_protocol::SessionId;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{EndReason, Opened, Refusal, Secret, ToClient};

use crate::engine::Engine;
use crate::engine::driver::over::Over;
use crate::engine::driver::{Driver, frames, read_frames, write_messages};
use crate::engine::leftovers::tidy_after;
use crate::engine::reading::Reading;
use crate::engine::session::begin::{Begun, begin};
use crate::engine::session::queues::{News, Queues};
use crate::engine::session::registry::SeatGuard;
use crate::engine::session::seat::Who;
use crate::engine::session::{Ends, Session};
use crate::engine::stores::Stores;
use crate::login::opening::Authenticated;
use xfer_link::patience::Patient;
use xfer_link::send;

/// How long a client may say nothing, or take nothing.
const SILENCE: Duration = Duration::from_millis(CLIENT_SILENCE_TIMEOUT_MS);

/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(10);

/// How much news is made into messages at a time.
const NEWS_COUNT: usize = 1024;

/// How many deliveries are looked up at a time, to be announced.
const ARRIVALS_COUNT: usize = 1024;

impl Engine {
    /// Serves a log link: answers its opening, and if a session begins, serves it until it ends.
    pub async fn run_session<R, W>(self: &Arc<Self>, auth: Authenticated, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, mut writer) = (Patient::new(reader, SILENCE), Patient::new(writer, SILENCE));
        match self.open_session(&auth).await {
            Ok(open) => self.serve_session(open, reader, writer).await,
            Err(refusal) => {
                tracing::info!(user = %auth.user, address = auth.address, %refusal, "refused");
                answer(&mut writer, &Opened::Refused(refusal)).await;
            }
        }
    }

    /// Serves a read link: answers its opening, and its questions until it or the session ends.
    pub async fn run_reads<R, W>(
        self: &Arc<Self>,
        session: SessionId,
        secret: Secret,
        reader: R,
        writer: W,
    ) where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, mut writer) = (Patient::new(reader, SILENCE), Patient::new(writer, SILENCE));
        let Some(session) = self.registry.find(session, &secret) else {
            answer(&mut writer, &Opened::Refused(Refusal::NoSession)).await;
            return;
        };
        let Some(_place) = session.reads.take_link() else {
            answer(&mut writer, &Opened::Refused(Refusal::Busy)).await;
            return;
        };
        if !answer(&mut writer, &Opened::Attached).await {
            return;
        }
        let (stores, post) = (self.stores.clone(), self.post.clone());
        let work = self.read_work.clone();
        let reading = Reading { session: session.clone(), stores, post, work };
        reading.serve(reader, writer).await;
    }

    async fn open_session(&self, auth: &Authenticated) -> Result<Open, Refusal> {
        let (seat, ends) = self.registry.claim(auth).await?;
        let (stores, session) = (self.stores.clone(), seat.session.clone());
        let begun = spawn_blocking(move || begin(&stores, &session)).await;
        let begun = begun.map_err(|_| Refusal::Internal)??;
        // The orphans that went may have left contents behind.
        self.garbage.notify_one();
        Ok(Open { seat, ends, begun })
    }

    async fn serve_session<R, W>(&self, open: Open, reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Open { seat, ends, begun } = open;
        let session = seat.session.clone();
        let Begun { account, tree, grant, last_named, more_deliveries, without_room } = begun;
        session.begin(&account, tree);
        let epoch = grant.epoch;
        if !answer(&mut writer, &Opened::Session(Box::new(grant))).await {
            self.leave(&session).await;
            return;
        }
        let Who { user, host, address, .. } = &session.seat.who;
        tracing::info!(%user, ?host, address, %epoch, "session begins");
        if more_deliveries {
            session.pass_on(News::Arrived);
        }
        for (id, state) in without_room {
            session.pass_on(News::Settled(id, state));
        }
        let (received, mut frames) = frames();
        let reading = Task(tokio::spawn(read_frames(reader, received)));
        let Ends { queues: Queues { outgoing, told_news }, news } = ends;
        let writing = Task(tokio::spawn(write_all(session.clone(), writer, outgoing, told_news)));
        let news = tell_news(self.stores.clone(), session.clone(), last_named, news);
        let news = Task(tokio::spawn(news));
        let (stores, committer) = (self.stores.clone(), self.committer.clone());
        let mut driver = Driver::new(session, stores, committer);
        let over = driver.serve(&mut frames).await;
        let over = last_commit(&mut driver, over).await;
        drop((reading, news));
        self.conclude(seat, over, writing).await;
    }

    /// Lets go of the account, and then says the last word: whoever hears it may log in again.
    async fn conclude(&self, seat: SeatGuard, over: Over, writing: Task<()>) {
        let session = seat.session.clone();
        log_end(&session, &over);
        self.leave(&session).await;
        drop(seat);
        if let Over::Diverged(seq, errno) = over {
            session.outbound.tell_last(ToClient::Diverged { seq, errno }, FAREWELL).await;
        }
        if let Some(reason) = last_word(over) {
            session.outbound.tell_last(ToClient::Ended(reason), FAREWELL).await;
            writing.finish(FAREWELL).await;
        }
    }

    /// Takes the session's tree away, with what it wrote and did not commit, and what room it reserved.
    async fn leave(&self, session: &Arc<Session>) {
        let (stores, post, ended) = (self.stores.clone(), self.post.clone(), session.clone());
        let tidied = spawn_blocking(move || {
            let tree = ended.tree.take();
            post.forget(ended.account());
            match (ended.position.epoch(), tree) {
                (Some(epoch), Some(tree)) => {
                    tidy_after(&stores, ended.account(), epoch, tree.left())
                }
                (None, _) | (_, None) => Ok(()),
            }
        });
        if let Ok(Err(error)) = tidied.await {
            tracing::warn!(%error, "what was never committed stays for now");
        }
    }
}

/// A session that is about to be served.
struct Open {
    seat: SeatGuard,
    ends: Ends,
    begun: Begun,
}

/// A task that ends with whoever holds it.
struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// Lets it come to its own end within `patience`.
    async fn finish(mut self, patience: Duration) {
        // Past that it is aborted, and how it ended makes no difference.
        let _ = tokio::time::timeout(patience, &mut self.0).await;
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers an opening. Says whether the answer went out.
async fn answer<W: AsyncWrite + Unpin>(writer: &mut W, opened: &Opened) -> bool {
    let sent = send(writer, opened, &[], Bounds::OPEN).await;
    if let Err(error) = &sent {
        tracing::debug!(%error, "an opening can't be answered");
    }
    sent.is_ok()
}

/// Commits what was applied, if that is allowed after what happened.
async fn last_commit(driver: &mut Driver, over: Over) -> Over {
    match over {
        Over::Fenced | Over::Failed(_) => {
            driver.await_verdict().await;
            over
        }
        // An account that was removed is fenced, which says less than what was ordered.
        Over::Ordered(_) => match driver.finish().await {
            Err(failed @ Over::Failed(_)) => failed,
            Ok(()) | Err(_) => over,
        },
        Over::LoggedOut
        | Over::LinkLost(_)
        | Over::Silent
        | Over::Protocol(_)
        | Over::Diverged(..) => driver.finish().await.err().unwrap_or(over),
    }
}

async fn write_all<W: AsyncWrite + Unpin>(
    session: Arc<Session>,
    writer: W,
    outgoing: mpsc::Receiver<ToClient>,
    told_news: mpsc::Receiver<ToClient>,
) {
    if let Err(error) = write_messages(writer, outgoing, told_news).await {
        session.seat.orders.lose_link(error.to_string());
    }
}

/// Makes messages of news. Deliveries are looked up in the order of their arrival, from the last on
/// that the client was told of, so that none is missed however much came at once, and none is
/// announced twice.
async fn tell_news(
    stores: Stores,
    session: Arc<Session>,
    mut last_told: u64,
    mut news: mpsc::Receiver<News>,
) {
    let mut some = Vec::new();
    while news.recv_many(&mut some, NEWS_COUNT).await > 0 {
        let mut arrived = some.contains(&News::Arrived);
        while arrived {
            let (meta, account) = (stores.meta.clone(), session.account());
            let look = move || meta.waiting_after(account, last_told, ARRIVALS_COUNT);
            let waiting = match spawn_blocking(look).await {
                Ok(Ok(waiting)) => waiting,
                Ok(Err(error)) => {
                    tracing::error!(user = %session.user(), %error, "an inbox can't be read");
                    Vec::new()
                }
                Err(_) => return,
            };
            arrived = waiting.len() == ARRIVALS_COUNT;
            for (arrival, head) in waiting {
                last_told = arrival;
                session.outbound.tell_news(ToClient::Arrived(head)).await;
            }
        }
        for one in some.drain(..) {
            match one {
                News::Arrived => {}
                News::Settled(delivery, state) => {
                    session.outbound.tell_news(ToClient::Settled { delivery, state }).await;
                }
            }
        }
    }
}

fn log_end(session: &Session, over: &Over) {
    let (user, address) = (session.user(), &session.seat.who.address);
    let applied = session.position.applied();
    match over {
        Over::LoggedOut => tracing::info!(%user, address, %applied, "session ends: logged out"),
        Over::LinkLost(why) => {
            tracing::info!(%user, address, %applied, why, "session ends: link lost");
        }
        Over::Silent => tracing::info!(%user, address, %applied, "session ends: client silent"),
        Over::Protocol(what) => {
            tracing::warn!(%user, address, %applied, what, "session ends: protocol broken");
        }
        Over::Diverged(seq, errno) => {
            tracing::warn!(%user, address, %seq, ?errno, "session ends: an op was refused");
        }
        Over::Fenced => tracing::warn!(%user, address, %applied, "session ends: fenced"),
        Over::Failed(what) => {
            tracing::error!(%user, address, %applied, %what, "session ends: storage failed");
        }
        Over::Ordered(reason) => {
            tracing::info!(%user, address, %applied, %reason, "session ends");
        }
    }
}

/// What the client is told at the end, if there still is a link to tell it on.
fn last_word(over: Over) -> Option<EndReason> {
    match over {
        Over::LoggedOut => Some(EndReason::LoggedOut),
        Over::LinkLost(_) => None,
        // A client that was stopped hears it when it goes on.
        Over::Silent => Some(EndReason::Silent { seconds: SILENCE.as_secs() }),
        Over::Protocol(what) => Some(EndReason::Protocol(what)),
        Over::Diverged(seq, errno) => Some(EndReason::Protocol(format!("op {seq}: {errno}"))),
        // Within one server a session is over before the next begins, so this was another server.
        Over::Fenced => Some(EndReason::TakenOver {
            host: "another server".to_owned(),
            address: "unknown".to_owned(),
        }),
        Over::Failed(what) => Some(EndReason::Storage(what.told())),
        Over::Ordered(reason) => Some(reason),
    }
}
