//! The order in which the commands of a socket are carried out: a few of each user at once, so that a user who leaves
//! questions unanswered does not keep the others out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most commands that are carried out at once. Some take a thread each.
const AT_ONCE_MAX: usize = 64;

/// The most of one user among them.
const OF_ONE_USER_MAX: usize = 8;

/// The most connections of one user, with those that wait for a turn.
const WAITING_MAX: usize = 64;

/// The longest wait for a turn: shorter than the one for an answer.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The turns at a socket.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    users: Mutex<HashMap<u32, User>>,
}

#[derive(Clone)]
struct User {
    connections: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A place among the connections of a user.
pub(super) struct Seat {
    turns: Arc<Semaphore>,
    _connection: OwnedSemaphorePermit,
}

/// The right to carry out one command, for as long as it is held.
pub(super) struct Turn {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns { all: Arc::new(Semaphore::new(AT_ONCE_MAX)), users: Mutex::default() }
    }

    /// A place for a connection of a user; `None` if that user has too many.
    pub(super) fn seat(&self, uid: u32) -> Option<Seat> {
        let new = || User {
            connections: Arc::new(Semaphore::new(WAITING_MAX)),
            turns: Arc::new(Semaphore::new(OF_ONE_USER_MAX)),
        };
        let User { connections, turns } = self.users.lock().entry(uid).or_insert_with(new).clone();
        Some(Seat { turns, _connection: connections.try_acquire_owned().ok()? })
    }

    /// Waits for a turn; `None` if there is none in time.
    pub(super) async fn turn(&self, seat: &Seat) -> Option<Turn> {
        let wait = async {
            let of_user = seat.turns.clone().acquire_owned().await.ok()?;
            let of_all = self.all.clone().acquire_owned().await.ok()?;
            Some(Turn { _of_user: of_user, _of_all: of_all })
        };
        timeout(WAIT_MAX, wait).await.ok().flatten()
    }
}
