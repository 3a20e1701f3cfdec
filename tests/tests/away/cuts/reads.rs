//! A session's read links: every question, and every answer.

use std::sync::Arc;

use bytes::Bytes;
use xfer_client::core::Core;
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::{Quota, XattrMode};
use xfer_protocol::{Errno, Timestamp};
use xfer_store::Change;
use xfer_tests::peers::{Host, Peer, name};

use super::{READS, Round, Scene, state, until, until_there};

/// An extended attribute that is too long to come with a listing.
static LONG: [u8; 1500] = [b'x'; 1500];

/// What carol's inbox has room for.
const LITTLE: Quota = Quota { bytes: 16 << 10, nodes: 8 };

pub(super) const SCENE: Scene = Scene::on(1, 150, |round| Box::pin(play(round)));

async fn play(round: Arc<Round>) {
    let host = Round::host(&["alice", "bob", "carol", "dave"]).await;
    furnish(&host).await;
    let Peer { client, cable, .. } = round.mount(0, &host, Purpose::Mount).await;
    let alice = Files::of(client);
    look(&alice).await;
    // Their states are asked for once the link is back.
    alice.write("sent", &Bytes::from_static(b"to bob")).await.unwrap();
    for user in ["bob", "dave"] {
        alice.send("sent", &name(user)).await.unwrap();
    }
    alice.sync().await.unwrap();
    let dave = host.account(&name("dave")).await.id;
    host.store.accounts.remove(dave, Timestamp::default()).await.unwrap();
    host.store.accounts.give_up(dave).await.unwrap();
    host.store.accounts.clear_deleted(Timestamp::default()).await.unwrap();
    let late = alice.write("outbox/dave/late", &Bytes::from_static(b"text")).await;
    assert_eq!(late, Err(Errno::ENOENT), "there is no such user any more");
    cable.cut();
    alice.write("outbox/carol/small", &Bytes::from_static(b"fits")).await.unwrap();
    let large = Bytes::from_static(&[7; 16 << 10]);
    assert_eq!(alice.write("outbox/carol/large", &large).await, Err(Errno::EDQUOT));
    until_there(&alice, "inbox/bob/theirs").await;
    assert_eq!(alice.read("inbox/bob/theirs").await.unwrap(), b"to alice");
    until(async || state(&alice, "outbox/dave/sent").await.starts_with("refused")).await;
    alice.sync().await.unwrap();
    assert_eq!(alice.status().errors, [""; 0]);
    alice.finish().await.unwrap();
    for (user, file) in [("bob", "sent"), ("carol", "small")] {
        let Peer { client, .. } = host.mount(user, Purpose::Mount).await.unwrap();
        let theirs = Files::of(client);
        until_there(&theirs, &format!("inbox/alice/{file}")).await;
        assert_eq!(theirs.list("inbox/alice").await.unwrap().len(), 1, "sent once");
        theirs.finish().await.unwrap();
    }
}

/// Makes what is to be read.
async fn furnish(host: &Host) {
    let carol = host.account(&name("carol")).await.id;
    host.store.accounts.change(carol, Change::Inbox(LITTLE)).await.unwrap();
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let alice = Files::of(client.clone());
    alice.make_directory("d").await.unwrap();
    alice.make_directory("d/e").await.unwrap();
    alice.make_link("d/link", Bytes::from_static(b"nowhere")).await.unwrap();
    alice.write("d/file", &Bytes::from_static(&[7; 700])).await.unwrap();
    alice.write("d/e/other", &Bytes::from_static(&[8; 300])).await.unwrap();
    let ino = alice.stat("d/file").await.unwrap().0;
    let (key, value) = (Bytes::from_static(b"user.long"), Bytes::from_static(&LONG));
    let set = move |core: &mut Core| core.set_xattr(ino, &key, &value, XattrMode::Either);
    client.call(set).await.unwrap();
    alice.finish().await.unwrap();
    let Peer { client, .. } = host.mount("bob", Purpose::Mount).await.unwrap();
    let bob = Files::of(client);
    bob.write("theirs", &Bytes::from_static(b"to alice")).await.unwrap();
    bob.send("theirs", &name("alice")).await.unwrap();
    bob.finish().await.unwrap();
}

/// Looks at everything for the first time.
async fn look(alice: &Files) {
    assert_eq!(alice.stat("absent").await.map(drop), Err(Errno::ENOENT));
    let ino = alice.stat("d/file").await.unwrap().0;
    assert_eq!(alice.read("d/file").await.unwrap(), [7; 700]);
    assert_eq!(alice.read("d/e/other").await.unwrap(), [8; 300]);
    assert_eq!(alice.read_link("d/link").await.unwrap(), "nowhere");
    let long = alice.client().call(move |core: &mut Core| core.xattr(ino, b"user.long")).await;
    assert_eq!(long.unwrap(), LONG.as_slice());
    let names: Vec<_> =
        alice.list("d").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["e", "file", "link"].map(name));
    until(async || alice.exists("inbox").await.unwrap()).await;
}

#[test]
fn read_links_that_end_after_any_byte_keep_no_program_from_what_it_reads() {
    SCENE.cut_each(0, READS);
}
