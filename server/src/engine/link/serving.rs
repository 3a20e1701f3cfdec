//! Serving one link, from the answer to its opening until its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use xfer_protocol::SessionId;
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::CLIENT_SILENCE_TIMEOUT_MS;
use xfer_protocol::message::{Opened, Refusal, Secret};

use crate::engine::Engine;
use crate::engine::driver::leaving::leave;
use crate::engine::driver::news::tell_news;
use crate::engine::driver::{Driver, Means};
use crate::engine::link::log_link;
use crate::engine::link::reading::Reading;
use crate::engine::session::Ends;
use crate::engine::session::begin::{Begun, begin};
use crate::engine::session::lending::{Lent, lend};
use crate::engine::session::queues::News;
use crate::engine::session::registry::SeatGuard;
use crate::engine::session::seat::Who;
use crate::login::opening::Authenticated;
use xfer_link::patience::Patient;
use xfer_link::send;

/// How long a client may send nothing, or take nothing that is sent to it.
const SILENCE: Duration = Duration::from_millis(CLIENT_SILENCE_TIMEOUT_MS);

impl Engine {
    /// Serves a log link until it ends. Answers its opening, and if a session begins, lends the
    /// session's queues to the link.
    pub async fn run_session<R, W>(self: &Arc<Self>, auth: Authenticated, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (reader, mut writer) = (Patient::new(reader, SILENCE), Patient::new(writer, SILENCE));
        match self.open_session(&auth).await {
            Ok(open) => self.serve_log_link(open, reader, writer).await,
            Err(refusal) => {
                tracing::info!(user = %auth.user, address = auth.address, %refusal, "refused");
                answer(&mut writer, &Opened::Refused(refusal)).await;
            }
        }
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
        let Some(_place) = session.reads.take_link() else {
            answer(&mut writer, &Opened::Refused(Refusal::Busy)).await;
            return;
        };
        if !answer(&mut writer, &Opened::Attached).await {
            return;
        }
        let (stores, exchange) = (self.stores.clone(), self.exchange.clone());
        let work = self.read_work.clone();
        let reading = Reading { session: session.clone(), stores, exchange, work };
        reading.serve(reader, writer).await;
    }

    async fn open_session(&self, auth: &Authenticated) -> Result<Open, Refusal> {
        let (guard, ends) = self.registry.claim(auth).await?;
        let begun = begin(&self.stores, &guard.session).await?;
        Ok(Open { guard, ends, begun })
    }

    async fn serve_log_link<R, W>(&self, open: Open, reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Open { guard, ends, begun } = open;
        let session = guard.session.clone();
        let Begun { account, tree, grant, last_named, more_deliveries, without_room } = begun;
        session.begin(&account, tree);
        let epoch = grant.epoch;
        if !answer(&mut writer, &Opened::Session(Box::new(grant))).await {
            leave(&self.stores, &session).await;
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
        let lent = self.drive(guard, ends, last_named);
        log_link::serve(lent, reader, writer).await;
    }

    /// Starts the driver of a session, and lends the session's queues to a link.
    fn drive(&self, guard: SeatGuard, ends: Ends, last_named: u64) -> Lent {
        let session = guard.session.clone();
        let (lent, loan) = lend(session.clone(), ends.queues);
        let mut news = JoinSet::new();
        let deliveries = self.stores.store.deliveries.clone();
        news.spawn(tell_news(deliveries, session, last_named, ends.news));
        let means = Means { stores: self.stores.clone(), committer: self.committer.clone() };
        self.drivers.spawn(Driver::new(guard, loan, news, means));
        lent
    }
}

/// A session that is about to be served.
struct Open {
    guard: SeatGuard,
    ends: Ends,
    begun: Begun,
}

/// Answers an opening. Returns whether the answer was sent.
async fn answer<W: AsyncWrite + Unpin>(writer: &mut W, opened: &Opened) -> bool {
    let sent = send(writer, opened, &[], Bounds::OPEN).await;
    if let Err(error) = &sent {
        tracing::debug!(%error, "an opening can't be answered");
    }
    sent.is_ok()
}
