//! Serving one link, from the answer to its opening until its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use xfer_protocol::SessionId;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{Changed, EndReason, Opened, Refusal, Return, Secret, Wish};

use crate::engine::Engine;
use crate::engine::driver::leaving::leave;
use crate::engine::driver::news::tell_news;
use crate::engine::driver::{Driver, Means};
use crate::engine::link::log_link;
use crate::engine::link::reading::Reading;
use crate::engine::seats::proof::Proved;
use crate::engine::seats::registry::{Claimant, SeatGuard};
use crate::engine::seats::seat::Who;
use crate::engine::seats::standing::Standing;
use crate::engine::session::Ends;
use crate::engine::session::begin::{Begun, begin, resume};
use crate::engine::session::lending::{Lent, lend};
use crate::engine::session::queues::News;
use crate::login::opening::Authenticated;
use crate::login::tasks::TaskDone;
use xfer_link::patience::Patient;
use xfer_link::send;
use xfer_protocol::Name;
use xfer_store::{AccountId, Fate, Missed, Store, StoreError};

/// How long a client may send nothing, or take nothing that is sent to it.
const SILENCE: Duration = Duration::from_millis(CLIENT_SILENCE_TIMEOUT_MS);

impl Engine {
    /// Serves the log link of a client that has logged in, until it ends. Answers its opening, and
    /// if a session begins, gives the session's queues to the link.
    pub async fn run_session<R, W>(self: &Arc<Self>, auth: Authenticated, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let terms = auth.terms.with_silence_of_at_least(self.silence);
        let auth = Authenticated { terms, ..auth };
        match self.open_session(&auth).await {
            Ok(open) => self.serve_log_link(open, reader, writer).await,
            Err(refusal) => {
                tracing::info!(user = %auth.user, address = auth.address, %refusal, "refused");
                self.refuse(refusal, writer).await;
            }
        }
    }

    /// Like [`Engine::run_session`], for a client that continues its session.
    pub async fn run_resumed<R, W>(self: &Arc<Self>, mut proved: Proved, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let request = &mut proved.request;
        request.terms = request.terms.with_silence_of_at_least(self.silence);
        match self.reopen_session(&proved).await {
            Ok(open) => self.serve_log_link(open, reader, writer).await,
            Err(refusal) => {
                tracing::info!(user = %proved.user, address = proved.address, %refusal, "refused");
                self.refuse(refusal, writer).await;
            }
        }
    }

    /// Answers a link whose client had a task done, once the sessions that lost their right to be by it
    /// have been told to end.
    pub async fn run_task<W>(self: &Arc<Self>, task: TaskDone, writer: W)
    where
        W: AsyncWrite + Unpin,
    {
        let TaskDone { user, done, takes_rights } = task;
        if takes_rights {
            self.account_changed(&user).await;
        }
        answer(&mut Patient::new(writer, SILENCE), &Opened::Done(done)).await;
    }

    /// Refuses a link.
    pub async fn refuse<W>(&self, refusal: Refusal, writer: W)
    where
        W: AsyncWrite + Unpin,
    {
        answer(&mut Patient::new(writer, SILENCE), &Opened::Refused(refusal)).await;
    }

