//! What all sessions do together, in numbers.
//!
//! The numbers are those of the sessions' own counters where they have them; nothing is counted twice.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::engine::durable::latency::Latencies;
use crate::engine::session::counters::{Counts, add};

/// Links, and how sessions came to have them.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) log_links: Present,
    pub(crate) read_links: Present,
    begun: AtomicU64,
    resumed: AtomicU64,
}

/// How many of something there are.
#[derive(Default)]
pub(crate) struct Present(AtomicU64);

/// One of them, until this is dropped.
#[must_use]
pub(crate) struct Entered<'a>(&'a Present);

/// What an engine does, and what waits in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Load {
    /// Its sessions and links.
    pub sessions: Sessions,
    /// What all sessions did so far.
    pub counts: Counts,
    /// What became durable so far.
    pub commits: CommitTimes,
    /// Batches that wait for a transaction.
    pub batches_waiting: u64,
    /// Messages of clients that wait for the drivers of their sessions.
    pub messages_waiting: u64,
    /// Ops that are applied and not durable yet.
    pub ops_not_durable: u64,
}

/// Sessions and links.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sessions {
    /// Sessions with a link.
    pub attached: u64,
    /// Sessions whose clients are away, for as long as their seats stand.
    pub away: u64,
    /// Log links.
    pub log_links: u64,
    /// Read links.
    pub read_links: u64,
    /// Sessions that began by a login, since the server's start.
    pub begun: u64,
    /// Sessions that were resumed, each time, since the server's start.
    pub resumed: u64,
}

/// What became durable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CommitTimes {
    /// How long the store took for each transaction, with the batches of all sessions that waited: it syncs
    /// contents, then writes rows and syncs those.
    pub transaction: Latencies,
    /// How long each batch of a session took until it was durable, from when it was due: a program waited
    /// for it (`fsync`), it was large, or a second old.
    pub batch: Latencies,
}

impl Traffic {
    /// Notes that a session has a link: a new one, or one that was resumed.
    pub(crate) fn note_begun(&self, is_new: bool) {
        add(if is_new { &self.begun } else { &self.resumed }, 1);
    }
}

impl Present {
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    /// Tells what the engine does.
    pub fn load(&self) -> Load {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let sessions = self.registry.infos();
        let away = sessions.iter().filter(|session| session.away.is_some()).count();
        let not_durable = sessions.iter().map(|one| one.applied.0.saturating_sub(one.durable.0));
        let running = self.registry.all();
        Load {
            sessions: Sessions {
                attached: (sessions.len() - away) as u64,
                away: away as u64,
                log_links: read(&self.traffic.log_links.0),
                read_links: read(&self.traffic.read_links.0),
                begun: read(&self.traffic.begun),
                resumed: read(&self.traffic.resumed),
            },
            counts: self.registry.total(),
            commits: CommitTimes {
                transaction: self.commits.transaction.read(),
                batch: self.commits.batch.read(),
            },
            batches_waiting: self.waiting() as u64,
            messages_waiting: running.iter().map(|one| one.messages_waiting() as u64).sum(),
            ops_not_durable: not_durable.sum(),
        }
    }
}
