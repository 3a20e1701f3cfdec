//! A server over a store in memory, in one thread, on a clock that jumps ahead.

use tokio::io::duplex;
use xfer_link::proof::SigningKey;
use xfer_link::receive;
use xfer_protocol::Ino;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{Opened, Purpose, Terms};
use xfer_protocol::tree::{Need, Quota};
use xfer_server::engine::Engine;
use xfer_server::login::authority::Authority;
use xfer_server::login::opening::Authenticated;
use xfer_store::embedded::Beside;
use xfer_store::{Location, NewAccount, Use};

use crate::client::Client;
use crate::world::{name, time};

#[tokio::test(start_paused = true)]
async fn a_session_runs_and_ends_over_a_store_in_memory() {
    let for_use = Use::Command(Beside::Keeping);
    let store = xfer_store::open(&Location::Memory, for_use).await.unwrap();
    let (user, password) = (name("alice"), "hash".to_owned());
    let (quota, inbox) = (Quota::UNLIMITED, Quota::UNLIMITED);
    let new = NewAccount {
        name: user.clone(),
        password: Some(password.clone()),
        quota,
        inbox,
        time: time(),
    };
    let account = store.accounts.create(new).await.unwrap();
    let engine = Engine::new(store.clone(), 64 << 20);
    let key = SigningKey::generate().unwrap();
    let auth = Authenticated {
        account,
        user: user.clone(),
        authority: Authority::Password(password),
        purpose: Purpose::Mount,
        key: key.public(),
        replaces: None,
        terms: Terms::default(),
        host: "host".to_owned(),
        address: "address".to_owned(),
    };
    let (mut ours, theirs) = duplex(1 << 20);
    let (reader, writer) = tokio::io::split(theirs);
    let served = tokio::spawn(async move { engine.run_session(auth, reader, writer).await });
    let opened = receive::<Opened, _>(&mut ours, Bounds::OPEN).await.unwrap().0;
    let Opened::Session(grant) = opened else { panic!("{opened:?}") };
    let mut alice = Client::new(*grant, ours, key);
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"data").await;
    alice.sync().await;
    let applied = alice.seq;
    alice.logout().await;
    served.await.unwrap();
    let needs = vec![Need::Entry(Ino::ROOT, name("file"))];
    let found = store.trees.load(account, needs).await.unwrap();
    assert_eq!(found.nodes[0].1.as_ref().unwrap().content(), Some(content));
    assert_eq!(store.contents.read(content, 0..4).await.unwrap(), b"data");
    let alice = store.accounts.find(user).await.unwrap().unwrap();
    assert_eq!((alice.applied, alice.tidied), (applied, alice.epoch));
}
