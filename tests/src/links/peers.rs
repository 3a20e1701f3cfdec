//! The client's core and the server's engine, connected by pipes in memory, for tests on a clock
//! that jumps ahead when all tasks are idle.
//!
//! The stores are real: SQLite and plain files, in a directory that goes with its [`Host`].

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex, split,
};
use tokio::time::sleep;
use xfer_client::connect::{
    Begin, Credentials, Dial, Dialling, EndpointError, LogLink, NewSession, Phase, Reader, Writer,
};
use xfer_client::core::{Options, Owners};
use xfer_client::drive::{Client, Surroundings};
use xfer_link::watch;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{DeliveryHead, Opened, Password, Purpose, ToServer};
use xfer_protocol::tree::{Action, Op, Owner, Quota};
use xfer_protocol::{ContentId, Name, Seq, Timestamp};
use xfer_server::engine::{Clock, Engine, SystemClock};
use xfer_server::login::opening::Authenticated;
use xfer_store::embedded::{self, FileStore, Files, OlderDatabase, Serving, SqliteStore};
use xfer_store::{Account, Location, NewAccount, Store, Use};

use super::clock::VirtualClock;

/// The mounting user.
pub const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

const PIPE_BYTES: usize = 1 << 20;

/// More memory for rows than any test uses.
const ROWS_BYTES: usize = 64 << 20;

/// A server's engine over a store: on this machine's disk, or in memory.
pub struct Host {
    /// The engine under test.
    pub engine: Arc<Engine>,
    /// Its store.
    pub store: Store,
    surroundings: Surroundings,
    /// The server's clock, if it is not this machine's.
    clock: Arc<dyn Clock>,
    disk: Option<Disk>,
}

/// A store on this machine's disk.
struct Disk {
    contents: Arc<FileStore>,
    directory: TempDir,
}

/// A client, and the cable that carries its links.
pub struct Peer {
    /// The client under test.
    pub client: Arc<Client>,
    /// The cable that carries all its links.
    pub cable: Cable,
    /// The last op that the server had applied when the session began.
    pub applied: Seq,
}

/// A cable that can be pulled: from then on it silently drops everything.
#[derive(Clone)]
pub struct Cable {
    pulled: Arc<watch::Sender<bool>>,
    wiring: Wiring,
}

/// The options of a cable.
#[derive(Clone, Default)]
pub struct Wiring {
    /// Records the ops that the client sends.
    pub tap: Option<Wiretap>,
    /// The delay of answers on read links; the log link has none.
    pub lag: Duration,
    /// The bandwidth for answers on a read link in bytes per second, if limited.
    pub bytes_per_s: Option<u32>,
}

/// An op that was sent to the server.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its seq in the log.
    pub seq: Seq,
    /// The op itself.
    pub op: Op,
    /// Its data, if it is a write; otherwise empty.
    pub data: Bytes,
}

/// Records all ops that a client sends.
#[derive(Clone, Default)]
pub struct Wiretap(Arc<Mutex<Vec<Said>>>);

/// Options for a client with more memory than it can use.
pub fn roomy(user: &str) -> Options {
    let owners = Owners::Mounter { uid: OWNER.uid, gid: OWNER.gid };
    let (bytes, label) = (64 << 20, user.to_owned());
    Options { cache_bytes: bytes, log_bytes: bytes, tree_bytes: bytes, owners, label }
}

/// Makes a valid name.
pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

impl Host {
    /// A server with these accounts, without quotas.
    pub fn new(users: &[&str]) -> Host {
        Host::with(&std::env::temp_dir(), users, Quota::UNLIMITED, ROWS_BYTES)
    }

    /// Like [`Host::new`], with the store in this directory, a quota for each account, and this
    /// much memory for rows.
    pub fn with(directory: &Path, users: &[&str], quota: Quota, rows_bytes: usize) -> Host {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir_in(directory).unwrap();
        let (store, meta, contents) = open(directory.path());
        let inbox = Quota { bytes: 1 << 40, nodes: 1 << 20 };
        for user in users {
            let time = Timestamp::default();
            meta.create_account(&name(user), "hash", quota, inbox, time).unwrap();
        }
        let (surroundings, clock) = (Surroundings::real(), Arc::new(SystemClock));
        let engine = Engine::new(store.clone(), rows_bytes);
        let disk = Some(Disk { contents, directory });
        Host { engine, store, surroundings, clock, disk }
    }

