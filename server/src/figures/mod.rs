//! What a server tells of itself in numbers: for Prometheus, for `xfer-server status`, and for programs that
//! ask whether it is there.
//!
//! Reading order: this file (the figures, and where they come from), `storing` (those of the store) and
//! `process`; `metrics` (their names) and `web` (where they can be read).
//!
//! **Invariant:** figures name no account, no file and no address of a client: whoever reaches the address
//! of the metrics can read them.

mod storing;
mod process;
pub mod metrics;
pub mod web;

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use xfer_protocol::message::VERSION;
use xfer_store::{Store, StoreError, embedded};

use crate::engine::{CommitTimes, Counts, Engine, Sessions};
use crate::listener::Listener;
use crate::login::outcomes::LoginCount;

pub use process::Process;
use storing::Asker;
pub use storing::{Lockout, Storing};

/// The figures of a server at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// What runs.
    pub build: Build,
    /// The process.
    pub process: Process,
    /// Its sessions and links.
    pub sessions: Sessions,
    /// How checks of clients came out.
    pub logins: Vec<LoginCount>,
    /// What all sessions did since the server's start.
    pub counts: Counts,
    /// What became durable since the server's start.
    pub commits: CommitTimes,
    /// What waits.
    pub queued: Queued,
    /// The store; absent while it does not answer.
    pub store: Option<Storing>,
}

/// What runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Build {
    /// The program's version.
    pub version: String,
    /// The version of the protocol.
    pub protocol: u16,
    /// The version of the store's format.
    pub store_format: i32,
}

/// What waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// Batches that wait for a transaction.
    pub batches: u64,
    /// Messages of clients that wait for the drivers of their sessions.
    pub messages: u64,
    /// Ops that are applied and not durable yet.
    pub ops_not_durable: u64,
    /// Clients that wait for their password to be checked.
    pub passwords: u64,
}

/// Where the figures of a running server come from.
pub struct Source {
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    store: Store,
    asker: Asker,
    /// Held while the store is checked.
    checking: Arc<Mutex<()>>,
    started: SystemTime,
}

impl Source {
    /// The figures of a server that has run since `started`. Needs a tokio runtime.
    pub fn new(
        engine: Arc<Engine>,
        listener: Arc<Listener>,
        store: Store,
        started: SystemTime,
    ) -> Arc<Source> {
        let asker = Asker::new(store.clone());
        let checking = Arc::default();
        Arc::new(Source { engine, listener, store, asker, checking, started })
    }

    /// Reads all of them, and the lockouts in force, which name accounts. What the store has to be asked for
    /// is a second old at most.
    pub async fn read(&self) -> (Figures, Vec<Lockout>) {
        let (store, lockouts) = self.asker.ask().await.unzip();
        (self.figures(store), lockouts.unwrap_or_default())
    }

    fn figures(&self, store: Option<Storing>) -> Figures {
        let load = self.engine.load();
        let door = self.listener.door();
        Figures {
            build: Build {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: VERSION,
                store_format: embedded::FORMAT,
            },
            process: Process::read(self.started),
            sessions: load.sessions,
            logins: door.logins().counts(),
            counts: load.counts,
            commits: load.commits,
            queued: Queued {
                batches: load.batches_waiting,
                messages: load.messages_waiting,
                ops_not_durable: load.ops_not_durable,
                passwords: door.waiting() as u64,
            },
            store,
        }
    }

    /// Checks that the store is there.
    ///
    /// # Errors
    /// If it is not.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        let turn = self.checking.clone().lock_owned().await;
        let store = self.store.clone();
        // The turn lasts until the store has answered, even if nobody waits for that any more: so one that
        // hangs holds one thread, however often somebody asks.
        let checked = tokio::spawn(async move {
            let _turn = turn;
            store.keeper.check().await
        });
        checked.await.unwrap_or(Err(StoreError::Panicked))
    }
}
