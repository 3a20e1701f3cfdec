//! A log link that is cut in the middle of a message, at each byte of a whole session: the next link
//! goes on, and every change is made exactly once.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::Quota;
use xfer_tests::cable::Way;
use xfer_tests::peers::{Host, Peer, name};

/// What happens in a session. Each kind of message is on its way at some time: ops with and without
/// data, barriers, acknowledgements, pings and their answers, numbers, room, arrivals and what
/// became of deliveries, the logout.
async fn live(alice: &Files, bob: &Files) {
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
    alice.sync().await.unwrap();
}

async fn until_there(files: &Files, path: &str) {
    while files.read(path).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Lives a session whose log link may be cut once, and checks what came of it. Returns how many bytes it carried in a direction.
async fn check(way: Way, cut_after: Option<u64>) -> u64 {
    let host = Host::simulated(&["alice", "bob"], Quota::UNLIMITED, 64 << 20).await;
    let Peer { client: bob, .. } = host.mount("bob", Purpose::Mount).await.unwrap();
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let before = cable.carried(way);
    cut_after.into_iter().for_each(|bytes| cable.cut_after(way, bytes));
    let (alice, bob) = (Files::of(client), Files::of(bob));
    live(&alice, &bob).await;
    let status = alice.status();
    alice.finish().await.unwrap();
    let carried = cable.carried(way) - before;
    let Peer { client, applied, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    assert_eq!(applied, status.last, "{way:?} after {cut_after:?}");
    let files = Files::of(client);
    assert_eq!(files.read("directory/moved").await.unwrap(), [7; 300]);
    assert_eq!(files.read("inbox/bob/theirs").await.unwrap(), b"to alice");
    let names: Vec<_> = files.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["directory", "inbox", "link", "outbox", "sent"].map(name));
    assert_eq!(files.list("inbox/bob").await.unwrap().len(), 1, "it was delivered once");
    assert_eq!(bob.list("inbox/alice").await.unwrap().len(), 1, "it was delivered once");
    files.finish().await.unwrap();
    bob.finish().await.unwrap();
    carried
}

async fn cut_at_each_byte(way: Way) {
    let whole = check(way, None).await;
    assert!(whole > 250, "it carried only {whole} bytes");
    for bytes in 0..whole {
        check(way, Some(bytes)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_after_any_byte_to_the_server_loses_nothing_and_repeats_nothing() {
    cut_at_each_byte(Way::Up).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_after_any_byte_to_the_client_loses_nothing_and_repeats_nothing() {
    cut_at_each_byte(Way::Down).await;
}
