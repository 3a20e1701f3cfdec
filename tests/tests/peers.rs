//! The client's core and the server's engine, face to face over pipes in memory, on a clock that
//! jumps ahead whenever nothing is left to do: what takes minutes or hours, in milliseconds.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{DuplexStream, copy_bidirectional, duplex, split};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use xfer_mount::client::{Client, Ids, New, Options, State};
use xfer_mount::link;
use xfer_mount::session::{Dial, Reader, Session, Writer};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{Opened, Opening, Purpose};
use xfer_protocol::tree::{Owner, Quota};
use xfer_protocol::{Errno, Ino, Name, Timestamp};
use xfer_server::engine::Engine;
use xfer_server::opening::Authenticated;
use xfer_server::store::{FileStore, MetaStore, SqliteStore};

const OWNER: Owner = Owner { uid: 1000, gid: 1000 };
const PIPE_BYTES: usize = 1 << 20;

/// A server's engine over real stores.
struct Host {
    engine: Arc<Engine>,
    meta: Arc<SqliteStore>,
    _store: TempDir,
}

/// A cable that can be pulled: from then on nothing gets through, and nobody is told.
#[derive(Clone)]
struct Cable(watch::Sender<bool>);

impl Cable {
    fn new() -> Cable {
        Cable(watch::Sender::new(false))
    }

    fn pull(&self) {
        self.0.send_replace(true);
    }

    /// One more pair of ends.
    fn lay(&self) -> (DuplexStream, DuplexStream) {
        let (ours, mut near) = duplex(PIPE_BYTES);
        let (mut far, theirs) = duplex(PIPE_BYTES);
        let mut cable = self.0.subscribe();
        let pulled = async move { drop(cable.wait_for(|pulled| *pulled).await) };
        tokio::spawn(async move {
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                // The ends stay open: who is at them hears nothing, not even an end.
                () = pulled => std::future::pending().await,
            }
        });
        (ours, theirs)
    }
}

impl Host {
    fn new(users: &[&str]) -> Host {
        let store = tempfile::tempdir().unwrap();
        let meta = Arc::new(SqliteStore::open(store.path()).unwrap());
        let contents = Arc::new(FileStore::open(store.path()).unwrap());
        let inbox = Quota { bytes: 1 << 30, nodes: 1000 };
        for user in users {
            let time = Timestamp::default();
            meta.create_account(&name(user), "hash", Quota::UNLIMITED, inbox, time).unwrap();
        }
        Host { engine: Engine::new(meta.clone(), contents, 64 << 20), meta, _store: store }
    }

    /// Logs in, and gives the client or why there is none.
    async fn mount(&self, user: &str, purpose: Purpose) -> Result<(Arc<Client>, Cable), Opened> {
        let account = self.meta.account(&name(user)).unwrap().unwrap();
        let who = Authenticated {
            account: account.id,
            user: account.name,
            password: account.password,
            purpose,
            host: "laptop".to_owned(),
            address: "192.0.2.1".to_owned(),
        };
        let cable = Cable::new();
        let engine = self.engine.clone();
        let (ours, theirs) = cable.lay();
        let (reader, writer) = split(theirs);
        tokio::spawn(async move { engine.run_session(who, reader, writer).await });
        let (mut reader, writer) = split(ours);
        let opened = link::receive::<Opened, _>(&mut reader, Bounds::OPEN).await.unwrap().0;
        let Opened::Session(grant) = opened else { return Err(opened) };
        let opening = Opening::Attach { session: grant.session, secret: grant.secret.clone() };
        let dial = dial(self.engine.clone(), opening, cable.clone());
        let (reader, writer) = (Box::new(reader) as Reader, Box::new(writer) as Writer);
        let session = Session { grant: *grant, reader, writer, dial };
        let ids = Ids::Mounter { uid: OWNER.uid, gid: OWNER.gid };
        let (bytes, label) = (64 << 20, user.to_owned());
        let options =
            Options { cache_bytes: bytes, log_bytes: bytes, tree_bytes: bytes, ids, label };
        Ok((Client::start(session, options), cable))
    }
}

