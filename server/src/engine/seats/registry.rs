//! All seats that are taken: by a running session or, without one, standing. At most one for each
//! account.
//!
//! **Invariant:** a session leaves the registry only when no part of it can change a row or a
//! content any more. So two sessions of an account never run at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use xfer_protocol::limits::HANDOFF_MS;
use xfer_protocol::message::{EndReason, Purpose, Refusal, Resume, Secret, ToClient, Wish};
use xfer_protocol::{Name, SessionId};
use xfer_store::{AccountId, Fate};

use crate::engine::link::answer_room::AnswerRoom;
use crate::engine::seats::proof::Proved;
use crate::engine::seats::seat::Seat;
use crate::engine::seats::standing::Standing;
use crate::engine::session::counters::{Counts, Tally};
use crate::engine::session::{Ends, Session, SessionInfo};
use crate::login::opening::Authenticated;

/// How long the client of a session that is taken over may go on sending its log.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a client that wants a seat waits for the other one to hand it over, before it asks again.
const HANDOFF: Duration = Duration::from_millis(HANDOFF_MS);

/// How long the server may then take to commit those ops.
const COMMIT: Duration = Duration::from_secs(20);

/// The most sessions that run at a time.
const SESSIONS_MAX: usize = 10_000;

/// How often a client tries to get the seat when another one was faster.
const TRIES_MAX: usize = 3;

/// All seats that are taken.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<Seats>,
    answers: Arc<AnswerRoom>,
    tally: Tally,
}

#[derive(Default)]
struct Seats {
    running: BTreeMap<AccountId, Arc<Session>>,
    /// Seats without a session. Those whose lease has passed are forgotten when a session ends, or when
    /// somebody looks. The store has what their clients need to come back.
    standing: BTreeMap<AccountId, Standing>,
    /// Whether the server is stopping, so that no session can begin any more.
    closed: bool,
}

/// A taken seat. Dropping this marks the session as over, and leaves the seat standing: a session
/// that a fault has ended can be resumed, since that begins with the store.
pub(crate) struct SeatGuard {
    registry: Arc<Registry>,
    pub(crate) session: Arc<Session>,
    fate: Fate,
    /// The standing seat that was taken.
    displaced: Option<Standing>,
}

impl SeatGuard {
    /// Leaves the seat, free or standing.
    pub(crate) fn leave(mut self, fate: Fate) {
        (self.fate, self.displaced) = (fate, None);
    }

    /// Leaves a seat on which no session has begun. The seat that was taken stands again if its
    /// session, `known` to the store, may still be resumed.
    pub(crate) fn give_back(mut self, known: Option<SessionId>) {
        self.fate = Fate::Over;
        self.displaced = self.displaced.take().filter(|seat| Some(seat.session) == known);
    }

    /// The session of the seat that was taken, if its client does not know of it: it is to be forgotten.
    pub(crate) fn unheard(&self) -> Option<SessionId> {
        self.displaced.as_ref().filter(|seat| !seat.is_heard).map(|seat| seat.session)
    }

    /// Notes that the session has begun, so that the one before is over.
    pub(crate) fn note_begun(&mut self) {
        self.displaced = None;
    }
}

impl Drop for SeatGuard {
    fn drop(&mut self) {
        self.registry.remove(&self.session, self.fate, self.displaced.take());
    }
}

