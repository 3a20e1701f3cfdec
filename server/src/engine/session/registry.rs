//! The running sessions: at most one for each account.
//!
//! **Invariant:** a session leaves the registry only when no part of it can change a row or a
//! content any more. So two sessions of an account never run at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use xfer_protocol::message::{EndReason, Purpose, Refusal, Secret};
use xfer_protocol::{Name, SessionId};
use xfer_store::AccountId;

use crate::engine::link::answer_room::AnswerRoom;
use crate::engine::session::seat::Seat;
use crate::engine::session::{Ends, Session};
use crate::login::opening::Authenticated;

/// How long the client of a session that is taken over may go on sending its log.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the server may then take to commit those ops.
const COMMIT: Duration = Duration::from_secs(20);

/// The most sessions that run at a time.
const SESSIONS_MAX: usize = 10_000;

/// How often a takeover tries again when another login was faster.
const TAKEOVER_TRIES: usize = 3;

/// All running sessions.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<Seats>,
    answers: Arc<AnswerRoom>,
}

#[derive(Default)]
struct Seats {
    sessions: BTreeMap<AccountId, Arc<Session>>,
    /// Whether the server is stopping, so that no session can begin any more.
    closed: bool,
}

/// A taken seat. Dropping this frees the seat and marks the session as over.
pub(crate) struct SeatGuard {
    registry: Arc<Registry>,
    pub(crate) session: Arc<Session>,
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.registry.remove(&self.session);
    }
}

/// Why the seat can't be taken.
enum Taken {
    By(Arc<Session>),
    Refused(Refusal),
}

impl Registry {
    /// Takes the account's seat. If the client wants to take over, first drains the session that
    /// has the seat and waits for its end.
    pub(crate) async fn claim(
        self: &Arc<Registry>,
        auth: &Authenticated,
    ) -> Result<(SeatGuard, Ends), Refusal> {
        for _ in 0..TAKEOVER_TRIES {
            let other = match self.try_claim(auth) {
                Ok(taken) => return Ok(taken),
                Err(Taken::Refused(refusal)) => return Err(refusal),
                Err(Taken::By(other)) => other,
            };
            match auth.purpose {
                Purpose::Mount => return Err(other.seat.who.in_use()),
                Purpose::TakeOver => take_over(&other, auth).await?,
            }
        }
        Err(Refusal::Busy)
    }

    /// Finds the session with this identity and secret.
    pub(crate) fn find(&self, id: SessionId, secret: &Secret) -> Option<Arc<Session>> {
        let session = self.all().into_iter().find(|session| session.seat.id == id)?;
        session.seat.has_secret(secret).then_some(session)
    }

    pub(crate) fn of_account(&self, account: AccountId) -> Option<Arc<Session>> {
        self.lock().sessions.get(&account).cloned()
    }

    pub(crate) fn of_user(&self, user: &Name) -> Option<Arc<Session>> {
        self.all().into_iter().find(|session| session.user() == user)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().sessions.values().cloned().collect()
    }

    /// Refuses all new sessions from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn try_claim(self: &Arc<Registry>, auth: &Authenticated) -> Result<(SeatGuard, Ends), Taken> {
        let seat = Seat::new(auth).ok_or(Taken::Refused(Refusal::Internal))?;
        let mut state = self.lock();
        if state.closed {
            return Err(Taken::Refused(Refusal::Stopping));
        }
        if let Some(other) = state.sessions.get(&auth.account) {
            return Err(Taken::By(other.clone()));
        }
        if state.sessions.len() >= SESSIONS_MAX {
            return Err(Taken::Refused(Refusal::Busy));
        }
        let (session, ends) = Session::new(seat, self.answers.share());
        let session = Arc::new(session);
        state.sessions.insert(auth.account, session.clone());
        Ok((SeatGuard { registry: self.clone(), session }, ends))
    }

    fn remove(&self, session: &Session) {
        self.lock().sessions.retain(|_, other| other.seat.id != session.seat.id);
        session.seat.orders.set_over();
    }

    /// Each change to the state is one step, so a panic can't leave it inconsistent.
    fn lock(&self) -> parking_lot::MutexGuard<'_, Seats> {
        self.state.lock()
    }
}

/// Drains the other session and waits until it is over. If the storage hangs, that session keeps
/// its seat, because two sessions must never write to the same contents.
async fn take_over(other: &Session, auth: &Authenticated) -> Result<(), Refusal> {
    let (host, address) = (auth.host.clone(), auth.address.clone());
    tracing::info!(user = %auth.user, ?host, address, "takes the session over");
    other.seat.orders.drain(EndReason::TakenOver { host, address }, DRAIN);
    tokio::time::timeout(DRAIN + COMMIT, other.seat.orders.wait_over())
        .await
        .map_err(|_| Refusal::Busy)
}
