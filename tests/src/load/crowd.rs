//! A real server with many accounts, and their clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use xfer_client::core::{Notice, Options, Owners};
use xfer_client::drive::{Client, Kernel};
use xfer_protocol::message::Silence;
use xfer_protocol::tree::Owner;
use xfer_protocol::{DeliveryId, Errno, Ino, Name};
use xfer_server::program::control::{Answer, Command, ask};

use crate::accounts::{self, Hashing};
use crate::by_hand;
use crate::server::Server;

/// The owner of all nodes, whichever user makes them.
pub(super) const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

/// The number of concurrent logins. A server checks two passwords at a time.
const LOGINS_AT_A_TIME: usize = 8;

/// The time limit of a login, in all.
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// Room for the largest file and a few small ones, so that reads are fetched from the server. A file
/// larger than the cache would be fetched for ever.
const CACHE_BYTES: usize = 32 << 10;

/// A server and its users, numbered from 0, in a directory that goes when it is dropped.
pub struct Crowd {
    /// The server's process.
    pub server: Server,
    pub(super) users: usize,
    pub(super) letters: Arc<Letters>,
    logins: Semaphore,
    directory: TempDir,
}

/// Letters in transit between the users.
#[derive(Default)]
pub(super) struct Letters(Mutex<InTransit>);

#[derive(Default)]
struct InTransit {
    /// By recipient and name; names are unique.
    expected: HashMap<(usize, Name), Expected>,
    /// Letters that arrived, by recipient: the sender and the name of each.
    arrived: HashMap<usize, VecDeque<(usize, Name)>>,
}

struct Expected {
    from: usize,
    tell: oneshot::Sender<Instant>,
}

/// Receives the notices that a client sends to the kernel.
struct Doorbell {
    user: usize,
    letters: Arc<Letters>,
}

impl Crowd {
    /// Starts a server with this many accounts, in the directory for temporary files, which should
    /// be on a disk.
    pub fn new(users: usize, hashing: Hashing) -> Crowd {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir().unwrap();
        let store = directory.path().join("store");
        let names: Vec<Name> = (0..users).map(Crowd::name).collect();
        accounts::add(&store, &names, hashing);
        let server = Server::start(&store, "127.0.0.1:0");
        let logins = Semaphore::new(LOGINS_AT_A_TIME);
        Crowd { server, users, letters: Arc::default(), logins, directory }
    }

    /// The name of the user with this number.
    pub fn name(user: usize) -> Name {
        Name::new(format!("user-{user:03}").as_bytes()).unwrap()
    }

    /// Logs in a user, as `xfer-mount` does, once fewer than the allowed number are logging in.
    /// Returns how long that took from then on.
    pub(super) async fn login(&self, user: usize) -> Result<(Arc<Client>, Duration), String> {
        let _turn = self.logins.acquire().await.unwrap();
        let start = Instant::now();
        let client = tokio::time::timeout(LOGIN_MAX, self.login_now(user));
        let client = client.await.unwrap_or_else(|_| Err("not within a minute".to_owned()))?;
        Ok((client, start.elapsed()))
    }

    async fn login_now(&self, user: usize) -> Result<Arc<Client>, String> {
        let name = Crowd::name(user);
        let session = by_hand::login(&self.server, &name, self.directory.path()).await?;
        let label = format!("{name}@{}", self.server.address);
        let client = Client::start(session, options(label));
        client.set_kernel(Some(Arc::new(Doorbell { user, letters: self.letters.clone() })));
        client.make_mailboxes().await.map_err(|errno| format!("mailboxes: {errno}"))?;
        Ok(client)
    }

    /// The server's counts of transactions and of the sessions' batches in them.
    pub fn commits(&self) -> (u64, u64) {
        match ask(self.server.store(), &Command::Commits).unwrap() {
            Answer::Commits { transactions, batches } => (transactions, batches),
            other => panic!("{other:?}"),
        }
    }
}

fn options(label: String) -> Options {
    let owners = Owners::Mounter { uid: OWNER.uid, gid: OWNER.gid };
    let (log_bytes, tree_bytes, wait) = (8 << 20, 1 << 20, None);
    Options {
        cache_bytes: CACHE_BYTES,
        log_bytes,
        tree_bytes,
        owners,
        wait,
        offline_bytes: None,
        handoff: false,
        silence: Silence::default(),
        label,
    }
}

impl Letters {
    /// Notes that a letter is about to be sent. The receiver resolves when it has arrived.
    pub(super) fn expect(&self, from: usize, to: usize, name: Name) -> oneshot::Receiver<Instant> {
        let (tell, arrival) = oneshot::channel();
        self.0.lock().unwrap().expected.insert((to, name), Expected { from, tell });
        arrival
    }

    /// Letters to a user that have not arrived yet as far as known, each with its sender.
    pub(super) fn expected_by(&self, user: usize) -> Vec<(usize, Name)> {
        let letters = self.0.lock().unwrap();
        let his = letters.expected.iter().filter(|((to, _), _)| *to == user);
        his.map(|((_, name), expected)| (expected.from, name.clone())).collect()
    }

    /// Notes that an entry appeared in a user's tree; it may be a letter.
    pub(super) fn note(&self, user: usize, name: Name) {
        let now = Instant::now();
        let mut letters = self.0.lock().unwrap();
        let Some(expected) = letters.expected.remove(&(user, name.clone())) else { return };
        letters.arrived.entry(user).or_default().push_back((expected.from, name));
        // The sender may have given up waiting.
        let _ = expected.tell.send(now);
    }

    /// Takes a letter that a user has not read: its sender and name.
    pub(super) fn unread(&self, user: usize) -> Option<(usize, Name)> {
        self.0.lock().unwrap().arrived.get_mut(&user)?.pop_front()
    }
}

impl Kernel for Doorbell {
    /// There is no mount for the rename, so the client accepts deliveries directly.
    fn place(&self, _: DeliveryId, _: bool, _: &Name, _: &Name) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn write_back(&self, _: Ino) {}

    fn outdate(&self, _: &[Notice]) {}

    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Entry(_, name) => self.letters.note(self.user, name),
            Notice::Node(_) | Notice::Expired(..) | Notice::Data(..) | Notice::Contents(_) => {}
        }
    }
}
