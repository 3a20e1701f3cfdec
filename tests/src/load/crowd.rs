//! A real server with many accounts, and how their clients come to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use xfer_client::client::{Client, Ids, Kernel, Notice, Options};
use xfer_protocol::tree::Owner;
use xfer_protocol::{DeliveryId, Errno, Ino, Name};
use xfer_server::control::{Answer, Command, ask};

use crate::accounts::{self, Hashing};
use crate::by_hand;
use crate::server::Server;

/// Who all the users are to the system.
pub(super) const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

/// How many log in at a time. A server checks two passwords at a time.
const LOGINS_AT_A_TIME: usize = 8;

/// How long a login may take, in all.
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// Room for the largest file and a few small ones, so that what is read is fetched. A file that does
/// not fit would be fetched for ever.
const CACHE_BYTES: usize = 32 << 10;

/// A server and its users, numbered from 0, in a directory that goes with it.
pub struct Crowd {
    /// The server.
    pub server: Server,
    pub(super) users: usize,
    pub(super) post: Arc<Post>,
    logins: Semaphore,
    directory: TempDir,
}

/// Letters on their way between the users.
#[derive(Default)]
pub(super) struct Post(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    /// By whom they are for, and their name, which no other has.
    expected: HashMap<(usize, Name), Expected>,
    /// What arrived, by whom it was for: the directory, and the name.
    arrived: HashMap<usize, VecDeque<(Ino, Name)>>,
}

struct Expected {
    from: usize,
    tell: oneshot::Sender<Instant>,
}

/// Hears what a client would tell the kernel.
struct Doorbell {
    user: usize,
    post: Arc<Post>,
}

impl Crowd {
    /// A server with so many accounts, in the directory for temporary files, which should be on a
    /// disk.
    pub fn new(users: usize, hashing: Hashing) -> Crowd {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir().unwrap();
        let store = directory.path().join("store");
        let names: Vec<Name> = (0..users).map(Crowd::name).collect();
        accounts::add(&store, &names, hashing);
        let server = Server::start(&store, "127.0.0.1:0");
        let logins = Semaphore::new(LOGINS_AT_A_TIME);
        Crowd { server, users, post: Arc::default(), logins, directory }
    }

    /// The name of a user.
    pub fn name(user: usize) -> Name {
        Name::new(format!("user-{user:03}").as_bytes()).unwrap()
    }

    /// Logs a user in, as `xfer-mount` does, when it is the user's turn; says how long that took
    /// from then on.
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
        client.set_kernel(Some(Arc::new(Doorbell { user, post: self.post.clone() })));
        client.make_mailboxes().await.map_err(|errno| format!("mailboxes: {errno}"))?;
        Ok(client)
    }

    /// How many transactions the server committed, and how many sessions' batches they held.
    pub fn commits(&self) -> (u64, u64) {
        match ask(self.server.store(), &Command::Commits).unwrap() {
            Answer::Commits { transactions, batches } => (transactions, batches),
            other => panic!("{other:?}"),
        }
    }
}

fn options(label: String) -> Options {
    let ids = Ids::Mounter { uid: OWNER.uid, gid: OWNER.gid };
    Options { cache_bytes: CACHE_BYTES, log_bytes: 8 << 20, tree_bytes: 1 << 20, ids, label }
}

impl Post {
    /// Notes that a letter is about to be sent. What is given hears when it is there.
    pub(super) fn expect(&self, from: usize, to: usize, name: Name) -> oneshot::Receiver<Instant> {
        let (tell, arrival) = oneshot::channel();
        self.0.lock().unwrap().expected.insert((to, name), Expected { from, tell });
        arrival
    }

    /// Letters for a user that are not known to be there, each with its sender.
    pub(super) fn expected_by(&self, user: usize) -> Vec<(usize, Name)> {
        let letters = self.0.lock().unwrap();
        let his = letters.expected.iter().filter(|((to, _), _)| *to == user);
        his.map(|((_, name), expected)| (expected.from, name.clone())).collect()
    }

    /// Notes that an entry came to be in a user's tree: it may be a letter.
    pub(super) fn note(&self, user: usize, directory: Ino, name: Name) {
        let now = Instant::now();
        let mut letters = self.0.lock().unwrap();
        let Some(expected) = letters.expected.remove(&(user, name.clone())) else { return };
        letters.arrived.entry(user).or_default().push_back((directory, name));
        // Who sent it may have given up waiting.
        let _ = expected.tell.send(now);
    }

    /// A letter that a user has not read.
    pub(super) fn unread(&self, user: usize) -> Option<(Ino, Name)> {
        self.0.lock().unwrap().arrived.get_mut(&user)?.pop_front()
    }
}

impl Kernel for Doorbell {
    /// There is no mount to place it through: the client then does it itself.
    fn place(&self, _: DeliveryId, _: bool, _: &Name, _: &Name) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn write_back(&self, _: Ino) {}

    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Entry(directory, name) => self.post.note(self.user, directory, name),
            Notice::Node(_) | Notice::Contents(_) => {}
        }
    }
}