    /// Serves a read link: answers its opening, and then its questions until the link or the
    /// session ends.
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
        session.seat.note_heard();
        let Some(_place) = session.reads.take_link() else {
            answer(&mut writer, &Opened::Refused(Refusal::Busy)).await;
            return;
        };
        if !answer(&mut writer, &Opened::Attached).await {
            return;
        }
        let _link = self.traffic.read_links.enter();
        let (stores, exchange) = (self.stores.clone(), self.exchange.clone());
        let work = self.read_work.clone();
        let reading = Reading { session: session.clone(), stores, exchange, work };
        reading.serve(reader, writer).await;
    }

    async fn open_session(&self, auth: &Authenticated) -> Result<Open, Refusal> {
        self.find_standing(auth.account, &auth.user).await?;
        let (guard, ends) = self.registry.claim(Claimant::LoggedIn(auth)).await?;
        // Room that a session of the account reserved before is of no use to the new one.
        if let Err(error) = self.stores.store.deliveries.release(auth.account).await {
            tracing::warn!(%error, "room in inboxes stays reserved for now");
        }
        let replaces = guard.unheard().or(auth.replaces);
        let begun = begin(&self.stores, &guard.session, auth, replaces).await;
        self.opened(guard, ends, begun, true).await
    }

    async fn reopen_session(&self, proved: &Proved) -> Result<Open, Refusal> {
        if proved.request.wish == Wish::Never
            && let Some(refusal) = self.give_up(proved).await
        {
            return Err(refusal);
        }
        self.find_standing(proved.account, &proved.user).await?;
        let (guard, ends) = self.registry.claim(Claimant::Continuing(proved)).await?;
        let begun = resume(&self.stores, &guard.session, proved).await;
        self.opened(guard, ends, begun, false).await
    }

    /// Forgets a client that does not come back. `None` if its session is not dormant: then it goes on,
    /// and the client logs out.
    async fn give_up(&self, proved: &Proved) -> Option<Refusal> {
        let (trees, session) = (&self.stores.store.trees, proved.known.session);
        let forgotten = async {
            trees.give_up(proved.account, session).await?;
            trees.session_of(proved.account, session).await
        };
        match forgotten.await {
            Ok(None) => Some(Refusal::NoSession),
            Ok(Some(_)) => None,
            Err(error) => {
                tracing::error!(user = %proved.user, %error, "a session cannot be forgotten");
                Some(Refusal::Internal)
            }
        }
    }

    /// A session that has begun; or the refusal, once the seat is as it was before.
    async fn opened(
        &self,
        mut guard: SeatGuard,
        ends: Ends,
        begun: Result<Begun, Refusal>,
        is_new: bool,
    ) -> Result<Open, Refusal> {
        let (account, own) = (guard.session.account(), guard.session.seat.id);
        let refusal = match begun {
            Ok(begun) => {
                guard.note_begun();
                return Ok(Open { guard, ends, begun, is_new });
            }
            Err(refusal) => refusal,
        };
        let known = self.stores.store.trees.resumable(account).await;
        let known = known.unwrap_or_else(|error| {
            tracing::error!(%error, "a session cannot be looked up");
            None
        });
        let known = known.map(|known| known.session);
        guard.give_back(known);
        // The client may still have its session, though not by this request.
        let is_kept = refusal == Refusal::NoSession && known == Some(own);
        Err(if is_kept { Refusal::Busy } else { refusal })
    }

    /// After a restart the registry is empty, but sessions may be resumed: their seats stand as if
    /// their clients had been lost when the server started.
    async fn find_standing(&self, account: AccountId, user: &Name) -> Result<(), Refusal> {
        self.note_standing(account, user).await.map_err(|error| {
            tracing::error!(%user, %error, "a session cannot be looked up");
            Refusal::Internal
        })
    }

    async fn note_standing(&self, account: AccountId, user: &Name) -> Result<(), StoreError> {
        let Store { accounts, trees, .. } = &self.stores.store;
        if self.registry.knows(account) {
            return Ok(());
        }
        let known = trees.resumable(account).await?;
        if let Some(known) = known
            && let Some(account) = accounts.find(user.clone()).await?
        {
            self.registry.note_standing(Standing::found(&known, &account, self.started));
        }
        Ok(())
    }

    async fn serve_log_link<R, W>(&self, open: Open, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, mut writer) = (Patient::new(reader, SILENCE), Patient::new(writer, SILENCE));
        let Open { guard, ends, begun, is_new } = open;
        let session = guard.session.clone();
        let Begun { account, tree, grant, missed, last_named, more_deliveries, without_room } =
            begun;
        session.begin(&account, tree);
        let epoch = grant.epoch;
        let (opened, fate, event) = match (is_new, missed) {
            (true, _) => (Opened::Session(Box::new(grant)), Fate::Over, "session begins"),
            (false, None) => (Opened::Resumed(Box::new(grant)), Fate::Resumable, "session goes on"),
            (false, Some(Missed { base, changed })) => {
                let changed = told(changed);
                let back = Return { grant, base, changed };
                (Opened::Returned(Box::new(back)), Fate::Resumable, "session has its seat again")
            }
        };
        // It may be ordered to end meanwhile, by a client that has given this link up.
        let answered = tokio::select! {
            biased;
            answered = answer(&mut writer, &opened) => answered,
            () = session.seat.orders.wait_due() => false,
        };
        if !answered {
            let fate = match session.seat.orders.for_good() {
                Some(EndReason::TakenOver { .. }) if fate != Fate::Over => Fate::Yielded,
                Some(_) => Fate::Over,
                None => fate,
            };
            leave(&self.stores, &session, fate).await;
            guard.leave(fate);
            return;
        }
        let Who { user, host, address, .. } = &session.seat.who;
        tracing::info!(%user, ?host, address, %epoch, "{event}");
        if more_deliveries {
            session.pass_on(News::Arrived);
        }
        for (id, state) in without_room {
            session.pass_on(News::Settled(id, state));
        }
        self.traffic.note_begun(is_new);
        let _link = self.traffic.log_links.enter();
        let lent = self.drive(guard, ends, last_named);
        log_link::serve(lent, reader, writer).await;
    }

    /// Starts the driver of a session, and gives the session's queues to a link.
    fn drive(&self, guard: SeatGuard, ends: Ends, last_named: u64) -> Lent {
        let session = guard.session.clone();
        let (lent, loan) = lend(session.clone(), ends.queues);
        let mut news = JoinSet::new();
        let deliveries = self.stores.store.deliveries.clone();
        news.spawn(tell_news(deliveries, session, last_named, ends.news));
        let means = Means {
            stores: self.stores.clone(),
            committer: self.committer.clone(),
            commits: self.commits.clone(),
        };
        self.drivers.spawn(Driver::new(guard, loan, news, means));
        lent
    }
}

/// The nodes that other sessions have changed, as the client is told.
fn told(changed: xfer_store::Changed) -> Changed {
    match changed {
        xfer_store::Changed::Nodes(nodes) => Changed::Nodes(nodes),
        xfer_store::Changed::All => Changed::All,
    }
}

/// A session that is about to be served.
struct Open {
    guard: SeatGuard,
    ends: Ends,
    begun: Begun,
    /// Whether it has just begun, and is not resumed.
    is_new: bool,
}

/// Answers an opening. Returns whether the answer was sent.
async fn answer<W: AsyncWrite + Unpin>(writer: &mut W, opened: &Opened) -> bool {
    let sent = send(writer, opened, &[], Bounds::OPEN).await;
    if let Err(error) = &sent {
        tracing::debug!(%error, "an opening cannot be answered");
    }
    sent.is_ok()
}