/// A client that wants a seat.
#[derive(Clone, Copy)]
pub(crate) enum Claimant<'a> {
    /// One that logged in.
    LoggedIn(&'a Authenticated),
    /// One that continues its session.
    Continuing(&'a Proved),
}

/// Why the seat can't be taken.
enum Taken {
    By(Arc<Session>),
    Refused(Refusal),
}

impl Registry {
    /// Takes the account's seat, once the session that has it now is over, if the client may end
    /// that one.
    pub(crate) async fn claim(
        self: &Arc<Registry>,
        claimant: Claimant<'_>,
    ) -> Result<(SeatGuard, Ends), Refusal> {
        for _ in 0..TRIES_MAX {
            match self.try_claim(claimant) {
                Ok(taken) => return Ok(taken),
                Err(Taken::Refused(refusal)) => return Err(refusal),
                Err(Taken::By(other)) => end_for(&other, claimant).await?,
            }
        }
        Err(Refusal::Busy)
    }

    /// Notes a seat that has stood since the server started: its session may be resumed. Nothing
    /// changes if the seat is known already.
    pub(crate) fn note_standing(&self, standing: Standing) {
        let mut state = self.lock();
        let account = standing.who.account;
        if !state.running.contains_key(&account) {
            state.standing.entry(account).or_insert(standing);
        }
    }

    /// Whether a seat of the account is taken.
    pub(crate) fn knows(&self, account: AccountId) -> bool {
        let state = self.lock();
        state.running.contains_key(&account) || state.standing.contains_key(&account)
    }

    /// Frees an account's standing seat. Returns whether there was one.
    pub(crate) fn free_standing(&self, account: AccountId) -> bool {
        self.lock().standing.remove(&account).is_some()
    }

    /// Finds the running session with this identity and secret.
    pub(crate) fn find(&self, id: SessionId, secret: &Secret) -> Option<Arc<Session>> {
        let session = self.all().into_iter().find(|session| session.seat.id == id)?;
        session.seat.has_secret(secret).then_some(session)
    }

    /// The account's running session.
    pub(crate) fn of_account(&self, account: AccountId) -> Option<Arc<Session>> {
        self.lock().running.get(&account).cloned()
    }

    /// The user's running session.
    pub(crate) fn of_user(&self, user: &Name) -> Option<Arc<Session>> {
        self.all().into_iter().find(|session| session.user() == user)
    }

    /// All running sessions.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.lock().running.values().cloned().collect()
    }

    /// The sessions that are running, and those whose seats stand without them.
    pub(crate) fn infos(&self) -> Vec<SessionInfo> {
        let (now, mut state) = (Instant::now(), self.lock());
        state.forget_lapsed(now);
        let running = state.running.values().map(|session| session.info());
        running.chain(state.standing.values().map(|standing| standing.info(now))).collect()
    }

    /// The counts of all sessions since the server's start.
    pub(crate) fn total(&self) -> Counts {
        self.tally.total()
    }

    /// The account of a user whose seat stands.
    pub(crate) fn standing_of(&self, user: &Name) -> Option<AccountId> {
        let state = self.lock();
        state.standing.values().find(|one| one.who.user == *user).map(|one| one.who.account)
    }

    /// The memory that is held for answers, in bytes.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answers.held()
    }

    /// Refuses all new sessions from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn try_claim(self: &Arc<Registry>, claimant: Claimant<'_>) -> Result<(SeatGuard, Ends), Taken> {
        let account = claimant.account();
        let seat = claimant.seat().ok_or(Taken::Refused(Refusal::Internal))?;
        let mut state = self.lock();
        if state.closed {
            return Err(Taken::Refused(Refusal::Stopping));
        }
        if let Some(other) = state.running.get(&account) {
            return Err(Taken::By(other.clone()));
        }
        if let Some(standing) = state.standing.get_mut(&account) {
            claimant.displace(standing).map_err(Taken::Refused)?;
        }
        if state.running.len() >= SESSIONS_MAX {
            return Err(Taken::Refused(Refusal::Busy));
        }
        let displaced = state.standing.remove(&account);
        let (session, ends) = Session::new(seat, self.tally.open(), self.answers.share());
        let session = Arc::new(session);
        state.running.insert(account, session.clone());
        let registry = self.clone();
        Ok((SeatGuard { registry, session, fate: Fate::Resumable, displaced }, ends))
    }

    fn remove(&self, session: &Session, fate: Fate, displaced: Option<Standing>) {
        let mut state = self.lock();
        let account = session.account();
        state.running.remove(&account);
        let now = Instant::now();
        state.forget_lapsed(now);
        let left = match fate {
            Fate::Resumable => Some(Standing::left_by(session, now)),
            Fate::Over | Fate::Yielded => None,
        };
        if let Some(standing) = displaced.or(left) {
            state.standing.insert(account, standing);
        }
        drop(state);
        session.seat.orders.set_over();
    }

    /// Each change to the state is one step, so a panic can't leave it inconsistent.
    fn lock(&self) -> parking_lot::MutexGuard<'_, Seats> {
        self.state.lock()
    }
}

impl Seats {
    /// Forgets seats whose lease has passed. If one is asked for, it is found in the store again, and
    /// counts as left when the server started: its lease has passed then too.
    fn forget_lapsed(&mut self, now: Instant) {
        self.standing.retain(|_, standing| !standing.has_lapsed(now));
    }
}

