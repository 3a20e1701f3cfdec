//! A session's log link: changes, deliveries, news, and grants of numbers and of room.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::core::Unsents;
use xfer_client::files::Files;
use xfer_protocol::Timestamp;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::{Quota, Room};
use xfer_store::{Change, NewAccount};
use xfer_tests::cable::Wiring;
use xfer_tests::peers::{Host, Peer, name};

use super::{LOG, Round, Scene, state, until, until_there};

/// So little that a session soon has to ask for more files than it was promised.
const ROOM: Room = Room { bytes: 1 << 30, files: 64 };

/// The quota that the administrator gives alice meanwhile.
const QUOTA: Quota = Quota { bytes: 1 << 30, nodes: 1000 };

pub(super) const SCENE: Scene = Scene {
    wiring: || Wiring { spends_numbers: true, ..Wiring::default() },
    ..Scene::on(1, 250, |round| Box::pin(play(round)))
};

async fn play(round: Arc<Round>) {
    let host = Round::host(&["alice", "bob"]).await;
    host.simulated.clone().unwrap().disk.fill(ROOM);
    let Peer { client: bob, .. } = host.mount("bob", Purpose::Mount).await.unwrap();
    let Peer { client, .. } = round.mount(0, &host, Purpose::Mount).await;
    let (alice, bob) = (Files::of(client), Files::of(bob));
    live(&host, &alice, &bob).await;
    let status = alice.status();
    alice.finish().await.unwrap();
    let Peer { client, applied, .. } = round.look_afterwards(&host).await;
    assert_eq!(applied, status.last);
    let files = Files::of(client);
    assert_eq!(files.read("directory/moved").await.unwrap(), [7; 300]);
    assert_eq!(files.read("inbox/bob/theirs").await.unwrap(), b"to alice");
    let names: Vec<_> = files.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["directory", "inbox", "link", "many", "outbox", "sent"].map(name));
    assert_eq!(files.list("many").await.unwrap().len(), 10);
    assert_eq!(files.list("inbox/bob").await.unwrap().len(), 1, "it was delivered once");
    assert_eq!(bob.list("inbox/alice").await.unwrap().len(), 1, "it was delivered once");
    files.finish().await.unwrap();
    bob.finish().await.unwrap();
}

/// What happens in the session. Each kind of message that a session usually has is on its way at some
/// time.
async fn live(host: &Host, alice: &Files, bob: &Files) {
    alice.write("file", &Bytes::from_static(&[7; 300])).await.unwrap();
    alice.sync().await.unwrap();
    alice.make_directory("directory").await.unwrap();
    alice.rename("file", "directory/moved").await.unwrap();
    // Long enough for pings, and for unused room to be given back.
    sleep(Duration::from_secs(130)).await;
    alice.make_link("link", Bytes::from_static(b"nowhere")).await.unwrap();
    alice.write("sent", &Bytes::from_static(b"to bob")).await.unwrap();
    alice.send("sent", &name("bob")).await.unwrap();
    bob.write("theirs", &Bytes::from_static(b"to alice")).await.unwrap();
    bob.send("theirs", &name("alice")).await.unwrap();
    until_there(alice, "inbox/bob/theirs").await;
    until_there(bob, "inbox/alice/sent").await;
    until(async || state(alice, "outbox/bob/sent").await.starts_with("received")).await;
    // The room in his inbox goes before this is committed.
    alice.write("outbox/bob/late", &Bytes::from_static(b"late")).await.unwrap();
    let account = host.account(&name("bob")).await;
    let none = Quota { bytes: 0, nodes: 0 };
    host.store.accounts.change(account.id, Change::Inbox(none)).await.unwrap();
    alice.make_directory("many").await.unwrap();
    for number in 0..10 {
        alice.write(format!("many/{number}"), &Bytes::from_static(b"x")).await.unwrap();
    }
    host.set_quota(&name("alice"), QUOTA).await;
    let (password, time) = (None, Timestamp::default());
    let carol = name("carol");
    let new = NewAccount { name: carol.clone(), password, quota: QUOTA, inbox: QUOTA, time };
    host.store.accounts.create(new).await.unwrap();
    host.engine.account_changed(&carol).await;
    until(async || alice.status().quota == QUOTA).await;
    until_there(alice, "outbox/carol").await;
    alice.sync().await.unwrap();
    until(async || alice.status().unsent != Unsents::default()).await;
}

#[test]
fn a_session_whose_link_ends_after_any_byte_loses_nothing_and_repeats_nothing() {
    SCENE.cut_each(0, LOG);
}