fn dial(engine: Arc<Engine>, opening: Opening, cable: Cable) -> Dial {
    Arc::new(move || {
        let (engine, opening, cable) = (engine.clone(), opening.clone(), cable.clone());
        let dialled = async move {
            let Opening::Attach { session, secret } = opening else { unreachable!() };
            let (ours, theirs) = cable.lay();
            let (reader, writer) = split(theirs);
            tokio::spawn(async move { engine.run_reads(session, secret, reader, writer).await });
            let (mut reader, writer) = split(ours);
            let opened = link::receive::<Opened, _>(&mut reader, Bounds::OPEN).await;
            match opened.map_err(std::io::Error::other)?.0 {
                Opened::Attached => Ok((Box::new(reader) as Reader, Box::new(writer) as Writer)),
                refused => Err(std::io::Error::other(format!("{refused:?}"))),
            }
        };
        Box::pin(dialled) as Pin<Box<dyn Future<Output = _> + Send>>
    })
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

async fn create(client: &Arc<Client>, file: &str, data: &'static [u8]) -> Result<Ino, Errno> {
    let file = name(file);
    let new = New::File { mode: 0o644 };
    let ino =
        client.call(move |s: &mut State| Ok(s.make(Ino::ROOT, &file, &new, OWNER)?.0)).await?;
    let data = Bytes::from_static(data);
    client.call(move |s: &mut State| s.write(ino, 0, &data, false)).await?;
    Ok(ino)
}

async fn read(client: &Arc<Client>, file: &str) -> Result<Vec<u8>, Errno> {
    let file = name(file);
    let found = client.call(move |s: &mut State| s.lookup(Ino::ROOT, &file)).await?;
    let ino = found.ok_or(Errno::ENOENT)?.0;
    let handle = client.call(move |s: &mut State| s.open(ino, false)).await?;
    client.call(move |s: &mut State| s.read(handle, ino, 0..1 << 20)).await
}

/// The seconds on the clock that something takes.
async fn seconds<T>(what: impl Future<Output = T>) -> (T, f64) {
    let start = Instant::now();
    let result = what.await;
    (result, start.elapsed().as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_change_is_durable_within_two_seconds_though_nobody_asks() {
    let host = Host::new(&["alice"]);
    let (client, _cable) = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"text").await.unwrap();
    let durable = async {
        while client.standing().pending_ops > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (done, took) = seconds(timeout(Duration::from_secs(60), durable)).await;
    done.unwrap();
    assert!(took < 2.0, "{took} s");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_nothing_to_say_for_a_day_is_still_there() {
    let host = Host::new(&["alice"]);
    let (client, _cable) = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"text").await.unwrap();
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(client.standing().trouble, None);
    assert_eq!(read(&client, "file").await.unwrap(), b"text");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pulled_cable_is_noticed_in_ten_seconds_and_nothing_hangs() {
    let host = Host::new(&["alice"]);
    let (client, cable) = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "old", b"durable").await.unwrap();
    client.settle().await.unwrap();
    // As when a laptop leaves a network.
    cable.pull();
    create(&client, "new", b"not durable").await.unwrap();
    let (settled, took) = seconds(client.settle()).await;
    assert_eq!(settled, Err(Errno::EIO), "an fsync on a dead link lied");
    assert!(took <= 10.5, "{took} s");
    // What is cached stays readable; changes are refused at once.
    assert_eq!(read(&client, "old").await.unwrap(), b"durable");
    let (refused, took) = seconds(create(&client, "late", b"")).await;
    assert_eq!((refused, took), (Err(Errno::EIO), 0.0));
    let lost = client.finish().await.unwrap_err();
    assert_eq!(lost.ops, 2, "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_waits_for_the_first_client_and_loses_nothing() {
    let host = Host::new(&["alice"]);
    let (first, _cable) = host.mount("alice", Purpose::Mount).await.unwrap();
    for number in 0..50 {
        create(&first, &format!("file {number}"), b"text").await.unwrap();
    }
    assert!(matches!(host.mount("alice", Purpose::Mount).await, Err(Opened::Refused(_))));
    let (second, _cable) = host.mount("alice", Purpose::TakeOver).await.unwrap();
    for number in 0..50 {
        assert_eq!(read(&second, &format!("file {number}")).await.unwrap(), b"text");
    }
    assert_eq!(create(&first, "late", b"").await, Err(Errno::EIO));
    let trouble = first.standing().trouble.unwrap();
    assert!(trouble.contains("taken over") && trouble.contains("laptop"), "{trouble}");
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_first_client_that_does_not_answer_holds_a_takeover_up_for_seconds_only() {
    let host = Host::new(&["alice"]);
    let (first, cable) = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&first, "file", b"text").await.unwrap();
    first.settle().await.unwrap();
    cable.pull();
    let (second, took) = seconds(host.mount("alice", Purpose::TakeOver)).await;
    assert!(took <= 30.0, "{took} s");
    let (second, _cable) = second.unwrap();
    assert_eq!(read(&second, "file").await.unwrap(), b"text");
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_lets_its_clients_finish_first() {
    let host = Host::new(&["alice", "bob"]);
    let (alice, _a) = host.mount("alice", Purpose::Mount).await.unwrap();
    let (bob, _b) = host.mount("bob", Purpose::Mount).await.unwrap();
    create(&alice, "file", b"alice's").await.unwrap();
    create(&bob, "file", b"bob's").await.unwrap();
    let ((), took) = seconds(host.engine.stop(Duration::from_secs(10))).await;
    assert!(took <= 10.0, "{took} s");
    assert_eq!(alice.finish().await, Ok(()));
    assert_eq!(bob.finish().await, Ok(()));
}