impl Claimant<'_> {
    fn account(&self) -> AccountId {
        match self {
            Claimant::LoggedIn(auth) => auth.account,
            Claimant::Continuing(proved) => proved.account,
        }
    }

    fn seat(&self) -> Option<Seat> {
        match self {
            Claimant::LoggedIn(auth) => Seat::new(auth),
            Claimant::Continuing(proved) => Seat::again(proved),
        }
    }

    /// Whether the session with this id is the client's own.
    fn owns(&self, session: SessionId) -> bool {
        match self {
            Claimant::LoggedIn(auth) => auth.replaces == Some(session),
            Claimant::Continuing(proved) => proved.known.session == session,
        }
    }

    /// Takes a standing seat, or says why not.
    fn displace(&self, standing: &mut Standing) -> Result<(), Refusal> {
        if self.owns(standing.session) {
            return Ok(());
        }
        match self {
            Claimant::LoggedIn(Authenticated { purpose: Purpose::TakeOver, .. }) => Ok(()),
            Claimant::LoggedIn(Authenticated { purpose: Purpose::Mount, .. }) => {
                standing.ask(Instant::now())
            }
            Claimant::Continuing(proved) => match proved.request.wish {
                // One that nobody needs now is left to the client that is away.
                Wish::IfFree | Wish::Never => Err(standing.who.in_use()),
                Wish::Now => standing.ask(Instant::now()),
            },
        }
    }
}

/// Ends the session that has the seat, for a client that may do so, and waits until it is over. If
/// the storage hangs, that session keeps its seat, because two sessions must never write to the
/// same contents.
async fn end_for(other: &Session, claimant: Claimant<'_>) -> Result<(), Refusal> {
    let (orders, is_own) = (&other.seat.orders, claimant.owns(other.seat.id));
    match claimant {
        // A request that came late must not end the link that a later one was granted.
        Claimant::Continuing(proved) if is_own && proved.request.attempt <= other.seat.attempt => {
            return Err(Refusal::Busy);
        }
        Claimant::Continuing(_) if is_own => orders.end(EndReason::Continued),
        // A session that has not begun yet may still be refused.
        Claimant::Continuing(_) if other.position.epoch().is_none() => return Err(Refusal::Busy),
        Claimant::Continuing(proved) => return ask_for(other, proved).await,
        // Its client has crashed, so there is nothing to drain.
        Claimant::LoggedIn(auth) if is_own => orders.end(taken_over_by(auth)),
        Claimant::LoggedIn(auth) => match auth.purpose {
            // The answer to its login may not have arrived, so its client may not know of it.
            Purpose::Mount
                if other.position.epoch().is_some() && !other.seat.is_heard_soon().await =>
            {
                orders.end(taken_over_by(auth));
            }
            Purpose::Mount => {
                // If its machine is gone, TCP soon finds that this is not acknowledged.
                other.tell(ToClient::Pong);
                other.seat.note_asked();
                return Err(other.seat.who.in_use());
            }
            Purpose::TakeOver => {
                let reason = taken_over_by(auth);
                tracing::info!(user = %auth.user, %reason, "ends a session");
                orders.drain(reason, DRAIN);
            }
        },
    }
    let over = tokio::time::timeout(DRAIN + COMMIT, other.seat.orders.wait_over()).await;
    over.map_err(|_| Refusal::Busy)
}

/// Asks another client to hand its seat over, for one that wants to come back, and waits for a while.
async fn ask_for(other: &Session, proved: &Proved) -> Result<(), Refusal> {
    let Resume { wish, terms, .. } = proved.request;
    if wish != Wish::Now {
        return Err(other.seat.who.in_use());
    }
    other.seat.note_asked();
    if !(terms.handoff && other.seat.terms.handoff) {
        // If its machine is gone, TCP soon finds that this is not acknowledged.
        other.tell(ToClient::Pong);
        return Err(other.seat.who.in_use());
    }
    let (host, address) = (proved.known.host.clone(), proved.address.clone());
    other.tell(ToClient::Wanted { host, address });
    let over = tokio::time::timeout(HANDOFF, other.seat.orders.wait_over()).await;
    over.map_err(|_| other.seat.who.in_use())
}

fn taken_over_by(auth: &Authenticated) -> EndReason {
    EndReason::TakenOver { host: auth.host.clone(), address: auth.address.clone() }
}