    /// Like [`Host::with`], with a store in memory, and clocks that go with tokio's: on a paused runtime
    /// of one thread, the same calls have the same results.
    pub async fn simulated(users: &[&str], quota: Quota, rows_bytes: usize) -> Host {
        let serving = Serving { older: OlderDatabase::Refuse, keep_lost_days: 1 };
        let store = xfer_store::open(&Location::Memory, Use::Serve(serving)).await.unwrap();
        let inbox = Quota { bytes: 1 << 40, nodes: 1 << 20 };
        for user in users {
            let (name, password) = (name(user), "hash".to_owned());
            let new = NewAccount { name, password, quota, inbox, time: Timestamp::default() };
            store.accounts.create(new).await.unwrap();
        }
        let clock = Arc::new(VirtualClock::start());
        let surroundings = Surroundings { clock: clock.clone(), cookie_key: [7; 16] };
        let engine = Engine::with_clock(store.clone(), rows_bytes, clock.clone());
        Host { engine, store, surroundings, clock, disk: None }
    }

    /// Replaces an engine that was stopped by a new one.
    pub fn reopen(&mut self, rows_bytes: usize) {
        if let Some(disk) = &mut self.disk {
            let (store, _, contents) = open(disk.directory.path());
            (self.store, disk.contents) = (store, contents);
        }
        self.engine = Engine::with_clock(self.store.clone(), rows_bytes, self.clock.clone());
    }

    /// An account.
    pub async fn account(&self, user: &Name) -> Account {
        self.store.accounts.find(user.clone()).await.unwrap().unwrap()
    }

    /// The deliveries that wait for a user.
    pub async fn waiting(&self, user: &Name) -> Vec<DeliveryHead> {
        let account = self.account(user).await;
        let waiting = self.store.deliveries.waiting(account.id, 0, usize::MAX).await.unwrap();
        waiting.into_iter().map(|(_, head)| head).collect()
    }

    /// The contents on the disk, if there is one.
    pub fn contents(&self) -> Option<BTreeSet<ContentId>> {
        let disk = self.disk.as_ref()?;
        let mut held = BTreeSet::new();
        disk.contents.each(&mut |content| held.extend([content])).unwrap();
        Some(held)
    }

    /// Logs in and returns the client.
    ///
    /// # Errors
    /// The server's answer, if it is not a session.
    pub async fn mount(&self, user: &str, purpose: Purpose) -> Result<Peer, Opened> {
        self.mount_with(user, purpose, roomy(user), Wiring::default()).await
    }

    /// Like [`Host::mount`], with these options and a cable of this kind.
    ///
    /// # Errors
    /// The server's answer, if it is not a session.
    pub async fn mount_with(
        &self,
        user: &str,
        purpose: Purpose,
        options: Options,
        wiring: Wiring,
    ) -> Result<Peer, Opened> {
        let cable = Cable { pulled: Arc::new(watch::Sender::new(false)), wiring };
        let (engine, store) = (self.engine.clone(), self.store.clone());
        let dial = Arc::new(Line { engine, store, user: name(user), cable: cable.clone() });
        let begin = Begin::New { password: Password(Vec::new()), purpose };
        let link = match dial.log_link(begin).await {
            Ok(link) => link,
            Err(EndpointError::Refused(refusal)) => return Err(Opened::Refused(refusal)),
            Err(error) => panic!("{error}"),
        };
        let applied = link.grant.applied;
        let session = NewSession { link, dial };
        let client = Client::start_in(session, options, self.surroundings.clone());
        Ok(Peer { client, cable, applied })
    }
}

fn open(directory: &Path) -> (Store, Arc<SqliteStore>, Arc<FileStore>) {
    let meta = Arc::new(SqliteStore::open(directory).unwrap());
    let contents = Arc::new(FileStore::open(directory).unwrap());
    (embedded::over(meta.clone(), contents.clone()), meta, contents)
}

/// The way to an engine over a cable. Whoever has it is let in, whatever the password.
struct Line {
    engine: Arc<Engine>,
    store: Store,
    user: Name,
    cable: Cable,
}

impl Dial for Line {
    fn log_link(&self, begin: Begin) -> Dialling<'_, LogLink> {
        let Begin::New { purpose, .. } = begin;
        let engine = self.engine.clone();
        Box::pin(async move {
            let account = self.store.accounts.find(self.user.clone()).await.unwrap().unwrap();
            let who = Authenticated {
                account: account.id,
                user: account.name,
                password: account.password,
                purpose,
                host: "laptop".to_owned(),
                address: "192.0.2.1".to_owned(),
            };
            let (ours, theirs) = self.cable.lay_log();
            let (reader, writer) = split(theirs);
            tokio::spawn(async move { engine.run_session(who, reader, writer).await });
            match opened(ours, Phase::Login).await? {
                (Opened::Session(grant), reader, writer) => {
                    Ok(LogLink { grant: *grant, reader, writer })
                }
                (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
                (Opened::Attached, ..) => Err(EndpointError::Nonsense("attached")),
            }
        })
    }

    fn read_link(&self, credentials: Credentials) -> Dialling<'_, (Reader, Writer)> {
        let engine = self.engine.clone();
        Box::pin(async move {
            let Credentials { session, secret } = credentials;
            let (ours, theirs) = self.cable.lay_reads();
            let (reader, writer) = split(theirs);
            tokio::spawn(async move { engine.run_reads(session, secret, reader, writer).await });
            match opened(ours, Phase::Attach).await? {
                (Opened::Attached, reader, writer) => Ok((reader, writer)),
                (Opened::Refused(refusal), ..) => Err(EndpointError::Refused(refusal)),
                (Opened::Session(_), ..) => Err(EndpointError::Nonsense("logged in")),
            }
        })
    }
}

/// The server's answer to an opening, and the link.
async fn opened(
    ours: DuplexStream,
    phase: Phase,
) -> Result<(Opened, Reader, Writer), EndpointError> {
    let (mut reader, writer) = split(ours);
    let opened = xfer_link::receive::<Opened, _>(&mut reader, Bounds::OPEN).await;
    let broken = |error| EndpointError::Broken(phase, std::io::Error::other(error));
    let (opened, _) = opened.map_err(broken)?;
    Ok((opened, Box::new(reader), Box::new(writer)))
}

impl Cable {
    /// Pulls the cable.
    pub fn pull(&self) {
        self.pulled.send_replace(true);
    }

    /// Makes a pair of ends for a read link.
    fn lay_reads(&self) -> (DuplexStream, DuplexStream) {
        let (ours, near) = duplex(PIPE_BYTES);
        let (far, theirs) = duplex(PIPE_BYTES);
        let (mut from_client, to_client) = split(near);
        let (from_server, mut to_server) = split(far);
        let (wiring, cable) = (self.wiring.clone(), self.pulled.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = copy_late(from_server, to_client, &wiring) => {}
                () = pulled(cable.clone()) => silence(cable).await,
            }
        });
        (ours, theirs)
    }

    /// Makes a pair of ends for the log link.
    fn lay_log(&self) -> (DuplexStream, DuplexStream) {
        let (ours, near) = duplex(PIPE_BYTES);
        let (far, theirs) = duplex(PIPE_BYTES);
        let (mut from_client, mut to_client) = split(near);
        let (mut from_server, mut to_server) = split(far);
        let (tap, mut up, down) =
            (self.wiring.tap.clone(), self.pulled.subscribe(), self.pulled.subscribe());
        tokio::spawn(async move {
            while let Ok((message, data)) =
                xfer_link::receive::<ToServer, _>(&mut from_client, Bounds::OPEN).await
            {
                // The tap also records ops that a pulled cable drops.
                tap.iter().for_each(|tap| tap.note(&message, &data));
                if up.get() {
                    continue;
                }
                tokio::select! {
                    biased;
                    _ = xfer_link::send(&mut to_server, &message, &data, Bounds::OPEN) => {}
                    () = pulled(up.clone()) => {}
                }
            }
            if up.get() {
                silence(up).await;
            } else {
                // The server may already have closed its end.
                let _ = to_server.shutdown().await;
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = copy(&mut from_server, &mut to_client) => drop(to_client.shutdown().await),
                () = pulled(down.clone()) => silence(down).await,
            }
        });
        (ours, theirs)
    }
}

/// Copies bytes with the cable's delay and bandwidth.
async fn copy_late(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    wiring: &Wiring,
) -> io::Result<()> {
    let mut buffer = vec![0; if wiring.bytes_per_s.is_some() { 4 << 10 } else { 64 << 10 }];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let on_line = |bytes| Duration::from_secs(len as u64) / bytes;
        let late = wiring.lag + wiring.bytes_per_s.map_or(Duration::ZERO, on_line);
        if !late.is_zero() {
            sleep(late).await;
        }
        to.write_all(&buffer[..len]).await?;
    }
}

/// Waits until a cable is pulled; for ever, if its owner is gone.
async fn pulled(mut cable: watch::Receiver<bool>) {
    if cable.wait_for(|pulled| *pulled).await.is_err() {
        std::future::pending().await
    }
}

/// Keeps the ends of a pulled cable open, so that neither side sees the connection close. Returns
/// when the cable's owner is gone.
async fn silence(mut cable: watch::Receiver<bool>) {
    while cable.changed().await.is_ok() {}
}

impl Wiretap {
    /// Takes the ops recorded since the last call.
    pub fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The last op recorded since then.
    pub fn last(&self) -> Option<Seq> {
        self.0.lock().unwrap().last().map(|said| said.seq)
    }

    fn note(&self, message: &ToServer, data: &Bytes) {
        let ToServer::Ops { first, ops } = message else { return };
        let mut at = 0;
        let said = ops.iter().zip(first.0..).map(|(op, seq)| {
            let len = if let Action::Write { len, .. } = op.action { len as usize } else { 0 };
            at += len;
            Said { seq: Seq(seq), op: op.clone(), data: data.slice(at - len..at) }
        });
        self.0.lock().unwrap().extend(said);
    }
}
